"""A small HTTP server with byte ranges, run as a process of its own: ``serve.py FOLDER LOG``.

GDAL holds Python's lock while it opens a file, so a server in the same process would never answer it.
"""

import functools
import http.server
import sys
from pathlib import Path


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves byte ranges; each path asked for is a line of the log, with the bytes of the answer.

    Where a file ``token`` lies in the folder, it answers addresses that end in ``?token=`` and what that holds only.
    """

    log = Path()

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.answer(body=True)

    def do_HEAD(self):
        self.answer(body=False)

    def answer(self, *, body):
        path = Path(self.translate_path(self.path))
        token = Path(self.directory) / "token"
        refused = token.is_file() and not self.path.endswith(f"?token={token.read_text()}")
        there = path.is_file() and not refused
        content = path.read_bytes() if there else b"there is no such file"
        start, stop = 0, len(content)
        ranged = there and self.headers.get("Range")
        if ranged:
            first, last = ranged.removeprefix("bytes=").split("-")
            start, stop = int(first), min(int(last or stop) + 1, stop)
        with self.log.open("a") as log:
            log.write(f"{self.path}\t{(stop - start) * body}\n")
        self.send_response(403 if refused else 404 if not there else 206 if ranged else 200)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Accept-Ranges", "bytes")
        if ranged:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        self.end_headers()
        if body:
            self.wfile.write(content[start:stop])


if __name__ == "__main__":
    folder, log = sys.argv[1:]
    Handler.log = Path(log)
    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        sys.stdout.write(f"{server.server_port}\n")
        sys.stdout.flush()
        server.serve_forever()
