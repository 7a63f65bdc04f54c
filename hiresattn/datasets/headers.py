"""What the headers of slides say, read in threads; and their scale, which a table may give in its place."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from hiresattn.errors import reason
from hiresattn.pyramid import open_pyramid
from hiresattn.pyramid.mpp import MAX_MPP, MIN_MPP


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
                value = 0.0
            if MIN_MPP <= value <= MAX_MPP:
                return Header(value, "given", self.error)
            why = f"the table says {text}, which is no number of {MIN_MPP:g} to {MAX_MPP:g}"
            return Header(None, why, self.error)
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
    with ThreadPoolExecutor(threads) as pool:
        try:
            for path, header in zip(paths, pool.map(read_header, paths), strict=True):
                found.append(header)
                progress(len(found) / len(paths), path)
        finally:
            pool.shutdown(cancel_futures=True)
    return found


def read_header(path: str) -> Header:
    """Read the header of one image."""
    try:
        with open_pyramid(path) as pyramid:
            return Header(pyramid.mpp, pyramid.meta.mpp_source)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this image's
        return Header(error=reason(error))
