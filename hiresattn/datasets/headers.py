"""What the headers of slides say, read in threads; and their scale, which a table may give in its place."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from hiresattn.errors import reason
from hiresattn.pyramid import open_pyramid
from hiresattn.pyramid.formats.gdalenv import callers_settings, with_settings
from hiresattn.pyramid.mpp import implausible
from hiresattn.pyramid.rescaled import known_scale


@dataclass(frozen=True)
class Header:
    """What an image's header says."""

    mpp: float | None = None
    """µm per level-0 px; None = not known."""
    mpp_source: str | None = None
    """Where that is from, ``given`` if the user gave it; or why it isn't taken."""
    error: str = ""
    """Why it can't be opened; empty = it can."""

    def with_mpp(self, text: str, assumed: float | None) -> "Header":
        """The same with the scale that a table gives; where neither says one, with the one that is assumed."""
        if text:
            try:
                value = float(text)
            except ValueError:
                return Header(None, f"the table says {text!r}, which is no number", self.error)
            why = implausible(value)
            return (
                Header(None, f"the table says {text}; {why}", self.error)
                if why
                else Header(value, "given", self.error)
            )
        if self.mpp is None and assumed is not None:
            return Header(assumed, "given", self.error)
        return self


def read_headers(paths: Sequence[str], threads: int, progress: Callable[[float, str], None]) -> list[Header]:
    """Read the headers of images; whatever is wrong with one is in its place.

    Args:
        paths: The images.
        threads: How many are read at a time.
        progress: Called with the share that was read, and a path.
    """
    found = []
    settings = callers_settings()

    def read(path: str) -> Header:
        with with_settings(settings):
            return read_header(path)

    with ThreadPoolExecutor(threads) as pool:
        try:
            for path, header in zip(paths, pool.map(read, paths), strict=True):
                found.append(header)
                progress(len(found) / len(paths), path)
        finally:
            pool.shutdown(cancel_futures=True)
    return found


def read_header(path: str) -> Header:
    """Read the header of one image."""
    try:
        with open_pyramid(path) as pyramid:
            return Header(*known_scale(pyramid))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this image's
        return Header(error=reason(error))
