"""Feature vectors of images, on disk: one file per image, Zarr or HDF5 in the layout of CLAM and TRIDENT."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hiresattn.errors import BackendMissingError, NotFoundError, ReadError, WriteError
from hiresattn.files import atomic_write, is_remote
from hiresattn.shapes import Float16, Int64

#: Formats, by what their files end in.
FORMATS = {"zarr": ".zarr", "h5": ".h5"}
#: Attributes of CLAM's and TRIDENT's ``coords`` that may have the side of a patch, level-0 px, best first.
_SIDES = ("patch_size_level0", "patch_size_lv0", "patch_size")


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


def feature_file(folder: str | Path, source: str, form: str = "zarr") -> Path:
    """Where the features of an image are written: its stem, and a hash of its path, for others have the same stem."""
    name = source if is_remote(source) else os.path.abspath(source)  # noqa: PTH100 - links stay
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return Path(folder) / f"{_stem(source)}-{digest}{FORMATS[form]}"


def find_features(folder: str | Path, source: str) -> Path:
    """The file with the features of an image.

    Files that other tools wrote, ``STEM.h5``, are found; so are files of an image that was moved, by its stem, unless
    several have it.

    Raises:
        NotFoundError: If there is none, or which one it is can't be told.
    """
    own = [path for form in FORMATS if (path := feature_file(folder, source, form)).exists()]
    stem = _stem(source)
    same = own or [path for suffix in FORMATS.values() if (path := Path(folder) / f"{stem}{suffix}").exists()]
    if not same and Path(folder).is_dir():
        same = [
            p for p in sorted(Path(folder).iterdir()) if p.suffix in FORMATS.values() and p.stem[:-9] == stem
        ]
    if len(same) == 1 or (own and same):
        return same[0]
    if same:
        raise NotFoundError(
            f"{source}: {len(same)} files of features in {folder} have its name, such as {same[0].name} and "
            f"{same[1].name}, and none its path; extract them anew"
        )
    raise NotFoundError(f"{source}: no features of it in {folder}; hiresattn extract makes them")


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


def read_features(path: str | Path) -> Features:
    """Read the features of an image, of ``write_features`` or by CLAM or TRIDENT.

    Raises:
        BackendMissingError: If it is HDF5 and h5py isn't installed.
        NotFoundError: If there is no such file.
        ReadError: If it is damaged, or has no features and coordinates.
    """
    path = Path(path)
    if not path.exists():
        raise NotFoundError(f"{path}: no such file of features")
    with _own_errors(path):
        if path.suffix == FORMATS["h5"]:
            return _read_hdf5(path)
        import zarr

        group = zarr.open_group(path, mode="r")
        vectors, regions = (np.asarray(group[name][:]) for name in ("features", "regions"))  # type: ignore[index]
        return _checked(Features(vectors, regions.astype(np.int64), dict(group.attrs)), path)


def _read_hdf5(path: Path) -> Features:
    with _h5py(path).File(path, "r") as file:
        stored, coords = file["features"], file["coords"]
        vectors = np.asarray(stored[0] if stored.ndim == 3 else stored[:])
        attributes = {name: _json(value) for name, value in coords.attrs.items()}
        facts = attributes | {name: _json(value) for name, value in file.attrs.items()}
        corners = np.asarray(coords[:]).reshape(-1, 2)
    side = next((int(attributes[name]) for name in _SIDES if attributes.get(name)), 0)
    side = int(facts.get("side") or side)
    if side < 1:
        raise ReadError(
            f"{path}: coords have no attribute {' or '.join(_SIDES)}, so the side of a patch isn't known; add it"
        )
    sides = np.full_like(corners, side)
    regions = np.concatenate([corners[:, ::-1], sides], axis=1).astype(np.int64)
    return _checked(Features(vectors.astype(np.float16), regions, facts | {"side": side}), path)


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
    side = int(facts["side"]) if "side" in facts else int(features.regions[0, 2])
    names = {
        "patch_size": facts.get("size"),
        "level0_width": facts.get("width"),
        "level0_height": facts.get("height"),
    }
    known = {name: value for name, value in names.items() if value is not None}
    return {"patch_size_level0": side, "overlap": 0, "name": _stem(str(facts.get("source", ""))), **known}


def _json(value: Any) -> Any:
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value


def _stem(source: str) -> str:
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
