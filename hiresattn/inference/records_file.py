"""Records of classified sources in a file: one JSON line each, kept whatever ends the run, and gone on with."""

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from hiresattn.card import Card, read_card
from hiresattn.datasets.cases import Case, cases_of
from hiresattn.datasets.example import Example
from hiresattn.errors import ConfigError
from hiresattn.files import file_states, is_remote
from hiresattn.inference.lines import LinesFile
from hiresattn.inference.options import ClassifyOptions
from hiresattn.inference.record import Record
from hiresattn.inference.superseded import SUBJECT, subjects_of
from hiresattn.option_types import changed
from hiresattn.pyramid.stack import Stack

_log = logging.getLogger(__name__)
Source = TypeVar("Source")

#: What the names of files of JSON lines end in.
SUFFIXES = (".jsonl", ".ndjson")
#: Options that change how fast a result comes, not which.
_PASSING = ("device", "threads", "batch_images", "on_error")


class RecordsFile:
    """A file of records, one JSON line per source.

    Every line has, besides the record, a ``key``: a hash of the source (its path, size and time of change, or its
    address), window, label, model and options. By it a later run knows what is there.

    Args:
        path: The file; its name ends in ``.jsonl`` or ``.ndjson``, or has no suffix.
        model: The model that classifies.
        options: How.
        resume: Keep the records that the file holds; ``missing`` then leaves out their sources, and takes out the
            records of errors, so that their sources are tried again.
        overwrite: Empty the file. Without either, a file that holds something is refused.

    Raises:
        ConfigError: If the suffix is another, the file holds something, or another process writes it.
        WriteError: If it can't be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        model: Card,
        options: ClassifyOptions,
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        check_suffix(path)
        self._run = [model.sha256, model.temperature, model.k, _plain(model.config), options_facts(options)]
        self._keys: dict[Any, str | None] = {}
        self._lines = LinesFile(path, resume=resume, overwrite=overwrite)

    def once(self, sources: Iterable[Source]) -> list[Source]:
        """The sources that are to have a record: in a file all of them, also those that are named twice."""
        return list(sources)

    def missing(self, sources: Iterable[Source]) -> list[Source]:
        """The sources that the file has no record of, in order; a source named twice has two records."""
        self.keep([line for line in self.held if line.get("status") != "error"])
        left, others = self.left(sources)
        if others:
            _log.warning(
                "%s: %d of its records are of other sources, of files that have changed, or of another model or "
                "other options; they stay in it",
                self._lines.path, others,
            )  # fmt: skip
        return left

    def keep(self, wanted: list[dict[str, Any]]) -> None:
        """Take the other records out, of those that the file held."""
        if len(wanted) < len(self.held):
            self._lines.keep(wanted)

    def select(self, starts: list[int]) -> None:
        """Take out all lines but those that begin there."""
        self._lines.select(starts)

    def others(self) -> dict[str, str]:
        """Names and paths of images of other runs whose pictures lie beside those of this one; of a file none do."""
        return {}

    def left(self, sources: Iterable[Source]) -> tuple[list[Source], int]:
        """The sources that the file has no record of, in order; and how many of its records are of none of them."""
        there = Counter(line.get("key") for line in self.held)
        left = []
        for source in sources:
            key = self.key(source)
            if key is not None and there[key]:
                there[key] -= 1
            else:
                left.append(source)
        return left, there.total()

    @property
    def held(self) -> list[dict[str, Any]]:
        """The records that the file held when it was opened, without those that are made anew."""
        return self._lines.held

    @property
    def path(self) -> Path:
        """The file of the lines."""
        return self._lines.path

    def shown(self, record: Record, source: Any) -> Record:  # noqa: ARG002 - for those that hide names
        """A source's record as it is written."""
        return record

    def names(self, source: Any) -> list[str] | None:  # noqa: ARG002
        """What records call the images of a source; None = by their paths and addresses."""
        return None

    def write(self, record: Record, source: Any) -> None:
        """Add the record of a source, which is on disk when this returns."""
        self._lines.write(self.shown(record, source).to_json() | self.marks(source))

    def marks(self, source: Any) -> dict[str, Any]:
        """What the line of a source has beside its record, as JSON types."""
        return {"key": self.key(source), SUBJECT: self.subjects(source)}

    def subjects(self, source: Any) -> list[str]:
        """What a record of a source is of, as hashes."""
        return [hash_of(one) for one in subjects_of(source)]

    def sort(self, sources: Iterable[Any]) -> None:
        """Put the records in the order of their sources, where they came as they were ready; others come last."""
        order: dict[Any, int] = {}
        for at, source in enumerate(sources):
            order.setdefault(self.key(source), at)
        self._lines.sort(lambda line: order.get(line.get("key"), len(order)))

    def close(self) -> None:
        """Close the file, and let others write it."""
        self._lines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def key(self, source: Any) -> str | None:
        """The key of a source or case, as it was when first asked for; None = an array, which has no name."""
        if isinstance(source, Case):
            own = [self.key(example) for example in source.examples]
            return None if None in own else hash_of([source.name, own])
        example = source if hasattr(source, "source") and hasattr(source, "region") else Example(source)
        name = example.source
        if not isinstance(name, str | Path | Stack):
            return None
        facts = (
            repr(name) if isinstance(name, Stack) else str(name),
            (example.region, example.outline) if getattr(example, "outline", None) else example.region,
            example.label,
            getattr(example, "mpp", None),
        )
        if facts not in self._keys:
            self._keys[facts] = source_key(*facts, self._run)
        return self._keys[facts]


def write_records(
    output: str | os.PathLike[str],
    sources: Iterable[Any] | str | Path,
    model: Card | str | Path,
    options: ClassifyOptions | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    **changes: Any,
) -> Iterator[Record]:
    """Classify images, and write each record to a file of JSON lines as soon as it is there.

    Args:
        output: The file, ``.jsonl``; see ``RecordsFile``.
        sources: As ``classify_all`` takes them.
        model: A model directory, a hub name (``hf:owner/name``) or a loaded model.
        options: How; None = the defaults.
        resume: Leave out the sources whose records the file holds.
        overwrite: Empty the file; without either, a file that holds something is refused.
        changes: Single options, in place of those of ``options``.

    Yields:
        The records, after they were written; with ``resume`` the new ones.

    Raises:
        ConfigError: If an option or the file can't be used.
        WriteError: If the file can't be written.
        HiresattnError: With ``on_error="raise"``, what is wrong with a source.

    Examples:
        >>> for record in hiresattn.write_records("out.jsonl", ["a.svs", "b.svs"], "model", resume=True):
        ...     print(record.source, record.class_name)
    """
    from hiresattn.inference.classify import classify_all
    from hiresattn.inference.sources import all_of

    chosen = changed(options, changes, ClassifyOptions)
    listed = all_of(sources)
    if isinstance(listed, Sequence) and not chosen.per_source:
        listed = cases_of(listed)
    loaded = model if isinstance(model, Card) else read_card(model)
    with RecordsFile(output, loaded, chosen, resume=resume, overwrite=overwrite) as file:
        left = file.missing(listed)
        for source, record in zip(left, classify_all(left, loaded, chosen), strict=True):
            file.write(record, source)
            yield record


def check_suffix(path: str | os.PathLike[str]) -> None:
    """Refuse a name that says that the file is none of JSON lines.

    Raises:
        ConfigError: If it does.
    """
    suffix = Path(path).suffix
    if suffix and suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"{os.fspath(path)}: records are written as JSON lines, not as {suffix}; give a name that ends in "
            f"{' or '.join(SUFFIXES)}, or in / for a folder of results; "
            f"`hiresattn export` makes GeoPackage, GeoParquet or GeoJSON of them"
        )


def source_key(name: str, region: Any, label: Any, mpp: float | None, run: Any) -> str:
    """A hash of a source as it is now, and of what is asked of it.

    Args:
        name: Path or address.
        region: Window, level-0 px; None = the whole image.
        label: Label or labels given with it.
        mpp: Scale given with it, µm per level-0 px.
        run: What is the same for all sources, as JSON types.
    """
    return hash_of([_identity(name), region, label, mpp, run])


def hash_of(facts: Any) -> str:
    """A hash of JSON types."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _identity(name: str) -> Any:
    """What tells a file from others, and from itself after a change; of an address only itself."""
    if is_remote(name):
        return name
    try:
        return [os.path.realpath(name), *file_states(name)]
    except (OSError, ValueError):
        return name


def options_facts(options: ClassifyOptions) -> dict[str, Any]:
    """The options that decide which result comes, as JSON types."""
    kept = {one.name: getattr(options, one.name) for one in fields(options) if one.name not in _PASSING}
    return {name: _plain(value) for name, value in kept.items()}


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
