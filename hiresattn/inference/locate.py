"""Boxes from image labels: visit every finest region, and keep those that explain the label."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hiresattn.checkpoint import Model, load_model
from hiresattn.datasets.example import Example
from hiresattn.datasets.manifest import read_manifest
from hiresattn.datasets.scales import with_scales
from hiresattn.datasets.write import write_manifest
from hiresattn.errors import ConfigError, WriteError
from hiresattn.inference.attention_regions import (
    RegionScores,
    calibrated_boxes,
    kept_scores,
)
from hiresattn.inference.lines import LinesFile, refuse_filled
from hiresattn.inference.locator import Locator, check
from hiresattn.inference.options import LocateOptions
from hiresattn.inference.records_file import source_key
from hiresattn.option_types import changed

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Located:
    """What ``locate`` found."""

    examples: tuple[Example, ...]
    """All rows of the manifest, with the boxes found."""
    searched: int
    """Images that were searched."""
    found: int
    """Of these, images in which boxes were found."""
    failures: tuple[tuple[str, str], ...] = ()
    """With ``on_error="skip"``, each image that couldn't be read, and why; its row is as it was."""


def locate(
    manifest: str | Path | Iterable[Example],
    model: Model | str | Path,
    output: str | Path | None = None,
    options: LocateOptions | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[float, str], None] = lambda _share, _step: None,
    **changes: Any,
) -> Located:
    """Find boxes around what shows the label of each training image, by reading every finest region.

    A training on the manifest written then supervises the scorer with the boxes. Rows of other splits, and rows with
    boxes, stay as they are. What is found goes to a file ``OUTPUT.part`` image by image, with which an interrupted
    run is resumed; it is removed when ``output`` is written and no image failed.

    Args:
        manifest: A CSV or Parquet file, or examples.
        model: A directory, a hub name or a loaded model.
        output: Manifest to write, CSV; None = nothing is written.
        options: How; None = the defaults.
        resume: Go on from ``OUTPUT.part``: only images that aren't in it are read.
        overwrite: Replace ``output``, and start anew. Without either, what is there is refused.
        progress: Called with the share done, 0 to 1, and the image's name.
        changes: Single options, in place of those of ``options``.

    Returns:
        The rows with boxes, and how many images have some.

    Raises:
        ConfigError: If a label can't be used, an image has too many regions, or ``output`` is in the way.
        HiresattnError: If an image can't be read.
        WriteError: If ``output`` can't be written.

    Examples:
        >>> hiresattn.locate("slides.csv", "patch-model", "slides-with-boxes.csv").found
    """
    chosen = changed(options, changes, LocateOptions)
    if output is not None:
        _check_output(Path(output), manifest, resume=resume, overwrite=overwrite)
    rows = _listed(manifest, chosen)
    loaded = model if isinstance(model, Model) else load_model(model)
    searched = [n for n, example in enumerate(rows) if example.split == "train" and example.boxes is None]
    check(loaded, wanted := [rows[n] for n in searched])  # before anything is read
    with_scales(wanted, loaded.config.input.mpp, assumed=chosen.assume_mpp)
    _warn_of_unlabelled(rows)
    scores: dict[int, RegionScores] = {}
    failures: list[tuple[str, str]] = []
    with ExitStack() as stack:
        file = None
        if output is not None:
            file = stack.enter_context(LinesFile(_part(output), resume=resume, overwrite=overwrite))
        done = {} if file is None else {line.get("key"): line for line in file.held}
        run = [loaded.sha256, chosen.bands, chosen.value_range, chosen.assume_mpp]
        keys = {row: _key(rows[row], run) for row in searched}
        left = [rows[row] for row in searched if done.get(keys[row]) is None]
        results = (chosen.work or _search_here)(left, loaded, chosen)
        for count, row in enumerate(searched, 1):
            line, write = done.get(keys[row]), _writer(file, keys[row], rows[row])
            try:
                if loaded.net.background is None:
                    scores[row] = kept_scores(line, lambda: _next(results), write)
                else:
                    rows[row] = _kept(rows[row], line, lambda: _next(results), write)
            except WriteError:
                raise
            except Exception as error:
                if chosen.on_error == "raise":
                    raise
                failures.append((str(rows[row].source), str(error) or type(error).__name__))
            progress(count / len(searched), Path(str(rows[row].source)).name)
        for row, example in calibrated_boxes(
            {row: (rows[row], seen) for row, seen in scores.items()}, loaded.classes
        ):
            rows[row] = example
        if output is not None:
            write_manifest(output, rows)
            if not failures:
                _part(output).unlink(missing_ok=True)
    found = sum(bool(rows[row].boxes) for row in searched)
    return Located(tuple(rows), len(searched), found, tuple(failures))


def located(
    examples: Iterable[Example], model: Model, options: LocateOptions | None = None, **changes: Any
) -> Iterator[Example]:
    """Find the regions that show the labels of images, by reading every finest region.

    The model must know what single regions show; it needs no scorer. With a background class, in an image without a
    label regions of any other class are found, each with the class that the model predicts; how common such regions
    are is estimated per image (expectation-maximisation of a mixture with the background). Without one, a region's
    attention times its evidence for the label is compared with that in images of other labels (``Calibration``): all
    images are looked at before the first is yielded.

    Args:
        examples: Images or windows, labelled or not.
        model: Best one that looks at every finest region.
        options: How; None = the defaults.
        changes: Single options, in place of those of ``options``.

    Yields:
        The examples, with the regions found as their boxes; without boxes where none shows the label; with
        empty boxes where the label is the background. An image without a label in which nothing is found gets that
        label; in one of background a region that happens to resemble a class may still be found.

    Raises:
        ConfigError: If a label can't be used, or an image has more regions than ``exhaustive.MOST_FINEST``.
        HiresattnError: If an image can't be read.
    """
    chosen = changed(options, changes, LocateOptions)
    locator = Locator(model, chosen)
    if model.net.background is not None:
        yield from map(locator.find, examples)
        return
    seen = {row: (example, locator.find(example)) for row, example in enumerate(examples)}
    for _, example in calibrated_boxes(seen, model.classes):
        yield example


def _search_here(examples: Sequence[Example], model: Model, options: LocateOptions) -> Iterator[Any]:
    """What is found in images, or the error that one has."""
    locator = Locator(model, options)
    for example in examples:
        try:
            yield locator.find(example)
        except Exception as error:  # noqa: BLE001 - raised where it is asked for
            yield error


def _next(results: Iterator[Any]) -> Any:
    """What was found in the next image; raises the error that it has."""
    found = next(results)
    if isinstance(found, Exception):
        raise found
    return found


def _kept(
    example: Example,
    line: Mapping[str, Any] | None,
    compute: Callable[[], Example],
    write: Callable[[dict[str, Any]], None],
) -> Example:
    """What an interrupted run found in an image; or what is found now, and kept."""
    if line is not None:
        return _from_line(example, line)
    found = compute()
    write({name: getattr(found, name) for name in ("label", "boxes", "box_labels", "box_confidence")})
    return found


def _writer(file: LinesFile | None, key: str | None, example: Example) -> Callable[[dict[str, Any]], None]:
    """Keeps what was found in an image, where it has a name to be found again by."""

    def write(found: dict[str, Any]) -> None:
        if file is not None and key is not None:
            file.write({"key": key, "source": str(example.source)} | found)

    return write


def _warn_of_unlabelled(rows: list[Example]) -> None:
    for split, what in (("train", "any class but the background is located"), ("val", "training needs one")):
        if bare := sum(row.label is None and row.split == split and row.boxes is None for row in rows):
            _log.warning("%d images of split %s have no label: %s", bare, split, what)


def _listed(manifest: str | Path | Iterable[Example], options: LocateOptions) -> list[Example]:
    if isinstance(manifest, str | Path):
        return read_manifest(manifest, root=options.root, label_column=options.label_column)
    return list(manifest)


def _part(output: str | Path) -> Path:
    """The file of what is found, until all is."""
    return Path(f"{output}.part")


def _check_output(output: Path, manifest: object, *, resume: bool, overwrite: bool) -> None:
    """Refuse before anything is read what can't be written after it."""
    if isinstance(manifest, str | Path) and output.resolve() == Path(manifest).resolve():
        raise ConfigError(f"{output}: that is the manifest itself; give another file")
    if not output.parent.is_dir():
        raise ConfigError(f"{output}: there is no folder {output.parent}; make it, or give another file")
    part = _part(output)
    if part.exists() and not (resume or overwrite):
        raise ConfigError(
            f"{output}: an interrupted run left {part.name}; resume goes on with it, overwrite starts anew"
        )
    if resume and output.exists() and not part.exists():
        raise ConfigError(
            f"{output}: is finished, without a {part.name} to resume; overwrite starts anew, or give another file"
        )
    refuse_filled(output, resume=resume, overwrite=overwrite)


def _key(example: Example, run: Any) -> str | None:
    """What tells an image from others, and this run from others; None = an array, which has no name."""
    name = example.source
    if not isinstance(name, str | Path):
        return None
    return source_key(str(name), example.region, example.label, example.mpp, run)


def _from_line(example: Example, line: Mapping[str, Any]) -> Example:
    boxes, labels, confidence = line["boxes"], line["box_labels"], line["box_confidence"]
    return replace(
        example,
        label=line["label"],
        boxes=None if boxes is None else tuple(map(tuple, boxes)),
        box_labels=None if labels is None else tuple(labels),
        box_confidence=None if confidence is None else tuple(confidence),
    )
