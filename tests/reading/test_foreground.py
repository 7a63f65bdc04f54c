"""Maps of the foreground: where regions hold it, against masks of level 0."""

import numpy as np
import pytest
from PIL import Image

from hiresattn.config import InputConfig
from hiresattn.errors import ConfigError, OpenError
from hiresattn.geometry import Grid, cell_regions, root_regions
from hiresattn.pyramid.array import ArrayPyramid
from hiresattn.reading.fetch import CropFetcher
from hiresattn.reading.foreground import Foreground, read_mask

CONFIG = InputConfig(size=32, foreground="tissue")
PINK = (225, 160, 195)


def slide(height, width, *tissue):
    """A white slide with rectangles of tissue; and where they are."""
    image, mask = np.full((height, width, 3), 244, np.uint8), np.zeros((height, width), bool)
    for y, x, rows, columns in tissue:
        image[y : y + rows, x : x + columns] = PINK
        mask[y : y + rows, x : x + columns] = True
    return image, mask


def mapped(image, roots, config=CONFIG, parts=1):
    """The foreground of an image whose root regions come in parts."""
    found = Foreground(roots, config)
    with CropFetcher([ArrayPyramid(image)], config, threads=0) as fetch:
        for part in np.array_split(roots, parts):
            found.add(part, fetch(np.zeros(len(part), np.int64), part))
    assert not found.waiting
    return found


def held(mask, regions):
    """Foreground px of regions of level 0."""
    return np.array([mask[y : y + h, x : x + w].sum() for y, x, h, w in regions.tolist()])


@pytest.mark.parametrize(("root_size", "overlap"), [(None, 0.0), (300, 0.0), (300, 0.3)])
def test_regions_hold_foreground_where_level_0_has_it_to_a_px_of_the_crops(root_size, overlap):
    image, mask = slide(700, 1100, (100, 130, 90, 240), (400, 700, 60, 60), (650, 20, 50, 500))
    roots = root_regions(700, 1100, root_size=root_size, overlap=overlap)
    found = mapped(image, roots)
    side = int(np.ceil(roots[0, 2] / CONFIG.size))
    cells = cell_regions(roots, Grid(), 32).reshape(-1, 4)
    deeper = np.concatenate([cells, cell_regions(cells, Grid(), 32).reshape(-1, 4)])
    wider = np.stack([deeper[:, 0] - side, deeper[:, 1] - side], 1).clip(0)
    wider = np.concatenate([wider, deeper[:, :2] + deeper[:, 2:] + side - wider], 1)
    holds, px = found.holds(deeper), held(mask, deeper)
    assert not holds[held(mask, wider) == 0].any()
    assert holds[px >= 0.5 * deeper[:, 2:].prod(1)].all()
    assert holds[px >= 2 * side**2].mean() > 0.99
    assert 0.05 < holds.mean() < 0.6


def test_shares_are_those_of_level_0():
    image, mask = slide(640, 640, (0, 0, 320, 320), (480, 480, 80, 160))
    found = mapped(image, root_regions(640, 640))
    assert found.share == pytest.approx(mask.mean(), rel=0.05)
    regions = np.array([[0, 0, 160, 320], [0, 160, 160, 160], [320, 320, 320, 320]])
    assert found.share_in(regions) == pytest.approx((160 * 320 + 80 * 160) / mask.sum(), rel=0.03)
    assert found.share_in(np.zeros((0, 4), np.int64)) == 0
    assert found.share_in(np.array([[0, 0, 640, 640]])) == 1


def test_the_map_does_not_depend_on_how_many_root_regions_come_at_once():
    image, _ = slide(300, 900, (100, 130, 90, 240), (10, 700, 60, 60))
    roots = root_regions(300, 900, root_size=150)
    whole, parts = mapped(image, roots), mapped(image, roots, parts=5)
    cells = cell_regions(roots, Grid(), 32).reshape(-1, 4)
    assert (whole.holds(cells) == parts.holds(cells)).all()
    assert whole.share == parts.share


def test_a_root_region_of_glass_is_none_whatever_the_others_are():
    image, _ = slide(200, 600, (0, 0, 200, 190))
    roots = root_regions(200, 600)
    assert mapped(image, roots).holds(roots).tolist() == [True, False, False]
    empty, _ = slide(200, 600)
    assert not mapped(empty, roots).holds(roots).any()
    assert mapped(empty, roots).share == 0


def test_crops_that_are_no_root_regions_change_nothing():
    image, _ = slide(200, 600, (0, 0, 200, 190))
    roots = root_regions(200, 600)
    found = mapped(image, roots)
    before = found.share
    with CropFetcher([ArrayPyramid(image)], CONFIG, threads=0) as fetch:
        cell = np.array([[0, 0, 50, 50]])
        found.add(cell, fetch(np.zeros(1, np.int64), cell))
        found.add(roots[2:], fetch(np.zeros(1, np.int64), roots[:1]))
    assert found.share == before


@pytest.mark.parametrize(
    ("low", "high", "dtype"), [(0, 255, "uint8"), (90, 250, "uint8"), (0, 4095, "uint16")]
)
def test_values_are_judged_as_stored_or_in_the_range_of_the_training(low, high, dtype):
    image, mask = slide(320, 320, (0, 0, 160, 320))
    if dtype == "uint16":
        image = (image.astype(float) / 255 * 4095).astype(np.uint16)
    config = InputConfig(size=32, low=(low,) * 3, high=(high,) * 3, dtype=dtype)
    roots = root_regions(320, 320)
    assert mapped(image, roots, config).share == pytest.approx(mask.mean(), rel=0.07)


def test_many_root_regions_are_averaged_down(monkeypatch):
    monkeypatch.setattr("hiresattn.reading.foreground.MOST_PX", 4000)
    image, mask = slide(640, 640, (0, 0, 320, 320))
    found = mapped(image, root_regions(640, 640, root_size=160))
    assert found.share == pytest.approx(mask.mean(), rel=0.15)
    assert found.holds(np.array([[0, 0, 64, 64], [500, 500, 64, 64]])).tolist() == [True, False]


def test_a_mask_says_where_the_foreground_is(tmp_path):
    mask = np.zeros((50, 100), np.uint8)
    mask[10:20, 30:50] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    with ArrayPyramid(np.zeros((500, 1000, 3), np.uint8)) as image:
        read = read_mask(tmp_path / "mask.png", image)
        found = Foreground.of_mask(read, (0, 0, 500, 1000), CONFIG)
        regions = np.array([[100, 300, 100, 200], [0, 0, 100, 300], [150, 450, 100, 100]])
        assert found.holds(regions).tolist() == [True, False, True]
        assert found.share == pytest.approx(0.04)
        assert found.share_in(regions[2:]) == pytest.approx(50 * 50 / 20000)


def test_a_mask_that_cannot_be_that_of_the_image_is_refused(tmp_path):
    Image.fromarray(np.zeros((50, 60), np.uint8)).save(tmp_path / "square.png")
    Image.fromarray(np.zeros((50, 100, 3), np.uint8)).save(tmp_path / "colours.png")
    with ArrayPyramid(np.zeros((500, 1000, 3), np.uint8)) as image:
        with pytest.raises(ConfigError, match="other proportions than the 500 x 1000 px"):
            read_mask(tmp_path / "square.png", image)
        with pytest.raises(ConfigError, match="a mask has one band, and this image has 3"):
            read_mask(tmp_path / "colours.png", image)
        with pytest.raises(OpenError):
            read_mask(tmp_path / "none.png", image)
