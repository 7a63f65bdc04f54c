"""From a folder of slides and a table of labels to a manifest: joined, checked, split by case."""

import csv
import io
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hiresattn.datasets.cohort_notes import cohort_notes
from hiresattn.datasets.example import SPLITS
from hiresattn.datasets.headers import Header, read_headers
from hiresattn.datasets.join import slides_in
from hiresattn.datasets.label_table import (
    REASONS,
    Labelled,
    LabelTable,
    LeftOut,
    join,
    read_label_table,
    without_contradictions,
)
from hiresattn.datasets.splits import drawn_folds, drawn_splits
from hiresattn.datasets.tables import csv_cell
from hiresattn.errors import ConfigError, counted
from hiresattn.files import atomic_write
from hiresattn.option_types import changed, check_types
from hiresattn.pyramid.mpp import implausible


@dataclass(frozen=True)
class CohortOptions:
    """How a manifest is made of slides and a table.

    Raises:
        ConfigError: If a value is out of bounds.
    """

    label_column: str | None = None
    """Column of the table that holds the label; None = ``label``."""
    slide_column: str | None = None
    """Column that names the slide; None = ``path``, ``slide``, ``slide_id``, ``file_name``, ``image`` or the like."""
    case_column: str | None = None
    """Column that names the patient; None = ``case_id``, ``case``, ``patient``, ``patient_id`` or the like."""
    per_slide: bool = False
    """Whether slides of one patient have labels, and get answers, of their own; they stay in one split anyway."""
    val: float = 0.15
    """Share of the patients that validates, class by class, 0 to below 1."""
    test: float = 0.15
    """Share of the patients that is kept for testing."""
    folds: int | None = None
    """Folds of a cross-validation, in a column ``fold``, 2 or more: all but the test patients are in one; None = no
    such column."""
    seed: int = 0
    """Seed of the split and of the folds."""
    assume_mpp: float | None = None
    """µm per level-0 px of slides whose row says none, and whose file none that can be meant; None = stays unknown."""
    threads: int = min(os.cpu_count() or 1, 8)
    """Threads that read headers."""
    overwrite: bool = False
    """Whether to replace a manifest that is there."""

    def __post_init__(self) -> None:
        check_types(self)
        if min(self.val, self.test) < 0 or not self.val + self.test < 1:
            raise ConfigError(
                f"val and test are shares that leave some to train on; got {self.val:g} and {self.test:g}"
            )
        if self.folds is not None and self.folds < 2:
            raise ConfigError(f"a cross-validation has 2 folds or more; got {self.folds}")
        if self.assume_mpp is not None and (why := implausible(self.assume_mpp)):
            raise ConfigError(f"assume_mpp: {why}")
        if self.threads < 1:
            raise ConfigError(f"threads must be at least 1; got {self.threads}")


@dataclass(frozen=True)
class Cohort:
    """What a manifest was made of, and what was left out."""

    manifest: str
    """The file."""
    slides: int
    """Slides in it."""
    found: int
    """Slides in the folder."""
    rows: int
    """Rows of the table."""
    columns: dict[str, str]
    """Columns that were used, by what they hold: ``label``, ``slide``, ``case``, ``split``, ``mpp``."""
    joined_by: str
    """Whether the table's rows name a ``slide`` or a ``case``."""
    cases: dict[str, dict[str, int]]
    """Of each class the cases in ``train``, ``val`` and ``test``; slides, where they are not grouped by case."""
    splits: dict[str, int]
    """All cases, or slides, in them; where they have several labels, fewer than those of the classes together."""
    mpp: dict[str, int]
    """Slides by µm per level-0 px, of those where it is known."""
    scale_unknown: tuple[str, ...]
    """Slides in it without µm/px, and why where there is a reason."""
    left_out: dict[str, tuple[str, ...]]
    """What isn't in it, by the reason: a key of ``label_table.REASONS``."""
    notes: tuple[str, ...]
    """Sentences on what to expect."""

    def to_json(self) -> dict[str, Any]:
        """The same as JSON types."""
        return asdict(self)


@dataclass
class _Member:
    """A slide of the manifest."""

    labelled: Labelled
    header: Header
    split: str = ""
    fold: int | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        return self.labelled.row.classes

    @property
    def name(self) -> str:
        return self.labelled.slide.name


def make_manifest(
    slides: str | Path,
    table: str | Path,
    output: str | Path,
    options: CohortOptions | None = None,
    *,
    progress: Callable[[float, str], None] = lambda _share, _name: None,
    **changes: Any,
) -> Cohort:
    """Write a manifest of the slides in a folder and of their labels in a table.

    A row is about the slide that it names, with or without suffix and folders. Where no row names a slide, rows are
    about patients: theirs are the slides whose name, or its part before ``-``, ``_``, ``.`` or a space, or whose folder
    is the patient's id. What may be two things is left out, and named. Patients are split, class by class; a column
    ``split`` of the table wins.

    Args:
        slides: Folder of slides; those in folders below count, a Zarr directory or a DICOM series is one.
        table: CSV or Parquet.
        output: The manifest, a CSV; its paths are relative to it.
        options: How it is made; None = the defaults.
        progress: Called with the share of the slides whose header was read, and a path.
        changes: Fields of ``options`` to set, such as ``label_column="diagnosis"``.

    Returns:
        What was joined, left out, split, and is worth a note.

    Raises:
        NotFoundError: If there is no such folder or table.
        ConfigError: If a column is missing, no slide has a label, or the output can't be written.

    Examples:
        >>> cohort = hiresattn.make_manifest("slides", "labels.csv", "cohort.csv", label_column="diagnosis")
        >>> cohort.left_out
    """
    chosen = changed(options, changes, CohortOptions)
    output = Path(output)
    _check_output(output, overwrite=chosen.overwrite)
    read = read_label_table(
        Path(table), label=chosen.label_column, slide=chosen.slide_column, case=chosen.case_column
    )
    found = slides_in(Path(slides))
    left_out: LeftOut = {reason: [] for reason in REASONS}
    joined, joined_by = join(found, read, left_out)
    joined = without_contradictions(joined, left_out, per_slide=chosen.per_slide)
    members = _with_headers(joined, left_out, chosen, progress)
    _check_labels(members, read, left_out)
    _split(members, read, chosen)
    case_column = ("group" if chosen.per_slide else "case_id") if "case" in read.columns else None
    _write(output, members, read, case_column, folds=chosen.folds is not None)
    counts, totals = _counts(members, per_slide=chosen.per_slide)
    columns = {what: name for what, name in read.columns.items() if (what, joined_by) != ("slide", "case")}
    return Cohort(
        manifest=str(output),
        slides=len(members),
        found=len(found),
        rows=len(read.rows),
        columns=columns,
        joined_by=joined_by,
        cases=counts,
        splits=totals,
        mpp=_scales(members),
        scale_unknown=tuple(_unknown(one) for one in members if one.header.mpp is None),
        left_out={reason: tuple(names) for reason, names in left_out.items() if names},
        notes=tuple(cohort_notes(counts, totals, case_column, several=read.several)),
    )


def _check_output(output: Path, *, overwrite: bool) -> None:
    if output.suffix.lower() != ".csv":
        raise ConfigError(f"{output}: the manifest is a CSV; give it a name that ends in .csv")
    if not output.parent.is_dir():
        raise ConfigError(f"{output}: there is no folder {output.parent}; make it, or give another file")
    if output.is_dir() or (output.exists() and not overwrite):
        raise ConfigError(f"{output}: is there already; give another name, or overwrite to replace it")


def _with_headers(
    joined: Sequence[Labelled],
    left_out: LeftOut,
    options: CohortOptions,
    progress: Callable[[float, str], None],
) -> list[_Member]:
    """Those that can be opened and written down, with their header."""
    members = []
    headers = read_headers([one.slide.path for one in joined], options.threads, progress)
    for one, header in zip(joined, headers, strict=True):
        wrong = header.error or _unwritable(one.slide.name)
        if wrong:
            left_out["unreadable"].append(wrong if one.slide.path in wrong else f"{one.slide.name}: {wrong}")
        else:
            members.append(_Member(one, header.with_mpp(one.row.mpp, options.assume_mpp)))
    return members


def _unwritable(name: str) -> str:
    """Why a CSV can't hold a name; empty = it can."""
    if not name.isprintable():
        return "its name has characters that are no text; rename it"
    return "its name begins or ends with a space; rename it" if name != name.strip() else ""


def _check_labels(members: Sequence[_Member], table: LabelTable, left_out: LeftOut) -> None:
    """Refuse what can't be trained on."""
    labels = sorted({name for one in members for name in one.classes})
    why = "; ".join(
        f"{counted(len(names), what)} {words}, such as {names[0]}"
        for reason, (what, words) in REASONS.items()
        if (names := left_out[reason])
    )
    if not labels:
        raise ConfigError(f"{table.path}: no slide with a label can be used: {why or 'all are empty'}")
    if len(labels) < 2 and not table.several:
        raise ConfigError(
            f"{table.path}: all slides that can be used have one label, {labels[0]!r} in column "
            f"{table.columns['label']!r}; training needs two classes or more"
            f"{f'. Left out: {why}' if why else ''}"
        )


def _split(members: Sequence[_Member], table: LabelTable, options: CohortOptions) -> None:
    """Give each slide its split, the table's, or one that is drawn by case; and its fold."""
    cases: dict[str, list[_Member]] = defaultdict(list)
    for one in members:
        cases[one.labelled.case].append(one)
    if any(one.labelled.row.split for one in members):
        for case, own in cases.items():
            _take_split(case, own, table)
    else:
        drawn = drawn_splits(_rarest(members, cases), options.val, options.test, options.seed)
        for own, split in zip(cases.values(), drawn, strict=True):
            for one in own:
                one.split = split
    if options.folds is None:
        return
    folded = {case: own for case, own in cases.items() if own[0].split != "test"}
    if options.folds > len(folded):
        raise ConfigError(f"folds: {counted(len(folded), 'case')} can't be in {options.folds} folds")
    drawn_by_case = drawn_folds(_rarest(members, folded), options.folds, options.seed)
    for own, fold in zip(folded.values(), drawn_by_case, strict=True):
        for one in own:
            one.fold = fold


def _rarest(members: Sequence[_Member], cases: Mapping[str, Sequence[_Member]]) -> list[tuple[str, str]]:
    """Cases with the rarest of their classes; empty = they have none."""
    count = Counter(name for one in members for name in one.classes)
    return [
        (case, min({n for one in own for n in one.classes}, key=lambda name: (count[name], name), default=""))
        for case, own in cases.items()
    ]


def _take_split(case: str, own: Sequence[_Member], table: LabelTable) -> None:
    """Give the slides of a case the split that the table has."""
    first = own[0].labelled.row.split
    for one in own:
        where, split = f"{table.path}, {one.labelled.row.line}", one.labelled.row.split
        if split not in SPLITS:
            raise ConfigError(
                f"{where}: split {split!r} is none of {', '.join(SPLITS)}; fill the column in every row, or remove it "
                "for a split to be drawn"
            )
        if split != first:
            raise ConfigError(f"{where}: {case} is in {split!r} and in {first!r}; give it one split")
        one.split = split


def _write(
    output: Path, members: Sequence[_Member], read: LabelTable, case_column: str | None, *, folds: bool
) -> None:
    """Write the manifest, whole or not at all."""
    given = any(one.header.mpp_source == "given" for one in members)
    here = output.parent.resolve()  # what .. means there, where the folder is a link
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    label = "labels" if read.several else "label"
    table.writerow(
        ["path", label, *filter(None, [case_column]), "split", *["fold"] * folds, *["mpp"] * given]
    )
    for one in members:
        slide = Path(one.labelled.slide.path)
        row = [os.path.relpath(slide.parent.resolve() / slide.name, here), one.labelled.row.label]
        row += [] if case_column is None else [one.labelled.row.case]
        row.append(one.split)
        if folds:
            row.append("test" if one.fold is None else str(one.fold))
        if given:
            row.append(f"{one.header.mpp:g}" if one.header.mpp_source == "given" else "")
        table.writerow(map(csv_cell, row))
    with atomic_write(output) as part:
        part.write_text(text.getvalue(), encoding="utf-8")


def _counts(
    members: Sequence[_Member], *, per_slide: bool
) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """Cases, or slides, in each split, by class; and all of them."""
    units = {one.name if per_slide else one.labelled.case: one for one in members}.values()
    count = Counter((name, one.split) for one in units for name in one.classes)
    total = Counter(one.split for one in units)
    names = sorted({name for name, _ in count})
    return {name: {split: count[name, split] for split in SPLITS} for name in names}, {
        split: total[split] for split in SPLITS
    }


def _scales(members: Sequence[_Member]) -> dict[str, int]:
    known = Counter(round(one.header.mpp, 3) for one in members if one.header.mpp is not None)
    return {f"{value:g}": known[value] for value in sorted(known)}


def _unknown(one: _Member) -> str:
    return f"{one.name}: {one.header.mpp_source}" if one.header.mpp_source else one.name
