"""A model of a known scale: the same looks and answers, whatever the resolution of the file."""

from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

from hiresattn.checkpoint import Model
from hiresattn.config import InputConfig, ModelConfig
from hiresattn.datasets.example import Example
from hiresattn.datasets.scales import common_scale, scaled, with_scales
from hiresattn.errors import ConfigError, DomainError
from hiresattn.evaluation.run import evaluate
from hiresattn.geometry import root_regions
from hiresattn.inference.classify import classify, classify_all
from hiresattn.inference.cost import estimate_cost
from hiresattn.inference.locate import located
from hiresattn.model.build import build_model
from hiresattn.pyramid.array import ArrayPyramid
from tests import images

#: Micrometres of the scene, and per px that the model counts in.
HEIGHT, WIDTH, AT = 400.0, 560.0, 0.5
#: A window that is one root region with finest cells, and a box, micrometres.
SQUARE, BOX = (40, 60, 140, 140), (100, 120, 20, 30)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    rule = InputConfig(bands=(0,), low=(0.0,), high=(255.0,), mpp=AT)
    config = ModelConfig(classes=("dark", "light"), input=rule, background="dark")
    return Model(build_model(config).eval(), config, "test", "abc")


def scene(mpp, factors=(1, 2, 4)):
    """Smooth hills, by the micrometre."""
    levels = []
    for factor in factors:
        side = mpp * factor
        y, x = ((np.arange(round(length / side))[:, None] + 0.5) * side for length in (HEIGHT, WIDTH))
        hills = 100 * np.sin(y / 37) + (60 * np.cos(x / 23 + 1) - 40 * np.sin(x / 11)).T
        levels.append((128 + hills).clip(0, 255).astype(np.uint8)[:, :, None])
    return ArrayPyramid(levels, f"scene at {mpp:g}", mpp=mpp)


def px(micrometres, mpp):
    return tuple(round(value / mpp) for value in micrometres)


def micrometres(record, mpp):
    """First and last rows and columns, in the order of the places."""
    regions = np.array(sorted((r.depth, r.y, r.x, r.height, r.width) for r in record.regions))[:, 1:] * mpp
    return np.concatenate([regions[:, :2], regions[:, :2] + regions[:, 2:]], axis=1)


@pytest.mark.parametrize("mpp", [0.25, AT / 3.7, 1.0])
@pytest.mark.parametrize(("window", "options"), [(SQUARE, {"budget": 64}), (None, {"policy": "exhaustive"})])
def test_files_of_any_resolution_have_the_same_looks_and_answers(model, mpp, window, options):
    """Where all cells of the one root region are looked at, and where all finest regions are."""
    answers = []
    for own in (AT, mpp):
        source = Example(scene(own), region=window and px(window, own))
        answers.append(classify(source, model, stop=None, device="cpu", **options))
    wanted, found = answers
    assert len(wanted.regions) == len(found.regions) > 49
    assert max(r.depth for r in found.regions) == (0 if window is None else 1)
    assert [r.finest for r in found.regions] == [window is None or r.depth == 1 for r in found.regions]
    gap = micrometres(found, mpp) - micrometres(wanted, AT)
    assert np.abs(gap).max() <= max(mpp, AT)
    assert [found.scores[name] for name in model.classes] == pytest.approx(
        [wanted.scores[name] for name in model.classes], abs=0.02
    )
    assert (found.mpp, found.region) == (mpp, window and px(window, mpp))
    warned = [words for words in found.warnings if "upsampled" in words]
    assert bool(warned) == (mpp > AT)


@pytest.mark.parametrize("metres", [0.3, 1.0])
def test_scenes_of_any_ground_scale_have_the_same_regions(model, metres, tmp_path):
    """A model that works at 0.5 m; the scale is that of the CRS."""
    rule = replace(model.config.input, mpp=AT * 1e6)
    on_ground = replace(model, config=replace(model.config, input=rule))
    answers = []
    for own in (AT, metres):
        (pixels,) = scene(own, (1,))._arrays
        place = {"crs": "EPSG:32633", "transform": rasterio.Affine(own, 0, 5e5, 0, -own, 5e6)}
        shape = dict(zip(("height", "width", "count"), pixels.shape, strict=True)) | {"dtype": "uint8"}
        path = tmp_path / f"{own:g}.tif"
        with rasterio.open(path, "w", driver="GTiff", tiled=True, **shape, **place) as file:
            file.write(pixels[:, :, 0], 1)
            file.build_overviews([2, 4], rasterio.enums.Resampling.average)
        source = Example(str(path), region=px(SQUARE, own))
        answers.append(classify(source, on_ground, stop=None, device="cpu", budget=64))
    wanted, found = answers
    assert len(wanted.regions) == len(found.regions) > 49
    gap = micrometres(found, metres) - micrometres(wanted, AT)  # metres here
    assert np.abs(gap).max() <= max(metres, AT)


def test_of_a_coarse_level_of_a_finer_file_the_same_px_are_read(model):
    fine = scene(AT / 2)
    coarse = ArrayPyramid(fine._arrays[1:], mpp=AT)
    looks = [classify(one, model, budget=16, stop=None, device="cpu") for one in (fine, coarse)]
    assert looks[0].scores == looks[1].scores
    assert looks[0].cost.pixels_decoded == looks[1].cost.pixels_decoded
    assert looks[0].cost.fraction_read == pytest.approx(looks[1].cost.fraction_read / 4)
    costs = [estimate_cost(Example(one), model, budget=16).run for one in (fine, coarse)]
    assert costs[0]["tiles"] == costs[1]["tiles"]
    assert costs[0]["fraction"] == pytest.approx(costs[1]["fraction"] / 4)


def test_a_record_says_where_the_scale_is_from(model):
    bare = np.asarray(scene(0.25)._arrays[0])
    quick = {"budget": 2, "device": "cpu"}
    for found, where in (
        (classify(scene(0.25), model, **quick), "given"),
        (classify(Example(bare, mpp=0.25), model, **quick), "given"),
        (classify(Example(bare, mpp=0.25, mpp_source="column mpp"), model, **quick), "column mpp"),
        (classify(Example(bare, mpp=7), model, mpp=0.25, **quick), "option mpp"),
        (classify(bare, model, assume_mpp=0.25, **quick), "option assume_mpp"),
    ):
        assert (found.mpp, found.mpp_source) == (0.25, where)
    assert classify(scene(0.25), model, assume_mpp=3, **quick).mpp == 0.25


def test_an_assumed_scale_in_place_of_one_that_can_not_be_meant_is_a_warning(model, tmp_path):
    path, bare = tmp_path / "dpi.tif", np.asarray(scene(0.25)._arrays[0])
    Image.fromarray(bare[..., 0]).save(path, dpi=(72, 72))
    for source, told in ((path, True), (bare, False)):
        found = classify(source, model, assume_mpp=0.25, budget=2, device="cpu")
        assert (found.mpp, found.mpp_source) == (0.25, "option assume_mpp")
        words = [one for one in found.warnings if one.startswith("the scale is the one assumed, 0.25 µm/px")]
        assert [("352.7" in one and "352.778 um" in one) for one in words] == [True] * told


def test_a_batch_without_scales_is_refused_whole_before_anything_is_read(model, tmp_path):
    class Unread(ArrayPyramid):
        def _read(self, *_):
            raise AssertionError("nothing is read")

    image = np.zeros((64, 64, 1), np.uint8)
    good, bare, wrong = (
        Unread(image, "good.tif", mpp=0.25), Unread(image, "bare.png"), Unread(image, "wrong.tif", mpp=250)
    )  # fmt: skip
    gone = str(tmp_path / "gone.tif")
    with pytest.raises(
        ConfigError, match=r"works at 0.5 µm/px.*bare.png \(.*wrong.tif \(250 µm/px is neither"
    ):
        classify_all([good, bare, wrong, gone], model)
    with pytest.raises(ConfigError, match=r"bare.png.*wrong.tif"):
        evaluate(model, [Example(one, "dark", "test") for one in (good, bare, wrong)])
    with pytest.raises(DomainError, match=r"bare.png: its scale isn't known"):
        classify(bare, model)
    with pytest.raises(ConfigError, match=r"of 1 of 3 images no scale can be used: wrong.tif \("):
        classify_all([good, bare, wrong], model, assume_mpp=0.25)
    kept = list(classify_all([bare, gone], model, on_error="record"))
    assert [record.status for record in kept] == ["error", "error"]
    assert "assume_mpp" in kept[0].error


def test_scales_are_read_once_a_file_and_keep_what_is_given(tmp_path):
    slide, picture = images.write_svs(tmp_path / "a.svs"), images.write_image(tmp_path / "b.png")
    rows = [
        Example(str(slide)),
        Example(slide, region=(0, 0, 8, 8)),
        Example(picture),
        Example(picture, mpp=2.0),
    ]
    assert [e.mpp for e in scaled(rows)] == [images.MPP, images.MPP, None, 2.0]
    assert [e.mpp for e in scaled(rows, 0.3)] == [0.3] * 4
    assert [e.mpp_source for e in with_scales(rows, AT, assumed=1.0)][2:] == ["option assume_mpp", None]
    assert with_scales(rows, None) == rows
    assert common_scale([replace(rows[0], mpp=mpp) for mpp in (0.25, 0.25, 0.5, 1.0)]) == 0.5
    assert common_scale(rows[:1]) is None


def test_regions_that_show_a_label_are_found_in_the_files_own_px(model):
    fine = scene(AT / 2)
    coarse = ArrayPyramid(fine._arrays[1:], mpp=AT)
    found = [
        next(iter(located([Example(one, "light")], model, device="cpu"))).boxes for one in (fine, coarse)
    ]
    assert np.array_equal(np.array(found[0]), 2 * np.array(found[1]))
    assert len(found[1])


def test_hits_are_counted_in_the_files_own_px(model):
    """Every finest region is looked at, so the box is hit at every resolution; with a budget of the roots never."""
    for mpp in (0.25, AT, 1.0):
        example = Example(scene(mpp), "light", "test", boxes=(px(BOX, mpp),))
        found = evaluate(
            model, [example], budget=1, stop=None, budgets=(1,), policies=("exhaustive",), bootstrap=0
        )
        assert (found.main.hit.value, found.curve[0].hit.value) == (0.0, 1.0)
        assert len(root_regions(800, 1120)) == 2
