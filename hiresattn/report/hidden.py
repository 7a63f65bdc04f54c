"""Records without the names of files and folders, which may be those of patients."""

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePath

from hiresattn.datasets.tables import csv_cell
from hiresattn.errors import WriteError
from hiresattn.files import atomic_write, is_zarr
from hiresattn.inference.record import CaseSource, Record
from hiresattn.report.tables import cell

#: What says what the names stand for: the one file of a results folder that isn't to be sent.
NAMES = "names.csv"
#: In place of a path that is none of the record's own images.
A_PATH = "(a path)"
#: What looks like a path: in quotes with a slash; begun as one, up to a suffix or a space; an address; several folders.
_PATH = re.compile(
    r"""'[^']*[/\\][^']*'|"[^"]*[/\\][^"]*"|\w+://[^\s'"(),;]*"""
    r"""|(?:^|(?<=[\s'"(=,:]))(?:/|~[/\\]|\.\.?[/\\]|[a-z]:[/\\]|\\\\)"""
    r"""(?:[^'"(),;:\n]*?\.[a-z]\w{0,6}(?=$|[\s'"(),;:])|[^\s'"(),;:]*\w[^\s'"(),;:]*)"""
    r"""|[\w.-]+[/\\][\w-]+(?:[/\\]\w|\.[a-z])[\w./\\-]*""",
    re.IGNORECASE,
)
#: Characters that a name has at least, to be looked for without its suffix.
_LEAST = 4


def write_names(path: Path, pairs: Iterable[tuple[str, str]]) -> None:
    """Write what names stand for, beside what the file says already: columns ``name`` and ``source``.

    Raises:
        WriteError: If it can't be written.
    """
    try:
        known = {}
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                known = {row[0]: row[1] for row in list(csv.reader(file))[1:] if len(row) > 1}
        known |= {csv_cell(cell(name)): csv_cell(cell(source)) for name, source in pairs}
        with atomic_write(path) as part, part.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([("name", "source"), *known.items()])
    except OSError as error:
        raise WriteError(f"{path}: can't be written ({error.strerror or error}); check its folder") from error


def hidden_name(case: str | None, number: int) -> str:
    """What a record is called in place of its source: its case, else by its number."""
    return case if case is not None else f"image-{number}"


def image_names(name: str, count: int) -> list[str]:
    """What the images of a record are called."""
    return [name] if count == 1 else [f"{name} image {number}" for number in range(1, count + 1)]


def hide_all(records: Iterable[Record]) -> Iterator[Record]:
    """Records without names, numbered from 1 in their order."""
    for number, record in enumerate(records, 1):
        yield hide_names(record, hidden_name(record.case, number))


def hide_names(record: Record, name: str) -> Record:
    """A record that names no file and no folder, and doesn't say when its images were taken.

    In errors, warnings and reasons its images are called so, too, and other paths are left out. Classes, labels, the
    name of the model and that of the case stay.

    Args:
        record: The record.
        name: What it is called from now on; its images get numbers where there are several.
    """
    images = record.sources or (CaseSource(record.source),)
    names = image_names(name, len(images))
    clean = cleaner(record, name)
    sources = tuple(
        replace(
            one,
            source=shown,
            bytes=None,
            modified=None,
            acquired=None,
            bounds=None if is_zarr(one.source) else one.bounds,
            error=None if one.error is None else clean(one.error),
        )
        for one, shown in zip(images, names, strict=True)
    )
    return replace(
        record,
        source=name,
        sources=sources if record.sources else (),
        error=None if record.error is None else clean(record.error),
        warnings=tuple(map(clean, record.warnings)),
        review_reasons=tuple(map(clean, record.review_reasons)),
    )


def cleaner(record: Record, name: str) -> Callable[[str], str]:
    """What writes other names for a record's images in its texts: for paths, files' names, and these without suffix."""
    images = record.sources or (CaseSource(record.source),)
    shown = [(record.source, name)]
    shown += zip([one.source for one in images], image_names(name, len(images)), strict=True)
    folders = {str(one) for path, _ in shown for one in PurePath(path).parents if len(one.parts) > 1}
    classes = {one.casefold() for one in record.scores}
    inside = [(path, other) for path, other in shown if path != name]
    files = [(PurePath(path).name, other) for path, other in inside]
    stems = [(stem, other) for file, other in files for stem in {file.partition(".")[0], PurePath(file).stem}]
    whole = [(stem, other) for stem, other in stems if len(stem) >= _LEAST and stem.casefold() not in classes]
    words = [(re.escape(file), other) for file, other in files if file]
    words += [(rf"{re.escape(stem)}\.[a-z]\w*", other) for stem, other in stems if stem]
    words += [(re.escape(stem), other) for stem, other in whole]
    named = [(re.compile(rf"(?<!\w){word}(?!\w)", re.IGNORECASE), other) for word, other in words]

    def clean(text: str) -> str:
        for path, other in sorted(inside, key=lambda pair: -len(pair[0])):
            text = text.replace(path, other)
        for folder in sorted(folders, key=len, reverse=True):
            text = text.replace(folder, A_PATH)
        text = _PATH.sub(A_PATH, text)
        for pattern, other in named:
            text = other.join(pattern.split(text))
        return text

    return clean
