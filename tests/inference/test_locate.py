"""Boxes from visiting every finest region."""

from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch

from hiresattn.checkpoint import load_model
from hiresattn.datasets.example import Example
from hiresattn.datasets.scales import opened
from hiresattn.errors import ConfigError
from hiresattn.inference.locate import located
from hiresattn.inference.locator import Locator
from hiresattn.inference.options import LocateOptions
from hiresattn.pyramid import open_pyramid
from hiresattn.pyramid.rescaled import window_of
from hiresattn.training.fit import fit
from hiresattn.training.options import TrainOptions

OPTIONS = TrainOptions(
    crop_size=16,
    background="plain",
    position=False,
    k=(0,),
    epochs=30,
    lr=5e-3,
    threads=0,
    device="cpu",
    value_range=(0, 255),
)


def _image(rng, side, kind, at=(0, 0)):
    image = rng.integers(90, 110, (side, side, 1)).astype(np.uint8)
    if kind != "plain":
        image[at[0] : at[0] + 16, at[1] : at[1] + 16] = 220 if kind == "bright" else 20
    return image


def _regions(example):
    """Corners of the regions of the grid of 16 px in which boxes show their class with probability .5 and more."""
    if not example.boxes:
        return example.boxes
    pairs = zip(example.boxes, example.box_confidence, strict=True)
    return sorted({(y // 16 * 16, x // 16 * 16) for (y, x, _, _), confidence in pairs if confidence >= 0.5})


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    rng = np.random.default_rng(0)
    kinds = ("plain", "bright", "dark")
    examples = [Example(_image(rng, 16, kinds[i % 3]), kinds[i % 3]) for i in range(90)]
    folder = tmp_path_factory.mktemp("locate") / "model"
    *_, last = fit(examples, folder, OPTIONS)
    assert last.accuracy > 0.9
    return load_model(folder)


def test_the_box_is_the_region_that_explains_the_label(model):
    rng = np.random.default_rng(1)
    both = _image(rng, 128, "bright", (32, 64))
    both[96:112, 16:32] = 20
    examples = [Example(both, "bright"), Example(both, "dark"), Example(both, "plain")]
    found = [_regions(example) for example in located(examples, model, threads=0)]
    assert found == [[(32, 64)], [(96, 16)], ()]


def test_all_regions_that_explain_the_label_are_boxes_and_one_that_does_not_is_none(model):
    rng = np.random.default_rng(2)
    two = _image(rng, 64, "bright", (0, 0))
    two[48:, 48:] = 220
    (found,) = located([Example(two, "bright")], model, threads=0)
    assert _regions(found) == [(0, 0), (48, 48)]
    (found,) = located([Example(two, "dark")], model, threads=0)
    assert not _regions(found)


def test_without_a_label_every_region_that_is_not_background_is_a_box_with_its_class(model):
    rng = np.random.default_rng(2)
    both = _image(rng, 64, "bright", (0, 0))
    both[48:, 48:] = 20
    (found,) = located([Example(both)], model, threads=0)
    assert found.label is None
    assert _regions(found) == [(0, 0), (48, 48)]
    named = zip(found.boxes, found.box_labels, found.box_confidence, strict=True)
    assert {(y < 32, name) for (y, *_), name, sure in named if sure >= 0.5} == {
        (True, "bright"),
        (False, "dark"),
    }
    (found,) = located([Example(_image(rng, 64, "plain"))], model, threads=0)
    assert found.boxes == ()
    assert found.box_labels is None
    assert found.label == "plain"


def test_regions_without_a_measured_px_are_no_boxes(model, tmp_path):
    rng = np.random.default_rng(4)
    image = _image(rng, 64, "bright", (0, 48))
    image[:, :32] = 0
    profile = {"driver": "GTiff", "width": 64, "height": 64, "count": 1, "dtype": "uint8", "nodata": 0}
    transform = rasterio.Affine(2, 0, 10, 0, -2, 20)
    with rasterio.open(tmp_path / "half.tif", "w", **profile, transform=transform) as file:
        file.write(image.transpose(2, 0, 1))
    kept = model.net.background
    try:
        for background in (kept, model.classes.index("bright")):
            model.net.background = background
            (found,) = located([Example(str(tmp_path / "half.tif"))], model, threads=0)
            assert found.boxes
            assert all(x + width > 32 for _, x, _, width in found.boxes)
    finally:
        model.net.background = kept


def test_a_window_is_searched_where_it_lies(model):
    rng = np.random.default_rng(3)
    image = _image(rng, 128, "dark", (80, 96))
    (found,) = located([Example(image, "dark", region=(64, 64, 64, 64))], model, threads=0)
    assert _regions(found) == [(80, 96)]


def test_windows_show_the_label_and_the_likeliest_is_always_one(model):
    locator, rng = Locator(model, LocateOptions(threads=0)), np.random.default_rng(0)
    three = _image(rng, 128, "bright", (0, 0))
    three[32:48, 64:80] = three[96:112, 16:32] = 220
    windows = locator.windows(Example(three, "bright", region=(0, 0, 128, 128)), 2, rng)
    assert len(windows) == 2
    assert all(three[y : y + height, x : x + width].mean() > 200 for y, x, height, width in windows)
    plain = Example(_image(rng, 128, "plain"), "dark")
    assert len(locator.windows(plain, 2, rng)) == 1
    assert locator.windows(replace(plain, case="another image shows it"), 2, rng) == []


def test_windows_of_the_background_class_are_anywhere_that_was_measured(model, tmp_path):
    locator, rng = Locator(model, LocateOptions(threads=0)), np.random.default_rng(0)
    image = Example(_image(rng, 64, "plain"), "plain", region=(16, 32, 32, 32))
    each = [locator.windows(image, 3, rng) for _ in range(200)]
    assert all(len(set(windows)) == 3 for windows in each)
    found = {one for windows in each for one in windows}
    assert found == {(y, x, 8, 8) for y in range(16, 48, 8) for x in range(32, 64, 8)}
    pixels = _image(rng, 64, "plain")
    pixels[:, 8:] = 0
    profile = {"driver": "GTiff", "width": 64, "height": 64, "count": 1, "dtype": "uint8", "nodata": 0}
    with rasterio.open(
        tmp_path / "part.tif", "w", **profile, transform=rasterio.Affine(2, 0, 10, 0, -2, 20)
    ) as file:
        file.write(pixels.transpose(2, 0, 1))
    found = {
        one
        for _ in range(50)
        for one in locator.windows(Example(str(tmp_path / "part.tif"), "plain"), 3, rng)
    }
    assert found == {(y, 0, 8, 8) for y in range(0, 64, 8)}


@pytest.mark.parametrize("mpp", [0.25, 0.3, 0.5, 0.65, 0.9, 1.7])
def test_windows_are_no_larger_at_the_models_scale(model, mpp):
    scaled = replace(model, config=replace(model.config, input=replace(model.config.input, mpp=0.5)))
    locator, rng = Locator(scaled, LocateOptions(threads=0)), np.random.default_rng(0)
    image = Example(_image(rng, 128, "plain"), "plain", mpp=mpp)
    with opened(image, 0.5) as pyramid:
        windows = [window_of(pyramid, one) for one in locator.windows(image, 100, rng)]
    assert {side for _, _, height, width in windows for side in (height, width)} <= {6, 7, 8}


def test_values_bands_and_scale_are_read_as_the_options_say(model, monkeypatch):
    rng = np.random.default_rng(5)
    image = np.concatenate([np.zeros((64, 64, 1), np.uint8), _image(rng, 64, "bright", (16, 32))], axis=2)
    opened = []

    def watched(source, **options):
        opened.append(options)
        return open_pyramid(source, **options)

    monkeypatch.setattr("hiresattn.datasets.scales.open_pyramid", watched)
    example = Example(10 * image.astype(np.uint16), "bright", mpp=0.5)
    (found,) = located([example], model, threads=0, device="cpu", bands=(2,), value_range=(0, 2550))
    assert _regions(found) == [(16, 32)]
    assert opened == [{"mpp": 0.5, "nodata": None}]
    named = open_pyramid(10 * image.astype(np.uint16)).named("array", channel_names=("dust", "light"))
    example = Example(named, "bright", mpp=0.5)
    (found,) = located([example], model, threads=0, device="cpu", bands=("light",), value_range=(0, 2550))
    assert _regions(found) == [(16, 32)]
    for wrong in ({"bands": (0,)}, {"value_range": (1.0, 0.0)}, {"device": "nosuch"}):
        with pytest.raises(ConfigError):
            list(located([example], model, **wrong))


def test_labels_that_a_model_does_not_know_are_refused(model):
    blank = np.zeros((16, 16, 1), np.uint8)
    with pytest.raises(ConfigError, match="none of the model's classes"):
        list(located([Example(blank, "green")], model))
    model.net.background, kept = None, model.net.background
    try:
        with pytest.raises(ConfigError, match="no label"):
            list(located([Example(blank)], model))
    finally:
        model.net.background = kept
    assert torch.is_grad_enabled()
