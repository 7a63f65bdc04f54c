"""A results folder: the records of a run, tables of them, and what made them."""

import json
import logging
import os
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from hiresattn.card import Card
from hiresattn.datasets.cases import Case, examples_of
from hiresattn.errors import ConfigError, counted
from hiresattn.files import is_zarr, make_folder
from hiresattn.inference.options import ClassifyOptions
from hiresattn.inference.read_records import RECORDS, read_records
from hiresattn.inference.record import Record
from hiresattn.inference.records_file import RecordsFile
from hiresattn.inference.superseded import lines_that_count, subject_in, that_count
from hiresattn.report.hidden import NAMES, hidden_name, hide_names, image_names, write_names
from hiresattn.report.qupath import write_qupath
from hiresattn.report.run_file import RUN, run_facts, start_facts, write_run
from hiresattn.report.tables import write_tables

Source = TypeVar("Source")

_log = logging.getLogger(__name__)

#: The folder of overlays, that of objects for QuPath, and the most looks that are written there unasked.
OVERLAYS, QUPATH = "overlays", "qupath"
MOST_LOOKS = 100_000
#: Cases that a warning names.
_SHOWN = 5


def is_results_folder(path: str) -> bool:
    """Whether a name is that of a folder: one that is there, one that ends in a slash, or a new one without a suffix.

    Raises:
        ConfigError: If it ends in a slash, and a file has that name.
    """
    there = Path(path)
    if path.endswith(("/", os.sep)):
        if there.exists() and not there.is_dir():
            raise ConfigError(f"{path}: {there.name} is a file there, not a folder; give another name")
        return True
    return not is_zarr(path) if there.is_dir() else not (there.suffix or there.exists())


class ResultsFolder(RecordsFile):
    """A folder of one run's results; a later run with the same model and options goes on with it.

    An image (a window of one) or case has one record: a later one replaces it.

    ``records.jsonl`` is written record by record, ``run.json`` at the start, and at the end, whatever ends the run,
    ``predictions.csv``, ``glimpses.parquet`` (``.csv`` without pyarrow) and ``errors.csv``: see ``write_tables``; and
    ``qupath/``, where asked for: see ``write_qupath``.

    Args:
        path: The folder; it is made if it is missing.
        model: The model that classifies.
        options: How.
        resume: Ignored: what is there is always gone on with.
        overwrite: Start anew; overlays and objects for QuPath that are there go.
        qupath: Write objects for QuPath, too, of images without a CRS, as long as there are no more than
            ``MOST_LOOKS``.
        hide: Call cases and images by case and number, in all that is written but ``names.csv``, which says what is
            what: see ``hiresattn.report.hidden``.

    Raises:
        ConfigError: If the folder holds another run's results or other things, or another process writes it.
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
        qupath: bool = False,
        hide: bool = False,
    ) -> None:
        if resume and overwrite:
            raise ConfigError("resume keeps what the folder holds and overwrite empties it; give one of them")
        self.folder = make_folder(path)
        self._facts = run_facts(model, options) | ({"names": "hidden"} if hide else {})
        self._names: dict[str | None, str] | None = {} if hide else None
        if not overwrite:
            self._refuse_others()
        self._qupath = qupath
        self._order: dict[str | None, int] | None = None
        self._classes = tuple(model.config.classes)
        self._others: list[dict[str, Any]] = []
        super().__init__(self.folder / RECORDS, model, options, resume=not overwrite, overwrite=overwrite)
        counting = that_count([subject_in(line) for line in self.held])
        self.keep([line for line, counts in zip(self.held, counting, strict=True) if counts])
        for name in (f"{OVERLAYS}/*.png", f"{QUPATH}/*.geojson*", NAMES) if overwrite else ():
            for earlier in self.folder.glob(name):
                earlier.unlink()

    def missing(self, sources: Iterable[Source]) -> list[Source]:
        """The sources that the folder has no record of, in order; what is named twice comes once.

        A record of the same image or case that was made of another state of its file, or with another label or case, is
        replaced when the new one is there.
        """
        listed = self.once(sources)
        asked = {subject for source in listed for subject in self.subjects(source)}
        self.keep(
            [one for one in self.held if one.get("status") != "error" or asked.isdisjoint(subject_in(one))]
        )
        keys = [self.key(source) for source in listed]
        self._order = {key: at for at, key in reversed(list(enumerate(keys)))}
        left, _ = self.left(listed)
        anew = {subject for source in left for subject in self.subjects(source)}
        if replaced := sum(not anew.isdisjoint(subject_in(one)) for one in self.held):
            _log.warning(
                "%s: %d of its records are of files that have changed since, or were made with another label or case; "
                "they are replaced", self.folder, replaced,
            )  # fmt: skip
        self._others = [line for line in self.held if asked.isdisjoint(subject_in(line))]
        facts = self._facts | start_facts(listed, len(listed) - len(left), self._others)
        if self._names is not None:
            self._names = self._hidden(listed, keys)
            write_names(self.folder / NAMES, (pair for one in listed for pair in self._pairs(one)))
            facts["inputs"] = []
        write_run(self.folder / RUN, facts)
        return left

    def once(self, sources: Iterable[Source]) -> list[Source]:
        """The sources without those that are of the same image or case as one before; warns of them.

        A case of one image that another case has, too, is named: it gets no record.
        """
        listed, cases, lost, count = [], dict[str, str](), [], 0
        for source in sources:
            own, case = self.subjects(source), _case_name(source) or ""
            if taken := [cases[one] for one in own if one in cases]:
                if case and case not in taken:
                    lost.append(f"{case} (of {taken[0] or 'an image without a case'})")
            else:
                listed.append(source)
            for subject in own:
                cases.setdefault(subject, case)
            count += 1
        if len(listed) < count:
            shown = ", ".join(lost[:_SHOWN]) + (", …" if len(lost) > _SHOWN else "")
            of_others = f". {counted(len(lost), 'case')} got none, for the one slide is another's: {shown}"
            _log.warning(
                "%d of %d images and cases are named more than once; each has one record%s",
                count - len(listed), count, of_others if lost else "",
            )  # fmt: skip
        return listed

    def others(self) -> dict[str, str]:
        """Names and paths of the images of records of other runs; without a path where names are hidden."""
        names = [one["source"] for line in self._others for one in line.get("sources") or [line]]
        return {name: name if self._names is None else "" for name in names}

    def shown(self, record: Record, source: Any) -> Record:
        """A source's record as it is written: with other names, where names are hidden."""
        if self._names is None:
            return record
        return hide_names(record, self._names[self.key(source)])

    def names(self, source: Any) -> list[str] | None:
        """What records call the images of a source; None = by their paths and addresses."""
        if self._names is None:
            return None
        return image_names(self._names[self.key(source)], len(examples_of(source)))

    def _pairs(self, source: Any) -> Iterable[tuple[str, str]]:
        """What each image of a source is called, and where it is."""
        paths = [str(getattr(one, "source", one)) for one in examples_of(source)]
        return zip(self.names(source) or paths, paths, strict=True)

    def _hidden(self, sources: Sequence[Any], keys: Sequence[str | None]) -> dict[str | None, str]:
        """What each source is called: its case, else its number, which no other record in the folder has."""
        taken = {line["source"]: subject_in(line) for line in self.held}
        found: dict[str | None, str] = {}
        for number, (source, key) in enumerate(zip(sources, keys, strict=True), 1):
            case = _case_name(source)
            tries = (hidden_name(case, at) for at in count(number, len(sources)))
            own = self.subjects(source)
            found[key] = case or next(
                name for name in tries if name not in taken or not set(own).isdisjoint(taken[name])
            )
        return found

    def close(self) -> None:
        """Write the tables, and let others write the folder."""
        try:
            if self._order is not None and (self.folder / RECORDS).is_file():
                starts, replaced = lines_that_count(self.folder / RECORDS)
                if replaced:
                    self.select(starts)
                if starts:
                    write_tables(self.folder, self._classes, self._order)
                if starts and self._qupath:
                    self._write_qupath()
        finally:
            self._order = None
            super().close()

    def _write_qupath(self) -> None:
        """Write the objects of QuPath anew, of all records."""
        folder, kept, looks = self.folder / QUPATH, [], 0
        for record in read_records(self.folder):
            if record.regions and not any(one.crs for one in record.sources):
                looks += len(record.regions)
                if looks > MOST_LOOKS:
                    _log.warning(
                        "no objects for QuPath: there are more than %s looks; `hiresattn export %s --to qupath -o %s` "
                        "writes them", f"{MOST_LOOKS:,}", self.folder, folder,
                    )  # fmt: skip
                    return
                kept.append(record)
        written = write_qupath(kept, folder, overwrite=True) if kept else []
        for earlier in set(folder.glob("*.geojson*")).difference(written):
            earlier.unlink()

    def _refuse_others(self) -> None:
        """Refuse a folder of another run, or of other things."""
        run = self.folder / RUN
        if run.is_file() and not _holds_records(self.folder / RECORDS):
            return  # of a run that was refused, or ended before its first answer
        if not run.is_file():
            if any(map(_is_other, self.folder.iterdir())):
                raise ConfigError(
                    f"{self.folder}: holds other things than results ({RUN} is not in it); give a new folder"
                )
            return
        try:
            there = json.loads(run.read_text(encoding="utf-8"))
            model, options = there["model"], there["options"]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigError(
                f"{run}: can't be read ({error}); overwrite starts anew, or give another folder"
            ) from error
        asked = json.loads(json.dumps(self._facts, default=str))
        other = (
            []
            if model == asked["model"]
            else [f"model {model.get('name')!r}, not {asked['model']['name']!r}"]
        )
        for name, value in asked["options"].items():
            if options.get(name) != value:
                other.append(f"{name} {_words(options.get(name))}, not {_words(value)}")
        if there.get("names") != asked.get("names"):
            given, wanted = (facts.get("names", "shown") for facts in (there, asked))
            other.append(f"names {given}, not {wanted}")
        if other:
            raise ConfigError(
                f"{self.folder}: holds the results of another run ({'; '.join(other)}); give another folder, or "
                "start anew in this one with overwrite"
            )


def _case_name(source: Any) -> str | None:
    """The case that a source is, or is of."""
    return source.name if isinstance(source, Case) else getattr(source, "case", None)


def _holds_records(path: Path) -> bool:
    """Whether a file has a record of something else than an error; those of errors are made anew."""
    return path.is_file() and any(record.status != "error" for record in read_records(path))


def _is_other(path: Path) -> bool:
    """Whether a file is none of a run that was ended before it began."""
    started = path.name == RECORDS and path.is_file() and path.stat().st_size == 0
    return not (path.name.startswith(".") or started)


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return " and ".join(f"{one} {name}" for name, one in value.items() if one is not None)
    return "not given" if value is None else json.dumps(value)
