"""Records without the names of files and folders, which may be those of patients."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import PurePath

from hiresattn.files import is_zarr
from hiresattn.inference.record import CaseSource, Record

#: In place of a text that may hold a name.
LEFT_OUT = "left out, for it may hold names"
#: What looks like a path: it begins as one does, or is an address, or has several folders.
_PATH = re.compile(r"(?:^|[\s'\"(=,:])(?:/|~|\.\.?[/\\]|\w:[/\\]|\\\\)|://|[\w.-]+[/\\][\w.-]+[/\\.]")


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

    Errors, and warnings in which a part of a path is left, are replaced as a whole: what a reader has to say of a file
    may name others. Classes, labels, the name of the model and that of the case stay.

    Args:
        record: The record.
        name: What it is called from now on; its images get numbers where there are several.
    """
    images = record.sources or (CaseSource(record.source),)
    names = image_names(name, len(images))
    known = dict(zip([one.source for one in images], names, strict=True)) | {record.source: name}
    parts = {part for path in known for part in _parts(path)} - _parts(name)
    sources = tuple(
        replace(
            one,
            source=shown,
            bytes=None,
            modified=None,
            acquired=None,
            bounds=None if is_zarr(one.source) else one.bounds,
            error=None if one.error is None else LEFT_OUT,
        )
        for one, shown in zip(images, names, strict=True)
    )
    return replace(
        record,
        source=name,
        sources=sources if record.sources else (),
        error=None if record.error is None else LEFT_OUT,
        warnings=tuple(_clean(text, known, parts) for text in record.warnings),
        review_reasons=tuple(_clean(text, known, parts) for text in record.review_reasons),
    )


def _clean(text: str, known: dict[str, str], parts: set[str]) -> str:
    """A text with other names for images; what may hold a name after that is left out."""
    for path in sorted(known, key=len, reverse=True):
        text = text.replace(path, known[path])
    low = text.casefold()
    if _PATH.search(text) or any(re.search(rf"(?<!\w){re.escape(part)}(?!\w)", low) for part in parts):
        return LEFT_OUT
    return text


def _parts(path: str) -> set[str]:
    """The folders, the name, and the name without its suffixes, of a path or an address; case is folded."""
    found = {part for part in re.split(r"[/\\]+", path.casefold()) if part.strip(".:~")}
    last = PurePath(path.casefold()).name
    return found | {last.partition(".")[0]} - {""} if last else found
