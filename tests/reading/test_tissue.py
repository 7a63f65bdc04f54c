"""Which px of coarse views are tissue: parts of known colours on glass of several colours, and real slides."""

from pathlib import Path

import numpy as np
import pytest

from hiresattn.pyramid import open_pyramid
from hiresattn.reading.tissue import tissue_mask

SLIDES = Path(__file__).parents[3] / "shared" / "data" / "slides"
GLASS = {
    "white": (245, 245, 245),
    "lavender": (228, 225, 237),
    "yellow": (240, 234, 222),
    "grey": (215, 215, 216),
}
#: Density of red, green and blue light: of haematoxylin, eosin and DAB as Ruifrok and Johnston give them, by strength.
STAINS = {
    "haematoxylin": (1.3, 1.4, 0.57),
    "eosin": (0.05, 0.6, 0.1),
    "DAB": (0.27, 0.57, 0.78),
    "pale eosin": (0.01, 0.08, 0.02),
    "pale haematoxylin": (0.06, 0.065, 0.025),
    "blue counterstain": (0.42, 0.17, 0.08),
}
INKS = {
    "blue": (30, 50, 160),
    "light blue": (60, 110, 200),
    "green": (20, 120, 60),
    "red": (200, 25, 40),
    "black": (25, 25, 28),
    "blue-black": (28, 28, 48),
}


def slide(glass, stain, ink=None, noise=1.0, side=64):
    """A view with a square of tissue, a stroke of ink apart from it, and a black margin; and the square."""
    rng = np.random.default_rng(0)
    view = np.tile(np.array(glass, float), (side, side, 1))
    tissue = np.zeros((side, side), bool)
    tissue[8:28, 10:30] = True
    view[tissue] *= np.exp(-np.array(stain))
    if ink is not None:
        view[40:44] = ink
    view += rng.normal(0, noise, view.shape)
    view[-6:] = 0
    return view.round().clip(0, 255).astype(np.uint8), tissue


def found_in(view):
    return tissue_mask(view[None], np.ones((1, *view.shape[:2]), bool))[0]


@pytest.mark.parametrize("glass", GLASS.values(), ids=GLASS.keys())
@pytest.mark.parametrize("stain", STAINS.values(), ids=STAINS.keys())
def test_tissue_is_found_on_any_glass_and_glass_and_black_are_not(glass, stain):
    view, tissue = slide(glass, stain)
    found = found_in(view)
    assert found[tissue].mean() > 0.97
    assert found[~tissue].mean() < 0.01


@pytest.mark.parametrize("stain", ["haematoxylin", "pale eosin", "blue counterstain"])
@pytest.mark.parametrize("ink", INKS.values(), ids=INKS.keys())
def test_ink_is_left_out_and_costs_no_tissue(ink, stain):
    view, tissue = slide(GLASS["white"], STAINS[stain], ink)
    found = found_in(view)
    assert found[tissue].mean() > 0.97
    assert found[~tissue].mean() < 0.01


@pytest.mark.parametrize("glass", GLASS.values(), ids=GLASS.keys())
@pytest.mark.parametrize("ink", [None, INKS["blue"], INKS["black"]], ids=["clean", "blue", "black"])
def test_an_empty_slide_has_none(glass, ink):
    view, _ = slide(glass, (0, 0, 0), ink)
    assert found_in(view).mean() < 0.001


def test_an_empty_view_of_a_slide_has_none_and_thresholds_are_those_of_the_whole():
    full, tissue = slide(GLASS["white"], STAINS["eosin"])
    empty, _ = slide(GLASS["white"], (0, 0, 0))
    found = tissue_mask(np.stack([full, empty]), np.ones((2, 64, 64), bool))
    assert found[0][tissue].all()
    assert not found[1].any()


def test_a_field_without_glass_is_tissue():
    eosin = np.array(GLASS["white"]) * np.exp(-np.array(STAINS["eosin"]))
    view = np.random.default_rng(0).normal(eosin, 8, (64, 64, 3)).clip(0, 255).astype(np.uint8)
    assert found_in(view).mean() > 0.99


@pytest.mark.parametrize("colour", [(232, 205, 222), (236, 214, 230), (200, 150, 190)])
def test_a_field_of_one_colour_that_tissue_has_is_tissue(colour):
    view = np.random.default_rng(0).normal(colour, 2, (64, 64, 3)).clip(0, 255).astype(np.uint8)
    assert found_in(view).mean() > 0.99


@pytest.mark.parametrize("glass", GLASS.values(), ids=GLASS.keys())
@pytest.mark.parametrize("filled", [255, 0])
def test_what_was_not_scanned_does_not_make_glass_of_another_colour_tissue(glass, filled):
    view, tissue = slide(glass, STAINS["pale eosin"])
    wide = np.concatenate([view, np.full((64, 96, 3), filled, np.uint8)], axis=1)
    found = found_in(wide)
    assert found[:, :64][tissue].mean() > 0.97
    assert found[:, :64][~tissue].mean() < 0.01
    assert not found[:, 65:].any()


@pytest.mark.parametrize("bands", [1, 3, 4])
def test_fluorescence_is_what_is_brighter_than_the_dark(bands):
    rng = np.random.default_rng(0)
    view = rng.normal(3, 1, (64, 64, bands)).clip(0, 255)
    tissue = np.zeros((64, 64), bool)
    tissue[10:30, 10:40] = True
    view[tissue, 0] += rng.uniform(12, 90, tissue.sum())
    found = found_in(view.astype(np.uint8))
    assert found[tissue].mean() > 0.97
    assert found[~tissue].mean() < 0.03  # noise beside tissue counts as its edge
    dark = rng.normal(3, 1, (64, 64, bands)).clip(0, 255).astype(np.uint8)
    assert found_in(dark).mean() < 0.01


def test_a_slide_without_colour_is_judged_by_how_much_light_it_absorbs():
    view = np.full((64, 64, 1), 240, np.uint8)
    view[10:30, 10:40] = 200
    view[50:] = 0
    found = found_in(view)
    assert found[10:30, 10:40].all()
    assert found.sum() == 600
    assert (found_in(np.repeat(view, 3, axis=2)) == found).all()


def test_what_was_not_measured_is_none():
    view, tissue = slide(GLASS["white"], STAINS["eosin"])
    valid = np.ones((1, 64, 64), bool)
    valid[0, :20] = False
    found = tissue_mask(view[None], valid)[0]
    assert not found[:20].any()
    assert found[20:][tissue[20:]].all()
    assert not tissue_mask(view[None], np.zeros((1, 64, 64), bool)).any()


#: Windows of real slides (y, x, height, width, px of level 0) that are tissue, or glass, or the dark around it.
REAL = {
    "CMU-1-Small-Region.svs": ([(1500, 1000, 300, 300), (2600, 700, 300, 200)], [(200, 100, 600, 500)]),
    "camelyon_jpeg_tiled.dcm": ([(270, 100, 150, 120), (100, 430, 100, 60)], [(600, 300, 90, 400)]),
    "OS-2-ndpi_Ki67.ome.tif": ([(600, 900, 500, 500)], [(1300, 50, 300, 300)]),
    "hamamatsu_TRITC.ndpi": ([(3900, 1500, 500, 1000), (700, 1800, 500, 500)], [(300, 50, 800, 200)]),
    "he_field_2500.jpeg": ([(900, 100, 400, 800)], [(700, 2350, 200, 100)]),
}


@pytest.mark.skipif(not SLIDES.is_dir(), reason="the slides aren't here")
@pytest.mark.parametrize("name", REAL)
def test_real_slides(name):
    with open_pyramid(SLIDES / name) as slide:
        step = max(slide.height, slide.width) // 200
        height, width = slide.height // step, slide.width // step
        px = slide.read(0, 0, 0, height * step, width * step)
    view = px.reshape(height, step, width, step, 3).mean(axis=(1, 3)).round().astype(np.uint8)
    found = found_in(view)
    for windows, least, most in zip(REAL[name], (0.5, 0), (1, 0.08), strict=True):
        for y, x, rows, columns in windows:
            part = found[y // step : (y + rows) // step, x // step : (x + columns) // step]
            assert least <= part.mean() <= most, (name, y, x)
