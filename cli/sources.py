"""The sources that the arguments of a command name; ``-`` stands for paths on stdin."""

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from hiresattn.errors import HiresattnError

if TYPE_CHECKING:
    from hiresattn.datasets.cases import Case
    from hiresattn.datasets.example import Example
    from hiresattn.datasets.sources import Unusable
    from hiresattn.pyramid.stack import Stack

    Source = str | Example | Unusable | Case


def expand_sources(
    names: Iterable[str],
    split: str | None = None,
    *,
    root: str | None = None,
    label_column: str | None = None,
) -> "list[str | Example | Unusable]":
    """All sources, in order.

    Args:
        names: As ``datasets.sources.sources_of`` takes one; ``-`` = paths on stdin, one per line.
        split: Keep only these rows of manifests.
        root: Folder that paths in manifests are relative to; None = the manifest's.
        label_column: Column of manifests that holds the label; None = ``label``.

    Raises:
        click.UsageError: If there are no sources at all, or what is for manifests is asked and there is none.
    """
    from hiresattn.datasets.sources import images_of, is_manifest, sources_of

    names = tuple(names)
    if not names:
        raise click.UsageError("Missing argument 'SRC...'.")
    found: list[str | Example | Unusable] = []
    manifests = False
    for name in names:
        if name == "-":
            for path in _listed():
                found.extend(map(as_example, images_of(path)))
        else:
            manifests = manifests or is_manifest(name)
            found.extend(map(as_example, sources_of(name, split, root=root, label_column=label_column)))
    asked = {"--split": split, "--root": root, "--label-column": label_column}
    if not manifests and any(asked.values()):
        option = next(name for name, value in asked.items() if value)
        raise click.UsageError(f"{option} is for a manifest; name a .csv or .parquet file among the sources")
    if not found:
        raise click.UsageError("no sources: stdin held no paths; give one path per line")
    return found


def as_example(source: "str | Stack | Example | Unusable") -> "str | Example | Unusable":
    """A source; a stack as an example, which commands know how to take."""
    from hiresattn.datasets.example import Example
    from hiresattn.pyramid.stack import Stack

    return Example(source) if isinstance(source, Stack) else source


@dataclass(frozen=True)
class Places:
    """Parts of scenes that are asked for; at most one of them."""

    bbox: tuple[float, float, float, float] | None = None
    bounds: tuple[float, float, float, float] | None = None
    aoi: str | None = None
    clip: bool = False


def windows(
    sources: "list[Source]", regions: tuple[tuple[int, int, int, int], ...], places: Places
) -> "list[Source]":
    """The windows asked for of the sources; all of them where none are."""
    asked = {"--region": regions, "--bbox": places.bbox, "--bounds": places.bounds, "--aoi": places.aoi}
    named = [name for name, value in asked.items() if value]
    if places.clip and not places.aoi:
        raise click.UsageError("--clip is for --aoi: name a file of areas")
    if len(named) > 1:
        raise click.UsageError(f"give one of {', '.join(asked)}; these are {' and '.join(named)}")
    if not named or regions:
        return _px_windows(sources, regions) if regions else sources
    from hiresattn.geo.areas import Bounds, box_area, read_areas, windows_of

    if places.aoi:
        return windows_of(sources, read_areas(places.aoi), clip=places.clip)
    return windows_of(sources, [box_area(*places.bbox)] if places.bbox else [Bounds(*(places.bounds or ()))])


def stacked(texts: Iterable[str]) -> "list[Example]":
    """Stacks as ``--stack`` writes them, such as ``B04=red.tif,B03=green.tif``."""
    from hiresattn.datasets.example import Example
    from hiresattn.pyramid.stack import parse_stack

    return [Example(parse_stack(text)) for text in texts]


def with_assets(
    sources: "list[Source]", assets: str | None, bands: tuple[int | str, ...] | None
) -> "list[Source]":
    """The sources, of STAC items and folders of scenes only some files: those named as assets, or as bands."""
    if assets is None and not (bands and all(isinstance(band, str) for band in bands)):
        return sources
    from hiresattn.datasets.example import Example
    from hiresattn.datasets.sources import Unusable
    from hiresattn.pyramid.stack import Stack

    words = map(str, bands or ()) if assets is None else map(str.strip, assets.split(","))
    names = [word for word in words if word]
    stacks = [
        source for source in sources if isinstance(source, Example) and isinstance(source.source, Stack)
    ]
    if assets is not None and not (
        names and (stacks or any(isinstance(source, Unusable) for source in sources))
    ):
        raise click.UsageError(
            "--assets is for STAC items: a .json file or the address of items; name its assets"
        )
    found: list[Source] = []
    for source in sources:
        try:
            if isinstance(source, Example) and isinstance(source.source, Stack):
                stack = source.source
                named = assets is not None or stack.choose or all(map(stack.knows, names))
                found.append(replace(source, source=stack.chosen(names)) if named else source)
            else:
                found.append(source)
        except HiresattnError as error:
            found.append(Unusable(str(getattr(source, "source", source)), str(error)))
    return found


def _px_windows(sources: "list[Source]", regions: tuple[tuple[int, int, int, int], ...]) -> "list[Source]":
    """The windows of the only source."""
    from hiresattn.datasets.example import Example
    from hiresattn.datasets.sources import Unusable
    from hiresattn.pyramid.stack import Stack

    if len(sources) == 1 and isinstance(sources[0], Example) and isinstance(sources[0].source, Stack):
        return [replace(sources[0], region=region) for region in regions]
    if len(sources) != 1 or isinstance(sources[0], Example):
        raise click.UsageError(f"--region needs a single image; these are {len(sources)} sources")
    source = sources[0]
    if isinstance(source, Unusable):
        return [replace(source, region=region) for region in regions]
    return [Example(source=source, region=region) for region in regions]


def _listed() -> Iterator[str]:
    """The paths on stdin, in the file system's encoding whatever stdin's is."""
    for line in sys.stdin.buffer:
        path = os.fsdecode(line).strip()
        if path:
            yield path
