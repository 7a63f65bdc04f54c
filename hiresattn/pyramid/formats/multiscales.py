"""What the metadata of OME-Zarr, of its versions and layouts, state of an image; and those of a plain Zarr array."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from hiresattn.errors import OpenError
from hiresattn.geometry import level_downsamples
from hiresattn.pyramid.mpp import choose_mpp, micrometres

#: A scale that differs from the ratio of shapes by more than this, beyond rounding, is an error.
_SLACK = 0.01

#: More bands than this in a plain array without names is rows taken for bands.
_FEW = 16

#: Versions of OME-Zarr that are read, and those whose axes are always the same.
_VERSIONS = re.compile(r"0\.[1-5]\b")
_OLD = re.compile(r"0\.[12]\b")
_OLD_AXES = ["t", "c", "z", "y", "x"]


@dataclass(frozen=True)
class Multiscale:
    """One image in a Zarr store."""

    node: Any
    """The group or array that holds it."""
    arrays: list[Any]
    """Its levels, finest first."""
    axes: list[str]
    """Names of the arrays' axes."""
    scales: list[list[float]] | None = None
    """Per level and axis; None = not known."""
    units: tuple[str | None, ...] = (None,) * 5
    """Per axis."""
    names: tuple[str, ...] | None = None
    """Names of the channels."""


def described(node: Any, source: str) -> Multiscale:
    """The image in a group or array.

    Args:
        node: The opened Zarr group or array.
        source: Its path, for messages.

    Raises:
        OpenError: If it holds none, several, or one that isn't flat; or of a version that isn't known.
    """
    if hasattr(node, "shape"):
        return Multiscale(node, [node], _plain_axes(node, source))
    ome = _ome(node)
    if not ome.get("multiscales"):
        node = _only_series(node, ome, source)
        ome = _ome(node)
    try:
        image = ome["multiscales"][0]
        version = _version(ome, image, source)
        arrays = [node[dataset["path"]] for dataset in image["datasets"]]
        listed = image["axes"] if "axes" in image or not _old(version, arrays) else _OLD_AXES
        named = [axis if isinstance(axis, dict) else {"name": axis} for axis in listed]
        axes = [str(axis["name"]).lower() for axis in named]
        whole = _factors(image, len(axes)) or [1.0] * len(axes)
        found = [_factors(dataset, len(axes)) for dataset in image["datasets"]]
        scales = [[a * b for a, b in zip(scale, whole, strict=True)] for scale in found if scale is not None]
    except OpenError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise OpenError(
            f"{source}: its multiscales metadata are damaged ({error!r}); write the store again"
        ) from error
    if (
        not arrays
        or {"y", "x"} - set(axes)
        or any(getattr(array, "ndim", None) != len(axes) for array in arrays)
    ):
        raise OpenError(f"{source}: axes {axes} don't describe its arrays; an image has y, x and perhaps c")
    for array in arrays:
        _check_flat(array, axes, source)
    return Multiscale(
        node,
        arrays,
        axes,
        scales if len(scales) == len(arrays) else None,
        tuple(axis.get("unit") for axis in named),
        _names(ome),
    )


def _ome(node: Any) -> dict[str, Any]:
    """A group's attributes of OME-Zarr: at its top, or, from version 0.5 on, in ``ome``."""
    attributes = dict(node.attrs)
    ome = attributes.get("ome", attributes)
    return ome if isinstance(ome, dict) else {}


def _version(ome: dict[str, Any], image: dict[str, Any], source: str) -> str:
    """The version of OME-Zarr; "" where none is given."""
    version = str(ome.get("version") or image.get("version") or "")
    if version and not _VERSIONS.match(version):
        raise OpenError(
            f"{source}: OME-Zarr {version[:20]}; possible are 0.1 to 0.5; write it in one of those"
        )
    return version


def _old(version: str, arrays: list[Any]) -> bool:
    """Whether the axes of a store that names none are known."""
    return (not version or bool(_OLD.match(version))) and all(
        array.ndim == len(_OLD_AXES) for array in arrays
    )


def _names(ome: dict[str, Any]) -> tuple[str, ...] | None:
    """Labels of the channels."""
    try:
        labels = tuple(str(channel.get("label") or "") for channel in ome["omero"]["channels"])
    except (AttributeError, KeyError, TypeError):
        return None
    return labels if any(labels) else None


def _only_series(node: Any, ome: dict[str, Any], source: str) -> Any:
    """The only image in a group of Bio-Formats' layout; else an error that says what the group is."""
    inside = sorted(node.keys())
    if "plate" in ome or "well" in ome:
        what = "a plate of a high-content screen" if "plate" in ome else "a well of a plate"
        raise OpenError(
            f"{source}: {what}, many images; give the path of one, such as {_field(node, ome, source)}"
        )
    if "bioformats2raw.layout" in ome or "OME" in inside:
        listed = _ome(node["OME"]).get("series") if "OME" in inside else None
        series = [str(name) for name in listed] if isinstance(listed, list) else []
        series = [name for name in series or inside if name in inside and name != "OME"]
        if len(series) == 1 and _ome(node[series[0]]).get("multiscales"):
            return node[series[0]]
        if len(series) > 1:
            paths = ", ".join(f"{source.rstrip('/')}/{name}" for name in series[:5])
            raise OpenError(f"{source}: {len(series)} images; give the path of one of them: {paths}")
    raise OpenError(
        f"{source}: a Zarr group without multiscales; it holds {', '.join(inside[:5]) or 'nothing'}; give the path of "
        "the image inside it"
    )


def _field(node: Any, ome: dict[str, Any], source: str) -> str:
    """The path of an image of a plate or well."""
    path = source.rstrip("/")
    try:
        if "plate" in ome:
            well = ome["plate"]["wells"][0]["path"]
            node, path = node[well], f"{path}/{well}"
            ome = _ome(node)
        return f"{path}/{ome['well']['images'][0]['path']}"
    except (KeyError, TypeError, IndexError, AttributeError):
        return f"{source.rstrip('/')}/A/1/0"


def _factors(holder: dict[str, Any], count: int) -> list[float] | None:
    for transformation in holder.get("coordinateTransformations") or ():
        if transformation.get("type") == "scale":
            scale = [float(value) for value in transformation["scale"]]
            if len(scale) != count or not all(np.isfinite(part) and part > 0 for part in scale):
                raise ValueError(f"scale {scale} for {count} axes")
            return scale
    return None


def _plain_axes(array: Any, source: str) -> list[str]:
    """Axis names of an array that stands alone."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if names and None not in names:
        axes = [
            "c" if str(name).lower() in ("band", "channel", "bands", "s") else str(name).lower()
            for name in names
        ]
    else:
        axes = list("yxc"[: array.ndim])
        if array.ndim == 3 and array.shape[2] > _FEW > array.shape[0]:
            raise OpenError(
                f"{source}: shape {array.shape} looks like [c h w]; store it as [h w c], or name its axes"
            )
    if len(axes) != array.ndim or {"y", "x"} - set(axes):
        raise OpenError(f"{source}: an array of shape {array.shape}; possible are [h w c] and [h w]")
    _check_flat(array, axes, source)
    return axes


def _check_flat(array: Any, axes: list[str], source: str) -> None:
    deep = {
        axis: side for axis, side in zip(axes, array.shape, strict=True) if axis not in "yxc" and side != 1
    }
    if deep:
        raise OpenError(
            f"{source}: axes {axes} of shape {array.shape}; one flat image is needed, so pick one position "
            f"of {', '.join(deep)} and store it on its own"
        )


def channels_of(array: Any, axes: list[str]) -> int:
    """How many bands an array has."""
    return int(array.shape[axes.index("c")]) if "c" in axes else 1


def downsamples(
    arrays: list[Any], scales: list[list[float]] | None, plane: tuple[int, int], source: str
) -> list[float]:
    """The downsamples that the scales announce, checked against the shapes."""
    sizes = [(int(array.shape[plane[0]]), int(array.shape[plane[1]])) for array in arrays]
    if scales is None:
        return level_downsamples(sizes)
    found = []
    for level, scale in enumerate(scales):
        factors = [scale[axis] / scales[0][axis] for axis in plane]
        for factor, big, small in zip(factors, sizes[0], sizes[level], strict=True):
            if abs(factor * small / big - 1) > _SLACK + factor / big:  # a side may be rounded up or down
                raise OpenError(
                    f"{source}: level {level} announces a downsample of {factor:g}, but {big} px became {small}; "
                    "its metadata are wrong, write the store again"
                )
        found.append(max((factors[0] + factors[1]) / 2, 1.0))
    return found


def scale(
    given: float | None,
    scales: list[list[float]] | None,
    units: tuple[str | None, ...],
    plane: tuple[int, int],
) -> tuple[float | None, str | None]:
    """Micrometres per level-0 px, and where they are from; what is given wins."""
    if given is not None or scales is None:
        return choose_mpp(given, None, None, "OME-Zarr scale")
    if any(units[axis] is None for axis in plane):
        return None, "not taken: the OME-Zarr scale has no unit; give mpp"
    y, x = (micrometres(scales[0][axis], units[axis]) for axis in plane)
    return choose_mpp(None, y, x, "OME-Zarr scale")
