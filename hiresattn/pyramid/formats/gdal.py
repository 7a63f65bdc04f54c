"""How GDAL opens a file: its path, its settings for remote ones, its errors and its warnings."""

import logging
import math
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from hiresattn.errors import NotFoundError, OpenError, UnknownFormatError
from hiresattn.files import PARTS, is_remote
from hiresattn.pyramid.formats.gdaldrivers import DRIVERS
from hiresattn.pyramid.formats.gdalenv import callers_settings, with_settings
from hiresattn.pyramid.formats.quiet import quiet
from hiresattn.pyramid.formats.vrt import is_vrt, vrt_addresses, vrt_sources, with_coverage
from hiresattn.pyramid.storage.ranges import MOST_SECONDS
from hiresattn.pyramid.storage.web import ascii_url

#: What to do about a remote image that isn't reached.
CHECK = "check the address, the network and the credentials"

#: GDAL settings for remote files; what the user sets wins.
_REMOTE = {
    "GDAL_INGESTED_BYTES_AT_OPEN": "65536",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_VERSION": "2",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "VSI_CACHE": "TRUE",
}

#: GDAL decodes in the caller's thread, whatever the user sets. Its JPEG 2000 driver decodes blocks ahead in
#: threads of its own, where an error is only printed and the block stays uninitialised memory; and a forked
#: process waits for such threads for ever. The fetcher has threads.
#: Where libjpeg notices damage it fills up with grey or blank rows: that is an error, whatever the user sets.
_ALWAYS = {"GDAL_NUM_THREADS": "1", "GDAL_ERROR_ON_LIBJPEG_WARNING": "TRUE"}

#: GDAL's setting of what it looks for beside a file.
_READDIR = "GDAL_DISABLE_READDIR_ON_OPEN"

_CREDENTIALS = (
    "GDAL_HTTP_HEADERS",
    "GDAL_HTTP_HEADER_FILE",
    "GDAL_HTTP_USERPWD",
    "GDAL_HTTP_AUTH",
    "GDAL_HTTP_BEARER",
    "GDAL_HTTP_COOKIE",
    "GDAL_HTTP_COOKIEFILE",
    "GDAL_HTTP_NETRC_FILE",
    "GDAL_HTTP_SSLCERT",
)

_VSI = {
    "http://": "/vsicurl/http://",
    "https://": "/vsicurl/https://",
    "s3://": "/vsis3/",
    "gs://": "/vsigs/",
}
#: Sources of virtual rasters, on servers, that could not be read, and why: for the rest of the process.
_lost: dict[str, str] = {}
#: Of those of one virtual raster, how many are opened to find which it was.
_MOST_TRIED = 64


def _scheme(source: str) -> str:
    return next((scheme for scheme in _VSI if source.startswith(scheme)), "")


def vsi_path(source: str) -> str:
    """What GDAL calls a file: of an address a path in one of its own file systems."""
    scheme = _scheme(source)
    if scheme.startswith("http"):
        source = ascii_url(source)
    return _VSI.get(scheme, "") + source.removeprefix(scheme)


def remote_names(sources: Sequence[str]) -> list[str]:
    """Those of some files that GDAL asks servers for, as it calls them."""
    return [vsi_path(one) for one in sources if is_remote(one) and not one.startswith("/vsimem/")]


def checked_sources(path: str) -> list[Path]:
    """The local files that a virtual raster reads (see ``vrt_sources``), each of which was opened once.

    For one that can't be opened, GDAL raises an error the first time only, and returns zeros from then on (3.10).

    Raises:
        OpenError: If one can't be opened, or as of ``vrt_sources``.
    """
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    sources = vrt_sources(path)
    files = [source for source in sources if ":" not in source.name]  # others are variables of files
    if not files:
        return sources
    left = []
    with GdalFile(str(files[0]), alone=True).environment():
        for source in files:
            try:
                with quiet(NotGeoreferencedWarning):
                    rasterio.DatasetReader(str(source), driver=(*DRIVERS, "VRT"), sharing=False).close()
            except Exception:  # noqa: BLE001 - whatever it is, it is said below
                left.append(source)
    for source in left:
        try:  # with what lies beside it
            GdalFile(str(source)).first().close()
        except OpenError as error:
            raise OpenError(f"{path}: a virtual raster whose source can't be opened: {error}") from error
    return sources


class GdalFile:
    """A file that GDAL opens, here or elsewhere, as often as needed.

    Args:
        source: A path, an address (http, https, s3, gs) or a ``/vsi...`` path of GDAL's.
        alone: Whether nothing that matters lies beside it: a folder of thousands of files isn't listed for each.
        virtual: Where it is a virtual raster that this program wrote: what that reads, anywhere. None = it is none.
    """

    def __init__(self, source: str, *, alone: bool = False, virtual: Sequence[str] | None = None) -> None:
        self.source = source
        scheme = _scheme(source)
        self._path = vsi_path(source)
        self.remote = self._path.startswith("/vsi")
        """Whether GDAL reads it through one of its own file systems."""
        self.part = source.lower().startswith(PARTS)
        """Whether it is one variable of a file."""
        self._callers = callers_settings()
        self._settings = _ALWAYS | ({_READDIR: "EMPTY_DIR"} if alone else {})
        local = virtual is None and not self.remote and is_vrt(self._path)
        self._drivers = (*DRIVERS, "VRT") if local or virtual is not None else DRIVERS
        reads = [*virtual] if virtual else [self._path]
        if local:
            reads += vrt_addresses(self._path)
        elsewhere = [is_remote(one) and not one.startswith("/vsimem/") for one in reads]
        joined = local or virtual is not None
        self._sources = [one for one, there in zip(reads, elsewhere, strict=True) if joined and there]
        if any(elsewhere):
            seconds = str(math.ceil(MOST_SECONDS.get()))
            self._settings |= _REMOTE | {"GDAL_HTTP_TIMEOUT": seconds, "GDAL_HTTP_CONNECTTIMEOUT": seconds}
            if scheme.startswith("http"):  # others list a folder in one request
                self._settings[_READDIR] = "EMPTY_DIR" if alone else "YES"
            elif virtual and all(elsewhere):
                self._settings[_READDIR] = "EMPTY_DIR"
            elif virtual is None and not self.remote:  # whatever lies beside it, or beside a source of it
                self._settings[_READDIR] = "YES"
        if local:
            xml = with_coverage(self._path)
            if xml is not None:
                from rasterio import MemoryFile

                self._covered = MemoryFile(xml.encode(), ext=".vrt")
                self._path = self._covered.name
        self._quiet = True

    def move(self, source: str) -> None:
        """Open it by another address from now on."""
        self.source, self._path = source, vsi_path(source)

    def first(self) -> Any:
        """Open the image.

        Raises:
            NotFoundError: If a remote file doesn't exist.
            OpenError: If GDAL refuses it.
        """
        try:
            raster = self.open(None)
        except Exception as error:
            message = reason(error)
            said = message.replace(self.source, "")  # a name may have any words and numbers
            if ("404" in said and self.remote) or "No such file" in said or "does not exist" in said:
                raise NotFoundError(f"{self.source}: there is no such file ({message}); {CHECK}") from error
            remedy = CHECK if self.remote else "copy it anew, or convert it to a tiled GeoTIFF or OME-TIFF"
            if "supported file format" in said:
                raise UnknownFormatError(f"{self.source}: no raster that GDAL knows; {remedy}") from error
            raise OpenError(f"{self.source}: GDAL can't open it ({message}); {remedy}") from error
        self._quiet = raster.transform.is_identity
        return raster

    def open(self, overview: int | None) -> Any:
        """Open the image, or one of its overviews by GDAL's number; whatever rasterio raises."""
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning

        options = {} if overview is None else {"overview_level": overview}
        with ExitStack() as stack:
            stack.enter_context(self.environment())
            if self._quiet:
                stack.enter_context(quiet(NotGeoreferencedWarning))
            return rasterio.DatasetReader(self._path, driver=self._drivers, sharing=False, **options)

    @contextmanager
    def environment(self) -> Iterator[None]:
        """GDAL settings: those of who opened the file, strict ones, and for a remote file what the user didn't set."""
        import rasterio

        with with_settings(self._callers):
            given = _user_settings() - _ALWAYS.keys()
            with rasterio.Env(**{key: value for key, value in self._settings.items() if key not in given}):
                yield

    @contextmanager
    def reading(self) -> Iterator[None]:
        """``environment``, in which a virtual raster whose source on a server was out of reach once isn't read again.

        For GDAL gives zeros for it from then on, in all virtual rasters of the process that name it (3.10).

        Raises:
            OpenError: If there is such a source.
        """
        lost = next((one for one in self._sources if one in _lost), None)
        if lost is not None:
            name = lost.partition("?")[0]  # what comes after may be a signature
            why = _lost[lost].replace(lost, name)
            raise OpenError(f"{name} could not be read before ({why}), and GDAL would give zeros for it")
        with self.environment():
            try:
                yield
            except Exception as error:
                tried = self._sources[:_MOST_TRIED]
                first = next((at for at, one in enumerate(tried) if not _opens(one)), 0)
                _lost.update(dict.fromkeys(self._sources[first:], reason(error)))  # it, or one after it
                raise


def _opens(source: str) -> bool:
    try:
        GdalFile(source, alone=True).first().close()
    except OpenError:
        return False
    return True


def world_files(suffix: str) -> list[str]:
    """How the world files of images with a suffix may end."""
    word = suffix[1:].lower()
    return sorted({"wld", f"{word}w", f"{word[:1]}{word[-1:]}w"}) if word else ["wld"]


def has_credentials() -> bool:
    """Whether GDAL was told how to identify itself to web servers."""
    return any(name in _user_settings() for name in _CREDENTIALS)


def _user_settings() -> set[str]:
    """Names of what the user set for GDAL, in the environment or in ``rasterio.Env``."""
    return {*os.environ, *callers_settings()}


@contextmanager
def strict() -> Iterator[None]:
    """Raise ``OSError`` where libjpeg, inside GDAL's TIFF driver, noticed damage: GDAL itself goes on.

    Whoever reads must open the file anew then: GDAL keeps the blocks that it made up.
    """
    here, noticed = threading.get_ident(), list[str]()

    def listen(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if threading.get_ident() == here and "JPEGLib" in message:
            noticed.append(message.rpartition("JPEGLib:")[2])
            return False
        return True

    logger = logging.getLogger("rasterio._err")
    logger.addFilter(listen)
    try:
        yield
    finally:
        logger.removeFilter(listen)
    if noticed:
        raise OSError(noticed[0])


def reason(error: BaseException) -> str:
    """The first error of a chain: rasterio's own only states that reading failed."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error) or type(error).__name__).splitlines()[0]
