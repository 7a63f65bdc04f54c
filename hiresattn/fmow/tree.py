"""fMoW's directory tree: finds every view, its metadata and its ground truth."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hiresattn.errors import ConfigError, NotFoundError
from hiresattn.fmow.classes import CLASSES, FALSE_DETECTION
from hiresattn.fmow.groundtruth import Truth, frames_below, read_metadata
from hiresattn.fmow.metadata import CROWD, Box, Metadata

SPLITS = ("train", "val", "test", "seq")
#: A view's images: pan-sharpened, multispectral (as RGB; in fMoW-full with all bands).
IMAGERY = ("rgb", "msrgb", "ms")

_IMAGES = (".jpg", ".jpeg", ".tif", ".tiff")
_NO_IMAGE = "metadata without an image"


@dataclass(frozen=True)
class View:
    """One image of one place."""

    split: str
    """``train``, ``val``, ``test`` or ``seq``."""
    folder: str
    """Folder of the image below the split, such as ``airport/airport_0`` or ``0011978``."""
    sequence: str
    """Name of the place's sequence of views: the truth's where known, such as ``airport_0``; else the folder's."""
    frame: int
    category: str | None
    """Of the sequence; None = not known."""
    image: Path
    metadata: Metadata | None
    """None = there is no JSON file of it."""


@dataclass(frozen=True)
class Skipped:
    """A file or box that was left out."""

    path: str
    """What was left out."""
    reason: str
    """Why; the same text for the same reason, so that reasons can be counted."""
    detail: str = ""
    """Details of this one."""
    view: View | None = None
    """What its metadata says of an image that isn't there."""


def scan(
    root: str | Path,
    *,
    images: str | Path | None = None,
    groundtruth: str | Path | None = None,
    splits: tuple[str, ...] = ("train", "val", "test"),
    imagery: str = "rgb",
) -> Iterator[View | Skipped]:
    """Yield the views of a release: ``<split>/<category>/<sequence>/<sequence>_<frame>_<imagery>.jpg`` and ``.json``.

    Test images lie in folders named by numbers; the ground truth's ``test_gt_mapping.json`` says which is
    which. Test images sorted into folders by category, as TNet does, are taken too.

    Args:
        root: The folder that holds ``train``, ``val`` …
        images: Where the images are, if not beside their JSON files: the same tree elsewhere.
        groundtruth: ``groundtruth.tar.bz2`` or the folder it was unpacked to; None = looked for in ``root``. The
            whole archive takes minutes to go through and 1 GB of memory; unpacked it takes neither.
        splits: Which to go through, in order.
        imagery: ``rgb``, ``msrgb``, or fMoW-full's ``ms``.

    Yields:
        Views by split, folder and frame, and what was left out: images whose metadata is damaged, metadata
        without an image, folders of unknown categories.

    Raises:
        NotFoundError: If ``root`` or ``images`` has none of the splits, or there is no such ground truth.
        ConfigError: If a split or imagery is unknown, or a mapping can't be used.
        OpenError: If the ground truth's archive is damaged.
    """
    for names, known, what in ((splits, SPLITS, "split"), ((imagery,), IMAGERY, "imagery")):
        for name in names:
            if name not in known:
                raise ConfigError(f"{name!r} is no {what} of fMoW; possible are {', '.join(known)}")
    root = Path(root)
    pictures = root if images is None else Path(images)
    for base in {root: None, pictures: None}:
        if not any((base / split).is_dir() for split in splits):
            raise NotFoundError(
                f"{base}: none of the folders {', '.join(splits)} in it; give the folder of the release, such as "
                "fmow-rgb"
            )
    truth = Truth.find(root, groundtruth, splits, imagery)
    for split in splits:
        yield from _split(root / split, pictures / split, split, imagery, truth)


def _split(
    metadata: Path, pictures: Path, split: str, imagery: str, truth: Truth
) -> Iterator[View | Skipped]:
    images = frames_below(pictures, imagery, _IMAGES)
    loose = frames_below(metadata, imagery, (".json",))
    used = set()
    for folder in sorted(images.keys() | loose.keys(), key=_natural):
        place = folder if "/" in folder else truth.place(split, folder)
        category = place.split("/")[0] if place else None
        if category is not None and category not in (*CLASSES, FALSE_DETECTION):
            yield Skipped(f"{split}/{folder}", "not a category of fMoW", category)
            continue
        here, texts = images.get(folder, {}), loose.get(folder, {})
        known = truth.frames(split, place) if place else {}
        for frame in sorted(here.keys() | texts.keys()):
            where = here.get(frame) or texts[frame]
            found: list[Metadata] = []
            damaged = False
            for source, is_truth in ((texts.get(frame), False), (known.get(frame), True)):
                try:
                    if source is not None:
                        read = read_metadata(source)
                        found.append(_with_false_detections(read) if is_truth else read)
                except ConfigError as error:
                    damaged = True
                    yield Skipped(where, "damaged metadata", str(error))
            if damaged and not found:
                continue
            sequence = (place or folder).split("/")[-1]
            view = View(split, folder, sequence, frame, category, Path(where), _merged(found))
            used |= {(place, frame)}
            yield view if frame in here else Skipped(where, _NO_IMAGE, view=view)
    for place, frame in truth.others(split, used):
        where = f"{split}/{place}, frame {frame}"
        category, _, sequence = place.rpartition("/")
        try:
            facts = _with_false_detections(read_metadata(truth.frames(split, place)[frame]))
            view = View(split, place, sequence, frame, category, metadata / f"{sequence}_{frame}", facts)
        except ConfigError as error:
            yield Skipped(where, "damaged metadata", str(error))
        else:
            yield Skipped(where, _NO_IMAGE, view=view)


def _with_false_detections(truth: Metadata) -> Metadata:
    """The truth, in which a box without a category is a false detection, as in the challenge's score."""
    boxes = (
        replace(box, category=FALSE_DETECTION) if box.category is None and box.id != CROWD else box
        for box in truth.boxes
    )
    return replace(truth, boxes=tuple(boxes))


def _merged(found: list[Metadata]) -> Metadata | None:
    """The view's own metadata and the truth's: the latter wins, and the boxes of both are kept."""
    if not found:
        return None
    boxes: dict[int, Box] = {}
    for one in found:
        boxes |= {box.id: box for box in one.boxes}
    return replace(found[-1], boxes=tuple(boxes.values()))


def _natural(folder: str) -> tuple[tuple[str, int], ...]:
    """airport_2 before airport_10."""
    parts = []
    for part in folder.split("/"):
        name, _, number = part.rpartition("_")
        parts.append((name, int(number)) if number.isdecimal() else (part, -1))
    return tuple(parts)
