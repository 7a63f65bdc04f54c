"""Images that are given as objects of rasterio's, as bytes, or as an open file."""

import io
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hiresattn.errors import OpenError
from hiresattn.pyramid.base import Pyramid
from hiresattn.pyramid.formats.gdal import GdalFile
from hiresattn.pyramid.formats.geotiff import RasterioPyramid
from hiresattn.pyramid.formats.vrt import with_coverage

#: Name of an image file whose bytes were given.
_BYTES = "<bytes>"


def is_dataset(source: Any) -> bool:
    """Whether this is rasterio's ``DatasetReader`` or ``MemoryFile``: a name that GDAL opens, while it is kept."""
    if "rasterio" not in sys.modules:
        return False
    from rasterio.io import DatasetReader, DatasetWriter, MemoryFile

    return isinstance(source, DatasetReader | DatasetWriter | MemoryFile)


def is_in_memory(source: Any) -> bool:
    """Whether this is a ``WarpedVRT``, the bytes of an image file, or an open file."""
    return isinstance(source, bytes | bytearray | memoryview | io.IOBase) or _is_warped(source)


def dataset_name(source: Any) -> str:
    """What GDAL opens a ``DatasetReader`` or ``MemoryFile`` by.

    Raises:
        OpenError: If it is open for writing.
    """
    if hasattr(source, "write_band") or source.mode != "r":
        raise OpenError(f"{source.name}: open for writing; close it, and give its path")
    return str(source.name)


def kept(image: Pyramid, source: Any) -> Pyramid:
    """An image that was opened by the name of a dataset, which lives as long as the image does.

    Raises:
        OpenError: If they are different images: it was opened with options.
    """
    shape = getattr(source, "shape", None)
    if shape is not None and shape != (image.height, image.width):
        image.close()
        raise OpenError(
            f"{source.name}: the dataset has {shape[1]} x {shape[0]} px and the file {image.width} x {image.height}; "
            "it was opened with options such as overview_level, so give the file's path"
        )
    image.kept = source
    return image


def open_in_memory(source: Any, *, mpp: float | None, nodata: float | None) -> Pyramid | str:
    """Open a ``WarpedVRT``, the bytes of an image file or an open file; of a file on disk its path.

    Raises:
        OpenError: If it can't be opened.
    """
    if isinstance(source, io.IOBase):
        name = getattr(source, "name", None)
        if isinstance(name, str) and Path(name).is_file():
            return name
        if not isinstance(source, io.BytesIO):
            raise OpenError(
                f"a {type(source).__name__} that is no file on this machine; give its address, or its bytes: read()"
            )
        source = source.getvalue()
    if isinstance(source, bytes | bytearray | memoryview):
        return MemoryPyramid(bytes(source), _BYTES, mpp=mpp, nodata=nodata)
    return MemoryPyramid(
        _xml(source), source.name, virtual=[source.src_dataset.name], keep=source, mpp=mpp, nodata=nodata
    )


class MemoryPyramid(RasterioPyramid):
    """A raster whose file is in memory: its bytes, or the XML of a virtual raster that this program wrote.

    Args:
        data: The file.
        name: Used in messages and records.
        virtual: What the virtual raster reads; None = it is none.
        keep: Kept as long as the image.
        mpp: As of ``RasterioPyramid``.
        nodata: Likewise.
    """

    def __init__(
        self,
        data: bytes,
        name: str,
        *,
        virtual: Sequence[str] | None = None,
        keep: Any = None,
        mpp: float | None = None,
        nodata: float | None = None,
    ) -> None:
        import rasterio

        self._file_in_memory = rasterio.MemoryFile(data, ext=".tif" if virtual is None else ".vrt")
        self._virtual = virtual
        self._again = partial(type(self), data, name, virtual=virtual, mpp=mpp, nodata=nodata)
        self.kept = keep
        path = self._file_in_memory.name
        try:
            super().__init__(path, mpp=mpp, nodata=nodata)
        except OpenError as error:
            raise OpenError(str(error).replace(path, name)) from error
        self.source = name

    def _names(self, path: str) -> Sequence[str]:
        return self._virtual or [path]

    def _gdal_file(self, path: str) -> GdalFile:
        return GdalFile(path, virtual=self._virtual)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._again, ()


def _xml(warped: Any) -> bytes:
    """A ``WarpedVRT`` as the XML that GDAL opens, each thread for itself."""
    import rasterio.shutil

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "warped.vrt"
        rasterio.shutil.copy(warped, path, driver="VRT")
        covered = with_coverage(path)
        return path.read_bytes() if covered is None else covered.encode()


def _is_warped(source: Any) -> bool:
    if "rasterio" not in sys.modules:
        return False
    from rasterio.vrt import WarpedVRT

    return isinstance(source, WarpedVRT)
