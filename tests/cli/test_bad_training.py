"""`train` and what can go wrong with it: each is one line and exit 1, or is counted; what was saved is whole."""

import csv
import json
import resource
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hiresattn.checkpoint import load_model

SMALL = Path(__file__).parents[1] / "small.toml"
QUICK = (
    *("--config", SMALL, "--device", "cpu", "--threads", "1"),
    *("--epochs", "4", "--batch-size", "16", "--value-range", "0,255"),
)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """40 images, more than are kept open; the odd ones are light."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(40):
        low = 150 * (number % 2)
        Image.fromarray(rng.integers(low, low + 60, (32, 32)).astype(np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def manifest(images, tmp_path):
    """Writes a manifest; without rows, of all images."""

    def manifest(*rows, columns="path,label,split"):
        rows = rows or [f"{n},{('dark', 'light')[n % 2]},{'val' if n > 35 else 'train'}" for n in range(40)]
        whole = [f"{images / row.split(',', 1)[0]}.png,{row.split(',', 1)[1]}" for row in rows]
        (tmp_path / "m.csv").write_text("\n".join([columns, *whole]) + "\n")
        return tmp_path / "m.csv"

    return manifest


@pytest.fixture
def saving(monkeypatch):
    """``saving(2, act)`` calls ``act(save)`` in place of the second saving."""
    from hiresattn.training import fit as loop

    def saving(which, act):
        save, count = loop.save_state, iter(range(1, 100))

        def instead(*values, **more):
            if next(count) == which:
                act(lambda: save(*values, **more))
            else:
                save(*values, **more)

        monkeypatch.setattr(loop, "save_state", instead)

    return saving


def refused(result, *says):
    assert (result.exit_code, result.stdout) == (1, "")
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    for words in says:
        assert words in errors[0]


def whole(folder):
    """A model that loads, and nothing half-written beside it."""
    assert [path.name for path in folder.iterdir() if path.name.startswith(".") or ".new" in path.name] == []
    return load_model(folder)


@pytest.mark.parametrize(
    ("columns", "rows", "says"),
    [
        (
            "path,label,split",
            ["0,dark,train", "1,light,train", "0,dark,val"],
            "0.png is in split 'train' (line 2) and in split 'val' (line 4)",
        ),
        (
            "path,label,split,case_id",
            ["0,dark,train,7", "1,light,train,8", "2,dark,val,7"],
            "case_id '7' is in split 'train' (line 2) and in split 'val' (line 4)",
        ),
        (
            "path,label,patient,fold",
            ["0,dark,7,0", "1,light,8,0", "2,dark,7,1", "3,light,9,1"],
            "patient '7' is in fold '0' (line 2) and in fold '1' (line 4)",
        ),
    ],
)
def test_a_manifest_that_leaks_is_refused_by_line(run, manifest, tmp_path, columns, rows, says):
    words = ("--fold", "0") if "fold" in columns else ()
    result = run("train", manifest(*rows, columns=columns), "-o", tmp_path / "model", *QUICK, *words)
    refused(result, "m.csv", says)
    assert not (tmp_path / "model").exists()


def test_a_class_with_one_image_is_said_and_trained_on(run, manifest, tmp_path):
    path = manifest("0,dark,train", "1,light,train", "2,dark,train", "3,light,train", "4,odd,train")
    result = run("train", path, "-o", tmp_path / "model", *QUICK, "--epochs", 1)
    assert result.exit_code == 0
    assert "1 of 3 classes have one training image each: 'odd'; add more, or leave them out" in result.stderr
    assert whole(tmp_path / "model").classes == ("dark", "light", "odd")


def damages(images, number):
    """An ``act`` that cuts an image short once the epoch is saved."""

    def act(save):
        save()
        path = images / f"{number}.png"
        path.write_bytes(path.read_bytes()[:60])

    return act


@pytest.fixture
def kept(images):
    before = {path: path.read_bytes() for path in images.iterdir()}
    yield before
    for path, held in before.items():
        path.write_bytes(held)


def test_an_image_that_breaks_before_epoch_3_ends_the_training_and_the_run_can_go_on(
    run, manifest, images, tmp_path, saving, kept
):
    path, folder = manifest(), tmp_path / "model"
    saving(2, damages(images, 7))
    refused(run("train", path, "-o", folder, *QUICK), "7.png", "; --on-error skip leaves out such images")
    assert whole(folder).training["epochs"] <= 2
    (images / "7.png").write_bytes(kept[images / "7.png"])
    result = run("train", path, "-o", folder, *QUICK, "--resume")
    assert result.exit_code == 0
    assert [line.split(",")[0] for line in result.stderr.splitlines()[:2]] == ["epoch 3/4", "epoch 4/4"]


@pytest.mark.parametrize(
    "given", [("m.csv",), ("there.csv", "--init-from", "m"), ("there.csv", "--config", "m.toml")]
)
def test_a_file_that_is_not_there_is_no_image_to_leave_out(run, manifest, tmp_path, monkeypatch, given):
    manifest().rename(tmp_path / "there.csv")
    monkeypatch.chdir(tmp_path)
    result = run("train", *given, "-o", "model")
    refused(result, "no such")
    assert "--on-error" not in result.stderr


def test_or_it_is_skipped_said_once_and_counted_from_epoch_3_on(
    run, manifest, images, tmp_path, saving, kept
):
    saving(2, damages(images, 7))
    result = run("train", manifest(), "-o", tmp_path / "model", *QUICK, "--on-error", "skip")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count("Skipped: ") == 1
    assert "7.png" in result.stderr
    rows = list(csv.DictReader((tmp_path / "model" / "metrics.csv").read_text().splitlines()))
    assert [int(row["skipped"]) > 0 for row in rows] == [False, False, True, True]
    assert "1 skipped" in result.stderr
    whole(tmp_path / "model")


def test_a_loss_that_is_no_number_says_what_to_lower_and_saves_nothing(run, manifest, tmp_path):
    (tmp_path / "run.toml").write_text(f"{SMALL.read_text()}clip = 1e30\nwarm_up = 0\n")
    words = ("--config", tmp_path / "run.toml", "--lr", "1e30")
    refused(run("train", manifest(), "-o", tmp_path / "model", *QUICK, *words), "the loss is", "(lr)")
    assert not (tmp_path / "model" / "model.safetensors").exists()


def test_a_checkpoint_of_another_configuration_or_manifest_is_refused_and_stays(run, manifest, tmp_path):
    path, folder = manifest(), tmp_path / "model"
    assert run("train", path, "-o", folder, *QUICK, "--epochs", 1).exit_code == 0
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    for words in (("--lr", "0.01"), ("--jitter", "0.5")):
        result = run("train", path, "-o", folder, *QUICK, "--epochs", 1, *words, "--resume")
        refused(
            result,
            "state.safetensors",
            f"{words[0][2:]} is ",
            f"there and {words[1]} here. Resume with the same",
        )
        assert result.stderr.count(" there and ") == 1
    fewer = manifest("0,dark,train", "1,light,train")
    refused(run("train", fewer, "-o", folder, *QUICK, "--epochs", 1, "--resume"), "of other images (or")
    result = run("train", path, "-o", tmp_path / "new", *QUICK, "--encoder", "small-6", "--init-from", folder)
    refused(result, "encoder is 'small' there and 'small-6' here")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize(("full", "epoch"), [("model.safetensors", 1), ("state.safetensors", 2)])
def test_a_disk_that_is_full_half_way_leaves_whole_files_and_the_run_goes_on_to_the_same_end(
    run, manifest, tmp_path, saving, full, epoch
):
    path, folder = manifest(), tmp_path / "model"
    assert run("train", path, "-o", tmp_path / "whole", *QUICK, "--epochs", 3).exit_code == 0
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(save):
        half = (folder / full).stat().st_size // 2
        assert half > 100_000
        resource.setrlimit(resource.RLIMIT_FSIZE, (half, usual[1]))  # the kernel ends the writing there
        try:
            save()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, usual)

    saving(2, fill)
    refused(run("train", path, "-o", folder, *QUICK, "--epochs", 3), str(folder), "can't be written", "large")
    assert whole(folder).training["epochs"] == epoch
    result = run("train", path, "-o", folder, *QUICK, "--epochs", 3, "--resume")
    assert result.exit_code == 0
    assert result.stderr.startswith("epoch 2/3")
    cards = [json.loads((tmp_path / name / "card.json").read_text()) for name in ("whole", "model")]
    assert cards[0]["weights"] == cards[1]["weights"]
