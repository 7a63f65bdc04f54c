"""A web server with the oddities that users reported, as a process of its own: ``odd_server.py FILE``.

The first part of a path says which; what follows is ignored. GDAL holds Python's lock while it opens a file, so a
server in the same process would never answer it.
"""

import http.server
import itertools
import sys
import threading
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by the first part of the path."""

    protocol_version = "HTTP/1.1"
    content = b""
    numbers = itertools.count()
    uses: dict[str, int] = {}  # noqa: RUF012 - of all connections

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(head=True)

    def do_GET(self):
        self.answer(head=False)

    def answer(self, *, head):  # noqa: C901, PLR0911, PLR0912 - a way each
        parts = urlsplit(self.path)
        way = unquote(parts.path).split("/")[1]
        if parts.path.endswith((".msk", ".ovr", ".aux.xml", "w", ".wld")):
            return self.send(404, b"", head=head)
        if way == "drip":  # a header that never ends
            return self.drip(b"HTTP/1.1 206 Partial Content\r\nX-Slow: ")
        if way == "loop":
            return self.send(302, b"", head=head, Location=f"/loop/{next(self.numbers)}.tif")
        if way == "signed":
            return self.send(302, b"", head=head, Location=f"/token/a.tif?{next(self.numbers)}")
        if way == "token":
            self.uses[parts.query] = self.uses.get(parts.query, 0) + 1
            if self.uses[parts.query] > 2:
                return self.send(403, b"expired", head=head)
        if way == "secret" and self.headers.get("X-Token") != "open":
            return self.send(404, b"", head=head)
        if way == "page" or not self.headers.get("Range"):
            return self.send(200, self.content, head=head)
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        start, stop = int(first), min(int(last) + 1, len(self.content))
        found = {"Content-Range": f"bytes {start}-{stop - 1}/{len(self.content)}"}
        if way == "star":
            found = {"Content-Range": f"bytes {start}-{stop - 1}/*"}
        elif way == "upper":
            found = {"Content-Range": f"Bytes {start}-{stop - 1}/{len(self.content)}"}
        elif way == "bare":
            found = {}
        elif way == "capped":
            stop = min(stop, start + 5000)
            found = {"Content-Range": f"bytes {start}-{stop - 1}/{len(self.content)}"}
        elif way == "weak":
            found["ETag"] = f'W/"{next(self.numbers)}"'
        elif way in ("endless", "dribble"):
            self.send_response(206)
            for name, value in found.items():
                self.send_header(name, value)
            self.end_headers()
            return self.drip(b"", bytes(1 << 16) if way == "endless" else b"x")
        return self.send(206, self.content[start:stop], head=head, **found)

    def drip(self, start, piece=b"x"):
        """Send for ever, until the other side has had enough."""
        self.close_connection = True
        wait = threading.Event()
        try:
            self.wfile.write(start)
            while True:
                self.wfile.write(piece)
                wait.wait(0.05 if len(piece) == 1 else 0)
        except OSError:
            pass

    def send(self, status, body, *, head, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not head:
            self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    """Says nothing of clients that hang up."""

    def handle_error(self, *_):
        pass


if __name__ == "__main__":
    Handler.content = Path(sys.argv[1]).read_bytes()
    with Server(("127.0.0.1", 0), Handler) as server:
        sys.stdout.write(f"{server.server_port}\n")
        sys.stdout.flush()
        server.serve_forever()
