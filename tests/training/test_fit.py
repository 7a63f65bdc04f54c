"""Training learns, resumes bit by bit, and refuses what it can't train on."""

import csv
import hashlib
import json
import resource
import sys
from dataclasses import asdict, dataclass, replace

import numpy as np
import pytest
import torch

import hiresattn
from hiresattn.checkpoint import load_model, set_calibration
from hiresattn.datasets.example import Example
from hiresattn.errors import CheckpointError, ConfigError, DomainError, NotFoundError, WriteError
from hiresattn.geometry import Grid
from hiresattn.inference.classify import classify, classify_all
from hiresattn.training.augment import ORIENTATIONS, Augmentation
from hiresattn.training.data import Loader
from hiresattn.training.fit import fit
from hiresattn.training.losses import classification_loss
from hiresattn.training.optim import learning_rate
from hiresattn.training.options import TrainOptions
from hiresattn.training.state import FORMER, PASSING, fingerprint_of

QUICK = TrainOptions(epochs=4, batch_size=8, threads=0, device="cpu", crop_size=32, k=(2,))


@dataclass(frozen=True)
class _Later(TrainOptions):
    later: int = 0


def _spots(count, side=128, split="train", seed=0):
    """Images of noise with one bright or one dark spot, 24 px wide."""
    rng = np.random.default_rng([seed, side, len(split)])
    examples = []
    for number in range(count):
        image = rng.integers(90, 160, (side, side, 1)).astype(np.uint8)
        y, x = rng.integers(0, side - 24, 2)
        image[y : y + 24, x : x + 24] = 255 if number % 2 else 0
        examples.append(Example(image, "light" if number % 2 else "dark", split))
    return examples


def _weights(path):
    return load_model(path).net.state_dict()


def test_training_learns_and_the_model_classifies_new_images(tmp_path):
    examples = _spots(64) + _spots(16, split="val")
    options = TrainOptions(epochs=12, batch_size=8, threads=0, device="cpu", crop_size=32, k=(3,))
    records = list(fit(examples, tmp_path / "model", options))
    assert len(records) == 12
    assert records[-1].val_accuracy >= 0.9
    fresh = _spots(20, split="test", seed=9)
    found = list(classify_all(fresh, tmp_path / "model", device="cpu", budget=12))
    assert np.mean([p.class_name == p.label for p in found]) >= 0.9


def test_a_resumed_run_ends_as_an_uninterrupted_one_bit_by_bit(tmp_path):
    examples = _spots(24) + _spots(16, side=32) + _spots(8, split="val")
    list(fit(examples, tmp_path / "whole", QUICK))
    run = fit(examples, tmp_path / "parts", QUICK)
    next(run)
    next(run)
    run.close()
    rest = list(fit(examples, tmp_path / "parts", QUICK, resume=True))
    assert [r.epoch for r in rest] == [3, 4]
    whole, parts = _weights(tmp_path / "whole"), _weights(tmp_path / "parts")
    for name, value in whole.items():
        assert torch.equal(value, parts[name])


def test_a_run_may_be_extended_and_its_learning_rate_goes_on_as_in_a_longer_one(tmp_path):
    examples, said = _spots(16) + _spots(8, split="val"), []
    list(fit(examples, tmp_path / "model", replace(QUICK, epochs=2)))
    shares = []
    rest = list(
        fit(examples, tmp_path / "model", QUICK, resume=True, on_message=said.append, progress=shares.append)
    )
    assert [(r.epoch, r.epochs) for r in rest] == [(3, 4), (4, 4)]
    assert shares == [0.5, 0.625, 0.75, 0.875]  # of which the learning rate is a function
    rate = learning_rate(0.5, QUICK)
    assert said == [
        f"2 of 2 epochs are done, and the run goes on to 4: the learning rate goes on at {rate:.3g}, as after 2 of 4"
    ]
    with (tmp_path / "model" / "metrics.csv").open(newline="") as table:
        assert [row["epoch"] for row in csv.DictReader(table)] == ["1", "2", "3", "4"]
    assert list(fit(examples, tmp_path / "model", replace(QUICK, epochs=3), resume=True)) == []


def test_a_resumed_run_says_that_a_calibration_is_of_the_weights_before(tmp_path):
    examples, said = _spots(8), []
    run = fit(examples, tmp_path / "model", QUICK)
    next(run)
    run.close()
    set_calibration(tmp_path / "model", 1.5)
    run = fit(examples, tmp_path / "model", QUICK, resume=True, on_message=said.append)
    next(run)
    run.close()
    assert [line for line in said if "is calibrated, for the weights that it has" in line] == said != []
    assert load_model(tmp_path / "model").temperature == 1


def test_a_resumed_run_computes_with_the_threads_it_began_with(tmp_path):
    examples, usual = _spots(16), torch.get_num_threads()
    run = fit(examples, tmp_path / "parts", QUICK)
    try:
        torch.set_num_threads(2)
        next(run)
        run.close()
        torch.set_num_threads(1)  # read and compute with other numbers
        options = replace(QUICK, threads=1)
        rest = fit(examples, tmp_path / "parts", options, resume=True)
        used = [torch.get_num_threads() for _ in rest]
        assert (used, torch.get_num_threads()) == ([2] * 3, 1)
    finally:
        torch.set_num_threads(usual)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_directory_without_room_is_refused_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr("hiresattn.training.fit.run_epoch", lambda *_: pytest.fail("a step was made"))
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, usual[1]))
    try:
        with pytest.raises(
            WriteError, match=r"need .* MB there, which can't be written \(File too large\); make room"
        ):
            next(fit(_spots(8), tmp_path / "model", QUICK))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="a file is in the way"):
        next(fit(_spots(8), tmp_path / "file", QUICK))


def test_the_same_seed_gives_the_same_model_and_another_seed_another(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        list(
            fit(
                _spots(16),
                tmp_path / name,
                TrainOptions(epochs=1, crop_size=32, threads=0, device="cpu", seed=seed),
            )
        )
    a, b, c = (load_model(tmp_path / name).sha256 for name in "abc")
    assert a == b
    assert a != c


def test_the_curriculum_of_an_exhaustive_look_goes_by_the_regions_looked_at(tmp_path):
    examples = _spots(8, side=32) + _spots(8, side=128) + _spots(8, side=512)
    options = replace(QUICK, root_size=32, overlap=0.25, epochs=6)
    records = list(fit(examples, tmp_path / "model", options))
    assert records[-1].stages == 3
    assert {(r.stage, r.glimpses) for r in records} == {(1, 1), (2, 25), (3, 441)}


def test_the_curriculum_goes_from_small_images_to_large_ones(tmp_path):
    examples = _spots(16, side=32) + _spots(16, side=128) + _spots(16, side=512)
    options = TrainOptions(
        epochs=12, batch_size=8, threads=0, device="cpu", crop_size=32, k=(1,), stage_accuracy=0.99
    )
    stages = [r.stage for r in fit(examples, tmp_path / "model", options)]
    assert stages == sorted(stages)
    assert (stages[0], stages[-1]) == (1, 3)
    eager = TrainOptions(
        epochs=3, batch_size=8, threads=0, device="cpu", crop_size=32, k=(1,), stage_accuracy=0.0
    )
    assert [r.stage for r in fit(examples, tmp_path / "eager", eager)] == [1, 2, 3]


def test_every_epoch_leaves_a_whole_model_and_its_metrics(tmp_path):
    run = fit(_spots(16) + _spots(8, split="val"), tmp_path / "model", QUICK)
    next(run)
    card = json.loads((tmp_path / "model" / "card.json").read_text())
    assert card["training"]["epochs"] == 1
    assert load_model(tmp_path / "model").classes == ("dark", "light")
    list(run)
    with (tmp_path / "model" / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert {"loss", "accuracy", "val_accuracy", "cpu_seconds"} <= set(rows[0])


def test_windows_of_one_image_train_like_images(tmp_path):
    scene = np.concatenate([example.source for example in _spots(16)], axis=1)
    windows = [Example(scene, "light" if i % 2 else "dark", region=(0, 128 * i, 128, 128)) for i in range(16)]
    loader = Loader(_rule(), Grid(), threads=0)
    batch = loader.batch(loader.measure(windows, ("dark", "light"))[:3])
    crops = batch.fetch(np.array([0, 2, 2]), np.array([[0, 0, 32, 32], [5, 256, 32, 32], [9, 300, 32, 32]]))
    for crop, (y, x) in zip(crops.pixels, [(0, 0), (5, 256), (9, 300)], strict=True):
        expected = 2 * (scene[y : y + 32, x : x + 32, 0].astype(np.float32) / 255) - 1
        assert np.allclose(crop[0], expected, atol=1e-6)
    assert batch.labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize("name", ["mirror", "flips", "turns"])
def test_a_turned_image_is_seen_turned_at_every_depth(name):
    image = np.random.default_rng(0).integers(0, 255, (96, 160, 1)).astype(np.uint8)
    loader = Loader(_rule(), Grid(), threads=0)
    whole = (10, 20, 64, 128)
    samples = loader.measure([Example(image, "a", region=whole)], ("a", "b"))
    part = 2 * (image[10:74, 20:148, 0].astype(np.float32) / 255) - 1
    seen = set()
    for turn in ORIENTATIONS[name]:
        turned = part.T if turn.transpose else part
        turned = turned[::-1] if turn.flip_y else turned
        turned = turned[:, ::-1] if turn.flip_x else turned
        batch = loader.batch(samples, [Augmentation(turn)])
        assert batch.frames.tolist() == [[10, 20, *turned.shape]]
        for y, x in ((0, 0), (3, 7), (turned.shape[0] - 32, turned.shape[1] - 32)):
            crop = batch.fetch(np.array([0]), np.array([[10 + y, 20 + x, 32, 32]])).pixels[0, 0]
            assert np.allclose(crop, turned[y : y + 32, x : x + 32], atol=1e-6)
        seen.add(turned.tobytes())
    assert len(seen) == len(ORIENTATIONS[name])


def test_values_are_scaled_by_what_the_training_images_show(tmp_path):
    options = TrainOptions(epochs=1, crop_size=32, threads=0, device="cpu")
    list(fit(_spots(16), tmp_path / "measured", options))
    rule = load_model(tmp_path / "measured").config.input
    assert 60 < rule.low[0] < 110
    assert 140 < rule.high[0] < 200
    list(fit(_spots(16), tmp_path / "given", replace(options, value_range=(0, 255))))
    assert load_model(tmp_path / "given").config.input.high == (255.0,)


def _rule():
    from hiresattn.config import InputConfig

    return InputConfig(size=32, bands=(0,), low=(0.0,), high=(255.0,))


def test_a_batch_of_more_images_than_are_kept_open_reads_each_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr("hiresattn.training.data.MOST_OPEN", 2)
    loader = Loader(_rule(), Grid(), threads=0)
    examples = _spots(6, side=32)
    samples = loader.measure(examples, ("dark", "light"))
    crops = loader.batch(samples).fetch(np.arange(6), np.array([[0, 0, 32, 32]] * 6))
    for crop, example in zip(crops.pixels, examples, strict=True):
        assert np.allclose(crop[0], 2 * (example.source[:, :, 0] / 255.0) - 1, atol=1e-6)


def test_the_card_keeps_what_the_images_were_like(tmp_path):
    list(fit(_spots(16), tmp_path / "model", TrainOptions(epochs=1, crop_size=32, threads=0, device="cpu")))
    domain = load_model(tmp_path / "model").domain
    assert 110 < domain.low[0] <= domain.high[0] < 140
    assert domain.mpp is None


def test_the_loss_is_the_images_and_the_glimpses_cross_entropy():
    from types import SimpleNamespace

    traversal = SimpleNamespace(
        logits=torch.tensor([[2.0, 0.0], [0.0, 1.0]]),
        glimpse_logits=torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 3.0]]),
        image=np.array([0, 0, 1]),
    )
    labels = torch.tensor([0, 1])
    image = (np.log1p(np.exp(-2)) + np.log1p(np.exp(-1))) / 2
    glimpses = ((np.log1p(np.exp(-1)) + np.log(2)) / 2 + np.log1p(np.exp(-3))) / 2
    found = classification_loss(traversal, labels, torch.tensor([0, 0, 1]), glimpse_weight=0.5)
    assert found.item() == pytest.approx(image + 0.5 * glimpses, abs=1e-6)
    some = classification_loss(traversal, labels, torch.tensor([0, -1, 1]), glimpse_weight=0.5)
    glimpses = (np.log1p(np.exp(-1)) + np.log1p(np.exp(-3))) / 2
    assert some.item() == pytest.approx(image + 0.5 * glimpses, abs=1e-6)


def _run(examples, tmp_path, options=QUICK, **more):
    return list(fit(examples, tmp_path / "model", options, **more))


def test_what_can_not_be_trained_on_is_one_clear_error(tmp_path):
    spots = _spots(8)
    with pytest.raises(ConfigError, match="split 'train'"):
        _run(_spots(8, split="test"), tmp_path)
    with pytest.raises(ConfigError, match="two or more"):
        _run(spots[::2], tmp_path)
    with pytest.raises(ConfigError, match="no label"):
        _run([*spots, Example(spots[0].source)], tmp_path)
    with pytest.raises(ConfigError, match="'grey' in split 'val' and not in 'train'"):
        _run([*spots, Example(spots[0].source, "grey", "val")], tmp_path)
    with pytest.raises(NotFoundError, match="gone"):
        _run([*spots, Example(str(tmp_path / "gone.tif"), "dark")], tmp_path)
    with pytest.raises(DomainError, match="value_range"):
        _run([Example(e.source.astype(np.uint16), e.label) for e in spots], tmp_path)
    assert not (tmp_path / "model").exists()


def test_resuming_other_images_or_options_is_refused(tmp_path):
    spots = _spots(16)
    with pytest.raises(CheckpointError, match="nothing to resume"):
        _run(spots, tmp_path, resume=True)
    _run(spots, tmp_path)
    with pytest.raises(CheckpointError, match=r"other images .* resume with the same manifest"):
        _run(spots[:8], tmp_path, resume=True)
    changed = replace(QUICK, lr=0.5, k=(1, 1), cutmix=0.25, threads=1, name="another")
    with pytest.raises(CheckpointError) as told:
        _run(spots, tmp_path, changed, resume=True)
    named = str(told.value).partition("of other options: ")[2].partition(". Resume with the same")[0]
    there = f"k is {list(QUICK.k)} there and [1, 1] here", f"lr is {QUICK.lr} there and 0.5 here"
    assert set(named.split("; ")) == {*there, "cutmix is 0.0 there and 0.25 here"}
    (tmp_path / "model" / "card.json").unlink()
    with pytest.raises(CheckpointError, match="other images or options"):
        _run(spots, tmp_path, changed, resume=True)
    (tmp_path / "model" / "state.safetensors").write_bytes(b"half a file")
    with pytest.raises(CheckpointError, match="damaged"):
        _run(spots, tmp_path, resume=True)


def test_a_run_goes_on_after_a_later_version_added_an_option(tmp_path):
    spots = _spots(8)
    _run(spots, tmp_path)
    first = replace(QUICK, epochs=QUICK.epochs + 1)
    assert len(list(fit(spots, tmp_path / "model", _Later(**asdict(first)), resume=True))) == 1
    with pytest.raises(CheckpointError, match="later is 0 there and 1 here"):
        _run(spots, tmp_path, _Later(**asdict(first), later=1), resume=True)


def test_a_run_goes_on_without_its_options_given_again(tmp_path):
    spots = _spots(8)
    begun = hiresattn.train(spots, tmp_path / "model", QUICK)
    more = hiresattn.train(spots, tmp_path / "model", resume=True, epochs=QUICK.epochs + 1)
    assert more.training["epochs"] == begun.training["epochs"] + 1
    assert more.training["options"] == begun.training["options"] | {"epochs": QUICK.epochs + 1}
    with pytest.raises(CheckpointError, match=r"lr is .* there and 0.5 here"):
        hiresattn.train(spots, tmp_path / "model", resume=True, lr=0.5)


def test_a_run_from_before_a_default_changed_goes_on():
    passing = {name: value for name, value in PASSING.items() if value != getattr(TrainOptions(), name)}
    of_then = hashlib.sha256(json.dumps(passing, sort_keys=True).encode()).hexdigest()
    assert fingerprint_of([], [], TrainOptions(**FORMER)) == of_then
    assert fingerprint_of([], [], TrainOptions()) != of_then


def test_a_loss_that_is_no_number_ends_the_training_with_advice(tmp_path):
    with pytest.raises(ConfigError, match="lr"):
        _run(
            _spots(16),
            tmp_path,
            TrainOptions(epochs=9, crop_size=32, threads=0, device="cpu", lr=1e30, clip=1e30),
        )


def test_every_step_tells_how_far_the_training_is(tmp_path):
    shares = []
    list(fit(_spots(16), tmp_path / "model", replace(QUICK, epochs=2), progress=shares.append))
    assert shares == [0, 0.25, 0.5, 0.75]


def test_without_closer_looks_training_is_a_thumbnail_classifier(tmp_path):
    (record,) = fit(_spots(16), tmp_path / "model", replace(QUICK, epochs=1, k=(0,)))
    assert record.glimpses == 1


def test_a_first_look_at_the_finest_regions_is_exhaustive(tmp_path):
    (record,) = fit(_spots(16), tmp_path / "model", replace(QUICK, epochs=1, root_size=32))
    assert record.glimpses == (128 // 32) ** 2
    found = classify(_spots(1)[0], tmp_path / "model", device="cpu", policy="top-k")
    assert {r.height for r in found.regions} == {32}


def test_a_size_that_shows_few_of_the_classes_is_no_stage_of_its_own():
    from hiresattn.geometry import Grid
    from hiresattn.training.curriculum import stages_of
    from hiresattn.training.samples import Sample

    def items(depths, labels):
        return [Sample(Example("x"), label, (0, 0, 9, 9), depths, 1) for label in labels]

    def stages(*groups):
        found = stages_of([item for group in groups for item in group], Grid())
        return [sorted({item.depths for item in stage}) for stage in found]

    assert stages(items(2, (0, 1, 2, 3)), items(1, (0, 1, 2))) == [[1], [2]]
    assert stages(items(1, (0, 1, 2, 3)), items(2, (0,)), items(3, (1, 2))) == [[1, 2], [3]]
    assert stages(items(1, (0,)), items(2, (1, 2, 3)), items(3, (0, 3))) == [[1, 2], [3]]
    assert stages(items(1, (0,)), items(2, (1,)), items(3, (2,)), items(4, (3,))) == [[1, 2, 3, 4]]
    boxed = [replace(item, box_classes=np.array([0, 1])) for item in items(1, (-1, -1))]
    assert stages(boxed, items(2, (0, 1, 2, 3))) == [[1], [2]]
    assert stages([replace(item, box_classes=None) for item in boxed], items(2, (0, 1, 2, 3))) == [[1, 2]]


def test_reading_ahead_changes_no_weight(tmp_path):
    from tifffile import imwrite

    examples = _spots(16, side=64) + _spots(4, side=64, split="val")
    for number, example in enumerate(examples):
        imwrite(tmp_path / f"{number}.ome.tif", example.source[:, :, 0], tile=(32, 32))
        examples[number] = replace(example, source=tmp_path / f"{number}.ome.tif")
    options = replace(QUICK, epochs=2)
    alone = list(fit(examples, tmp_path / "alone", options))
    ahead = list(fit(examples, tmp_path / "ahead", replace(options, threads=2)))
    assert [record.loss for record in alone] == [record.loss for record in ahead]
    for name, value in _weights(tmp_path / "alone").items():
        assert torch.equal(value, _weights(tmp_path / "ahead")[name]), name


def test_train_reads_a_manifest_and_returns_the_best_model(tmp_path):
    from PIL import Image

    from hiresattn.training import train

    rows = ["path,label,split"]
    for split, count in (("train", 16), ("val", 6)):
        for number, example in enumerate(_spots(count, side=64, split=split)):
            Image.fromarray(example.source[:, :, 0]).save(tmp_path / f"{split}{number}.png")
            rows.append(f"{split}{number}.png,{example.label},{split}")
    (tmp_path / "m.csv").write_text("\n".join(rows))
    shares, said = [], []
    model = train(
        tmp_path / "m.csv",
        tmp_path / "model",
        QUICK,
        epochs=2,
        name="spots",
        on_message=said.append,
        progress=lambda share, _step: shares.append(share),
    )
    assert (model.name, model.classes) == ("spots", ("dark", "light"))
    assert model.sha256 == load_model(tmp_path / "model").sha256
    assert shares == sorted(shares)
    assert 0 == shares[0] < shares[-1] < 1
    assert said == []
    again = train(_spots(16, side=64), tmp_path / "quick", "quick", epochs=1, crop_size=32, device="cpu")
    assert again.training["epochs"] == 1
    with pytest.raises(ConfigError, match="did you mean 'epochs'"):
        train(tmp_path / "m.csv", tmp_path / "x", epoch=1)
    with pytest.raises(ConfigError, match="did you mean 'quick'"):
        train(tmp_path / "m.csv", tmp_path / "x", "quik")
    with pytest.raises(NotFoundError):
        train(tmp_path / "none.csv", tmp_path / "x")


def test_the_validation_accuracy_is_that_of_the_search_that_classifies(tmp_path):
    held_out = _spots(12, split="val") + _spots(4, side=256, split="val")
    (record,) = fit(_spots(32) + held_out, tmp_path / "model", replace(QUICK, epochs=1))
    found = classify_all(held_out, tmp_path / "model", device="cpu")
    right = [one.class_name == example.label for one, example in zip(found, held_out, strict=True)]
    assert record.val_accuracy == np.mean(right)
