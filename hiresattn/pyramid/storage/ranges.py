"""Bytes of a file on a web server, by range: few requests, each counted, and never a made-up byte."""

import os
import re
import tempfile
import threading
import time
from bisect import bisect_right
from collections.abc import Iterable
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from hiresattn.errors import NotFoundError, OpenError, ReadError
from hiresattn.pyramid.storage.handles import PerThread
from hiresattn.pyramid.storage.signing import AGAIN, REFUSED, address_of
from hiresattn.pyramid.storage.spans import MOST, merged
from hiresattn.pyramid.storage.tiffheader import check_tiff_at
from hiresattn.pyramid.storage.web import REDIRECTED, REDIRECTS, asked_for, connect_to, ended_at, target

if TYPE_CHECKING:
    from http.client import HTTPConnection, HTTPResponse

#: Bytes asked for first: the directories of most cloud-optimised files, and their coarsest levels.
FIRST = 128 << 10
#: Fetched bytes kept until they are asked for; the oldest go first, and are fetched again if need be.
KEPT = 32 << 20

_TIMEOUT = 30.0
_RETRIES = 3
_WAIT = 0.25  # s, doubled from try to try
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)", re.IGNORECASE)
#: Fewer bytes than this in place of more are a refusal, not a part to be continued.
_LEAST_PART = 1 << 10

#: Seconds that a read may take, its repetitions and redirects included, of files that are opened in this context.
MOST_SECONDS: ContextVar[float] = ContextVar("MOST_SECONDS", default=60.0)


@dataclass(slots=True)
class RequestStats:
    """What was asked of a server so far."""

    count: int = 0
    """Requests sent, repeated and redirected ones included."""
    bytes: int = 0
    """Bytes of responses received."""


@dataclass(slots=True)
class _Span:
    """Bytes of the file that are fetched together."""

    start: int
    stop: int
    lock: threading.Lock
    data: bytes | None = None


class RangeFile:
    """A file behind ``http://`` or ``https://``, read by byte ranges from any thread.

    Connections are kept, one per thread. What fails on the way is tried again on a new connection, 3 times, until
    ``MOST_SECONDS`` are over; a shifted response counts as failed, of a shorter one the rest is asked for. Never more
    than the bytes wanted and one are read. A file that changes while it is read is an error. The start of the file is
    mirrored in a sparse local file, for libraries that want to look at its header.

    Args:
        url: Its address.
        requests: Where what is asked is counted; None = in a count of its own.

    Raises:
        NotFoundError: If the server says that there is no such file.
        OpenError: If the server can't be reached.
        RefusedError: If it refuses, or doesn't serve ranges.
    """

    def __init__(self, url: str, requests: RequestStats | None = None) -> None:
        self._address = address_of(url)
        self.url, self._asked = self._address.name, url
        self.requests = RequestStats() if requests is None else requests
        self._at = url
        self._seconds = MOST_SECONDS.get()
        self._tag: str | None = None
        self._connections: PerThread[HTTPConnection] = PerThread(
            lambda: connect_to(self._at, _TIMEOUT), lambda connection: connection.close()
        )
        self._lock = threading.Lock()
        self._spans: list[_Span] = []
        self.size = 0
        self._mirror: Path | None = None
        try:
            self._head = self._get(0, FIRST)
        except RefusedError as error:
            self.close()
            if error.status in (404, 410):
                raise NotFoundError(
                    f"{self.url}: there is no such file ({error}); check the address"
                ) from error
            if error.status in REFUSED and self._address.signed:
                raise OpenError(f"{self.url}: the server refuses it ({error})") from error
            raise
        except OSError as error:
            self.close()
            raise OpenError(
                f"{self.url}: out of reach ({error}); check the address and the network"
            ) from error

    def pread(self, count: int, offset: int) -> bytes:
        """Bytes from an offset; fewer only at the file's end.

        Raises:
            ReadError: If the server doesn't give them; they are never made up.
        """
        count = min(count, self.size - offset)
        if count <= 0:
            return b""
        if offset + count <= len(self._head):
            return self._head[offset : offset + count]
        span = self._span(offset, offset + count)
        if span is None:
            return self._fetched(count, offset)
        with span.lock:
            if span.data is None:
                span.data = self._fetched(span.stop - span.start, span.start)
                self._forget()
            return span.data[offset - span.start : offset - span.start + count]

    def expect(self, reads: Iterable[tuple[int, int]]) -> None:
        """Announce reads ``(offset, count)``, so that neighbours come in one request. Fetches nothing yet."""
        wanted = [
            (offset, count)
            for offset, count in reads
            if offset + count > len(self._head) and self._span(offset, offset + count) is None
        ]
        spans = [_Span(start, stop, threading.Lock()) for start, stop in merged(wanted)]
        with self._lock:
            kept = [span for span in self._spans if span.data is not None]
            self._spans = sorted([*kept, *spans], key=lambda span: span.start)

    def header(self, count: int, offset: int) -> bytes:
        """As ``pread``, for the start of the file: all up to there is fetched, kept and mirrored."""
        stop = min(offset + count, self.size)
        if stop > len(self._head):
            if stop > MOST and stop > 8 * len(self._head):  # far away: directories at the end of the file
                raise _FarError(f"{self.url}: its directories are not at its start")
            # Tables of coarser levels follow those of finer ones, and are a third as long in all.
            more = min(max(stop * 3 // 2, 2 * len(self._head)), self.size) - len(self._head)
            self._head += self._fetched(more, len(self._head))
        return self._head[offset:stop]

    def mirror(self) -> Path:
        """A local file of the same size that holds the fetched start, and zeros after it; sparse on disk."""
        if self._mirror is None:
            suffix = Path(urlsplit(self.url).path).suffix
            number, name = tempfile.mkstemp(prefix="hiresattn-", suffix=suffix)
            with os.fdopen(number, "wb") as file:
                file.write(self._head)
                file.truncate(self.size)
            self._mirror = Path(name)
        return self._mirror

    def forget_mirror(self) -> None:
        """Delete the local file."""
        if self._mirror is not None:
            self._mirror.unlink(missing_ok=True)
            self._mirror = None

    def close(self) -> None:
        """Let go of the connections and the fetched bytes; later reads connect anew."""
        self._connections.close()
        with self._lock:
            self._spans = []
        self.forget_mirror()

    def _fetched(self, count: int, offset: int) -> bytes:
        try:
            return self._get(offset, count)
        except OSError as error:
            raise ReadError(
                f"{self.url}, bytes {offset} to {offset + count}: out of reach ({error}); check the network and "
                "try again"
            ) from error

    def _span(self, start: int, stop: int) -> _Span | None:
        """The announced span that holds these bytes, or None."""
        with self._lock:
            at = bisect_right(self._spans, start, key=lambda span: span.start) - 1
            while at >= 0 and self._spans[at].start > start - 2 * MOST:
                if self._spans[at].stop >= stop:
                    return self._spans[at]
                at -= 1
        return None

    def _forget(self) -> None:
        """Drop spans until at most ``KEPT`` bytes are held."""
        with self._lock:
            held = sum(len(span.data) for span in self._spans if span.data is not None)
            for span in list(self._spans):
                if held <= KEPT:
                    break
                if span.data is not None:
                    held -= len(span.data)
                    self._spans.remove(span)

    def _get(self, offset: int, count: int) -> bytes:
        """One range; where its address is refused, it is signed anew, once."""
        asked = self._asked
        try:
            return self._whole(offset, count)
        except RefusedError as error:
            if error.status not in REFUSED or not self._address.renew(asked):
                raise
        with self._lock:
            self._asked = self._at = self._address.now
        self._connections.drop()
        try:
            return self._whole(offset, count)
        except RefusedError as error:
            if error.status not in REFUSED:
                raise
            raise RefusedError(error.status, f"{error}, {AGAIN}") from error

    def _whole(self, offset: int, count: int) -> bytes:
        """One range, tried several times; of shorter responses the rest is asked for."""
        deadline = time.monotonic() + self._seconds
        body = self._tried(offset, count, deadline)
        while len(body) < min(count, self.size - offset):
            if len(body) < _LEAST_PART:
                raise RefusedError(206, f"{len(body)} bytes in place of {count}")
            body += self._tried(offset + len(body), count - len(body), deadline)
        return body

    def _tried(self, offset: int, count: int, deadline: float) -> bytes:
        from http.client import HTTPException

        for attempt in range(_RETRIES + 1):
            try:
                return self._get_once(offset, count, deadline)
            except (RefusedError, _ChangedError):
                self._connections.drop()
                raise
            except (OSError, HTTPException) as error:
                self._connections.drop()
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"no answer within {self._seconds:g} s") from error
                if attempt == _RETRIES:
                    raise OSError(str(error) or type(error).__name__) from error
                time.sleep(min(_WAIT * 2**attempt, max(deadline - time.monotonic(), 0)))
        raise AssertionError

    def _get_once(self, offset: int, count: int, deadline: float) -> bytes:
        headers = asked_for(offset, count)
        redirected = self._at != self._asked
        for _ in range(REDIRECTS + 1):
            with self._lock:
                self.requests.count += 1
            connection = self._connections.get()
            connection.timeout = max(min(_TIMEOUT, deadline - time.monotonic()), 0.01)
            with ExitStack() as stack:
                stack.enter_context(ended_at(connection, deadline))
                connection.request("GET", target(self._at), headers=headers)
                response = stack.enter_context(connection.getresponse())  # of a refusal the rest isn't read
                if time.monotonic() >= deadline:  # what was cut off looks like a short header
                    raise TimeoutError
                if response.status not in REDIRECTED:
                    if response.status in (401, 403, 404, 410) and redirected:
                        redirected, self._at = (
                            False,
                            self._asked,
                        )  # what it redirected to was for a while only
                        self._connections.drop()
                        continue
                    return self._body(response, offset, count)
            self._at = urljoin(self._at, response.headers["Location"] or "")
            self._connections.drop()
            if urlsplit(self._at).scheme not in ("http", "https"):
                to, self._at = self._at, self._asked
                raise RefusedError(0, f"it redirects to {to}")
        self._at = self._asked
        raise RefusedError(response.status, "it redirects for ever")

    def _body(self, response: "HTTPResponse", offset: int, count: int) -> bytes:
        if response.status in (408, 429) or response.status >= 500:
            raise OSError(f"HTTP {response.status} {response.reason}")
        if response.status == 200:
            raise RefusedError(200, "the server doesn't answer byte ranges")
        if response.status != 206:
            raise RefusedError(response.status, f"HTTP {response.status} {response.reason}")
        found = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        if found is None:  # GDAL does without it
            raise RefusedError(206, "a response without the range and the size")
        start, last, size = map(int, found.groups())
        body = response.read(count + 1)
        with self._lock:
            self.requests.bytes += len(body)
        tag = response.headers.get("ETag")
        tag = None if tag is None or tag.startswith("W/") else tag  # a weak one says nothing of the bytes
        if (self.size and size != self.size) or (self._tag and tag and tag != self._tag):
            raise _ChangedError("the file changed while it was read")
        self.size, self._tag = size, tag or self._tag
        wanted = min(count, size - offset)
        if start != offset or last - start + 1 != len(body) or not 0 < len(body) <= wanted:
            raise OSError(f"{len(body)} bytes from {start} in place of {wanted} from {offset}")
        return body


def cloud_optimised(url: str, requests: RequestStats | None = None) -> RangeFile | None:
    """A TIFF file behind an address, its directories at its start and checked; None if it isn't that.

    None also where the server refuses: GDAL may have been told how to ask. ``requests`` is as of ``RangeFile``.

    Raises:
        NotFoundError: If there is no such file.
        OpenError: If the server is out of reach, or the file is damaged.
    """
    file = None
    try:
        file = RangeFile(url, requests)
        if check_tiff_at(url, file.size, file.header) is not None:
            return file
    except (RefusedError, _FarError):
        pass
    if file is not None:
        file.close()
    return None


class RefusedError(OSError):
    """The server answered, and asking again won't change that."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class _FarError(OpenError):
    """Directories that more than a few requests would have to look for."""


class _ChangedError(OSError):
    """The file isn't the one that was opened."""
