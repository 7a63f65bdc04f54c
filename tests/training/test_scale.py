"""Training at one scale: images of all resolutions are seen alike, and the card says at which."""

from dataclasses import replace

import numpy as np
import pytest

from hiresattn.card import Card
from hiresattn.checkpoint import load_model
from hiresattn.config import InputConfig, ModelConfig
from hiresattn.datasets.example import Example
from hiresattn.errors import ConfigError
from hiresattn.geometry import Grid
from hiresattn.inference.classify import classify
from hiresattn.inference.extract import extract
from hiresattn.pyramid.array import ArrayPyramid
from hiresattn.training.augment import ORIENTATIONS, Augmentation
from hiresattn.training.cutmix import CutMix
from hiresattn.training.data import Loader
from hiresattn.training.fit import fit
from hiresattn.training.options import TrainOptions
from hiresattn.training.run import train
from hiresattn.training.scale import training_scale
from hiresattn.training.sizes import sized
from tests import images

#: Sides of the scene and micrometres per px that the model counts in.
HEIGHT, WIDTH, AT = 128.0, 96.0, 0.5
RULE = InputConfig(size=16, bands=(0, 1), low=(-1.0,) * 2, high=(1.0,) * 2, dtype="float32", mpp=AT)
#: A window and a box, micrometres.
WINDOW, BOX = (16, 8, 96, 80), (40, 24, 16, 8)


def scene(mpp, offset=0.0):
    """Px hold their own place, in micrometres."""
    sides = mpp, 2 * mpp
    levels = [
        np.stack(
            np.mgrid[: round(HEIGHT / side), : round(WIDTH / side)] * side + side / 2 + offset, 2
        ).astype("float32")
        for side in sides
    ]
    return ArrayPyramid(levels, f"scene at {mpp:g}", mpp=mpp)


def example(mpp, label="a"):
    boxes = (tuple(round(v / mpp) for v in BOX),)
    return Example(scene(mpp), label, region=tuple(round(v / mpp) for v in WINDOW), boxes=boxes)


def measured(*examples):
    loader = Loader(RULE, Grid(3, 0.5), threads=0)
    return loader, loader.measure(examples, ("a", "b"))


@pytest.mark.parametrize("mpp", [0.25, 1.0])
def test_a_sample_is_the_same_at_every_resolution(mpp):
    loader, (wanted, found) = measured(example(AT), replace(example(mpp), mpp=mpp))
    assert (wanted.region, wanted.depths, wanted.root_count) == (found.region, found.depths, found.root_count)
    assert wanted.region == (32, 16, 192, 160)
    assert wanted.boxes.tolist() == found.boxes.tolist() == [[80, 48, 32, 16]]
    regions = np.array([[32, 16, 64, 64], [100, 40, 32, 32]])
    for way in ORIENTATIONS["turns"]:
        turned = Augmentation(orientation=way)
        batch = loader.batch([wanted, found], [turned] * 2)
        assert np.array_equal(batch.roots[0], batch.roots[1])
        assert np.array_equal(batch.boxes[0], batch.boxes[1])
        one, other = (batch.fetch(np.full(2, image), regions).pixels for image in (0, 1))
        assert np.abs(one - other).max() <= mpp / 2
        shown = [batch.stored(np.full(2, image), regions) for image in (0, 1)]
        assert np.array_equal(shown[0] * AT, shown[1] * mpp)
    loader.close()


def test_a_box_of_a_finer_donor_is_pasted_where_its_px_are():
    loader, (host, donor) = measured(example(AT), example(0.25, "b"))
    mix = CutMix(donor, (64, 32, 64, 64), (64, 32))
    boxes = mix.boxes(host, None)
    assert boxes.tolist() == [[80, 48, 32, 16]]
    batch = loader.batch([host, donor], [Augmentation(cutmix=mix), Augmentation()])
    crop = batch.fetch(np.zeros(1, np.int64), np.array([[64, 32, 64, 64]])).pixels[0]
    steps = (np.arange(16) + 0.5) * 4
    assert np.abs(crop[0] - (64 + steps)[:, None] * AT).max() < 0.3
    loader.close()


def test_a_users_pyramid_stays_open():
    class Closing(ArrayPyramid):
        closed = False

        def close(self):
            self.closed = True

    source = Closing(scene(0.25)._arrays, mpp=0.25)
    loader, _ = measured(Example(source, "a"))
    loader.close()
    assert not source.closed


def at(examples, earlier=None, **options):
    said = []
    found, train_set, val = training_scale(
        [e for e in examples if e.split == "train"],
        [e for e in examples if e.split == "val"],
        TrainOptions(**options),
        earlier,
        said.append,
    )
    return found, [e.mpp for e in train_set + val], said


def plain(mpp=None, split="train"):
    return Example(ArrayPyramid(np.zeros((64, 64, 1), np.uint8), f"{mpp}.tif", mpp=mpp), "a", split)


def test_the_scale_is_the_median_of_the_training_images(tmp_path):
    several = [plain(0.25), plain(0.5), plain(0.26), plain(1.0), plain(4.0, "val")]
    found, own, (message,) = at(several)
    assert (found, own) == (0.5, [0.25, 0.5, 0.26, 1.0, 4.0])
    assert message == "Images of 0.25 µm/px to 4 µm/px are seen at 0.5 µm/px; mpp=1, say, sets another scale"
    assert at([plain(0.25), plain(0.252)])[2] == []
    assert at(several, mpp=1.0)[0] == 1.0
    assert at(several, mpp="off") == (None, [None] * 5, [])
    assert at(several, squash=64)[0] is None
    card = Card(ModelConfig(input=InputConfig(mpp=2.0)), k=(1,))
    assert at(several, card)[0] == 2.0
    assert at(several, card, mpp=1.0)[0] == 1.0
    assert at([plain(), plain()]) == (None, [None, None], [])
    slide = str(images.write_svs(tmp_path / "a.svs"))
    assert at([Example(slide, "a"), Example(slide, "b", mpp=0.25)])[1] == [images.MPP, 0.25]


def test_images_without_a_scale_among_others_are_all_named():
    some = [plain(0.25), plain(0.25), plain(), plain(250), plain(split="val")]
    with pytest.raises(ConfigError, match=r"of 3 of 5 images no scale.*None.tif \(.*250.tif \(.*column mpp"):
        at(some)
    with pytest.raises(ConfigError, match=r"of 2 of 2 images no scale"):
        at([plain(), plain()], mpp=0.5)
    with pytest.raises(ConfigError, match=r"250.tif \(250 µm/px is neither"):
        at([plain(250), plain(250), plain()])
    found, _, (message,) = at([plain(0.25), plain(), plain()])
    assert found is None
    assert "The scale of 1 of 3 images is known: px are taken as they are" in message
    assert at([plain(0.25), plain()], assume_mpp=0.5)[1] == [0.25, 0.5]
    assert at([plain(), plain()], assume_mpp=0.5)[0] == 0.5


@pytest.mark.parametrize(
    "wrong", [{"mpp": "fine"}, {"mpp": 0.0}, {"assume_mpp": -1.0}, {"mpp": 0.5, "squash": 64}]
)
def test_a_scale_that_is_none_is_refused(wrong):
    with pytest.raises(ConfigError, match="mpp"):
        TrainOptions(**wrong)


def test_sizes_of_a_recipe_are_those_at_the_models_scale():
    options = TrainOptions(mpp=AT, crop_size=16)
    both = sized([example(AT), replace(example(0.25), mpp=0.25), Example(scene(0.25), "a")], options, print)
    assert (both[0].regions, both[0].depths, both[0].short_side) == (120, both[1].depths, 160)
    assert both[1].regions == 120
    assert both[2].short_side == 192


def _spots(count, split):
    """Spots of 12 µm, bright or dark, at 0.5 and 0.25 µm/px in turn."""
    rng, examples = np.random.default_rng(len(split)), []
    for number in range(count):
        mpp = (0.5, 0.25)[number // 2 % 2]
        side, spot = round(64 / mpp), round(12 / mpp)
        image = rng.integers(90, 160, (side, side, 1)).astype(np.uint8)
        y, x = rng.integers(0, side - spot, 2)
        image[y : y + spot, x : x + spot] = 255 if number % 2 else 0
        examples.append(
            Example(
                ArrayPyramid(image, f"{split} {number}", mpp=mpp), "light" if number % 2 else "dark", split
            )
        )
    return examples


def test_a_model_works_at_the_scale_that_it_was_trained_at(tmp_path):
    options = TrainOptions(epochs=2, batch_size=4, threads=0, device="cpu", crop_size=32, k=(1,))
    examples = _spots(8, "train") + _spots(4, "val")
    run = fit(examples, tmp_path / "model", options)
    next(run)
    run.close()
    (last,) = fit(examples, tmp_path / "model", options, resume=True)
    assert last.epoch == 2
    model = load_model(tmp_path / "model")
    assert model.config.input.mpp == 0.5
    assert model.domain.mpp == (0.25, 0.5)
    for source in examples[0].source, examples[2].source:
        record = classify(source, model, budget=3, stop=None, device="cpu")
        finest = [r for r in record.regions if r.depth]
        assert {r.height * record.mpp for r in finest} == {16.0}
    later = train(examples, tmp_path / "later", replace(options, mpp="off", epochs=1))
    assert later.config.input.mpp is None


def test_features_of_a_model_are_extracted_at_its_scale_and_a_head_on_them_keeps_it(tmp_path):
    options = TrainOptions(epochs=1, batch_size=4, threads=0, device="cpu", crop_size=32, k=(1,), mpp=1.0)
    rows = []
    for number, mpp in enumerate((0.5, 0.25) * 2):
        path = images.write_svs(tmp_path / f"{number}.svs", mpp=mpp)
        rows.append(Example(str(path), "ab"[number // 2]))
    train(rows, tmp_path / "model", options)
    found = list(extract(rows, tmp_path / "model", tmp_path / "features", device="cpu"))
    assert [one.side for one in found] == [64, 128, 64, 128]
    head = train(rows, tmp_path / "head", replace(options, mpp="auto", features=str(tmp_path / "features")))
    assert (head.config.input.mpp, head.config.finest, head.config.root_size) == (1.0, 32, 32)
    record = classify(rows[1].source, head, policy="lowres", device="cpu")
    assert {(r.height, r.width) for r in record.regions} == {(128, 128)}
