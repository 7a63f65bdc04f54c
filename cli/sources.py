"""The sources that the arguments of a command name; ``-`` stands for paths on stdin."""

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from hiresattn.datasets.cases import Case
    from hiresattn.datasets.example import Example
    from hiresattn.datasets.sources import Unusable

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

    found: list[str | Example | Unusable] = []
    manifests = False
    for name in names:
        if name == "-":
            for path in _listed():
                found.extend(images_of(path))
        else:
            manifests = manifests or is_manifest(name)
            found.extend(sources_of(name, split, root=root, label_column=label_column))
    asked = {"--split": split, "--root": root, "--label-column": label_column}
    if not manifests and any(asked.values()):
        option = next(name for name, value in asked.items() if value)
        raise click.UsageError(f"{option} is for a manifest; name a .csv or .parquet file among the sources")
    if not found:
        raise click.UsageError("no sources: stdin held no paths; give one path per line")
    return found


def windows(
    sources: "list[Source]",
    regions: tuple[tuple[int, int, int, int], ...],
    bbox: tuple[float, float, float, float] | None,
    aoi: str | None,
) -> "list[Source]":
    """The windows asked for of the sources; all of them where none are."""
    if sum(map(bool, (regions, bbox, aoi))) > 1:
        raise click.UsageError("give one of --region, --bbox and --aoi")
    if bbox or aoi:
        from hiresattn.geo.areas import box_area, read_areas, windows_of

        return windows_of(sources, [box_area(*bbox)] if bbox else read_areas(str(aoi)))
    return _px_windows(sources, regions) if regions else sources


def _px_windows(sources: "list[Source]", regions: tuple[tuple[int, int, int, int], ...]) -> "list[Source]":
    """The windows of the only source."""
    from hiresattn.datasets.example import Example
    from hiresattn.datasets.sources import Unusable

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
