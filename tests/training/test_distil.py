"""Teacher and student from image labels: a bright or a dark spot in grey scenes."""

import json
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image

from hiresattn.card import CARD
from hiresattn.checkpoint import load_model
from hiresattn.datasets.example import Example
from hiresattn.datasets.manifest import read_manifest
from hiresattn.errors import ConfigError
from hiresattn.inference.locator import Locator
from hiresattn.training.distil import STEPS, distil
from hiresattn.training.presets import RECIPES
from hiresattn.training.run import trainings
from hiresattn.training.state import STATE

CLASSES = ("plain", "bright", "dark")
OPTIONS = replace(
    RECIPES["distil"],
    crop_size=32,
    background="plain",
    epochs=12,
    batch_size=16,
    lr=6e-3,
    threads=0,
    device="cpu",
    value_range=(0.0, 255.0),
)


def image(rng, side, label):
    found = rng.integers(90, 110, (side, side, 3)).astype(np.uint8)
    if label != "plain":
        y, x = rng.integers(0, side // 16, 2) * 16
        found[y : y + 16, x : x + 16] = 230 if label == "bright" else 10
    return found


def drawn(folder, train, val, cases):
    """Images of one finest region and of 16; cases of two of these, of which one shows the label."""
    rng, examples = np.random.default_rng(0), []

    def draw(name, side, label):
        Image.fromarray(image(rng, side, label)).save(folder / f"{name}.png")
        return str(folder / f"{name}.png")

    for split, counts in (("train", train), ("val", val)):
        for side, count in zip((32, 128), counts, strict=True):
            for number in range(count):
                label = CLASSES[number % 3]
                examples.append(Example(draw(f"{split}-{side}-{number}", side, label), label, split))
        for number in range(cases):
            label, name = CLASSES[number % 3], f"{split}-case-{number}"
            for part, shown in enumerate(rng.permutation([label, "plain"])):
                examples.append(Example(draw(f"{name}-{part}", 128, shown), label, split, case=name))
    return examples


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return drawn(tmp_path_factory.mktemp("scenes"), train=(60, 18), val=(9, 9), cases=6)


@pytest.fixture(scope="module")
def trained(scenes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("distil") / "model"
    shares = []
    records = list(distil(scenes, folder, OPTIONS, progress=lambda share, step: shares.append((share, step))))
    return folder, records, shares


@pytest.mark.slow
def test_every_step_is_trained_and_the_model_is_whole(trained):
    folder, records, shares = trained
    steps = list(dict.fromkeys(record.step for record in records))
    assert steps == ["teacher 1", "teacher 2", "coarse", "search"]
    assert all(record.epoch.epochs == 12 for record in records)
    assert [share for share, _ in shares] == sorted(share for share, _ in shares)
    assert shares[-1][0] == 1
    model = load_model(folder)
    assert model.config.coarse_encoder
    assert model.config.background == "plain"


@pytest.mark.slow
def test_the_student_finds_what_the_teacher_found_with_fewer_glimpses(trained):
    facts = json.loads((trained[0] / CARD).read_text())["training"]["distilled"]
    assert facts["teacher"]["accuracy"] > 0.9
    assert facts["student"]["accuracy"] > 0.9
    assert facts["by_budget"][0]["accuracy"] > 0.9  # four glimpses; the teacher looks at 16 regions


@pytest.mark.slow
def test_the_regions_that_teach_are_where_the_label_shows(trained):
    examples = [row for row in read_manifest(trained[0] / STEPS / "regions.csv") if row.label != "plain"]
    found = []
    for example in examples:
        pixels = np.asarray(Image.open(example.source))[..., 0].astype(int)
        odd = np.abs(pixels - 100) > 50
        for (y, x, height, width), sure in zip(
            example.boxes or (), example.box_confidence or (), strict=True
        ):
            if sure >= 0.5:
                found.append(odd[y : y + height, x : x + width].any())
    assert len(found) >= 0.6 * len(examples)
    assert np.mean(found) > 0.8


def test_an_interrupted_run_goes_on_and_a_finished_one_does_nothing(tmp_path, monkeypatch):
    scenes = drawn(tmp_path, train=(3, 3), val=(3, 0), cases=3)
    first = distil(scenes, tmp_path / "model", replace(OPTIONS, epochs=1))
    next(first)
    first.close()
    assert (tmp_path / "model" / STEPS / "teacher-1" / STATE).is_file()
    with pytest.raises(ConfigError, match="not empty"):
        next(distil(scenes, tmp_path / "model", replace(OPTIONS, epochs=1)))
    with pytest.raises(
        ConfigError, match="epochs is 1 there and 3 here, and the steps of a recipe build on each"
    ):
        next(distil(scenes, tmp_path / "model", replace(OPTIONS, epochs=3), resume=True))
    rest = list(distil(scenes, tmp_path / "model", replace(OPTIONS, epochs=1), resume=True))
    assert [record.step for record in rest] == ["teacher 2", "coarse", "search"]
    facts = load_model(tmp_path / "model").training["distilled"]
    assert facts["images"] == 3  # cases
    assert [point["budget"] for point in facts["by_budget"]] == [4, 8, 16, 32]
    monkeypatch.setattr("hiresattn.training.distil.locate", None)  # the images aren't looked at again
    assert list(distil(scenes, tmp_path / "model", replace(OPTIONS, epochs=1), resume=True)) == []


def test_a_run_goes_on_beside_a_damaged_image_and_from_anywhere(tmp_path, monkeypatch):
    scenes = drawn(tmp_path, train=(3, 6), val=(3, 0), cases=0)
    scenes = [one for one in scenes if one.label != "plain"]
    damaged = tmp_path / "damaged.tif"
    tifffile.imwrite(damaged, image(np.random.default_rng(0), 128, "dark"), tile=(16, 16), compression="zlib")
    with tifffile.TiffFile(damaged) as tif, damaged.open("r+b") as file:
        file.seek(tif.pages[0].dataoffsets[-1])
        file.write(b"no tile")
    scenes.append(replace(scenes[-1], source=str(damaged), split="train", label="bright"))
    options = replace(OPTIONS, epochs=1, on_error="skip", background=None)
    monkeypatch.chdir(tmp_path)
    beside = [replace(one, source=os.path.relpath(one.source)) for one in scenes]
    begun = distil(beside, "model", options)
    assert next(record for record in begun if record.step == "coarse")
    begun.close()
    monkeypatch.chdir("/")
    moved = shutil.move(tmp_path / "model", tmp_path / "moved")
    assert (moved / STEPS / "regions.csv.part").exists()  # one image failed; it isn't looked at again
    monkeypatch.setattr("hiresattn.training.distil.locate", None)
    rest = list(distil(scenes, moved, options, resume=True))
    assert [record.step for record in rest] == ["search"]


def test_where_nothing_validates_a_share_does_and_the_card_has_both_on_the_same_images(tmp_path):
    scenes = [replace(one, split="train") for one in drawn(tmp_path, train=(9, 12), val=(0, 0), cases=0)]
    said, options = [], replace(OPTIONS, epochs=1, val_fraction=RECIPES["distil"].val_fraction)
    for _ in trainings(scenes, tmp_path / "model", options, on_message=said.append):
        pass
    held = int(re.search(r"No row is of split 'val': (\d+) of 21 images validate", said[0])[1])
    facts = load_model(tmp_path / "model").training["distilled"]
    teacher, student = facts["teacher"], facts["student"]
    assert 0 < facts["images"] <= held
    assert teacher["fraction_read"] >= 1
    assert teacher["glimpses"] == 16
    for one in (teacher, student):
        assert (one["accuracy"] * facts["images"]) % 1 == pytest.approx(0, abs=1e-9)


def large(folder, train, val):
    """Images of 64 finest regions, and none smaller."""
    rng, examples = np.random.default_rng(0), []
    for split, count in (("train", train), ("val", val)):
        for number in range(count):
            path, label = folder / f"{split}-{number}.png", CLASSES[number % 3]
            Image.fromarray(image(rng, 256, label)).save(path)
            examples.append(Example(str(path), label, split))
    return examples


def kept(model, number):
    """Of each image what ``windows-N`` found in it, by its place in the table."""
    lines = (model / STEPS / f"windows-{number}.jsonl").read_text().splitlines()
    return {line["image"]: line["regions"] for line in map(json.loads, lines)}


def test_without_small_images_windows_are_found_and_an_interrupted_run_goes_on_from_anywhere(
    tmp_path, monkeypatch
):
    scenes, options, shares = large(tmp_path, train=6, val=0), replace(OPTIONS, epochs=1), []
    monkeypatch.chdir(tmp_path)
    begun = distil([replace(one, source=os.path.relpath(one.source)) for one in scenes], "model", options)
    assert next(record for record in begun if record.step == "windows 2")
    begun.close()
    assert sorted(kept(tmp_path / "model", 1)) == list(range(6))
    monkeypatch.chdir("/")
    (tmp_path / "sub").mkdir()
    moved = tmp_path / "sub" / "model"
    shutil.move(tmp_path / "model", moved)
    rest = list(distil(scenes, moved, options, resume=True, progress=lambda share, _: shares.append(share)))
    assert shares == sorted(shares)
    assert [record.step for record in rest] == ["teacher 1", "coarse", "search"]
    assert list(distil(scenes, moved, options, resume=True)) == []


def test_what_was_found_before_an_interruption_is_not_looked_for_again(tmp_path, monkeypatch):
    scenes, options = large(tmp_path, train=6, val=0), replace(OPTIONS, epochs=1)
    windows, looked = Locator.windows, []

    def breaks(self, example, most, rng):
        looked.append(example.source)
        if len(looked) == 4:
            raise KeyboardInterrupt
        return windows(self, example, most, rng)

    monkeypatch.setattr(Locator, "windows", breaks)
    with pytest.raises(KeyboardInterrupt):
        list(distil(scenes, tmp_path / "model", options))
    assert len(kept(tmp_path / "model", 1)) == 3
    begun = distil(scenes, tmp_path / "model", options, resume=True)
    assert next(record for record in begun if record.step == "windows 2")
    assert sorted({*looked[:3], *looked[4:]}) == sorted(one.source for one in scenes)
    assert len(looked) == 7


def test_a_scale_that_tells_nothing_or_shows_not_every_class_is_passed_over(tmp_path, monkeypatch):
    scenes, said = large(tmp_path, train=6, val=3), []
    cases = [replace(one, case=f"{one.split}-{number // 3}-{one.label}") for number, one in enumerate(scenes)]
    monkeypatch.setattr("hiresattn.training.teachers.tells_labels", lambda path, *_: path.name != "windows-1")
    monkeypatch.setattr(
        Locator, "windows", lambda _self, one, *_: [] if one.label == "dark" else [(0, 0, 32, 32)]
    )
    options = replace(OPTIONS, epochs=1, root_size=64)
    begun = distil(cases, tmp_path / "model", options, on_message=said.append)
    assert next(record for record in begun if record.step == "teacher 1").epoch.images >= 6  # whole images
    assert [line for line in said if line.startswith("Regions of")] == [
        "Regions of 128 px don't tell the validation images' labels; smaller ones are next",
        "Regions of 64 px show no dark; smaller ones are next",
    ]
    assert any(line.endswith("windows-1") for line in said)
    assert not any(line.endswith("windows-2") for line in said)  # the teacher starts afresh, on whole images


def test_images_of_boxes_alone_have_no_windows(tmp_path):
    scenes = large(tmp_path, train=6, val=0)
    boxed = replace(scenes[1], label=None, boxes=((0, 0, 8, 8),), box_labels=("bright",))
    begun = distil([*scenes, boxed], tmp_path / "model", replace(OPTIONS, epochs=1))
    assert next(record for record in begun if record.step == "windows 2")
    assert sorted(kept(tmp_path / "model", 1)) == list(range(6))


@pytest.mark.slow
def test_windows_show_the_label(tmp_path):
    scenes = large(tmp_path, train=60, val=18)
    for _ in distil(scenes, tmp_path / "model", OPTIONS):
        pass
    found = []
    for number, windows in kept(tmp_path / "model", 2).items():
        for y, x, height, width in windows:
            pixels = np.asarray(Image.open(scenes[number].source))[y : y + height, x : x + width, 0].astype(
                int
            )
            assert max(height, width) <= 64
            found.append((np.abs(pixels - 100) > 50).any() == (scenes[number].label != "plain"))
    assert np.mean(found) > 0.9
    facts = load_model(tmp_path / "model").training["distilled"]
    assert facts["teacher"]["accuracy"] > 0.8


@pytest.mark.slow
def test_without_a_background_class_the_teacher_pools_by_attention(scenes, tmp_path):
    two = [example for example in scenes if example.label != "plain"]
    options = replace(OPTIONS, background=None)
    for _ in distil(two, tmp_path / "model", options):
        pass
    model = load_model(tmp_path / "model")
    assert model.config.pool_finest
    facts = model.training["distilled"]
    assert facts["teacher"]["accuracy"] > 0.9
    assert facts["student"]["accuracy"] > 0.8
    rows = read_manifest(tmp_path / "model" / STEPS / "regions.csv")
    boxed = [row for row in rows if row.boxes and max(row.box_confidence) > 0.5]
    assert len(boxed) > len(rows) / 2


def test_what_cannot_be_taught_is_refused(tmp_path):
    scenes = drawn(tmp_path, train=(3, 3), val=(3, 3), cases=0)
    small = [example for example in scenes if "-32-" in example.source]
    with pytest.raises(ConfigError, match="nothing to search"):
        next(distil(small, tmp_path / "m", OPTIONS))
    assert not (tmp_path / "m").exists()


@pytest.mark.slow
def test_images_may_have_several_labels(tmp_path):
    rng, labels = np.random.default_rng(0), [(), ("bright",), ("dark",), ("bright", "dark")]

    def scene(side, shown):
        found = rng.integers(90, 110, (side, side, 3)).astype(np.uint8)
        for cell, name in zip(rng.choice((side // 16) ** 2, len(shown), replace=False), shown, strict=True):
            y, x = (16 * at for at in divmod(int(cell), side // 16))
            found[y : y + 16, x : x + 16] = 230 if name == "bright" else 10
        return found

    counts = (("train", 32, 80), ("train", 128, 24), ("val", 32, 12), ("val", 128, 12))
    examples = [
        Example(scene(side, labels[n % 4]), labels[n % 4], split)
        for split, side, count in counts
        for n in range(count)
    ]
    options = replace(OPTIONS, background=None, epochs=10)
    assert list(distil(examples, tmp_path / "model", options))
    model = load_model(tmp_path / "model")
    assert model.config.multi_label
    facts = model.training["distilled"]
    assert facts["teacher"]["accuracy"] > 0.9
    assert facts["student"]["accuracy"] > 0.7
