"""Feature vectors of images, on disk: one file per image, Zarr or HDF5 in the layout of CLAM and TRIDENT."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hiresattn.errors import BackendMissingError, NotFoundError, ReadError, WriteError
from hiresattn.files import atomic_write
from hiresattn.shapes import Float16, Int64

#: Formats, by what their files end in.
FORMATS = {"zarr": ".zarr", "h5": ".h5"}
#: Attributes of TRIDENT's ``coords`` that have the side of a patch, level-0 px, best first.
_SIDES = ("patch_size_level0", "patch_size_lv0")


@dataclass(frozen=True, eq=False)
class Features:
    """The features of one image."""

    vectors: Float16[np.ndarray, "n d"]
    """One per region."""
    regions: Int64[np.ndarray, "n 4"]
    """``(y, x, height, width)``, level-0 px."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What they are of and how they were computed, JSON types: ``source``, ``encoder``, ``encoder_sha256``, ``side``
    (of a region, level-0 px), ``size`` (of a crop, px), ``mpp``."""


def write_features(path: str | Path, features: Features) -> None:
    """Write the features of an image, whole or not at all; the suffix says the format.

    HDF5 has ``features`` ``[n d]`` and ``coords`` ``[n 2]`` with x before y, as CLAM and TRIDENT have them; Zarr has
    ``features`` and ``regions`` ``[n 4]`` (y, x, height, width). Both are level-0 px.

    Raises:
        BackendMissingError: If HDF5 is asked for and h5py isn't installed.
        WriteError: If it can't be written.
    """
    path = Path(path)
    vectors = np.ascontiguousarray(features.vectors, np.float16)
    facts = {name: value for name, value in features.facts.items() if value is not None}
    try:
        if path.suffix == FORMATS["h5"]:
            h5py = _h5py(path)
            with atomic_write(path) as part, h5py.File(part, "w") as file:
                file["features"] = vectors
                file["coords"] = features.regions[:, 1::-1]
                file["coords"].attrs.update(_clam_attributes(features))
                file.attrs.update(facts)
            return
        import zarr

        with atomic_write(path, over_directory=True) as part:
            group = zarr.open_group(part, mode="w", attributes=facts)
            for name, values in (("features", vectors), ("regions", features.regions)):
                group.create_array(
                    name, data=values, chunks=(max(min(len(values), 4096), 1), values.shape[1])
                )
    except OSError as error:
        raise WriteError(
            f"{path}: the features can't be written ({error.strerror or error}); make room"
        ) from error


def read_facts(path: str | Path) -> dict[str, Any]:
    """What is known of the features of an image, as ``Features.facts``; no vector is read.

    Of files that other tools wrote, the attributes of their coordinates, and ``side`` where these say it.

    Raises:
        BackendMissingError: If it is HDF5 and h5py isn't installed.
        NotFoundError: If there is no such file.
        ReadError: If it is damaged.
    """
    path = _there(path)
    with _own_errors(path):
        if path.suffix == FORMATS["h5"]:
            with _h5py(path).File(path, "r") as file:
                return _hdf5_facts(file)[0]
        import zarr

        return dict(zarr.open_group(path, mode="r").attrs)


def read_features(path: str | Path, side: int | None = None) -> Features:
    """Read the features of an image, of ``write_features`` or by CLAM or TRIDENT.

    Args:
        path: The file.
        side: Side of a region, level-0 px, where the file doesn't say it.

    Raises:
        BackendMissingError: If it is HDF5 and h5py isn't installed.
        NotFoundError: If there is no such file.
        ReadError: If it is damaged, has no features and coordinates, or nothing says the side of a region.
    """
    path = _there(path)
    with _own_errors(path):
        if path.suffix == FORMATS["h5"]:
            return _read_hdf5(path, side)
        import zarr

        group = zarr.open_group(path, mode="r")
        vectors, regions = (np.asarray(group[name][:]) for name in ("features", "regions"))  # type: ignore[index]
        return _checked(Features(vectors, regions.astype(np.int64), dict(group.attrs)), path)


def remove_features(path: str | Path) -> None:
    """Remove the features of an image, if they are there.

    Raises:
        WriteError: If they can't be removed.
    """
    path = Path(path)
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(
            f"{path}: can't be removed ({error.strerror or error}); remove it by hand"
        ) from error


def _read_hdf5(path: Path, given: int | None) -> Features:
    with _h5py(path).File(path, "r") as file:
        stored = file["features"]
        vectors = np.asarray(stored[0] if stored.ndim == 3 else stored[:])
        facts, side = _hdf5_facts(file)
        corners = np.asarray(file["coords"][:]).reshape(-1, 2)
    side = side or given
    if side is None or side < 1:
        raise ReadError(
            f"{path}: its coords don't say the side of a patch: they have neither patch_size_level0 nor patch_size and "
            "the downsample of its level, as files in CLAM's h5_files; give the side, level-0 px, such as finest=256"
        )
    sides = np.full_like(corners, side)
    regions = np.concatenate([corners[:, ::-1], sides], axis=1).astype(np.int64)
    return _checked(Features(vectors.astype(np.float16), regions, {"side": side, **facts}), path)


def _hdf5_facts(file: Any) -> tuple[dict[str, Any], int | None]:
    """What a file says, as JSON types, and the side of its regions, level-0 px; None = it doesn't say it."""
    attributes = {name: _json(value) for name, value in file["coords"].attrs.items()}
    side = _side(attributes)
    facts = attributes | {name: _json(value) for name, value in file.attrs.items()}
    return ({} if side is None else {"side": side}) | facts, side


def _side(attributes: Mapping[str, Any]) -> int | None:
    """Side of a patch, level-0 px: TRIDENT says it, and CLAM in px of a level; None = it can't be told."""
    for name in _SIDES:
        if attributes.get(name):
            return round(_number(attributes[name]))
    if not attributes.get("patch_size"):
        return None
    downsample = attributes.get("downsample")
    if downsample is None:
        stored, target = (attributes.get(f"{name}_magnification") for name in ("level0", "target"))
        downsample = _number(stored) / _number(target) if stored and target else 1
        if downsample == 1 and attributes.get("patch_level"):
            return None
    return round(_number(attributes["patch_size"]) * _number(downsample))


def _number(value: Any) -> float:
    """A number, or the mean of those along x and y."""
    return float(np.mean(value))


def _there(path: str | Path) -> Path:
    if not Path(path).exists():
        raise NotFoundError(f"{path}: no such file of features")
    return Path(path)


def _checked(features: Features, path: Path) -> Features:
    vectors, regions = features.vectors, features.regions
    if vectors.ndim != 2 or regions.shape != (len(vectors), 4):
        raise ReadError(
            f"{path}: features {list(vectors.shape)} and coordinates {list(regions.shape)} don't belong together; "
            "extract them anew"
        )
    if not np.isfinite(vectors).all():
        raise ReadError(f"{path}: some features are not finite numbers; extract them anew")
    return features


def _clam_attributes(features: Features) -> dict[str, Any]:
    facts = features.facts
    side = int(features.regions[0, 2]) if len(features.regions) else int(facts.get("side", 0))
    names = {
        "patch_size": facts.get("size"),
        "level0_width": facts.get("width"),
        "level0_height": facts.get("height"),
    }
    known = {name: value for name, value in names.items() if value is not None}
    return {"patch_size_level0": side, "overlap": 0, "name": stem_of(str(facts.get("source", ""))), **known}


def _json(value: Any) -> Any:
    """The JSON type that an attribute of HDF5 was written from: lists come back as arrays, numbers as NumPy's."""
    plain = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    return plain.decode() if isinstance(plain, bytes) else plain


def stem_of(source: str) -> str:
    """The name of an image without folder and suffix."""
    name = source.rstrip("/").rsplit("/", 1)[-1]
    for suffix in (".ome.zarr", ".ome.tiff", ".ome.tif"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name.rsplit(".", 1)[0] if "." in name[1:] else name


@contextmanager
def _own_errors(path: Path) -> Iterator[None]:
    """Whatever the readers raise as one error that names the file."""
    try:
        yield
    except (BackendMissingError, ReadError):
        raise
    except Exception as error:
        raise ReadError(
            f"{path}: not readable as features ({type(error).__name__}: {error}); extract them anew"
        ) from error


def _h5py(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise BackendMissingError(
            f"{path}: HDF5 needs h5py, which isn't installed; pip install 'hiresattn[hdf5]', or use Zarr"
        ) from error
    return h5py
