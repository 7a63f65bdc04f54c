"""Manifests: which images (or windows of images), with which labels, in which split."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hiresattn.datasets.boxes import Boxes, read_boxes
from hiresattn.datasets.cases import share_labels
from hiresattn.datasets.dicom import series_of
from hiresattn.datasets.example import SPLITS, Example, Label, split_names, unlabelled
from hiresattn.datasets.folds import check_fold, fold_name
from hiresattn.datasets.tables import column_key, read_table
from hiresattn.errors import ConfigError, NotFoundError
from hiresattn.files import IMAGE_SUFFIXES, is_remote
from hiresattn.option_types import did_you_mean

#: Names of the column that says what shares one answer, such as a patient's slides; the first that is there counts.
CASES = ("case_id", "case", "patient", "patient_id", "subject", "subject_id")
#: The same of what else must not be in two splits, such as the patients of a hospital.
GROUPS = ("group", "group_id")
#: Columns that stand for ``path`` where there is none.
SOURCES = ("slide", "slide_id")
_REGION = ("y", "x", "height", "width")
_COLUMNS = ("path", *SOURCES, "label", "labels", "split", "fold", *_REGION, "boxes", *CASES, *GROUPS, "mpp")


class _Columns(NamedTuple):
    """Names of a table's columns; empty = it has none."""

    source: str
    label: str
    case: str
    group: str


def read_manifest(
    path: str | Path,
    *,
    labels: bool = False,
    multi: bool = False,
    fold: int | str | None = None,
    root: str | Path | None = None,
    label_column: str | None = None,
) -> list[Example]:
    """Read a manifest: a table with one image, or one window of an image, per row.

    Its columns, of which only ``path`` is always needed; others are ignored. Case, spaces, ``-`` and ``_`` don't count
    in their names:

    - ``path``: file or address, relative to ``root``. ``slide`` or ``slide_id`` instead may lack the suffix.
    - ``label``: name of the class. ``labels`` instead: any number of names with ``|`` between.
    - ``split``: ``train`` (default), ``val`` or ``test``.
    - ``fold``: of a cross-validation; ``test`` for rows that are in none.
    - ``y, x, height, width``: the window, level-0 px; all empty = the whole image.
    - ``boxes``: known targets, level-0 px of the image: JSON ``[[y, x, height, width(, "class")(, confidence)],
      …]``, or the path
      of a GeoJSON file with coordinates ``(x, y)``, px or longitude and latitude, of which the rectangles around the
      outlines are taken; ``[]`` = there are none, empty = not known.
    - ``case_id``, ``patient`` and the like: what shares one answer, and is never in two splits.
    - ``group``: what else must not be in two splits.
    - ``mpp``: micrometres per level-0 px, in place of the file's.

    Args:
        path: CSV (UTF-8, with a header; commas, semicolons or tabs between columns) or Parquet.
        labels: Check what training needs: every row of ``train`` and ``val`` has a label (in ``train``, classes of
            its boxes will do), and no image, window or group is in two splits or folds.
        multi: Read ``label`` as ``labels``; an empty one then means that the image has none of the classes.
        fold: The fold whose rows become ``val``; those of other folds become ``train``. None = splits are as written.
        root: Folder that paths of images are relative to; None = the manifest's. Files of boxes lie beside it anyway.
        label_column: Name of the column that holds the label, or labels, in place of ``label``.

    Returns:
        One example per row, in order.

    Raises:
        NotFoundError: If there is no such file, or no folder ``root``.
        BackendMissingError: If it is Parquet and pyarrow isn't installed.
        ConfigError: If a column is missing or a value unusable; the message names the line.

    Examples:
        >>> [example.label for example in hiresattn.read_manifest("slides.csv")]
    """
    path = Path(path)
    wanted = None if label_column is None else _known_name(label_column)
    table = read_table(path, _COLUMNS if wanted is None else dict.fromkeys((*_COLUMNS, wanted)))
    named = _columns(path, table.columns, labels=labels, label=wanted, multi=multi, fold=fold)
    if root is not None and not os.path.isdir(root):  # noqa: PTH112 - no name makes it raise
        raise NotFoundError(
            f"{root}: no such folder; root is the folder that the manifest's paths are relative to"
        )
    if not table.rows:
        raise ConfigError(f"{path}: no rows below the header")
    multi = multi or named.label == "labels"
    chosen = None if fold is None else fold_name(str(fold))
    lines = [line for line, _ in table.rows]
    files: dict[Any, Boxes | None] = {}
    folder = path.parent if root is None else Path(root)
    examples = [
        _example(row, f"{path}, {line}", named, chosen, files, path, root=folder, multi=multi)
        for line, row in table.rows
    ]
    examples = share_labels(examples)
    if chosen is not None:
        check_fold(path, examples, chosen)
    scales = ["" if e.mpp is None else f"{e.mpp:g} µm/px" for e in examples]
    images = [_same(e)[0] if e.mpp else None for e in examples]
    for number, first, second in _clashes(images, lines, scales):
        raise ConfigError(
            f"{path}: {examples[number].source} has {first} and {second}; one image has one scale"
        )
    if labels:
        for number in unlabelled(examples):
            what = "" if examples[number].split == "val" else ", or of its boxes"
            raise ConfigError(
                f"{path}, {lines[number]}: no label; training needs the class of every image{what}"
            )
        _check_parts(path, examples, lines, named, [_part(example, chosen) for example in examples])
    return examples


def _known_name(column: str) -> str:
    """A column by its known name, if it has one."""
    return next((name for name in _COLUMNS if column_key(name) == column_key(column)), column.strip())


def _columns(
    path: Path,
    columns: Sequence[str],
    *,
    labels: bool,
    label: str | None,
    multi: bool,
    fold: int | str | None,
) -> _Columns:
    """Names of the columns that hold path, label and group; refuses a table that lacks a needed one."""
    source = next((name for name in ("path", *SOURCES) if name in columns), None)
    if source is None:
        near = ", ".join(columns) or "nothing"
        raise ConfigError(
            f"{path}: no column 'path'{did_you_mean('path', columns) if columns else ''}; "
            f"the first line has {near}, a manifest needs path,label[,split][,y,x,height,width]"
        )
    if label is not None and label not in columns:
        raise ConfigError(f"{path}: no column {label!r}{did_you_mean(label, columns)}")
    names = ("labels", "label") if multi else ("label", "labels")
    label = label or next((name for name in names if name in columns), "")
    if labels and not label and "boxes" not in columns:
        raise ConfigError(
            f"{path}: no column 'label'; the first line has {', '.join(columns)}, and training needs the class "
            "of every image; name the column that has it as label_column"
        )
    if fold is not None and "fold" not in columns:
        raise ConfigError(
            f"{path}: no column 'fold'; the first line has {', '.join(columns)}, and fold={fold} needs to know "
            "the fold of every row"
        )
    given = [name for name in _REGION if name in columns]
    if given and len(given) < len(_REGION):
        raise ConfigError(
            f"{path}: a window needs all of y,x,height,width; the first line has {', '.join(given)}"
        )
    case, group = (next((name for name in names if name in columns), "") for names in (CASES, GROUPS))
    return _Columns(source, label, case, group)


def _check_parts(
    path: Path, examples: Sequence[Example], lines: Sequence[str], named: _Columns, parts: Sequence[str]
) -> None:
    """Refuse what is in two parts: a model would be tested on what it was trained on."""
    series = series_of(e.source for e in examples)
    for keys, name in (
        ([_same(e) for e in examples], ""),
        ([e.case for e in examples], named.case),
        ([e.group for e in examples], named.group),
        (series, "the DICOM series"),
    ):
        for number, first, second in _clashes(keys, lines, parts):
            what = f"{name} {keys[number]!r}" if name else examples[number].source
            raise ConfigError(
                f"{path}: {what} is in {first} and in {second}; what is in two tests a model on what it was "
                "trained on; give it one"
            )


def _part(example: Example, fold: str | None) -> str:
    """Which part of the set a row is in: its split, or its fold where folds say that."""
    if fold is None or example.fold is None or example.split == "test":
        return f"split {example.split!r}"
    return f"fold {example.fold!r}"


def _same(example: Example) -> tuple[str, tuple[int, int, int, int] | None]:
    """What makes two rows the same image or window."""
    source = str(example.source)
    return source if "://" in source else os.path.normpath(source), example.region


def _clashes(
    keys: Sequence[Any], lines: Sequence[str], parts: Sequence[str]
) -> Iterator[tuple[int, str, str]]:
    """Rows whose part differs from that of an earlier row with the same key (None = no key), and both parts."""
    seen: dict[Any, int] = {}
    for number, key in enumerate(keys):
        first = seen.setdefault(key, number)
        if key is not None and parts[first] != parts[number]:
            yield number, f"{parts[first]} ({lines[first]})", f"{parts[number]} ({lines[number]})"


def _example(
    row: Mapping[str, str],
    where: str,
    columns: _Columns,
    fold: str | None,
    files: dict[Any, Boxes | None],
    manifest: Path,
    *,
    root: Path,
    multi: bool,
) -> Example:
    source = row[columns.source]
    if not source:
        raise ConfigError(f"{where}: the path is empty")
    if "://" not in source and not is_remote(source):
        source = _below(source, root, where)
        if columns.source != "path":
            source = _with_suffix(source, where)
    label: Label | None = row.get(columns.label) or None
    if multi and columns.label:
        label = split_names(row[columns.label], where)
    split = _split(row, where, fold)
    boxes = read_boxes(
        row.get("boxes", ""), manifest, where,
        source=source, named=label is None, strict=split != "test", known=files,
    )  # fmt: skip
    return Example(
        source=source,
        label=label,
        split=split,
        region=_region(row, where),
        boxes=boxes and boxes.boxes,
        box_labels=boxes and boxes.labels,
        box_confidence=boxes and boxes.confidence,
        group=row.get(columns.group) or None,
        case=row.get(columns.case) or None,
        origin=where,
        mpp=_mpp(row.get("mpp", ""), where),
        mpp_source="column mpp" if row.get("mpp") else None,
        fold=fold_name(row.get("fold", "")) or None,
    )


def _below(source: str, root: Path, where: str) -> str:
    """The path of an image whose name is relative to a folder."""
    path = str(root / source)
    if "\\" in source and os.sep == "/" and not os.path.lexists(path):
        raise ConfigError(
            f"{where}: {source} has backslashes, as paths on Windows have; write {source.replace(chr(92), '/')}"
        )
    return path


def _with_suffix(source: str, where: str) -> str:
    """The one image whose path without its suffix is ``source``; ``source`` itself where there is none."""
    slide = Path(source)
    if slide.suffix.lower() in (*IMAGE_SUFFIXES, ".zarr"):
        return source
    found = sorted(
        name
        for suffix in (*IMAGE_SUFFIXES, ".zarr")
        if os.path.exists(name := source + suffix)  # noqa: PTH110
    )
    if len(found) > 1:
        raise ConfigError(f"{where}: {source} may be {' or '.join(found)}; give the name with its suffix")
    return found[0] if found else source


def _split(row: Mapping[str, str], where: str, fold: str | None) -> str:
    split, own = row.get("split", ""), fold_name(row.get("fold", ""))
    if split and split not in SPLITS:
        raise ConfigError(
            f"{where}: split {split!r} is none of {', '.join(SPLITS)}{did_you_mean(split, SPLITS)}"
        )
    if fold is None:
        return split or ("test" if own == "test" else "train")
    if split == "test" or (own == "test" and not split):
        return "test"
    if split == "val" or own == "test":
        raise ConfigError(
            f"{where}: split {split!r} and fold {own!r}; with a fold chosen the folds say what validates, so leave the "
            "split empty, or give both as test"
        )
    if not own:
        raise ConfigError(f"{where}: no fold; give it one, or the split or fold test")
    return "val" if own == fold else "train"


def _mpp(text: str, where: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ConfigError(f"{where}: mpp {text!r} is no number above 0; it is micrometres per px of level 0")
    return value


def _region(row: Mapping[str, str], where: str) -> tuple[int, int, int, int] | None:
    """The window of a row: all of its values, or none."""
    values = [row.get(name, "") for name in _REGION]
    if not any(values):
        return None
    if not all(values):
        empty = ",".join(name for name, value in zip(_REGION, values, strict=True) if not value)
        raise ConfigError(f"{where}: a window needs all of y,x,height,width, or none; {empty} is empty")
    try:
        y, x, height, width = map(int, values)
    except ValueError as error:
        raise ConfigError(f"{where}: y,x,height,width must be whole numbers of px: {error}") from error
    return y, x, height, width
