"""Sources by name: files, folders, globs, URLs and manifests."""

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass

from hiresattn.datasets.dicom import one_per_slide
from hiresattn.datasets.example import Example, Label
from hiresattn.datasets.folder import images_below
from hiresattn.datasets.indexes import without_parts
from hiresattn.datasets.tables import SPREADSHEETS, SUFFIXES
from hiresattn.errors import HiresattnError
from hiresattn.files import IMAGE_SUFFIXES, is_remote, is_zarr
from hiresattn.pyramid.products import product_of
from hiresattn.pyramid.stac import may_hold_items, stac_sources
from hiresattn.pyramid.stack import Stack


@dataclass(frozen=True)
class Unusable:
    """A name without a source, or a source that can't be looked up; in its place, so that the others go on."""

    source: str
    """The name, or the path."""
    error: str
    """What is wrong, and what to do."""
    label: Label | None = None
    region: tuple[int, int, int, int] | None = None
    case: str | None = None


def is_manifest(name: str) -> bool:
    """Whether a name is that of a local table, or of a spreadsheet, which is an error."""
    return name.lower().endswith((*SUFFIXES, *SPREADSHEETS)) and not is_remote(name)


def sources_of(
    name: str, split: str | None = None, *, root: str | None = None, label_column: str | None = None
) -> Iterator[str | Stack | Example | Unusable]:
    """All sources that a name stands for.

    Args:
        name: Path of a file, a folder (its images, also in folders below; a Zarr directory is one image) or a manifest;
            a glob; a URL.
        split: Of a manifest only these rows.
        root: Folder that paths in a manifest are relative to; None = the manifest's.
        label_column: A manifest's column of labels; None = ``label``, or ``labels``.

    Yields:
        Paths and URLs as given; the rows of a manifest as examples; for a name without sources (an empty folder, a bad
        manifest …) what is wrong with it. A plain path is not opened: if it doesn't exist, that is an error of the
        source.
    """
    if is_manifest(name):
        yield from _rows(name, split, root=root, label_column=label_column)
    else:
        yield from images_of(name)


def _rows(
    path: str, split: str | None, *, root: str | None, label_column: str | None
) -> Iterator[Example | Unusable]:
    from hiresattn.datasets.manifest import read_manifest

    try:
        examples = read_manifest(path, root=root, label_column=label_column)
    except HiresattnError as error:
        yield Unusable(path, str(error))
        return
    kept = [example for example in examples if split in (None, example.split)]
    if not kept:
        has = ", ".join(sorted({example.split for example in examples}))
        yield Unusable(path, f"{path}: no rows of split {split!r}; it has {has}")
    for example in kept:
        alone = example.case is None  # else it is an error of its case, which goes on without it
        wrong = _lookup_error(example.source) if alone and not is_remote(example.source) else None
        yield Unusable(example.source, wrong, example.label, example.region) if wrong else example


def images_of(name: str) -> Iterator[str | Stack | Unusable]:
    """The images that a path, a folder, a glob or a URL stands for; of STAC items, the scenes."""
    if may_hold_items(name):
        try:
            yield from stac_sources(name)
        except HiresattnError as error:
            yield Unusable(name, str(error))
    elif is_remote(name):
        yield name
    elif os.path.isdir(name):  # noqa: PTH112 - as os.path.exists below: no name makes it raise
        yield from _folder(name)
    elif glob.has_magic(name) and not os.path.exists(name):  # noqa: PTH110
        matches = sorted(glob.glob(name, recursive=True))  # noqa: PTH207 - the user's own pattern
        if not matches:
            yield Unusable(name, f"{name}: no file matches this pattern")
        for match in one_per_slide(without_parts(matches)):
            if os.path.isdir(match):  # noqa: PTH112
                yield from _folder(match)
            else:
                yield match
    else:
        wrong = _lookup_error(name)
        yield Unusable(name, wrong) if wrong else name


def _folder(folder: str) -> Iterator[str | Stack | Unusable]:
    """The images of a folder and of those in it; a Zarr directory, or a scene of Sentinel-2 or Landsat, is one."""
    if is_zarr(folder):
        yield folder
        return
    scene = product_of(folder)
    if scene is not None:
        yield scene
        return
    empty = True
    unread: list[OSError] = []
    for image in images_below(folder, unread.append):
        empty = False
        yield image
    for error in unread:
        name = str(error.filename)
        yield Unusable(name, f"{name}: the folder can't be read ({error.strerror}); check its permissions")
    if empty and not unread:
        yield Unusable(
            folder,
            f"{folder}: a folder with no image in it, and no Zarr (no zarr.json, .zgroup or .zarray); "
            f"images end in {' '.join(sorted(IMAGE_SUFFIXES))}",
        )


def _lookup_error(path: str) -> str | None:
    """Why a path can't be looked up; None = it can, or there is no such file, which is an error of reading it."""
    try:
        os.stat(path)  # noqa: PTH116 - as it was given
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        return f"{path}: it can't be looked up ({why}); check the name and the permissions of its folders"
    return None
