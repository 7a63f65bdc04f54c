"""The needle scene: one picture, whatever window or level it is read at."""

import pickle

import numpy as np
import pytest

from hiresattn.demo.needle import CLASSES, NeedlePyramid, NeedleScene, draw_distractor, draw_glyph
from hiresattn.errors import ConfigError


def test_any_window_is_a_part_of_the_whole():
    pyramid = NeedlePyramid(NeedleScene(5, 1024))
    whole = pyramid.read(0, 0, 0, 1024, 1024)
    rng = np.random.default_rng(0)
    for _ in range(20):
        y, x = rng.integers(0, 960, 2).tolist()
        assert (np.abs(pyramid.read(0, y, x, 64, 60).astype(int) - whole[y : y + 64, x : x + 60]) <= 1).all()


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_a_coarser_level_is_close_to_the_mean_of_the_finest(level):
    pyramid = NeedlePyramid(NeedleScene(3, 1024))
    step = 2**level
    side = 1024 // step
    mean = pyramid.read(0, 0, 0, 1024, 1024)[..., 0].reshape(side, step, side, step).mean((1, 3))
    drawn = pyramid.read(level, 0, 0, side, side)[..., 0]
    assert np.abs(drawn - mean).mean() < 3.5
    assert np.corrcoef(drawn.ravel(), mean.ravel())[0, 1] > 0.97


def test_the_needle_lies_in_its_box():
    scene = NeedleScene(8, 512, hint=0.0)
    y, x, height, width = scene.box
    patch = NeedlePyramid(scene).read(0, y, x, height, width)[..., 0]
    ink = scene.glyph > 0.9
    assert patch[ink].mean() > patch[scene.glyph == 0].mean() + 60


def test_rings_lead_to_the_needle_and_no_hint_means_no_rings():
    brighter = []
    for seed in range(30):
        with_hint, without = (NeedleScene(seed, 1024, hint) for hint in (0.16, 0.0))
        y, x, _, _ = with_hint.box
        if not 120 < y < 880 or not 120 < x < 880:
            continue
        angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
        rows = np.rint(y + 14 + 96 * np.sin(angle)).astype(int)
        columns = np.rint(x + 14 + 96 * np.cos(angle)).astype(int)
        pictures = [
            NeedlePyramid(s).read(0, 0, 0, 1024, 1024)[..., 0].astype(int) for s in (with_hint, without)
        ]
        brighter.append((pictures[0] - pictures[1])[rows, columns].mean())
    assert len(brighter) > 8
    assert min(brighter) > 25


def test_labels_are_balanced_and_splits_differ():
    labels = [NeedleScene(seed, 1024).label for seed in range(2000)]
    assert min(labels.count(c) for c in CLASSES) > 150
    assert NeedleScene(1, 1024, split="test").box != NeedleScene(1, 1024, split="train").box
    assert not np.array_equal(NeedleScene(1, 64, split="val").glyph, NeedleScene(1, 64, split="test").glyph)


def test_the_same_digit_is_drawn_in_many_ways_and_a_distractor_is_no_digit():
    rng = np.random.default_rng(0)
    glyphs = np.stack([draw_glyph("5", rng) for _ in range(10)])
    assert np.abs(glyphs[1:] - glyphs[0]).mean((1, 2)).min() > 0.01
    for label in CLASSES:
        same = np.random.default_rng(1)
        glyph = draw_glyph(label, same)
        mixed = draw_distractor(label, np.random.default_rng(1))
        assert mixed.sum() == pytest.approx(glyph.sum(), rel=1e-5)
        assert np.abs(mixed - glyph).mean() > 0.02


def test_a_scene_of_69_gigapixels_costs_what_a_crop_costs():
    pyramid = NeedlePyramid(NeedleScene(0, 262144))
    assert pyramid.read(0, 200_000, 200_000, 64, 64).std() > 3
    top = pyramid.levels[-1]
    assert pyramid.read(len(pyramid.levels) - 1, 0, 0, top.height, top.width).std() > 3


def test_scenes_pickle_and_refuse_what_they_can_not_be():
    pyramid = pickle.loads(pickle.dumps(NeedlePyramid(NeedleScene(4, 256))))  # noqa: S301 - our own bytes
    assert (pyramid.read(0, 0, 0, 64, 64) == NeedlePyramid(NeedleScene(4, 256)).read(0, 0, 0, 64, 64)).all()
    with pytest.raises(ConfigError, match="side"):
        NeedleScene(0, 32)
    with pytest.raises(ConfigError, match="split"):
        NeedleScene(0, 64, split="tests")
