"""A web server on this computer that shows images, and where a search looked, in a browser."""

import hmac
import json
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hiresattn.errors import ConfigError, HiresattnError, reason
from hiresattn.files import is_remote
from hiresattn.inference.lines import json_line
from hiresattn.inference.record import CaseSource, Record
from hiresattn.pyramid import open_pyramid
from hiresattn.report.deepzoom import TILE, DeepZoom
from hiresattn.report.facts import case_facts
from hiresattn.report.overlay import px_size
from hiresattn.report.scale import scale_origin
from hiresattn.report.template import page_template

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Only programs on this computer reach it.
HOST = "127.0.0.1"
#: Most images that are open at once.
_OPEN = 4
#: Seconds after which a silent connection is closed.
_PATIENCE = 60
_PATH = re.compile(r"/([\w-]+)/(?:(image|check)/(\d{1,9})(?:/(\d{1,2})/(\d{1,9})_(\d{1,9})\.jpg)?|([\w.]*))")
_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class Viewed:
    """An image to be shown."""

    source: str
    """Path or address."""
    answers: tuple[Record, ...] = ()
    """Records of it, each with the regions of this image only, under their numbers in the search."""


def images_to_view(sources: Iterable[str], records: Iterable[Record] = ()) -> list[Viewed]:
    """Join images and what was found in them.

    Args:
        sources: Paths or addresses; none = every image of the records.
        records: What ``classify`` made of them, and perhaps of others, which are left out.

    Returns:
        The images in their order, each once.
    """
    found: dict[str, list[Record]] = {}
    names: dict[str, str] = {}
    for record in records:
        for number, one in enumerate(record.sources):
            if one.error is None or len(record.sources) == 1:
                own = tuple(region for region in record.regions if region.source == number)
                found.setdefault(_same(one.source), []).append(
                    replace(record, regions=own, region=one.region, mpp=one.mpp, mpp_source=one.mpp_source)
                )
                names.setdefault(_same(one.source), one.source)
        if not record.sources:
            found.setdefault(_same(record.source), []).append(record)
            names.setdefault(_same(record.source), record.source)
    asked = {_same(source): source for source in sources} or names
    return [Viewed(source, tuple(found.get(key, ()))) for key, source in asked.items()]


def _same(source: str) -> str:
    """What two names of one image have in common."""
    return source if is_remote(source) else str(Path(source).resolve())


class ViewerServer(ThreadingHTTPServer):
    """Serves a page that shows images, until it is shut down.

    Only this computer reaches it, only who knows the random token in its address is answered, and nothing but the
    images it was given can be asked for.

    Args:
        images: The images; each is opened when it is first looked at.
        port: Port; 0 = a free one.
        values: Pixel values to show as black and as white; None = 0 and 255 for uint8, else by the image.

    Raises:
        ConfigError: If there are no images, or the port is taken.

    Examples:
        >>> with ViewerServer(images_to_view(["slide.svs"])) as server:
        ...     print(server.address)
        ...     server.serve_forever()
    """

    daemon_threads = True

    def __init__(
        self, images: Sequence[Viewed], port: int = 0, values: tuple[float, float] | None = None
    ) -> None:
        if not images:
            raise ConfigError("there are no images to show; name one, or results that have some")
        self.images = list(images)
        self.token = secrets.token_urlsafe(16)
        self._values = values
        self._zooms: OrderedDict[int, _Held] = OrderedDict()
        self._lock = threading.Lock()
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"port {port} can't be used ({reason(error)}); give another one, or 0 for a free one"
            ) from error

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_port}/{self.token}/"

    @contextmanager
    def zoom(self, number: int) -> "Iterator[DeepZoom]":
        """An image's tiles, for as long as the block runs; the image may be let go of afterwards."""
        with self._lock:
            held = self._zooms.setdefault(number, _Held())
            self._zooms.move_to_end(number)
            held.users += 1
            idle = [at for at, one in self._zooms.items() if not one.users]
            gone = [self._zooms.pop(at) for at in idle[: max(len(self._zooms) - _OPEN, 0)]]
        for one in gone:
            one.close()
        try:
            with held.lock:
                if held.zoom is None:
                    held.zoom = DeepZoom(open_pyramid(self.images[number].source), self._values)
            yield held.zoom
        finally:
            with self._lock:
                held.users -= 1

    def server_close(self) -> None:
        """Stop listening, and close the images."""
        super().server_close()
        with self._lock:
            held = list(self._zooms.values())
            self._zooms.clear()
        for one in held:
            one.close()

    def listed(self) -> list[dict[str, Any]]:
        """The images as the page lists them."""
        return [
            {
                "name": one.source,
                "answers": [case_facts(record)["answer"] for record in one.answers],
                "review": any(record.needs_review for record in one.answers),
            }
            for one in self.images
        ]

    def described(self, number: int) -> dict[str, Any]:
        """One image as the page shows it. Raises what opening it raises."""
        image = self.images[number]
        with self.zoom(number) as zoom:
            pyramid = zoom.pyramid
            facts: dict[str, Any] = {
                "height": zoom.height,
                "width": zoom.width,
                "levels": zoom.levels,
                "tile": TILE,
            }
            scale = CaseSource(
                image.source, mpp=px_size(pyramid), mpp_source=pyramid.meta.mpp_source or "CRS"
            )
            for record in image.answers:
                if record.mpp:
                    scale = replace(scale, mpp=record.mpp, mpp_source=record.mpp_source)
                    break
            facts |= {
                "mpp": scale.mpp,
                "scale": scale_origin(scale),
                "reader": pyramid.backend,
                "bands": pyramid.channels,
            }
        return {"name": image.source, **facts, "answers": [case_facts(record) for record in image.answers]}

    def why_not(self, number: int) -> str | None:
        """Why an image can't be shown; None = it can, as far as its header tells."""
        try:
            open_pyramid(self.images[number].source).close()
        except (HiresattnError, OSError) as error:
            return str(error)
        return None


class _Held:
    """An image that is open, or being opened."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.zoom: DeepZoom | None = None

    def close(self) -> None:
        if self.zoom is not None:
            self.zoom.close()


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    server: ViewerServer
    protocol_version = "HTTP/1.1"
    timeout = _PATIENCE
    server_version, sys_version = "hiresattn", ""
    _static: ClassVar[dict[str, tuple[str, str]]] = {
        "openseadragon.js": ("openseadragon/openseadragon.min.js", "text/javascript; charset=utf-8"),
    }

    def do_GET(self) -> None:
        """Send the page, the list, an image's facts or a tile."""
        try:
            kind, body = self._asked()
        except HiresattnError as error:
            text = str(error).encode("utf-8", "backslashreplace")
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", text)
        else:
            self._send(HTTPStatus.OK if body is not None else HTTPStatus.NOT_FOUND, kind, body or b"not here")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing: who looks at what is nobody's business."""

    def _asked(self) -> tuple[str, bytes | None]:
        """What is asked for, and its type; None = there is no such thing, or not for this asker."""
        found = _PATH.fullmatch(self.path)
        own = (f"{HOST}:{self.server.server_port}", f"localhost:{self.server.server_port}")
        known = found is not None and hmac.compare_digest(found[1], self.server.token)
        if found is None or not known or self.headers.get("Host") not in own:
            return "text/plain", None
        _, image, number, level, row, column, name = found.groups()
        if image:
            tile = (int(level), int(row), int(column)) if level else None
            return self._image(int(number), tile, check=image == "check")
        if name == "list":
            return "application/json", json.dumps(self.server.listed()).encode()
        if not name:
            return "text/html; charset=utf-8", page_template("hiresattn.report", "viewer.html").encode()
        file, kind = self._static.get(name, (None, "text/plain"))
        return kind, files("hiresattn.report").joinpath(file).read_bytes() if file else None

    def _image(
        self, number: int, tile: tuple[int, int, int] | None, *, check: bool
    ) -> tuple[str, bytes | None]:
        """An image's facts, or a tile of it; or only why it can't be opened."""
        if number >= len(self.server.images):
            return "text/plain", None
        if check:
            return "application/json", json.dumps({"error": self.server.why_not(number)}).encode()
        if tile is None:
            return "application/json", json_line(self.server.described(number)).encode()
        with self.server.zoom(number) as zoom:
            return "image/jpeg", zoom.tile(*tile)

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)
