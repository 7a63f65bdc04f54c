"""Manifests: which images (or windows of images), with which labels, in which split."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hiresattn.config import did_you_mean
from hiresattn.datasets.boxes import Boxes, read_boxes
from hiresattn.datasets.tables import SEPARATOR, read_table
from hiresattn.errors import ConfigError

SPLITS = ("train", "val", "test")
#: Columns that say what belongs together, such as the slides of a patient; the first of them that is there counts.
GROUPS = ("group", "group_id", "case_id", "case", "patient", "patient_id", "subject", "subject_id")
#: Columns that stand for ``path`` where there is none.
SOURCES = ("slide", "slide_id")
_SLIDES = (".svs", ".ndpi", ".mrxs", ".scn", ".svslide", ".bif", ".vms", ".vmu", ".dcm")
_RASTERS = (".tif", ".tiff", ".btf", ".vrt", ".jp2", ".j2k", ".jpg", ".jpeg", ".png", ".bmp", ".gif")
#: What the names of images end in.
IMAGES = frozenset((*_SLIDES, *_RASTERS))
_REGION = ("y", "x", "height", "width")
_COLUMNS = ("path", *SOURCES, "label", "labels", "split", "fold", *_REGION, "boxes", *GROUPS, "mpp")

Label = str | tuple[str, ...]


class _Columns(NamedTuple):
    """What a table calls them; empty = it has none."""

    source: str
    label: str
    group: str


@dataclass(frozen=True)
class Example:
    """One image, or one window of one, to train on or to classify."""

    source: Any
    """A path or URL, an array, or an open pyramid."""
    label: Label | None = None
    """Class name, where known. A tuple: every label that the image has (multi-label), empty = it has none."""
    split: str = "train"
    """``train``, ``val`` or ``test``."""
    region: tuple[int, int, int, int] | None = None
    """``(y, x, height, width)``, level-0 px; None = the whole image."""
    boxes: tuple[tuple[int, int, int, int], ...] | None = None
    """Where what decides the class is: ``(y, x, height, width)`` each, level-0 px of the image; None = not
    known, empty = nowhere."""
    box_labels: tuple[str, ...] | None = None
    """Class of each box; None = the image's. With them an image to train on needs no label of its own."""
    group: str | None = None
    """What it belongs to, such as a patient: never in two splits, and resampled as one; None = itself."""
    mpp: float | None = None
    """Micrometres per level-0 px, down and across, in place of what the file says; None = as it says."""
    fold: str | None = None
    """Which part of a cross-validation it is, where the manifest says."""


def classes_in(example: Example) -> set[str]:
    """Every class that an image shows, as far as is said: its label or labels, and those of its boxes."""
    label = example.label
    own = label if isinstance(label, tuple) else () if label is None else (label,)
    return {*own, *(example.box_labels or ())}


def unlabelled(examples: Sequence[Example]) -> list[int]:
    """Which images can't be trained on, by their places: neither they nor, in ``train``, their boxes have a class.

    Where some boxes have one, an image that is known to have no boxes needs none.
    """
    some = any(e.box_labels for e in examples)
    told = [e.box_labels or (some and e.boxes == ()) for e in examples]
    return [
        number
        for number, (example, enough) in enumerate(zip(examples, told, strict=True))
        if example.label is None and example.split != "test" and not (enough and example.split == "train")
    ]


def names_of(label: Label | None) -> tuple[str, ...] | None:
    """Every label that is meant: of ``a|b`` both, of a tuple all; None = not known."""
    if isinstance(label, str):
        return _names(label)
    return label


def read_manifest(
    path: str | Path, *, labels: bool = False, multi: bool = False, fold: int | str | None = None
) -> list[Example]:
    """Read a table: ``path, label[, split][, fold][, y, x, height, width][, boxes][, group][, mpp]``.

    Other columns are ignored. The path may also be called ``slide`` or ``slide_id``, and there lack its suffix; the
    group ``case_id`` or ``patient``. A column ``labels`` in place of ``label`` holds any number of labels per row,
    with ``|`` between.

    Args:
        path: A CSV, or Parquet. Paths in it are relative to it, unless absolute or URLs.
        labels: Whether labels are needed, as in training: the column must be there (or ``boxes``), and filled in the
            rows of ``train`` and ``val``, see ``unlabelled``; and no image, window of one, or group may be in two
            splits or folds.
        multi: Whether ``label`` too holds any number of labels; an empty one then means none of them.
        fold: The fold whose rows are ``val``; those of others are ``train``. Rows whose split or fold is ``test`` stay
            so. None = as the column ``split`` says.

    Returns:
        One example per row, in order.

    Raises:
        NotFoundError: If there is no such file.
        BackendMissingError: If it is Parquet and pyarrow isn't installed.
        ConfigError: If a column is missing or a value unusable; the message names the line.
    """
    path = Path(path)
    table = read_table(path, _COLUMNS)
    named = _columns(path, table.columns, labels=labels, multi=multi, fold=fold)
    if not table.rows:
        raise ConfigError(f"{path}: no rows below the header")
    multi = multi or named.label == "labels"
    chosen = None if fold is None else _fold(str(fold))
    places = [place for place, _ in table.rows]
    files: dict[Any, Boxes] = {}
    examples = [_example(row, path, place, named, chosen, files, multi=multi) for place, row in table.rows]
    if chosen is not None:
        _check_fold(path, examples, chosen)
    scales = ["" if e.mpp is None else f"{e.mpp:g} µm/px" for e in examples]
    images = [_same(e)[0] if e.mpp else None for e in examples]
    for number, first, second in _clashes(images, places, scales):
        raise ConfigError(
            f"{path}: {examples[number].source} has {first} and {second}; one image has one scale"
        )
    if labels:
        for number in unlabelled(examples):
            what = "" if examples[number].split == "val" else ", or of its boxes"
            raise ConfigError(
                f"{path}, {places[number]}: no label; training needs the class of every image{what}"
            )
        _check_parts(path, examples, places, named.group, [_part(example, chosen) for example in examples])
    return examples


def _columns(
    path: Path, columns: Sequence[str], *, labels: bool, multi: bool, fold: int | str | None
) -> _Columns:
    """What a table calls what is needed; refuses one that lacks it."""
    source = next((name for name in ("path", *SOURCES) if name in columns), None)
    if source is None:
        near = ", ".join(columns) or "nothing"
        raise ConfigError(
            f"{path}: no column 'path'{did_you_mean('path', columns) if columns else ''}; "
            f"the first line has {near}, a manifest needs path,label[,split][,y,x,height,width]"
        )
    told = ("labels", "label") if multi else ("label", "labels")
    label = next((name for name in told if name in columns), "")
    if labels and not label and "boxes" not in columns:
        raise ConfigError(
            f"{path}: no column 'label'; the first line has {', '.join(columns)}, and training needs the class "
            "of every image"
        )
    if fold is not None and "fold" not in columns:
        raise ConfigError(
            f"{path}: no column 'fold'; the first line has {', '.join(columns)}, and --fold {fold} needs to know "
            "the fold of every row"
        )
    given = [name for name in _REGION if name in columns]
    if given and len(given) < len(_REGION):
        raise ConfigError(
            f"{path}: a window needs all of y,x,height,width; the first line has {', '.join(given)}"
        )
    return _Columns(source, label, next((name for name in GROUPS if name in columns), ""))


def _check_parts(
    path: Path, examples: Sequence[Example], places: Sequence[str], group: str, parts: Sequence[str]
) -> None:
    """Refuse what is in two parts: a model would be tested on what it was trained on."""
    for keys, name in (([_same(e) for e in examples], ""), ([e.group for e in examples], group)):
        for number, first, second in _clashes(keys, places, parts):
            what = f"{name} {keys[number]!r}" if name else examples[number].source
            raise ConfigError(
                f"{path}: {what} is in {first} and in {second}; what is in two tests a model on what it was "
                "trained on; give it one"
            )


def _check_fold(path: Path, examples: Sequence[Example], fold: str) -> None:
    """Refuse a fold that no row is in, or that all are in."""
    known = sorted({e.fold for e in examples if e.fold not in (None, "test")}, key=lambda f: (len(f), f))
    if fold not in known:
        raise ConfigError(
            f"{path}: no rows of fold {fold!r}; there is {', '.join(known) or 'none'}: name one with --fold"
        )
    if len(known) == 1:
        raise ConfigError(f"{path}: all rows are of fold {fold!r}; training needs another one")


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
    keys: Sequence[Any], places: Sequence[str], parts: Sequence[str]
) -> Iterator[tuple[int, str, str]]:
    """Rows whose part is another than that of an earlier row with their key (None = no key), and both in words."""
    seen: dict[Any, int] = {}
    for number, key in enumerate(keys):
        first = seen.setdefault(key, number)
        if key is not None and parts[first] != parts[number]:
            yield number, f"{parts[first]} ({places[first]})", f"{parts[number]} ({places[number]})"


def _example(
    row: Mapping[str, str],
    manifest: Path,
    place: str,
    columns: _Columns,
    fold: str | None,
    files: dict[Any, Boxes],
    *,
    multi: bool,
) -> Example:
    where = f"{manifest}, {place}"
    source = row[columns.source]
    if not source:
        raise ConfigError(f"{where}: the path is empty")
    if "://" not in source and not source.startswith("/vsi"):
        source = str(manifest.parent / source)
        if columns.source != "path":
            source = _with_suffix(source, where)
    label: Label | None = row.get(columns.label) or None
    if multi and columns.label:
        label = _names(row[columns.label], where)
    split = _split(row, where, fold)
    boxes = read_boxes(
        row.get("boxes", ""), manifest, where, named=label is None, strict=split != "test", known=files
    )
    return Example(
        source=source,
        label=label,
        split=split,
        region=_region(row, where),
        boxes=boxes and boxes.places,
        box_labels=boxes and boxes.labels,
        group=row.get(columns.group) or None,
        mpp=_mpp(row.get("mpp", ""), where),
        fold=_fold(row.get("fold", "")) or None,
    )


def _with_suffix(source: str, where: str) -> str:
    """The image that a slide's name without its suffix means; the name itself where there is none."""
    slide = Path(source)
    if slide.suffix.lower() in (*IMAGES, ".zarr"):
        return source
    found = sorted(
        name
        for suffix in (*IMAGES, ".zarr")
        if os.path.exists(name := source + suffix)  # noqa: PTH110
    )
    if len(found) > 1:
        raise ConfigError(f"{where}: {source} may be {' or '.join(found)}; give the name with its suffix")
    return found[0] if found else source


def _names(text: str, where: str = "") -> tuple[str, ...]:
    """Labels with ``|`` between."""
    names = tuple(name.strip() for name in text.split(SEPARATOR) if name.strip())
    if len(set(names)) < len(names):
        raise ConfigError(f"{where}: a label is there twice: {text!r}")
    return names


def _fold(text: str) -> str:
    """A fold's name; whole numbers that went through a table of floats lose their point."""
    return text.removesuffix(".0")


def _split(row: Mapping[str, str], where: str, fold: str | None) -> str:
    split, own = row.get("split", ""), _fold(row.get("fold", ""))
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
            f"{where}: split {split!r} and fold {own!r}; with --fold the folds say what validates, so leave the "
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
