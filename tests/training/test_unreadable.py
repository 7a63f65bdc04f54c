"""Images that can't be read, classes that are hardly there, and a disk that is full."""

import csv
import errno
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from hiresattn.checkpoint import load_model
from hiresattn.datasets.example import Example
from hiresattn.errors import CheckpointError, ConfigError, DomainError, NotFoundError, OpenError, ReadError
from hiresattn.reading.fetch import CropFetcher
from hiresattn.training.fit import fit
from hiresattn.training.options import TrainOptions
from hiresattn.training.setup import warn_of_training_set

QUICK = TrainOptions(
    epochs=4, batch_size=4, threads=0, device="cpu", crop_size=16, k=(1,), grid=3, fraction=0.5
)
SKIP = replace(QUICK, on_error="skip")


def _images(count=8, split="train"):
    rng = np.random.default_rng(0)
    return [
        Example(rng.integers(60, 160, (32, 32, 1)).astype(np.uint8), "ab"[i % 2], split) for i in range(count)
    ]


@pytest.fixture
def breaks(monkeypatch):
    """Makes reading of one image fail from the third epoch on: its pyramid tells which it is."""
    broken = {"source": None, "on": False}
    original = CropFetcher.__call__

    def call(self, image, regions):
        for index in np.unique(image).tolist():
            if broken["on"] and self._images[index].pyramid is broken["source"]:
                error = ReadError("slide7.tif: tile 3 of level 0 is damaged")
                error.image = index
                raise error
        return original(self, image, regions)

    monkeypatch.setattr(CropFetcher, "__call__", call)
    return broken


def _pyramids(examples):
    from hiresattn.pyramid import open_pyramid

    return [replace(example, source=open_pyramid(example.source)) for example in examples]


def test_an_unreadable_image_in_epoch_3_ends_the_training_and_two_epochs_are_kept(tmp_path, breaks):
    examples = _pyramids(_images())
    run = fit(examples, tmp_path / "model", QUICK)
    next(run)
    next(run)
    breaks.update(on=True, source=examples[5].source)
    with pytest.raises(ReadError, match=r"slide7\.tif: tile 3"):
        next(run)
    assert load_model(tmp_path / "model").training["epochs"] == 2
    breaks["on"] = False
    assert [r.epoch for r in fit(examples, tmp_path / "model", QUICK, resume=True)] == [3, 4]


def test_or_it_is_skipped_counted_and_said_once(tmp_path, breaks):
    examples = _pyramids(_images() + _images(4, "val"))
    said = []
    run = fit(examples, tmp_path / "model", SKIP, on_message=said.append)
    first = [next(run), next(run)]
    breaks.update(on=True, source=examples[5].source)
    rest = list(run)
    assert [r.skipped for r in first + rest] == [0, 0, 1, 1]
    assert [r.images for r in first + rest] == [8, 8, 7, 7]
    assert said == ["Skipped: slide7.tif: tile 3 of level 0 is damaged"]
    with (tmp_path / "model" / "metrics.csv").open(newline="") as table:
        assert [row["skipped"] for row in csv.DictReader(table)] == ["0", "0", "1", "1"]


def test_of_the_validation_images_too_and_their_accuracy_is_that_of_the_rest(tmp_path, breaks):
    examples = _pyramids(_images() + _images(3, "val"))
    breaks.update(on=True, source=examples[9].source)
    records = list(fit(examples, tmp_path / "model", SKIP))
    assert {r.skipped for r in records} == {1}
    assert {r.val_accuracy for r in records} <= {0.0, 0.5, 1.0}


def test_images_that_cant_be_opened_are_left_out_from_the_start(tmp_path):
    (tmp_path / "text.tif").write_text("no image")
    examples = [
        Example(str(tmp_path / "text.tif"), "a"),
        *_images(),
        Example(str(tmp_path / "gone.tif"), "b"),
    ]
    with pytest.raises(OpenError, match=r"text\.tif"):
        list(fit(examples, tmp_path / "model", QUICK))
    said = []
    (record,) = fit(examples, tmp_path / "model", replace(SKIP, epochs=1), on_message=said.append)
    assert (record.images, record.skipped) == (8, 2)
    assert len(said) == 2
    assert all(words.startswith("Skipped: ") for words in said)
    with pytest.raises(ConfigError, match="none of the training images can be opened"):
        list(fit([examples[0], examples[-1]], tmp_path / "none", SKIP))
    with pytest.raises(NotFoundError):
        list(fit(examples[1:], tmp_path / "none", QUICK))


@pytest.mark.parametrize("place", [0, 9])
@pytest.mark.parametrize("kind", ["bands", "type", "palette"])
def test_images_of_other_bands_or_types_than_most_are_left_out_wherever_they_stand(tmp_path, place, kind):
    examples, odd = _images(), _images(2)
    for number, example in enumerate(odd):
        path = tmp_path / f"odd{number}.tif"
        pixels = np.repeat(example.source, 4, axis=2) if kind == "bands" else example.source
        pixels = pixels.astype(np.uint16) if kind == "type" else pixels
        if kind == "palette":
            Image.fromarray(pixels[..., 0]).convert("P").save(path)
        else:
            how = {"planarconfig": "contig"} if kind == "bands" else {}
            tifffile.imwrite(path, pixels.squeeze(), photometric="minisblack", **how)
        examples.insert(min(place, len(examples)), replace(example, source=str(path)))
    said = []
    (record,) = fit(examples, tmp_path / "model", replace(SKIP, epochs=1), on_message=said.append)
    assert record.images == 8
    assert len(said) == 2
    assert all("odd" in words for words in said)
    with pytest.raises(DomainError):
        list(fit(examples, tmp_path / "none", QUICK))


def test_where_nothing_can_be_read_any_more_skipping_ends(tmp_path, monkeypatch):
    run = fit(_images(), tmp_path / "model", replace(SKIP, accumulate=2))
    next(run)

    def call(self, image, regions):
        raise ReadError("the share is gone")

    monkeypatch.setattr(CropFetcher, "__call__", call)
    with pytest.raises(ConfigError, match="epoch 2: 8 images can't be read"):
        next(run)


def test_a_class_with_one_example_is_said(tmp_path):
    said = []
    examples = [*_images(), replace(_images(1)[0], label="c")]
    list(fit(examples, tmp_path / "model", replace(QUICK, epochs=1), on_message=said.append))
    assert said == ["1 of 3 classes have one training image each: 'c'; add more, or leave them out"]


def test_an_image_in_several_rows_is_named():
    rows = [
        Example(name, label)
        for name, label in (("a.tif", "x"), ("b.tif", "y"), ("a.tif", "x"), ("c.tif", "y"))
    ]
    windows = [replace(rows[0], region=(0, y, 8, 8)) for y in (0, 8)]
    said = []
    warn_of_training_set(rows, [], TrainOptions(), said.append)
    assert said == ["1 image in several rows, such as a.tif: each row counts; leave out the others"]
    warn_of_training_set([*rows[1:], *windows], [], TrainOptions(), said.append)
    assert len(said) == 1


def test_classes_that_no_validation_image_has_are_said_before_training(tmp_path):
    said = []
    run = fit([*_images(), *_images(1, "val")], tmp_path / "model", QUICK, on_message=said.append)
    next(run)
    run.close()
    assert said == [
        "1 of 2 classes have no validation image: 'b'; which epoch is best is decided without them"
    ]


@pytest.mark.parametrize("full", [".model.safetensors", ".card.json", ".state.safetensors", ".metrics.csv"])
def test_a_full_disk_leaves_the_model_of_the_epoch_before_and_the_run_can_go_on(tmp_path, monkeypatch, full):
    examples = _images()
    list(fit(examples, tmp_path / "whole", QUICK))
    run = fit(examples, tmp_path / "model", QUICK)
    next(run)
    model = load_model(tmp_path / "model")
    kept = Path.write_bytes, Path.open

    def fails(path):
        if path.name.startswith(full) or f".{path.name}" == full:
            with kept[1](path, "wb") as stream:
                stream.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    def write_bytes(self, data):
        fails(self)
        return kept[0](self, data)

    def opened(self, mode="r", *args, **more):
        if "w" in mode:
            fails(self)
        return kept[1](self, mode, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_bytes)
        patch.setattr(Path, "open", opened)
        with pytest.raises(CheckpointError, match="No space left on device"):
            next(run)
    after = load_model(tmp_path / "model")  # the hash of the weights is checked here
    assert after.sha256 == model.sha256 or full in (".state.safetensors", ".metrics.csv")
    assert not [path for path in (tmp_path / "model").iterdir() if path.name.startswith(".")]
    list(fit(examples, tmp_path / "model", QUICK, resume=True))
    ends = [json.loads((tmp_path / n / "card.json").read_text())["weights"] for n in ("whole", "model")]
    assert ends[0] == ends[1]
