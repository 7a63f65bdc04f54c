"""A table of labels: which of its rows is about which slide. What may be two things is left out, and named."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hiresattn.datasets.example import SEPARATOR, split_names
from hiresattn.datasets.join import Names, Slide, SlideNames
from hiresattn.datasets.manifest import CASES
from hiresattn.datasets.tables import Table, column_key, read_table
from hiresattn.errors import ConfigError, NotFoundError
from hiresattn.option_types import did_you_mean

#: Columns that name a slide; the first that is there counts.
SLIDES = (
    "path", "slide", "slide_id", "slide_name", "file", "file_name", "image", "image_id", "image_name",
)  # fmt: skip
_LABELS = ("label", "labels")
#: What is left out, and why.
REASONS = {
    "slide_without_row": ("slide", "without a row in the table"),
    "row_without_slide": ("row", "without a slide"),
    "row_without_label": ("row", "without a label"),
    "ambiguous": ("name", "that may mean two"),
    "contradictory": ("contradiction", "between rows"),
    "unreadable": ("slide", "that can't be used"),
}

LeftOut = dict[str, list[str]]


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    line: str
    slide: str
    case: str
    label: str
    """The class; of a column ``labels`` all of them, sorted, with ``|`` between, empty where there are none."""
    classes: tuple[str, ...]
    """The names in it."""
    labelled: bool
    """Whether it says which: an empty ``label`` says nothing, empty ``labels`` say that there are none."""
    split: str
    mpp: str


@dataclass(frozen=True)
class Labelled:
    """A slide, and the row that is about it."""

    slide: Slide
    row: Row

    @property
    def case(self) -> str:
        """The patient; without one, the slide itself."""
        return self.row.case or self.slide.name


@dataclass(frozen=True)
class LabelTable:
    """The rows of a table, and the columns that they are of."""

    path: Path
    rows: list[Row]
    columns: dict[str, str]
    """By what they hold: ``label``, and as far as there are such ``slide``, ``case``, ``split`` and ``mpp``."""

    @property
    def several(self) -> bool:
        """Whether a row may have any number of labels."""
        return self.columns["label"] == _LABELS[1]


def read_label_table(path: Path, *, label: str | None, slide: str | None, case: str | None) -> LabelTable:
    """Read a table of labels.

    Args:
        path: CSV or Parquet.
        label: Column of the label; None = ``label``.
        slide: Column that names slides; None = one of ``SLIDES``.
        case: Column that names patients; None = one of ``CASES``.

    Raises:
        NotFoundError: If there is no such file.
        ConfigError: If it can't be read, or a column is missing.
    """
    if not path.is_file():
        what = "a folder, no table" if path.is_dir() else "no such table"
        raise NotFoundError(f"{path}: {what}; give the CSV or Parquet file with the labels")
    asked = {"label": label, "slide": slide, "case": case}
    table = read_table(path, _wanted(asked))
    columns = _columns(path, table, asked)
    found = LabelTable(path, [], columns)
    for line, values in table.rows:
        taken = {what: values[columns[what]] if what in columns else "" for what in _KNOWN}
        classes: tuple[str, ...] = (taken["label"],)
        if found.several:
            classes = tuple(sorted(split_names(taken["label"], f"{path}, {line}")))
            taken["label"] = SEPARATOR.join(classes)
        found.rows.append(Row(line, classes=classes, labelled=found.several or bool(taken["label"]), **taken))
    return found


#: The columns that a table may have, by what they hold.
_KNOWN = {"label": _LABELS, "slide": SLIDES, "case": CASES, "split": ("split",), "mpp": ("mpp",)}


def _wanted(asked: Mapping[str, str | None]) -> list[str]:
    """Names of the columns that may be used: known ones, and those asked for."""
    known = [name for names in _KNOWN.values() for name in names]
    keys = set(map(column_key, known))
    return [*known, *dict.fromkeys(name for name in asked.values() if name and column_key(name) not in keys)]


def _columns(path: Path, table: Table, asked: Mapping[str, str | None]) -> dict[str, str]:
    """The table's columns, by what they hold."""
    if not any(table.columns):
        raise ConfigError(f"{path}: the first line is empty; it has the names of the columns")
    by_key = {column_key(name): name for name in table.columns}
    found: dict[str, str] = {}
    for what, known in _KNOWN.items():
        wanted = asked.get(what)
        if wanted is not None and column_key(wanted) not in by_key:
            raise ConfigError(f"{path}: no column {wanted!r}{did_you_mean(wanted, table.columns)}")
        keys = [column_key(name) for name in (known if wanted is None else (wanted,))]
        name = next((by_key[key] for key in keys if key in by_key), None)
        if name is not None:
            found[what] = name
    has = ", ".join(table.columns)
    if "label" not in found:
        raise ConfigError(f"{path}: no column 'label'; say which one it is as label_column, of {has}")
    if "slide" not in found and "case" not in found:
        raise ConfigError(
            f"{path}: no column that names slides or patients; say which one does as slide_column or case_column, of "
            f"{has}"
        )
    used = [found[what] for what in asked if what in found]
    if len(set(used)) < len(used):
        raise ConfigError(f"{path}: label, slide and case are columns of their own; got {', '.join(used)}")
    if not table.rows:
        raise ConfigError(f"{path}: no rows below the header")
    return found


def join(slides: Sequence[Slide], table: LabelTable, left_out: LeftOut) -> tuple[list[Labelled], str]:
    """Find the row that is about each slide: the one that names it, else the one that names its patient.

    Args:
        slides: All that there are.
        table: The rows.
        left_out: Gets what has no partner, or no label, or may be two things.

    Returns:
        The slides with a label; and ``slide`` or ``case``, by which they were joined.

    Raises:
        ConfigError: If there are none.
    """
    left_out["row_without_label"] += [_named(row) for row in table.rows if not row.labelled]
    names = SlideNames(slides)
    found = [names.find(row.slide) if row.slide else set[int]() for row in table.rows]
    by = "slide" if any(found) or "case" not in table.columns else "case"
    kept = (
        _by_slide(slides, table.rows, found, left_out)
        if by == "slide"
        else _by_case(slides, table.rows, left_out)
    )
    if not kept:
        raise ConfigError(_nothing(slides, table, left_out))
    return kept, by


def _nothing(slides: Sequence[Slide], table: LabelTable, left_out: LeftOut) -> str:
    """Why nothing could be joined."""
    row = next((one for one in table.rows if one.labelled), table.rows[0])
    names = " and ".join(
        f"{getattr(row, what)!r} in column {table.columns[what]!r}"
        for what in ("slide", "case")
        if what in table.columns
    )
    doubts = "".join(f"; {one}" for what in ("ambiguous", "contradictory") for one in left_out[what][:1])
    return (
        f"{table.path}: no slide has a label; {row.line} has {names}, a slide is {slides[0].name!r}{doubts}. Say which "
        "columns they are: slide_column, case_column, label_column"
    )


def _by_slide(
    slides: Sequence[Slide],
    rows: Sequence[Row],
    found: Sequence[set[int]],
    left_out: LeftOut,
) -> list[Labelled]:
    about: dict[int, list[Row]] = defaultdict(list)
    unsure: set[int] = set()
    for row, numbers in zip(rows, found, strict=True):
        if len(numbers) > 1:
            names = " or ".join(sorted(slides[number].name for number in numbers))
            left_out["ambiguous"].append(f"{_named(row)} may be {names}")
            unsure |= numbers
        elif numbers:
            about[min(numbers)].append(row)
        elif row.labelled:
            left_out["row_without_slide"].append(_named(row))
    kept = []
    for number, slide in enumerate(slides):
        own = [row for row in about[number] if row.labelled]
        if len({(row.label, row.case, row.split) for row in own}) > 1:
            left_out["contradictory"].append(f"{slide.name}: {_different(own)}")
        elif own:
            kept.append(Labelled(slide, own[0]))
        elif not about[number] and number not in unsure:
            left_out["slide_without_row"].append(slide.name)
    return kept


def _by_case(slides: Sequence[Slide], rows: Sequence[Row], left_out: LeftOut) -> list[Labelled]:
    about: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        about[row.case].append(row)
    nameless = about.pop("", [])
    cases = list(about.values())
    ids = Names((case, number) for number, case in enumerate(about))
    mine: dict[int, list[Slide]] = defaultdict(list)
    unsure: set[int] = set()
    for slide in slides:
        numbers = slide.cases(ids)
        if len(numbers) > 1:
            names = " or ".join(sorted(cases[number][0].case for number in numbers))
            left_out["ambiguous"].append(f"{slide.name} may be of {names}")
            unsure |= numbers
        elif numbers:
            mine[min(numbers)].append(slide)
        else:
            left_out["slide_without_row"].append(slide.name)
    kept = []
    for number, of_case in enumerate(cases):
        own = [row for row in of_case if row.labelled]
        if len({(row.label, row.split) for row in own}) > 1:
            left_out["contradictory"].append(f"{own[0].case}: {_different(own)}")
        elif own and mine[number]:
            kept += [Labelled(slide, own[0]) for slide in mine[number]]
        elif own and number not in unsure:
            left_out["row_without_slide"].append(_named(own[0]))
    left_out["row_without_slide"] += [_named(row) for row in nameless if row.labelled]
    return kept


def _named(row: Row) -> str:
    return f"{row.line} ({row.slide or row.case or 'empty'})"


def _different(rows: Sequence[Row]) -> str:
    """The labels of rows that contradict each other, each with its first line, and what else differs."""
    also = [what for what in ("case", "split") if len({getattr(row, what) for row in rows}) > 1]
    first: dict[tuple[str, ...], str] = {}
    for row in rows:
        words = (row.label or "no label", *(f"{what} {getattr(row, what) or 'empty'}" for what in also))
        first.setdefault(words, row.line)
    return ", ".join(f"{words[0]} ({', '.join([line, *words[1:]])})" for words, line in first.items())


def without_contradictions(kept: Sequence[Labelled], left_out: LeftOut, *, per_slide: bool) -> list[Labelled]:
    """Without the cases whose slides have different labels, unless each slide has its own."""
    labels: dict[str, dict[str, str]] = defaultdict(dict)
    for one in kept:
        labels[one.case].setdefault(one.row.label, one.slide.name)
    wrong = {} if per_slide else {case: found for case, found in labels.items() if len(found) > 1}
    for case, found in wrong.items():
        what = ", ".join(f"{label or 'no label'} ({name})" for label, name in found.items())
        left_out["contradictory"].append(f"{case}: {what}; if slides have labels of their own, say per_slide")
    return [one for one in kept if one.case not in wrong]
