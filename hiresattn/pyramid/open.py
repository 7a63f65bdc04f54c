"""From a source to the backend that reads it."""

import errno
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiresattn.errors import HiresattnError, NotFoundError, OpenError, UnknownFormatError, reason
from hiresattn.files import REMOTE, ZARR_FILES, is_remote
from hiresattn.pyramid.array import ArrayPyramid
from hiresattn.pyramid.base import Pyramid
from hiresattn.pyramid.labelled import is_labelled
from hiresattn.pyramid.products import product_of
from hiresattn.pyramid.stac import is_item, may_hold_items, stac_sources
from hiresattn.pyramid.stack import Layer, Stack
from hiresattn.pyramid.stacked import StackedPyramid, known_of
from hiresattn.pyramid.storage.signing import Address, opening

if TYPE_CHECKING:
    from hiresattn.pyramid.storage.directories import Ifd

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_OLD_JPEG = 6

#: First bytes of HDF5 and netCDF; of formats in which no slide begins (MRXS: a JPEG); of all that are read whole.
_ARRAYS = (b"\x89HDF\r\n\x1a\n", b"CDF\x01", b"CDF\x02", b"CDF\x05")
_NO_SLIDES = (b"\x89PNG\r\n\x1a\n", b"GIF8")
_PLAIN = (b"\xff\xd8\xff", b"BM", *_NO_SLIDES)


def open_pyramid(source: Any, *, mpp: float | None = None, nodata: float | None = None) -> Pyramid:
    """Open an image; only its header is read.

    Args:
        source: A path or address of a slide, GeoTIFF, TIFF, OME-Zarr directory or plain image; one variable of
            a file, ``netcdf:FILE:VARIABLE`` or ``HDF5:"FILE"://VARIABLE``; a NumPy or Dask array ``[h w c]``, an
            xarray array, data set or tree, or a list of arrays, finest first; rasterio's ``DatasetReader``,
            ``WarpedVRT`` or ``MemoryFile``; the bytes of an image file, or a file that is open for reading; a pyramid
            is returned as it is.
        mpp: Micrometres per level-0 px, in place of what the file says.
        nodata: Value that stands for "nothing measured here", in place of what the file says.

    Returns:
        A pyramid; ``pyramid.backend`` is the name of its reader.

    Raises:
        NotFoundError: If there is no such file.
        OpenError: If the file is damaged or no reader knows it.
        ConfigError: If ``mpp`` isn't positive.

    Examples:
        >>> with hiresattn.open_pyramid("slide.svs") as slide:
        ...     print(slide.height, slide.width, slide.mpp)
    """
    if isinstance(source, Pyramid):
        return source
    if not isinstance(source, str | os.PathLike):
        return _object(source, mpp=mpp, nodata=nodata)
    name = os.fsdecode(source)
    with _own_errors(name):
        scene = scene_of(name)
    if scene is not None:
        return _stack(scene, mpp=mpp, nodata=nodata)
    if scheme := is_remote(name) and _SCHEME.match(name):
        name = scheme[0].lower() + name[scheme.end() :]
    with _own_errors(name):
        readers = _remote_readers(name) if is_remote(name) else _local_readers(name)
    said = ""
    for reader in readers:
        try:
            with _own_errors(name):
                return reader()(name, mpp=mpp, nodata=nodata)
        except NotFoundError:
            raise
        except OpenError as error:
            if len(readers) == 1:
                raise
            if not isinstance(error, UnknownFormatError):  # the last one that knows the format knows most
                said = str(error)
    if said:
        raise OpenError(said)
    raise UnknownFormatError(
        f"{name}: no reader knows this file; give a slide, a GeoTIFF, a TIFF, an OME-Zarr directory, a JPEG or a PNG. "
        "If it should be one, it is damaged: copy it anew"
    )


def _object(source: Any, *, mpp: float | None, nodata: float | None) -> Pyramid:
    """Open what is no name."""
    arrays = isinstance(source, list | tuple) or is_labelled(source)
    if arrays or (hasattr(source, "shape") and hasattr(source, "dtype")):
        return ArrayPyramid(source, mpp=mpp, nodata=nodata)
    with _own_errors(f"a {type(source).__name__}"):
        scene = scene_of(source)
    if scene is not None:
        return _stack(scene, mpp=mpp, nodata=nodata)
    from hiresattn.pyramid.formats.objects import dataset_name, is_dataset, is_in_memory, kept, open_in_memory

    if is_dataset(source):
        return kept(open_pyramid(dataset_name(source), mpp=mpp, nodata=nodata), source)
    if is_in_memory(source):
        with _own_errors(f"a {type(source).__name__}"):
            found = open_in_memory(source, mpp=mpp, nodata=nodata)
        return found if isinstance(found, Pyramid) else open_pyramid(found, mpp=mpp, nodata=nodata)
    raise OpenError(f"a {type(source).__name__} is no image; give a path, an address or arrays [h w c]")


def scene_of(source: Any) -> Stack | None:
    """The stack that a source is or stands for: a STAC item or the file of one, a folder of Sentinel-2 or Landsat.

    Raises:
        HiresattnError: If a file of items can't be read, or holds several.
    """
    if isinstance(source, Stack):
        return source
    if isinstance(source, str | Path):
        name = str(source)
        if not may_hold_items(name):
            return product_of(name) if os.path.isdir(name) else None  # noqa: PTH112 - no name makes it raise
    elif not is_item(source) or is_labelled(source):
        return None
    found = stac_sources(source)
    if len(found) != 1:
        raise OpenError(
            f"{source}: {len(found)} STAC items; an image is one: classify them all, or choose one"
        )
    return found[0]


def _stack(stack: Stack, *, mpp: float | None, nodata: float | None) -> Pyramid:
    """Open a stack: of one file, that as any other, for what is known of its bands is what the file says."""
    with _own_errors(str(stack)):
        addresses = stack.ready()
        if len(stack.layers) == 1 and stack.layers[0].bands is None:
            (layer,) = stack.layers
            image = _layer(layer, addresses[0], mpp=mpp, nodata=nodata)
            known = known_of(layer, image) | ({"acquired": stack.acquired} if stack.acquired else {})
            return image.named(str(stack), **known)
        images: list[Pyramid] = []
        try:
            for layer, address in zip(stack.layers, addresses, strict=True):
                images.append(_layer(layer, address, mpp=mpp, nodata=nodata))
            return StackedPyramid(stack, images)
        except BaseException:
            for image in images:
                image.close()
            raise


def _layer(layer: Layer, address: Address, *, mpp: float | None, nodata: float | None) -> Pyramid:
    """Open a file of a stack, by its signed address; errors and the image have the other one."""
    try:
        with opening(address):
            image = open_pyramid(address.now, mpp=mpp, nodata=layer.nodata if nodata is None else nodata)
    except HiresattnError as error:
        if address.hidden(str(error)) == str(error):
            raise
        raise type(error)(address.hidden(str(error))) from None
    return image.named(address.name)


@contextmanager
def _own_errors(name: str) -> Iterator[None]:
    """Whatever a library raises while a file is opened is an ``OpenError`` that names the file."""
    try:
        yield
    except HiresattnError:
        raise
    except MemoryError as error:
        raise OpenError(f"{name}: out of memory while its header was read; close other programs") from error
    except Exception as error:
        raise OpenError(
            f"{name}: it can't be opened ({type(error).__name__}: {reason(error)}); check the address or export the "
            "file again"
        ) from error


_Readers = list[Callable[[], Any]]


def _remote_readers(name: str) -> _Readers:
    path = name.split("?", maxsplit=1)[0].rstrip("/")
    if path.endswith(".zarr") and not name.startswith("/vsi"):
        return [_zarr]
    return [_rasterio]


def _local_readers(name: str) -> _Readers:
    """The readers that may open a local file, likeliest first."""
    path = Path(name)
    try:
        there, folder = path.exists(), path.is_dir()
        if there and not (folder or path.is_file()):
            raise OpenError(f"{name}: a pipe or a device; give a regular file, or a Zarr directory")  # noqa: TRY301 - passed on
        stores = [file for file in ZARR_FILES if folder and (path / file).exists()]
        head = _first_bytes(path) if there and not folder else b""
    except OpenError:
        raise
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise NotFoundError(f"{name}: no file has a name as long as that; check the path") from error
        raise OpenError(f"{name}: it can't be read ({error.strerror}); check its permissions") from error
    if not there:
        scheme = _SCHEME.match(name)
        if scheme:
            raise OpenError(
                f"{name}: no reader takes addresses of {scheme[0]}; possible are {', '.join(REMOTE[:-1])} and "
                "GDAL's own /vsi paths; copy the file to one of those, or here"
            )
        parent = Path(name).parent
        if parent.exists():
            slashes = (
                " (here folders are parted by /, and it has \\)" if "\\" in name and os.sep == "/" else ""
            )
            raise NotFoundError(f"{name}: there is no such file; check the path{slashes}")
        root = next(folder for folder in (parent, *parent.parents) if folder.parent.exists())
        raise NotFoundError(
            f"{name}: there is no such file, and no folder {root}; check the path, or what should be mounted there"
        )
    if folder:
        if not stores:
            raise OpenError(
                f"{name}: a directory without Zarr metadata ({', '.join(ZARR_FILES)}); give an image file, "
                "the OME-Zarr directory itself, or one file of a DICOM series"
            )
        return [_zarr]
    if not head:
        raise OpenError(f"{name}: an empty file; copy it again")
    return [_rasterio] if head.startswith(_ARRAYS) else _file_readers(name, head)


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(16)


def _vendor(name: str, head: bytes) -> str | None:
    """The format that OpenSlide takes a file for; None = for none."""
    if head.startswith(_NO_SLIDES):
        return None
    from openslide import OpenSlide

    found: str | None = OpenSlide.detect_format(name)
    return found


def _file_readers(name: str, head: bytes) -> _Readers:
    if head.startswith(b"PK\x03\x04") and _zipped_zarr(name):
        raise OpenError(f"{name}: a zipped Zarr store; unpack it, and give the directory")
    from hiresattn.pyramid.formats.sidecars import has_sidecar
    from hiresattn.pyramid.storage.jp2header import check_jp2
    from hiresattn.pyramid.storage.tiffheader import check_tiff

    vendor = _vendor(name, head)
    if vendor not in (None, "generic-tiff", "aperio"):
        return [_openslide]
    ifds = check_tiff(name)  # a damaged file is refused here, whatever a library would make of it
    if ifds is None:
        readers: _Readers = [_rasterio, _image]
        if head.startswith(_PLAIN):
            return readers[::-1]
        return readers[:1] if check_jp2(name) else readers
    main = max(ifds, key=lambda ifd: ifd.width * ifd.height)
    beside = vendor != "aperio" and not ifds[0].ome and has_sidecar(name)
    if beside or any(ifd.georeferenced or ifd.mask for ifd in ifds) or ifds[0].compression == _OLD_JPEG:
        _check_order(name, ifds[0], main)
        return [_rasterio]
    # OpenSlide takes other TIFF files too, and returns 16 bits as 8, one band as three, a stack as its first.
    fits = vendor == "aperio" or (ifds[0].bits, ifds[0].samples, ifds[0].ome) == (8, 3, False)
    fits = fits and _same_levels(ifds, aperio=vendor == "aperio")
    slide: _Readers = [_openslide] if vendor and fits else []
    pages = sum((ifd.width, ifd.height) == (main.width, main.height) for ifd in ifds)
    # GDAL would take the first page of a stack, or a label that comes first.
    if slide or main.tiled or ifds[0].ome or pages > 1 or main is not ifds[0]:
        return [*slide, _tiff]
    return [_rasterio]


def _zipped_zarr(name: str) -> bool:
    try:
        with zipfile.ZipFile(name) as archive:
            return any(member.rpartition("/")[2] in ZARR_FILES for member in archive.namelist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False


def _check_order(name: str, first: "Ifd", main: "Ifd") -> None:
    """Refuse a file whose levels come smallest first, of which GDAL would show the first."""
    from hiresattn.pyramid.storage.directories import same_aspect

    if first.width < main.width and same_aspect(first.width, first.height, main.width, main.height):
        raise OpenError(
            f"{name}: its first image has {first.width} x {first.height} px, and a later one {main.width} x "
            f"{main.height}; write it again with the finest level first"
        )


def _same_levels(ifds: "list[Ifd]", *, aperio: bool) -> bool:
    """Whether OpenSlide takes the same directories of a TIFF file for levels as it should, and as they are stored.

    It takes every tiled one of Aperio's, elsewhere those marked as reduced, whatever they show; and turns tiles, one
    by one, where the orientation isn't 1.
    """
    from hiresattn.pyramid.storage.directories import level_directories

    levels = level_directories(ifds)
    if any(ifd.orientation > 1 for ifd in levels):
        return False
    linked = [ifd for ifd in ifds if not ifd.child]
    taken = [ifd for nth, ifd in enumerate(linked) if ifd.tiled and (aperio or not nth or ifd.reduced)]
    stack = sum((ifd.width, ifd.height) == (levels[0].width, levels[0].height) for ifd in ifds) > 1
    if stack:  # which OpenSlide refuses of Aperio's only
        return aperio
    return not levels[0].tiled or [id(ifd) for ifd in taken] == [id(ifd) for ifd in levels]


def _openslide() -> Any:
    from hiresattn.pyramid.formats.openslide import OpenSlidePyramid

    return OpenSlidePyramid


def _tiff() -> Any:
    from hiresattn.pyramid.formats.tiff import TiffPyramid

    return TiffPyramid


def _rasterio() -> Any:
    from hiresattn.pyramid.formats.geotiff import RasterioPyramid

    return RasterioPyramid


def _zarr() -> Any:
    from hiresattn.pyramid.formats.omezarr import ZarrPyramid

    return ZarrPyramid


def _image() -> Any:
    from hiresattn.pyramid.formats.image import ImagePyramid

    return ImagePyramid
