"""A web server with byte ranges that answers late, as one far away does: ``slow_server.py FOLDER MS``.

Prints its port, then serves until it is stopped.
"""

import functools
import http.server
import sys
import time
from pathlib import Path


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves byte ranges of the files of a folder."""

    protocol_version = "HTTP/1.1"
    delay = 0.0

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """One range."""
        time.sleep(self.delay)
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        size = path.stat().st_size
        first, last = self.headers.get("Range", f"bytes=0-{size - 1}").removeprefix("bytes=").split("-")
        start, stop = int(first), min(int(last) + 1, size)
        with path.open("rb") as file:
            file.seek(start)
            body = file.read(stop - start)
        self.send_response(206)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    folder, milliseconds = sys.argv[1:]
    Handler.delay = float(milliseconds) / 1000
    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        print(server.server_port, flush=True)
        server.serve_forever()
