"""Which file of a folder holds the features of which image."""

import hashlib
import os
from collections.abc import Iterable
from functools import cached_property
from itertools import takewhile
from pathlib import Path

from hiresattn.datasets.features import FORMATS, read_facts, stem_of
from hiresattn.errors import ConfigError, NotFoundError
from hiresattn.files import absolute_source, is_remote

#: What follows the stem in a file's name: the hash of the image's path.
_HASH = 8


def feature_file(folder: str | Path, source: str, form: str = "zarr") -> Path:
    """Where the features of an image are written: its stem, and a hash of its path, for others have the same stem."""
    digest = hashlib.sha256(absolute_source(source).encode()).hexdigest()[:_HASH]
    return Path(folder) / f"{stem_of(source)}-{digest}{FORMATS[form]}"


class FeatureFiles:
    """The files of features in a folder, as those of the images of a table.

    A file is an image's by the hash of its path. An image without such a file was moved, or another tool wrote its
    features, ``STEM.h5``: they are found by its name. Of several files that one is taken which says that its image lay
    in folders of the same names, from the last on. Not taken by name is a file

    * of another image of the table, by the hash;
    * that says it is of an image of another name (suffix included), or of one at another place which is still there,
      where this image is there, too: they are two images.

    Args:
        folder: The folder.
        sources: Paths and addresses of the table's images, all of them.
    """

    def __init__(self, folder: str | Path, sources: Iterable[str]) -> None:
        self._folder = Path(folder)
        self._hashed = {feature_file(folder, s, form).name: s for s in sources for form in FORMATS}
        self._taken: dict[Path, str] = {}

    def of(self, source: str) -> Path:
        """The file with the features of an image.

        Raises:
            NotFoundError: If there is none, or which one it is can't be told.
            ConfigError: If it is the file of another image, too, that was asked for before.
            ReadError: If one that it may be is damaged.
        """
        own = [path for form in FORMATS if (path := feature_file(self._folder, source, form)).exists()]
        if len(own) > 1:
            raise NotFoundError(
                f"{source}: its features in {self._folder} are there twice, as {own[0].name} and {own[1].name}; remove "
                "one of them"
            )
        path = own[0] if own else self._by_name(source)
        first = self._taken.setdefault(path, source)
        if absolute_source(first) != absolute_source(source):
            raise ConfigError(
                f"{path}: by its name it holds the features of two images, {first} and {source}; extract them anew"
            )
        return path

    def _by_name(self, source: str) -> Path:
        found: dict[Path, int] = {}
        others = []
        for path in self._named.get(stem_of(source), []):
            stated = self._hashed.get(path.name) or _stated(path)
            if path.name in self._hashed or not _may_be(stated, source, path):
                others.append(f"{path.name} is of {stated or path.stem}")
            else:
                found[path] = _in_common(stated or "", source)
        best = [path for path, count in found.items() if count == max(found.values())]
        if len(best) == 1:
            return best[0]
        if best:
            raise NotFoundError(
                f"{source}: {len(best)} files of features in {self._folder} have its name, such as {best[0].name} "
                f"and {best[1].name}, and none its path; extract them anew"
            )
        but = f" ({others[0]}, another image)" if others else ""
        raise NotFoundError(
            f"{source}: no features of it in {self._folder}{but}; hiresattn extract makes them"
        )

    @cached_property
    def _named(self) -> dict[str, list[Path]]:
        """Files by the stems of the images that they may be of."""
        files: dict[str, list[Path]] = {}
        for path in sorted(self._folder.iterdir()) if self._folder.is_dir() else []:
            if path.suffix not in FORMATS.values():
                continue
            files.setdefault(path.stem, []).append(path)
            stem, dash, digest = path.stem.rpartition("-")
            if dash and len(digest) == _HASH and set(digest) <= set("0123456789abcdef"):
                files.setdefault(stem, []).append(path)
        return files


def _stated(path: Path) -> str | None:
    """The image that a file says it is of."""
    stated = read_facts(path).get("source")
    return None if stated is None else str(stated)


def _may_be(stated: str | None, source: str, path: Path) -> bool:
    """Whether an image may be the one that a file says it is of; it lies elsewhere."""
    if stated is None:
        return path.stem == stem_of(source)
    if _parts(stated)[0] != _parts(source)[0]:
        return False
    if is_remote(stated) or is_remote(source) or not os.path.isabs(stated):  # noqa: PTH117 - no name makes these raise
        return True
    both = os.path.exists(stated) and os.path.exists(source)  # noqa: PTH110
    return not both or os.path.samefile(stated, source)  # noqa: PTH121


def _in_common(one: str, other: str) -> int:
    """How many names two paths have in common, from the last on."""
    pairs = zip(_parts(one), _parts(absolute_source(other)), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _parts(source: str) -> list[str]:
    return source.replace(os.sep, "/").rstrip("/").split("/")[::-1]
