"""Folders as data sets: the images below a folder, and one folder per class."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from hiresattn.datasets.dicom import one_per_slide, series_of
from hiresattn.datasets.example import SPLITS, Example
from hiresattn.datasets.indexes import without_parts
from hiresattn.datasets.splits import drawn_splits
from hiresattn.errors import ConfigError
from hiresattn.files import IMAGE_SUFFIXES, is_zarr
from hiresattn.option_types import did_you_mean

#: Share of a class's images that validate, and that are kept for testing, where no folder says so.
SHARE = 0.15
#: Other names of the splits.
_KNOWN_AS = {"valid": "val", "validation": "val", "dev": "val", "training": "train", "testing": "test"}


def images_below(folder: str | Path, unread: Callable[[OSError], object]) -> Iterator[str]:
    """The images of a folder and of those in it, sorted folder by folder; a Zarr directory, or a DICOM series, is one.

    Hidden files and folders are left out; ``unread`` is called with the error of a folder that can't be read.
    """
    for root, folders, files in os.walk(folder, onerror=unread):
        zarrs = sorted(name for name in folders if is_zarr(os.path.join(root, name)))  # noqa: PTH118
        folders[:] = sorted(name for name in folders if name not in zarrs and not name.startswith("."))
        images = [name for name in files if Path(name).suffix.lower() in IMAGE_SUFFIXES and name[0] != "."]
        found = [str(Path(root, name)) for name in sorted(images + zarrs)]
        yield from one_per_slide(without_parts(found))


def read_examples(
    path: str | Path,
    *,
    labels: bool = False,
    multi: bool = False,
    fold: int | str | None = None,
    root: str | Path | None = None,
    label_column: str | None = None,
    seed: int = 0,
) -> list[Example]:
    """Read labelled images: a manifest (see ``read_manifest``), or a folder (see ``read_folder``).

    Raises:
        ConfigError: If a folder is asked for what only a manifest can say: several labels per image, a fold, a column.
        HiresattnError: What the two raise.
    """
    if not os.path.isdir(path):  # noqa: PTH112 - no name makes it raise
        from hiresattn.datasets.manifest import read_manifest

        return read_manifest(
            path, labels=labels, multi=multi, fold=fold, root=root, label_column=label_column
        )
    if root is not None or label_column is not None:
        raise ConfigError(f"{path}: a folder; root and label_column are for a manifest, so leave them out")
    if multi or fold is not None:
        asked = "several labels per image" if multi else f"fold {fold}"
        raise ConfigError(
            f"{path}: a folder, which can't say {asked}; give a manifest with a column for that"
        )
    return read_folder(path, seed=seed, train=labels)


def read_folder(folder: str | Path, *, seed: int = 0, train: bool = True) -> list[Example]:
    """Read ``FOLDER/{train,val,test}/CLASS/…``, or ``FOLDER/CLASS/…``, which is split here.

    Every format that ``open_pyramid`` reads counts, in the class's folder and below. Without folders for splits, 15 %
    of each class validate and 15 % are kept for testing, by a hash of seed and name: the same images each time.

    Args:
        folder: The folder.
        seed: Of the split.
        train: Whether there must be a split ``train``, with the classes of the others.

    Returns:
        The examples, in the order of the names.

    Raises:
        ConfigError: If the folder isn't arranged like that; the message names what is wrong.
    """
    root = Path(folder)
    if is_zarr(root):
        raise ConfigError(
            f"{root}: a Zarr directory is one image; give the folder with a folder for each class"
        )
    inside = _folders(root)
    if any(path.name in SPLITS for path in inside):
        for path in inside:
            if path.name not in SPLITS:
                raise ConfigError(
                    f"{path}: none of the splits {', '.join(SPLITS)}{_nearest_split(path.name)}, which are beside it"
                )
        parts = [(split, _classes(root / split)) for split in SPLITS if (root / split).is_dir()]
        if train:
            _check_names(root, dict(parts))
        examples = [
            Example(image, name, split)
            for split, classes in parts
            for name, images in classes.items()
            for image in images
        ]
        _check_series(examples)
        return examples
    if inside and all(_nearest_split(path.name) and _folders(path) for path in inside):
        raise ConfigError(
            f"{inside[0]}: none of the splits {', '.join(SPLITS)}{_nearest_split(inside[0].name)} Rename it, or put "
            "the images of each class right into a folder named after it"
        )
    labelled = [(image, name) for name, images in _classes(root).items() for image in images]
    names = [(Path(image).relative_to(root).as_posix(), name) for image, name in labelled]
    splits = drawn_splits(names, SHARE, SHARE, seed)
    examples = [Example(*one, split) for one, split in zip(labelled, splits, strict=True)]
    _check_series(examples)
    return examples


def _classes(folder: Path) -> dict[str, list[str]]:
    """The images of each class."""
    found = {path.name: _images(path) for path in _folders(folder)}
    stray = _stray(folder)
    if not found or stray:
        what = f"{stray}: an image outside of the folders" if stray else f"{folder}: no folders in it"
        raise ConfigError(f"{what}; the images of each class belong into a folder named after it")
    for name, images in found.items():
        if not images:
            raise ConfigError(
                f"{folder / name}: a class without an image; images end in {' '.join(sorted(IMAGE_SUFFIXES))}, or are "
                "Zarr directories. Fill the folder, or remove it"
            )
    return found


def _check_series(examples: Sequence[Example]) -> None:
    """Refuse a DICOM series of which two splits have files: a model would be tested on what it was trained on."""
    seen: dict[str, Example] = {}
    for example, series in zip(examples, series_of(example.source for example in examples), strict=True):
        first = seen.setdefault(series, example) if series else example
        if first.split != example.split:
            raise ConfigError(
                f"{first.source} and {example.source} are of one DICOM series, one slide, and would be in the splits "
                f"{first.split!r} and {example.split!r}; put all files of a series into one folder"
            )


def _check_names(root: Path, parts: dict[str, dict[str, list[str]]]) -> None:
    """Refuse a class that nothing is trained on."""
    known = parts.get("train")
    if known is None:
        raise ConfigError(f"{root}: no folder 'train' beside {', '.join(parts)}")
    for split, classes in parts.items():
        for name in classes:
            if name not in known:
                raise ConfigError(
                    f"{root / split / name}: no such class in 'train'{did_you_mean(name, known)}"
                )


def _folders(folder: Path) -> list[Path]:
    try:
        inside = sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    except OSError as error:
        _unread(error)
    return [path for path in inside if not is_zarr(path)]


def _images(folder: Path) -> list[str]:
    return list(images_below(folder, _unread))


def _stray(folder: Path) -> Path | None:
    """An image that lies beside the folders."""
    for path in sorted(folder.iterdir()):
        if path.name[0] != "." and (
            is_zarr(path) if path.is_dir() else path.suffix.lower() in IMAGE_SUFFIXES
        ):
            return path
    return None


def _unread(error: OSError) -> NoReturn:
    name = str(error.filename)
    raise ConfigError(
        f"{name}: the folder can't be read ({error.strerror}); check its permissions"
    ) from error


def _nearest_split(name: str) -> str:
    """``; did you mean 'train'?`` where a name is nearly that of a split."""
    words = did_you_mean(_KNOWN_AS.get(name.lower(), name.lower()), SPLITS)
    return words if "did you mean" in words else ""
