"""Values by what they measure: scale and offset of an image, and those of the model's card."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from rasterio import Affine

import hiresattn
from hiresattn.checkpoint import card_of, load_model
from hiresattn.config import InputConfig
from hiresattn.datasets.example import Example
from hiresattn.errors import ConfigError, DomainError
from hiresattn.geo import stac_sources
from hiresattn.inference.bands import input_for
from hiresattn.pyramid import open_pyramid
from hiresattn.pyramid.stack import Layer, Stack
from hiresattn.reading.bands import rule_for
from hiresattn.reading.fetch import CropFetcher
from hiresattn.reading.squash import SquashFetcher
from hiresattn.training.fit import fit
from hiresattn.training.options import TrainOptions
from tests.pyramid.test_stac import item, newer, put

SIDES = (64, 80)
#: What is shown: a reflectance that says where a px is, per band.
ROWS, COLUMNS = np.mgrid[: SIDES[0], : SIDES[1]]
TRUTH = np.stack([ROWS / 100, COLUMNS / 100, (ROWS + 2 * COLUMNS) / 400])
#: Newer products have another offset than older ones: the same ground, 1000 more.
OLD, NEW = ((1e-4,) * 3, (0.0,) * 3), ((1e-4,) * 3, (-0.1,) * 3)
#: Each band its own.
OWN = (1e-4, 2e-4, 5e-4), (0.0, -0.05, -0.01)
CARD = InputConfig(
    size=16, low=(500.0,) * 3, high=(6000.0,) * 3, dtype="uint16", channels=3, scales=OLD[0], offsets=OLD[1]
)


def write(path, scaling, dtype="uint16", *, stated=True):
    """A scene whose stored values times scale plus offset are the truth."""
    scales, offsets = (np.array(each)[:, None, None] for each in scaling)
    stored = (TRUTH - offsets) / scales
    stored = stored.astype(dtype) if dtype == "float32" else np.rint(stored).astype(dtype)
    shape = {"height": SIDES[0], "width": SIDES[1], "count": 3, "dtype": dtype}
    place = {"crs": "EPSG:32633", "transform": Affine(10, 0, 5e5, 0, -10, 5e6)}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place) as file:
        file.write(stored)
        if stated:
            file.scales, file.offsets = scaling
    return path


def crops(source, rule=CARD):
    regions = np.array([[0, 0, 64, 64], [16, 32, 32, 32], [5, 7, 16, 16]])
    with open_pyramid(source) as image, CropFetcher([image], rule, threads=1) as fetch:
        return fetch(np.zeros(3, np.int64), regions).pixels


@pytest.mark.parametrize(
    ("scaling", "dtype"),
    [(OLD, "uint16"), (NEW, "uint16"), (OWN, "int16"), (OWN, "uint16"), (NEW, "float32")],
)
def test_the_same_quantity_becomes_the_same_input(scaling, dtype, tmp_path):
    found = crops(write(tmp_path / "scene.tif", scaling, dtype))
    low, high = (500 * 1e-4, 6000 * 1e-4)
    part = TRUTH[:, 5:21, 7:23]  # at native resolution
    half = max(scaling[0]) / (high - low)  # stored values are whole numbers
    assert np.abs(found[2] - (2 * (part - low) / (high - low) - 1)).max() < half + 1e-5
    assert np.abs(found - crops(write(tmp_path / "old.tif", OLD))).max() < 2 * half + 1e-5


def test_bands_have_their_own_scale_in_any_order(tmp_path):
    rule = replace(CARD, bands=(2, 0, 1), channels=None)
    old, own = write(tmp_path / "old.tif", OLD), write(tmp_path / "own.tif", OWN)
    assert np.abs(crops(own, rule) - crops(old, rule)).max() < 3e-3
    assert np.abs(crops(own, rule) - crops(own)[:, [2, 0, 1]]).max() < 1e-6


def test_a_squashed_image_is_converted_too(tmp_path):
    rule = replace(CARD, squash=32)
    found = []
    for name, scaling in (("old", OLD), ("new", NEW)):
        with open_pyramid(write(tmp_path / f"{name}.tif", scaling)) as image:
            found.append(SquashFetcher(image, rule)(np.zeros(1, np.int64), np.array([[0, 0, 32, 32]])).pixels)
    assert np.allclose(found[0], found[1], atol=1e-6)


def test_converted_twice_is_converted_once(tmp_path):
    with open_pyramid(write(tmp_path / "new.tif", NEW)) as image:
        once = rule_for(image, CARD)
        assert once.low == pytest.approx((1500,) * 3)
        assert rule_for(image, once) == once


def test_an_image_that_says_nothing_of_its_values_is_refused(tmp_path):
    path = write(tmp_path / "mute.tif", OLD, stated=False)
    with open_pyramid(path) as image:
        with pytest.raises(DomainError, match=r"mute\.tif.*doesn't say what its values measure.*value_range"):
            input_for(CARD, image, None, None)
        given = input_for(CARD, image, None, (500, 6000))
    assert (given.low, given.scales) == ((500, 500, 500), None)
    assert np.array_equal(crops(path, given), crops(write(tmp_path / "old.tif", OLD)))


def test_a_card_needs_a_scale_above_0_and_an_offset_per_band():
    for changes in ({"offsets": None}, {"scales": (1.0,) * 2}, {"scales": (1.0, 0.0, 1.0)}):
        with pytest.raises(ConfigError, match="scales"):
            replace(CARD, **changes)


def test_an_array_that_was_scaled_when_it_was_read_is_what_is_measured(tmp_path):
    rioxarray = pytest.importorskip("rioxarray")
    path = write(tmp_path / "new.tif", NEW)
    plain, masked = rioxarray.open_rasterio(path), rioxarray.open_rasterio(path, mask_and_scale=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for array in (plain, masked):
            assert np.abs(crops(array) - crops(path)).max() < 1e-4, array.dtype
    with pytest.raises(DomainError, match="doesn't say"):
        crops(masked * 1)  # whatever it is now


def test_items_say_scale_and_offset_of_their_bands(tmp_path):
    for name in ("red", "green"):
        write(tmp_path / f"{name}.tif", NEW, stated=False)
    old = item()
    for asset in old["assets"].values():
        for band in asset.get("raster:bands", ()):
            band.update(nodata=None, scale=1e-4, offset=-0.1)

    def meta(changed):
        put(tmp_path, changed)
        (source,) = stac_sources(str(tmp_path / "item.json"), assets=["red", "green"])
        with open_pyramid(
            replace(source, layers=tuple(replace(one, bands=(1,)) for one in source.layers))
        ) as image:
            return image.meta.scales, image.meta.offsets

    assert meta(old) == ((1e-4, 1e-4), (-0.1, -0.1))
    applied = old | {"properties": {**old["properties"], "earthsearch:boa_offset_applied": True}}
    assert meta(applied) == ((1e-4, 1e-4), (0.0, 0.0))
    later = newer(item())
    for asset in later["assets"].values():
        for band in asset.get("bands", ()):
            band.pop("nodata")
            band["raster:scale"] = 0.5
    assert meta(later) == ((0.5, 0.5), (0.0, 0.0))


def test_a_stack_says_it_where_all_of_it_do(tmp_path):
    told, mute = write(tmp_path / "told.tif", OWN), write(tmp_path / "mute.tif", OWN, stated=False)
    for paths, known in (((told, told), True), ((told, mute), False)):
        layers = tuple(Layer(str(path), bands=(3, 2)) for path in paths)
        with open_pyramid(Stack(layers)) as image:
            both = (5e-4, 2e-4) * 2, (-0.01, -0.05) * 2
            assert (image.meta.scales, image.meta.offsets) == (both if known else (None, None))
    layers = (Layer(str(mute), bands=(2,), scales=OWN[0], offsets=OWN[1]),)
    with open_pyramid(Stack(layers)) as image:
        assert (image.meta.scales, image.meta.offsets) == ((2e-4,), (-0.05,))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Trained on the older products."""
    folder = tmp_path_factory.mktemp("scaled")
    examples = [Example(str(write(folder / f"{n}.tif", OLD)), "ab"[n % 2]) for n in range(4)]
    options = TrainOptions(
        epochs=1, batch_size=4, threads=0, device="cpu", crop_size=16, k=(1,), grid=3, fraction=0.5,
        value_range=(0, 8000), lr=1e-4,
    )  # fmt: skip
    list(fit(examples, folder / "model", options))
    return load_model(folder / "model")


def test_training_writes_it_into_the_card_and_products_of_another_offset_agree(model, tmp_path):
    rule = model.config.input
    assert (rule.scales, rule.offsets) == OLD
    assert card_of(model, "")["config"]["input"]["scales"] == OLD[0]
    old, new = (
        hiresattn.classify(write(tmp_path / f"{name}.tif", scaling), model)
        for name, scaling in (("old", OLD), ("new", NEW))
    )
    assert new.scores == pytest.approx(old.scores, abs=1e-5)
    assert [vars(one)["y"] for one in new.regions] == [vars(one)["y"] for one in old.regions]
    assert not any("mean of" in words for words in new.warnings)


def test_a_model_that_knows_nothing_of_it_takes_stored_values_and_says_so(model, tmp_path):
    rule = replace(model.config.input, scales=None, offsets=None)
    blind = replace(model, config=replace(model.config, input=rule))
    told, mute = (
        hiresattn.classify(write(tmp_path / f"{stated}.tif", NEW, stated=stated), blind)
        for stated in (True, False)
    )
    assert told.scores == mute.scores
    (note,) = [words for words in told.warnings if "and offset" in words]
    assert "scale 0.0001 and offset -0.1" in note
    assert not any("and offset" in words for words in mute.warnings)
