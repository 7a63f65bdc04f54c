"""Addresses and connections of web servers: how they are written, which proxy they take, when they end."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, quote, urljoin, urlsplit, urlunsplit

if TYPE_CHECKING:  # loaded where a server is asked: with TLS they take longer than the header of a local file
    from http.client import HTTPConnection
    from socket import socket

#: Characters of a path that stay as they are.
_SAFE = "/%:@!$&'()*+,;=~[]"
#: Redirects that are followed, and their statuses.
REDIRECTS = 5
REDIRECTED = (301, 302, 303, 307, 308)


def connect_to(url: str, seconds: float) -> "HTTPConnection":
    """A connection, not yet made, to the server of an address or its proxy."""
    from http.client import HTTPConnection, HTTPSConnection

    parts = urlsplit(ascii_url(url))
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    proxy = proxy_of(parts)
    if proxy is None or proxy.hostname is None:
        return kind(parts.hostname or "", parts.port, timeout=seconds)
    connection = kind(proxy.hostname, proxy.port, timeout=seconds)
    if parts.scheme == "https":
        connection.set_tunnel(parts.hostname or "", parts.port or 443)
    return connection


def target(url: str) -> str:
    """What is asked for on the connection to an address."""
    parts = urlsplit(ascii_url(url))
    return ascii_url(url) if proxy_of(parts) and parts.scheme == "http" else request_path(parts)


def asked_for(offset: int, count: int) -> dict[str, str]:
    """The headers of a request for some bytes."""
    return {
        "Range": f"bytes={offset}-{offset + count - 1}",
        "Accept-Encoding": "identity",
        "User-Agent": "hiresattn",
    }


def start_of(url: str, count: int, deadline: float) -> tuple[int, bytes]:
    """The status of a request for the first bytes of a file, and at most so many of them; nothing is tried again.

    Raises:
        OSError: If there is no answer by the deadline (of ``time.monotonic``).
        http.client.HTTPException: If the answer is none of HTTP.
    """
    for _ in range(REDIRECTS + 1):
        connection = connect_to(url, max(deadline - time.monotonic(), 0.01))
        try:
            with ended_at(connection, deadline):
                connection.request("GET", target(url), headers=asked_for(0, count))
                response = connection.getresponse()
                if response.status not in REDIRECTED:
                    return response.status, response.read(count)
        finally:
            connection.close()
        url = urljoin(url, response.headers["Location"] or "")
        if urlsplit(url).scheme not in ("http", "https"):
            break
    return response.status, b""


@contextmanager
def ended_at(connection: "HTTPConnection", deadline: float) -> Iterator[None]:
    """Connect, and cut the connection at a time: a socket's own timeout starts anew with every byte."""
    from socket import SHUT_RDWR

    opened: list[socket] = []

    def cut() -> None:
        for sock in opened or [connection.sock]:  # a handshake may hang too
            with suppress(OSError, AttributeError):
                sock.shutdown(SHUT_RDWR)

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
    from urllib.request import getproxies, proxy_bypass

    named = getproxies().get(parts.scheme)
    if not named or proxy_bypass(parts.hostname or ""):
        return None
    return urlsplit(named if "://" in named else f"http://{named}")
