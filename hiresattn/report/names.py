"""File names for what belongs to images: no two alike."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath

from hiresattn.files import is_remote


def unique_names(sources: Sequence[str]) -> list[str]:
    """A file name for each of several images, without a suffix of its own.

    It is the image's name; where several have one name, with as many folders before it as tell them apart, and where
    nothing does, with a number. Names that differ in case only count as one, as some file systems take them.

    Args:
        sources: Paths or addresses.
    """
    parts = [_parts(source) for source in sources]
    names = [own[-1] for own in parts]
    for length in range(2, max(map(len, parts), default=0) + 1):
        seen = Counter(map(str.casefold, names))
        if max(seen.values()) == 1:
            break
        for at, own in enumerate(parts):
            if seen[names[at].casefold()] > 1:
                names[at] = "_".join(own[-length:])
    taken: set[str] = set()
    for at, name in enumerate(names):
        tries = (name, *(f"{name}-{number}" for number in range(2, len(names) + 2)))
        names[at] = next(one for one in tries if one.casefold() not in taken)
        taken.add(names[at].casefold())
    return names


def case_names(records: Sequence[tuple[str | None, str, Sequence[int] | None]]) -> list[str]:
    """An identifier for each of several records, no two alike but those of one case.

    It is the case; without one the image's name without suffix, as far as that and the folders before it tell images
    apart, with the window where there is one.

    Args:
        records: Case, path or address, and window of each.
    """
    images = list(dict.fromkeys(source for case, source, _ in records if case is None))
    stems = [_stem(source) for source in images]
    seen = Counter(map(str.casefold, stems))
    short = [stem if seen[stem.casefold()] == 1 else image for image, stem in zip(images, stems, strict=True)]
    names = dict(zip(images, unique_names(short), strict=True))
    taken = {case.casefold() for case, _, _ in records if case is not None}
    found = []
    for case, source, window in records:
        name = case
        if name is None:
            name = "_".join([names[source], *map(str, window or ())])
            tries = (name, *(f"{name}-{number}" for number in range(2, len(records) + 2)))
            name = next(one for one in tries if one.casefold() not in taken)
            taken.add(name.casefold())
        found.append(name)
    return found


def _stem(source: str) -> str:
    """A path or address without the suffix of the file's name."""
    path = PurePath(re.split(r"[?#]", source, maxsplit=1)[0] if is_remote(source) else source)
    name = path.stem.removesuffix(".ome") if path.suffix[1:].isalnum() else path.name
    return str(path.with_name(name)) if path.name and name else source


def _parts(source: str) -> list[str]:
    """The folders and the name, of an address without what is asked of the server."""
    path = re.split(r"[?#]", source, maxsplit=1)[0] if is_remote(source) else source
    found = [part for part in PurePath(path).parts if part.strip("/\\.:")]
    return [part.replace("\\", "_").replace(":", "_")[-100:] for part in found] or ["image"]
