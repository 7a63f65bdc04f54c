"""What ``classify`` makes of records: their order, counts, messages."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from hiresattn.errors import HiresattnError
from hiresattn.report.units import human_share
from hiresattn_cli.output import one_line

if TYPE_CHECKING:
    from hiresattn.card import Card
    from hiresattn.datasets.sources import Unusable
    from hiresattn.inference.options import ClassifyOptions
    from hiresattn.inference.record import Record

ALL_FAILED, SOME_FAILED = 1, 3


class Counts:
    """Counts over the records of one run.

    Args:
        there: Records that the output held before.
    """

    def __init__(self, there: int = 0) -> None:
        self.there = there
        self.ok = self.failed = self.no_pixels = self.no_foreground = self.labelled = self.correct = (
            self.glimpses
        ) = self.to_review = 0
        self.fraction = 0.0

    @property
    def done(self) -> int:
        """Records so far, of this run."""
        return self.ok + self.failed + self.no_pixels + self.no_foreground

    @property
    def exit_status(self) -> int:
        """0, or what says that some or all sources failed."""
        return exit_status(self.failed, self.done + self.there)

    def add(self, record: "Record") -> None:
        """Count one record."""
        self.to_review += bool(record.needs_review) and record.status != "error"
        if record.status == "error":
            self.failed += 1
        elif record.status == "no_foreground":
            self.no_foreground += 1
        elif record.status != "ok":
            self.no_pixels += 1
        else:
            self.ok += 1
            self.glimpses += record.cost.glimpses
            self.fraction += record.cost.fraction_read
            self.labelled += record.label is not None
            self.correct += is_correct(record)

    def summary(self) -> str:
        """One line for people."""
        parts = [f"{self.ok} ok, {self.failed} failed"]
        if self.there:
            parts.append(f"{self.there} were there")
        if self.no_pixels:
            parts.append(f"{self.no_pixels} without valid pixels")
        if self.no_foreground:
            parts.append(f"{self.no_foreground} without foreground")
        if self.to_review:
            parts.append(f"{self.to_review} to review")
        if self.labelled:
            parts.append(f"accuracy {self.correct / self.labelled:.3f} on {self.labelled} with labels")
        if self.ok:
            parts.append(f"mean {self.glimpses / self.ok:.1f} glimpses")
            parts.append(f"{human_share(self.fraction / self.ok)} of the pixels read")
        return "; ".join(parts)


def exit_status(failed: int, count: int) -> int:
    """Exit status of a run over ``count`` sources."""
    if not failed:
        return 0
    return ALL_FAILED if failed == count else SOME_FAILED


def error_record(source: "Unusable", model: "Card") -> "Record":
    """The record of a source that can't be used."""
    from hiresattn.datasets.example import Example
    from hiresattn.inference import to_record

    example = Example(source.source, source.label, region=source.region, case=source.case)
    return to_record.error_record(example, model, HiresattnError(source.error))


def report(record: "Record", verbosity: int) -> None:
    """Write the error or the warnings of one record to stderr, a line each."""
    messages = []
    if record.status == "error":
        messages.append(("Error", one_line(record.error)))
    if verbosity >= 0 and record.warnings:
        messages.append(("Warning", "; ".join(one_line(warning) for warning in record.warnings)))
    for level, message in messages:
        named = message if record.source in message else f"{record.source}: {message}"
        click.echo(f"{level}: {named}", err=True)


def is_correct(record: "Record") -> bool:
    """Whether the predicted class is the label; of several labels, all of them and no other."""
    if record.label is None or record.labels is None:
        return record.label is not None and record.label == record.class_name
    return set(record.label) == set(record.labels)


def _usable(sources: "list[Any]", model: "Card", options: "ClassifyOptions") -> "list[Any]":
    """The sources that can be looked at, with their scales."""
    from hiresattn.datasets.scales import with_scales
    from hiresattn.datasets.sources import Unusable

    usable = [source for source in sources if not isinstance(source, Unusable)]
    return with_scales(usable, model.config.input.mpp, options.mpp, options.assume_mpp)


def in_order(
    sources: "list[Any]",
    work: "Callable[[list[Any]], Iterator[Record]]",
    model: "Card",
    options: "ClassifyOptions",
) -> "Iterator[tuple[Any, Record]]":
    """The sources with their records, those that can't be used with an error, in order."""
    from hiresattn.datasets.sources import Unusable

    records = work(_usable(sources, model, options))
    for source in sources:
        yield source, error_record(source, model) if isinstance(source, Unusable) else next(records)


def as_done(
    sources: "list[Any]",
    work: "Callable[[list[Any]], Iterator[tuple[int, Record]]]",
    model: "Card",
    options: "ClassifyOptions",
) -> "Iterator[tuple[Any, Record]]":
    """The same in the order in which records come; each comes with its position among those that can be used."""
    from hiresattn.datasets.sources import Unusable

    places = []
    for source in sources:
        if isinstance(source, Unusable):
            yield source, error_record(source, model)
        else:
            places.append(source)
    for number, record in work(_usable(sources, model, options)):
        yield places[number], record
