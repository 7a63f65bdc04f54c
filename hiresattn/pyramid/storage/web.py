"""Addresses and connections of web servers: how they are written, which proxy they take, when they end."""

import http.client
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import SplitResult, quote, urlsplit, urlunsplit

#: Characters of a path that stay as they are.
_SAFE = "/%:@!$&'()*+,;=~[]"


@contextmanager
def ended_at(connection: http.client.HTTPConnection, deadline: float) -> Iterator[None]:
    """Connect, and cut the connection at a time: a socket's own timeout starts anew with every byte."""
    opened: list[socket.socket] = []

    def cut() -> None:
        for sock in opened or [connection.sock]:  # a handshake may hang too
            with suppress(OSError, AttributeError):
                sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(deadline - time.monotonic(), 0), cut)
    timer.daemon = True
    timer.start()
    try:
        if connection.sock is None:
            connection.connect()
        opened.append(connection.sock)  # the connection forgets it where the server will close it
        yield
    finally:
        timer.cancel()


def ascii_url(url: str) -> str:
    """An address as it is sent: what isn't ASCII, and spaces, escaped; what is escaped stays."""
    parts = urlsplit(url)
    host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()
    path, query = quote(parts.path, safe=_SAFE), quote(parts.query, safe=_SAFE + "?")
    return urlunsplit((parts.scheme, host, path, query, ""))


def request_path(parts: SplitResult) -> str:
    """Path and query of an address, as a server is asked for them."""
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def proxy_of(parts: SplitResult) -> SplitResult | None:
    """The proxy that the environment names for an address."""
    named = urllib.request.getproxies().get(parts.scheme)
    if not named or urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return urlsplit(named if "://" in named else f"http://{named}")
