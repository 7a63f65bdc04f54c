"""STAC items as images: their assets as files of a stack."""

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from hiresattn.errors import ConfigError, HiresattnError, NotFoundError, OpenError, reason
from hiresattn.files import IMAGE_SUFFIXES, is_remote, read_bounded
from hiresattn.pyramid.stack import Layer, Stack
from hiresattn.pyramid.storage.ranges import MOST_SECONDS
from hiresattn.pyramid.storage.web import start_of

#: Bytes that a file of items may have.
_MOST_BYTES = 256 << 20
#: What names of files with an item a line end in.
_LINES = (".ndjson", ".geojsonl")
#: Media types of rasters.
_RASTERS = ("image/tiff", "image/vnd.stac.geotiff", "image/jp2", "image/vnd.cog", "image/png", "image/jpeg")
#: Roles of assets that aren't the image.
_BESIDE = frozenset(
    ("thumbnail", "overview", "metadata", "data-mask", "cloud", "cloud-shadow", "snow-ice", "water-mask")
)
#: Catalogues whose items say whether the offset of Sentinel-2's newer products was added to the stored values.
_CATALOGUES = ("earthsearch", "sentinel", "s2")


def stac_sources(
    items: Any, assets: Sequence[str] | None = None, patch_url: Callable[[str], str] | None = None
) -> list[Stack]:
    """STAC items as sources to classify: a scene each.

    CRS, transform and px are the files'. Nodata values, scales and offsets that the item states (``raster:bands`` or
    ``bands``) replace the files', and its names of bands and common names are what bands are called by. An offset
    counts as 0 where the item says that it was applied (``earthsearch:boa_offset_applied``).

    Args:
        items: A path or address of an item, an item collection or items line by line (``.ndjson``); an item
            (of pystac, or its JSON types); or several.
        assets: Names of the assets that are the image, in order; or of bands, or their common names (``red``). None =
            the only raster of the item; of several, those are taken that are named where it is used.
        patch_url: Called with each address when it is opened, to sign it, such as ``planetary_computer.sign``.

    Returns:
        A stack per item: what ``classify_all`` takes.

    Raises:
        ConfigError: If this is no item, or an item has no such asset.
        NotFoundError: If there is no such file.
        OpenError: If it can't be read.

    Examples:
        >>> scenes = hiresattn.geo.stac_sources("items.json", assets=["red", "green", "blue"])
        >>> hiresattn.geo.classify(scenes, "model")
    """
    try:
        return [_stack(item, name, assets, patch_url) for item, name in _items(items, "")]
    except HiresattnError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        name = os.fspath(items) if isinstance(items, str | os.PathLike) else f"a {type(items).__name__}"
        raise OpenError(f"{name}: a STAC item in it is damaged ({reason(error)}); write it anew") from error


def is_item(source: Any) -> bool:
    """Whether this is a STAC item or asset of pystac's, or an item as JSON types."""
    if isinstance(source, Mapping):
        return "stac_version" in source and "assets" in source
    return hasattr(source, "assets") and hasattr(source, "to_dict") and hasattr(source, "geometry")


def may_hold_items(name: str) -> bool:
    """Whether a name is that of a file of STAC items, or the address of an item as APIs have it."""
    if not is_remote(name):
        return name.lower().endswith((".json", *_LINES))
    path = name.partition("?")[0].partition("#")[0].lower()
    return path.endswith((".json", *_LINES)) or (
        "/items/" in path and Path(path).suffix not in IMAGE_SUFFIXES
    )


def _is_lines(name: str) -> bool:
    """Whether a file has an item a line, by its name."""
    return name.partition("?")[0].partition("#")[0].lower().endswith(_LINES)


def _items(source: Any, base: str) -> Iterable[tuple[dict[str, Any], str]]:
    """Items as JSON types, each with its path or address, which its own are relative to; empty = it has none."""
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        yield from _items(_read(name), name)
    elif isinstance(source, Mapping) or hasattr(source, "to_dict"):
        found = source if isinstance(source, Mapping) else source.to_dict(transform_hrefs=False)
        if found.get("type") == "FeatureCollection":
            for item in found.get("features", ()):
                yield from _items(item, f"{base}#{item.get('id')}" if base else "")
        elif is_item(found):
            own = next(
                (link.get("href") for link in found.get("links", ()) if link.get("rel") == "self"), None
            )
            yield dict(found), str(own) if own and (not base or "#" in base) else base
        else:
            kind = found.get("type", "no type")
            raise ConfigError(
                f"{base or 'the source'}: no STAC item or collection of items ({kind}); give one"
            )
    elif isinstance(source, Iterable) and not isinstance(source, bytes):
        for item in source:
            yield from _items(item, base)
    else:
        where = f"{base}: " if base else ""
        raise ConfigError(
            f"{where}what is of type {type(source).__name__} is no STAC item; give a path, an address, or items"
        )


def _read(name: str) -> Any:
    """The JSON of a file or address."""
    try:
        if name.startswith(("http://", "https://")):
            status, body = start_of(name, _MOST_BYTES, time.monotonic() + MOST_SECONDS.get())
            if status in (404, 410):
                raise NotFoundError(f"{name}: there is no such file; check the address")
            if status not in (200, 206):
                raise OpenError(
                    f"{name}: the server answered {status}; check the address and the credentials"
                )
        elif is_remote(name):
            raise OpenError(f"{name}: items are read from files and over http; copy it to one of those")
        else:
            body = read_bounded(name, _MOST_BYTES)
        if _is_lines(name):
            return [json.loads(line) for line in body.splitlines() if line.strip()]
        return json.loads(body)
    except FileNotFoundError as error:
        raise NotFoundError(f"{name}: there is no such file; check the path") from error
    except (OSError, ValueError) as error:
        raise OpenError(
            f"{name}: STAC items can't be read from it ({error}); check that it is JSON"
        ) from error


def _stack(
    item: dict[str, Any], name: str, assets: Sequence[str] | None, sign: Callable[[str], str] | None
) -> Stack:
    """An item's rasters, those that are asked for."""
    base, name = name, name or str(item.get("id"))
    properties = item.get("properties") or {}
    given = item.get("assets") or {}
    applied = any(properties.get(f"{catalogue}:boa_offset_applied") is True for catalogue in _CATALOGUES)
    layers = tuple(
        _layer(key, asset, base, applied=applied) for key, asset in given.items() if _is_image(asset)
    )
    taken = properties.get("datetime") or properties.get("start_datetime")
    stack = Stack(layers, name=name, acquired=taken, sign=sign, choose=len(layers) > 1)
    if not layers:
        has = ", ".join(given) or "none"
        raise ConfigError(f"{name}: none of its assets is a raster; it has {has}")
    return stack if assets is None else stack.chosen(tuple(assets))


def _is_image(asset: Mapping[str, Any]) -> bool:
    if _BESIDE & set(asset.get("roles") or ()):
        return False
    kind = str(asset.get("type", "")).lower()
    path = urlsplit(str(asset.get("href", ""))).path
    return kind.startswith(_RASTERS) or (not kind and Path(path).suffix.lower() in IMAGE_SUFFIXES)


def _layer(key: str, asset: Mapping[str, Any], base: str, *, applied: bool) -> Layer:
    """An asset as a file of a stack; what STAC 1.1 keeps in ``bands`` was in two lists before.

    ``applied``: whether offsets were already added to the stored values, whatever ``raster:bands`` says.
    """
    listed = [asset.get(name) or [] for name in ("bands", "eo:bands", "raster:bands")]
    count = max(map(len, listed))
    bands: list[dict[str, Any]] = [{} for _ in range(count)]
    for some in listed:
        for band, facts in zip(bands, some, strict=False):
            band.update(facts)
    names = tuple(str(band.get("name") or "") for band in bands)
    colors = tuple(
        str(band.get("eo:common_name") or band.get("common_name") or "undefined") for band in bands
    )
    values = {_number(band.get("nodata", asset.get("nodata"))) for band in bands} or {
        _number(asset.get("nodata"))
    }
    scaling = [_scaling({**asset, **band}, applied=applied) for band in bands or [{}]]
    known = None if None in scaling else [pair for pair in scaling if pair]
    return Layer(
        _absolute(str(asset.get("href")), base),
        key,
        names=names if any(names) else None,
        colors=colors if any(color != "undefined" for color in colors) else None,
        nodata=values.pop() if len(values) == 1 else None,
        scales=tuple(scale for scale, _ in known) if known else None,
        offsets=tuple(offset for _, offset in known) if known else None,
    )


def _scaling(band: Mapping[str, Any], *, applied: bool) -> tuple[float, float] | None:
    """Scale and offset of a band's values, as the raster extension has them before and since STAC 1.1."""
    scale, offset = (_number(band.get(f"raster:{name}", band.get(name))) for name in ("scale", "offset"))
    if scale is None and offset is None:
        return None
    return 1.0 if scale is None else scale, 0.0 if offset is None or applied else offset


def _number(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


def _absolute(href: str, base: str) -> str:
    """An address that may be relative to its item's."""
    href = href.removeprefix("file://")
    if "://" in href or is_remote(href) or Path(href).is_absolute() or not base:
        return href
    return urljoin(base, href) if "://" in base else os.path.normpath(Path(base).parent / href)
