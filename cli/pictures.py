"""What ``classify`` draws of records: overlays, and rasters of the attention."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hiresattn.errors import HiresattnError
from hiresattn.files import is_remote, make_folder
from hiresattn_cli.output import one_line

if TYPE_CHECKING:
    from hiresattn.cluster.shards import Shard
    from hiresattn.inference.record import Record

#: Most images of a run whose overlays are drawn without being asked for.
MOST_OVERLAYS = 50


class Overlays:
    """Draws overlays into a folder, each under a name of its own.

    Args:
        folder: The folder.
        images: The paths or addresses that there are overlays of.
        values: Pixel values to show as black and as white.
    """

    suffix = ".png"

    def __init__(self, folder: Path, images: Iterable[str], values: tuple[float, float] | None) -> None:
        from hiresattn.report.names import unique_names

        named = list(dict.fromkeys(images))
        self._names = dict(zip(named, unique_names(named), strict=True))
        self._folder, self._values = folder, values

    def complete(self, records: "Iterable[Record]") -> None:
        """Draw those of an earlier run's records that aren't there: it was ended before, or drew none."""
        for record in records:
            for own, path in self._paths(record):
                if not path.exists():
                    self._draw(own, path)

    def draw(self, record: "Record") -> None:
        """Draw the overlay of each image of a record; if one fails there is a warning, and the record stays."""
        for own, path in self._paths(record):
            self._draw(own, path)

    def _paths(self, record: "Record") -> "list[tuple[Record, Path]]":
        """The record image by image, each with its file; none of what has no answer or isn't to be drawn."""
        found = (
            []
            if record.status == "error"
            else [one for one in record.by_source() if one.source in self._names]
        )
        return [(own, self._folder / self._name(own.source, own.region)) for own in found]

    def _name(self, source: str, region: Sequence[int] | None) -> str:
        window = "".join(f"_{value}" for value in region or ())
        return f"{self._names[source]}{window}{self.suffix}"

    def _draw(self, own: "Record", path: Path) -> None:
        from hiresattn.pyramid import open_pyramid
        from hiresattn.report.overlay import draw_overlay

        try:
            with open_pyramid(own.source) as pyramid:
                draw_overlay(pyramid, own, path, values=self._values)
        except (HiresattnError, OSError) as error:
            click.echo(f"Warning: {path}: overlay not drawn: {one_line(error)}", err=True)


class AttentionRasters(Overlays):
    """Writes where the model looked into a folder, a GeoTIFF per image."""

    suffix = ".attention.tif"

    def _draw(self, own: "Record", path: Path) -> None:
        from hiresattn.geo.attention import write_attention

        try:
            write_attention(own, path)
        except (HiresattnError, OSError) as error:
            click.echo(f"Warning: attention not written: {one_line(error)}", err=True)


def pictures_of(
    sources: Iterable[Any],
    *,
    overlay: str | None,
    attention: str | None,
    values: tuple[float, float] | None,
    shard: "Shard | None",
) -> list[Overlays]:
    """What is drawn of each record, as asked for; of a shard in a folder of its own, for its names are its own."""
    images = _images(sources)
    asked = [(Overlays, overlay), (AttentionRasters, attention)]
    named = [(drawn, shard.folder(folder) if shard else folder) for drawn, folder in asked if folder]
    return [drawn(make_folder(folder), images, values) for drawn, folder in named]


def default_overlays(
    folder: str, sources: Iterable[Any], values: tuple[float, float] | None, verbosity: int
) -> list[Overlays]:
    """The overlays of a results folder, where there are few enough; images on servers aren't read again for them."""
    from hiresattn.report.results import OVERLAYS

    images = [image for image in _images(sources) if not is_remote(image)]
    if len(images) > MOST_OVERLAYS:
        if verbosity >= 0:
            asked = Path(folder) / OVERLAYS
            click.echo(
                f"No overlays of {len(images):,} images, which are more than {MOST_OVERLAYS}; --overlay {asked} draws "
                "them",
                err=True,
            )
        return []
    return [Overlays(make_folder(Path(folder) / OVERLAYS), images, values)] if images else []


def complete(pictures: Iterable[Overlays], records: Path) -> None:
    """Draw what an earlier run left out of the records in a file."""
    from hiresattn.inference.read_records import read_records

    for one in pictures:
        one.complete(read_records(records))


def _images(sources: Iterable[Any]) -> list[str]:
    """The names of the images, as records have them."""
    from hiresattn.datasets.cases import examples_of

    named = [getattr(example, "source", example) for source in sources for example in examples_of(source)]
    return [str(name) for name in named]
