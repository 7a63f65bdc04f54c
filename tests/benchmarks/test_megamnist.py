"""The scenes of Megapixel-MNIST, and what is measured on them."""

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import megamnist
from hiresattn.config import InputConfig
from hiresattn.errors import ConfigError, NotFoundError
from hiresattn.geometry import cell_regions, root_regions
from hiresattn.model.build import build_model
from hiresattn.training.options import model_config
from scenes import mnist
from scenes.mnist import GLYPH, MegaPyramid, Scene

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / mnist.DIGITS


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A file like the real one; a digit's px all have its number's value, so that a scene tells what lies where."""
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    labels = np.arange(12000) % 10
    np.savez(path, x=np.repeat(labels + 100, GLYPH**2).reshape(-1, GLYPH, GLYPH).astype(np.uint8), y=labels)
    return path


def whole(pyramid, level=0):
    has = pyramid.levels[level]
    return pyramid.read(level, 0, 0, has.height, has.width)[:, :, 0]


@pytest.mark.parametrize("side", [112, 384, 768, 1500])
def test_a_scene_keeps_the_rules(digits, side):
    for seed in range(20):
        scene = Scene(seed, side)
        image = whole(MegaPyramid(digits, scene))
        found = [image[y : y + GLYPH, x : x + GLYPH] for y, x, _, _ in scene.boxes]
        assert all((glyph == glyph[0, 0]).all() for glyph in found)
        counts = Counter(str(glyph[0, 0] - 100) for glyph in found)
        assert counts.most_common(1) == [(scene.label, 3)]
        assert sum(counts.values()) == 5
        gaps = np.abs(scene.places[:, None] - scene.places[None]).max(2)
        assert (gaps + GLYPH * np.eye(len(gaps)) >= GLYPH).all()
        assert len(scene.places) == 5 + {112: 1, 384: 12, 768: 50, 1500: 50}[side]
        lines = image[image >= 200]  # no digit of this file is so bright
        assert (lines >= 204).all()
        assert 50 < len(lines) / (len(scene.places) - 5) < 110  # two lines of 28 to 55 px


def test_labels_and_places_are_spread_evenly():
    scenes = [Scene(seed) for seed in range(400)]
    counts = Counter(scene.label for scene in scenes)
    assert len(counts) == 10
    assert max(counts.values()) < 70
    centre = np.concatenate([scene.places[:5] for scene in scenes]).mean(0)
    assert np.abs(centre - (768 - GLYPH) / 2).max() < 20  # a standard deviation is 5


def test_splits_share_no_digit(digits):
    lots = {split: mnist.glyphs(str(digits), split) for split in ("train", "val", "test")}
    assert [lot.scribbles for lot in lots.values()] == [9000, 1000, 2000]
    assert not np.array_equal(lots["train"].ink[-1], lots["test"].ink[-1])
    known = lots["test"]
    which = Scene(3, split="test").which(known)
    assert (which[:5] < known.scribbles).all()
    assert (which[5:] >= known.scribbles).all()


@pytest.mark.parametrize("side", [768, 1500])
def test_levels_are_means_and_windows_are_parts(digits, side):
    pyramid = MegaPyramid(digits, Scene(1, side))
    image = whole(pyramid).astype(float)
    for level, has in enumerate(pyramid.levels):
        d = int(has.downsample)
        rows = np.add.reduceat(image, range(0, side, d), axis=0)
        sums = np.add.reduceat(rows, range(0, side, d), axis=1)
        covered = np.minimum(d, side - d * np.arange(has.height))
        mean = sums / np.outer(covered, covered)
        assert np.abs(whole(pyramid, level) - mean).max() <= 0.5
    for y, x in ((0, 0), (13, 101), (131, 55)):
        part = pyramid.read(2, y, x, 56, 40)[:, :, 0]
        assert np.array_equal(part, whole(pyramid, 2)[y : y + 56, x : x + 40])


def test_a_scene_is_the_same_in_another_process(digits):
    pyramid = MegaPyramid(digits, Scene(5, 224, "val"))
    assert np.array_equal(whole(pickle.loads(pickle.dumps(pyramid))), whole(pyramid))  # noqa: S301 - own


def test_single_digits_lie_alone(digits):
    (example,) = mnist.examples(digits, "train", 1, side=56, single=True)
    image = whole(example.source)
    assert example.boxes is None
    assert (image > 0).sum() == GLYPH**2
    assert str(image.max() - 100) == example.label


def test_impossible_scenes_are_refused(tmp_path):
    for wrong in ({"side": 100}, {"split": "all"}, {"side": 20, "single": True}):
        with pytest.raises(ConfigError, match="split in"):
            Scene(0, **wrong)
    with pytest.raises(NotFoundError, match="no such file"):
        MegaPyramid(tmp_path / "none.npz", Scene(0))


@pytest.mark.skipif(not REAL.is_file(), reason="the digits are not here")
def test_real_digits_are_dealt_with_their_labels():
    with np.load(REAL) as stored:
        x, y = stored["x"], stored["y"]
    scene = Scene(0, split="test")
    image = whole(MegaPyramid(REAL, scene))
    for (top, left, _, _), number in zip(scene.boxes, scene.classes, strict=True):
        glyph = image[top : top + GLYPH, left : left + GLYPH]
        same = np.flatnonzero((x == glyph).all((1, 2)))
        assert len(same) >= 1
        assert (same >= 10000).all()
        assert (y[same] == number).all()


def test_each_digit_lies_whole_in_a_cell():
    options = megamnist.LOOKING
    model = model_config(
        options, ("0", "1"), InputConfig(size=options.crop_size, bands=(0,), low=(0,), high=(1,))
    )
    for side in (384, 768, 1500):
        roots = root_regions(side, side, root_size=model.root_size, overlap=model.overlap)
        cells = cell_regions(roots, model.grid, model.finest_side).reshape(-1, 4)
        starts = np.unique(cells[:, 0])
        assert (cells[:, 2:] == megamnist.WINDOW).all()
        assert np.diff(starts).max() <= megamnist.WINDOW - GLYPH


def test_seen_asks_for_half_a_digit():
    box = np.array([[100, 200, GLYPH, GLYPH]])
    for shift, enough in ((14, True), (15, False)):
        region = np.array([[100 + shift, 190, 56, 56], [0, 0, 56, 56]])
        assert megamnist.seen(region, box).tolist() == [enough]
    assert megamnist.seen(np.zeros((0, 4), int), box).tolist() == [False]


def test_the_oracle_is_shown_every_digit_once(digits):
    scenes = [Scene(seed, 768, "val") for seed in range(3)]
    options = megamnist.LOOKING
    rule = InputConfig(size=options.crop_size, bands=(0,), low=(-255,), high=(255,))
    config = model_config(options, mnist.CLASSES, rule)
    for scene in scenes:
        roots = root_regions(768, 768, root_size=config.root_size, overlap=config.overlap)
        cells = cell_regions(roots, config.grid, config.finest_side)
        select = megamnist.Oracle(np.array(scene.boxes))
        chosen = select(torch.zeros(len(roots), 49), 5, torch.from_numpy(cells), np.zeros(len(roots), int))
        rows, ranks = np.nonzero(chosen.valid.numpy())
        regions = cells[rows, chosen.cell.numpy()[rows, ranks]]
        assert len(regions) == 5
        assert megamnist.seen(regions, np.array(scene.boxes)).all()
        assert len(select.left) == 0


@pytest.mark.parametrize("recipe", ["location", "mask", "everywhere"])
def test_stages_of_a_recipe_fit_together(recipe):
    shapes = []
    for stage in megamnist.stages(recipe):
        rule = InputConfig(size=stage.options.crop_size, bands=(0,), low=(-255,), high=(255,))
        net = build_model(model_config(stage.options, mnist.CLASSES, rule))
        shapes.append({name: value.shape for name, value in net.state_dict().items()})
    assert all(shape == shapes[0] for shape in shapes)
