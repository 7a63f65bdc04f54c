"""Composed slides: what they show is known, and the foreground is that."""

from pathlib import Path

import numpy as np
import pytest

import foreground
from hiresattn.config import InputConfig
from hiresattn.geometry import root_regions
from hiresattn.inference.record import Record, VisitedRegion
from hiresattn.pyramid.array import ArrayPyramid
from hiresattn.reading.fetch import CropFetcher
from hiresattn.reading.foreground import Foreground
from scenes.cells import ZIP
from scenes.slides import MARGIN, TISSUE, compose

SHARED = Path(__file__).parents[3] / "shared"
SIDE = 768


def found_in(slide, size=64):
    config = InputConfig(size=size, foreground="tissue")
    roots = root_regions(SIDE, SIDE)
    found = Foreground(roots, config)
    with CropFetcher([ArrayPyramid(slide.image)], config, threads=0) as fetch:
        found.add(roots, fetch(np.zeros(1, np.int64), roots))
    return found


def squares(side):
    corners = np.stack(np.mgrid[:SIDE:side, :SIDE:side], -1).reshape(-1, 2)
    return np.concatenate([corners, np.full_like(corners, side)], axis=1)


@pytest.mark.parametrize("shared", [None, SHARED], ids=["drawn", "real"])
@pytest.mark.parametrize("seed", range(2))
def test_the_foreground_of_a_composed_slide_is_its_tissue(seed, shared):
    if shared is not None and not (shared / ZIP).is_file():
        pytest.skip("the data aren't here")
    slide = compose(seed, SIDE, shared=shared)
    found = found_in(slide)
    px = squares(SIDE // 64)
    share = np.array([slide.tissue[y : y + h, x : x + w].mean() for y, x, h, w in px.tolist()])
    held = found.holds(px)
    assert held[share == 0].mean() < 0.01
    if shared is None:  # real tissue has holes
        assert held[share == 1].mean() > 0.96  # some lies between strokes of a pen
    assert found.holds(np.array([slide.box])).all()
    assert found.holds(np.array([[slide.box[0] + 20, slide.box[1] + 20, 40, 40]])).all()


@pytest.mark.parametrize("seed", range(2))
def test_a_slide_of_glass_and_ink_has_no_foreground(seed):
    slide = compose(seed, SIDE, empty=True)
    assert not slide.tissue.any()
    assert found_in(slide).share < 0.003  # ends of strokes that enter the slide by less than a px


def test_a_composed_slide_is_what_it_says():
    slide = compose(3, SIDE)
    again = compose(3, SIDE)
    assert (slide.image == again.image).all()
    assert slide.label == again.label
    assert (slide.image[:, -MARGIN:] == 0).all()
    assert not slide.tissue[:, -MARGIN:].any()
    assert 0.6 * TISSUE < slide.tissue.mean() <= TISSUE
    y, x, height, width = slide.box
    assert slide.tissue[y : y + height, x : x + width].all()
    assert {compose(seed, SIDE, split="val").label for seed in range(4)} == {"basophil", "eosinophil"}


def test_a_look_is_as_much_on_tissue_as_its_px_and_a_hit_holds_the_middle_of_the_cell():
    slide = compose(3, SIDE)
    y, x, _, _ = slide.box
    places = [(None, 0, 0, SIDE), (0, SIDE - 40, SIDE - 40, 32), (0, y + 8, x + 8, 64)]
    regions = [
        VisitedRegion(n, up, 0, a, b, side, side, 0.3, 0.0) for n, (up, a, b, side) in enumerate(places)
    ]
    assert foreground.looks(Record("a", "ok", regions=tuple(regions)), slide)[1:] == [1.0]
    assert foreground.is_hit(Record("a", "ok", regions=tuple(regions)), slide)
    assert not foreground.is_hit(Record("a", "ok", regions=tuple(regions[:2])), slide)
