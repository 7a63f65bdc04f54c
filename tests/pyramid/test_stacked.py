"""Several files of one place as one image."""

import pickle

import numpy as np
import pytest
import rasterio
from rasterio import Affine
from rasterio.enums import Resampling

import hiresattn
from hiresattn.errors import ConfigError, OpenError
from hiresattn.pyramid import open_pyramid
from hiresattn.pyramid.stack import Layer, Stack, parse_stack

SIDE = 96
MODEL = hiresattn.__path__[0] + "/demo/model"


def write(
    path, *, res=10, x=5e5, side=None, overviews=(2,), nodata=0, count=1, number=0, driver="GTiff", **more
):
    """A band whose px say where they are, some of which weren't measured."""
    side = side or SIDE * 10 // res
    pixels = np.random.default_rng(number).integers(1, 200, (count, side, side), dtype=np.uint8)
    pixels[:, number * 5 : number * 5 + 4, : side // 2] = 0
    shape = {
        "height": side,
        "width": side,
        "count": count,
        "dtype": "uint8",
        "nodata": nodata,
        "driver": driver,
    }
    place = {"crs": "EPSG:32633", "transform": Affine(res, 0, x, 0, -res, 5e6)}
    tiles = (
        {"tiled": True, "blockxsize": 32, "blockysize": 32}
        if driver == "GTiff"
        else {"REVERSIBLE": True, "QUALITY": 100}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", **(shape | place | tiles | more)) as file:
        file.write(pixels)
        if overviews and driver == "GTiff":
            file.build_overviews(list(overviews), Resampling.average)
    return np.moveaxis(pixels, 0, 2)


def test_bands_of_one_grid_lie_side_by_side(tmp_path):
    bands = [write(tmp_path / f"{n}.tif", number=n) for n in range(3)]
    text = ",".join(f"B0{n + 1}={tmp_path / f'{n}.tif'}" for n in range(3))
    with open_pyramid(parse_stack(text)) as image:
        assert (image.source, image.channel_names, image.nodata) == (text, ("B01", "B02", "B03"), 0)
        whole = np.concatenate(bands, axis=2)
        assert np.array_equal(image.read(0, 3, 5, 60, 70), whole[3:63, 5:75])
        assert np.array_equal(image.read_masked(0, 0, 0, SIDE, SIDE).valid, (whole > 0).all(axis=2))
        assert np.array_equal(image.read_masked(0, 0, 0, SIDE, SIDE, (1,)).valid, whole[..., 1] > 0)
        for n in range(3):
            with open_pyramid(tmp_path / f"{n}.tif") as one:
                assert np.array_equal(image.read(1, 0, 0, 48, 48)[..., n], one.read(1, 0, 0, 48, 48)[..., 0])
        tile = image.tile_window(0, 1, 2)
        assert np.array_equal(image.read_tile(0, 1, 2).data, image.read(0, *tile))
        assert image.exact_bytes
        assert image.tile_bytes(0, 1, 2) == sum(
            open_pyramid(tmp_path / f"{n}.tif").tile_bytes(0, 1, 2) for n in range(3)
        )
        again = pickle.loads(pickle.dumps(image))  # noqa: S301 - our own
        assert np.array_equal(again.read(0, 3, 5, 60, 70), whole[3:63, 5:75])


def test_a_coarser_band_is_laid_over_the_finest(tmp_path):
    fine, coarse = write(tmp_path / "f.tif", overviews=(2, 4)), write(tmp_path / "c.tif", res=20, number=1)
    with open_pyramid(Stack((Layer(str(tmp_path / "c.tif")), Layer(str(tmp_path / "f.tif"))))) as image:
        assert [level.width for level in image.levels] == [96, 48, 24]
        assert np.array_equal(image.read(0, 0, 0, SIDE, SIDE)[..., 1], fine[..., 0])
        assert np.array_equal(
            image.read(0, 7, 9, 40, 50)[..., 0], coarse.repeat(2, 0).repeat(2, 1)[7:47, 9:59, 0]
        )
        assert np.array_equal(image.read(1, 0, 0, 48, 48)[..., 0], coarse[..., 0])
        assert np.array_equal(image.read_masked(1, 0, 0, 48, 48, (0,)).valid, coarse[..., 0] > 0)


def test_grids_that_are_half_a_px_apart_meet_at_middles(tmp_path):
    write(tmp_path / "pan.tif")
    band = write(tmp_path / "band.tif", res=20, x=5e5 - 10, number=1)
    with open_pyramid(Stack((Layer(str(tmp_path / "pan.tif")), Layer(str(tmp_path / "band.tif"))))) as image:
        columns = np.clip((np.arange(SIDE) + 0.5 + 1) // 2, 0, 47).astype(int)
        assert np.array_equal(
            image.read(0, 0, 0, SIDE, SIDE)[..., 1], band[np.arange(SIDE) // 2][:, columns, 0]
        )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"x": 6e5}, "another place"),
        ({"res": 20, "side": 40}, "another place"),
        ({"crs": "EPSG:32632"}, "EPSG:32633 and .* EPSG:32632; warp"),
        ({"dtype": "uint16"}, "uint8 and .* of uint16"),
    ],
)
def test_files_of_different_places_and_types_are_refused(tmp_path, change, says):
    write(tmp_path / "a.tif")
    write(tmp_path / "b.tif", **change)
    with pytest.raises(OpenError, match=says):
        open_pyramid(Stack((Layer(str(tmp_path / "b.tif")), Layer(str(tmp_path / "a.tif")))))
    with pytest.raises(hiresattn.errors.NotFoundError, match=r"c\.tif"):
        open_pyramid(parse_stack(f"A={tmp_path}/a.tif,C={tmp_path}/c.tif"))
    with pytest.raises(OpenError, match="names no file"):
        parse_stack("A=,B=b.tif")


def test_bands_are_chosen_by_name(tmp_path):
    write(tmp_path / "rgb.tif", count=3)
    write(tmp_path / "nir.tif", number=1)
    rgb = Layer(
        str(tmp_path / "rgb.tif"), "visual", names=("B4", "B3", "B2"), colors=("red", "green", "blue")
    )
    stack = Stack((rgb, Layer(str(tmp_path / "nir.tif"), "B8", colors=("nir",))), choose=True)
    assert stack.chosen(["visual"]).layers == (rgb,)
    assert stack.chosen(["RED", "green", "B2"]).layers == (rgb,)
    with (
        open_pyramid(stack.chosen(["nir", "blue", "B4"])) as image,
        open_pyramid(tmp_path / "rgb.tif") as file,
    ):
        assert image.channel_names == ("B8", "B2", "B4")
        assert np.array_equal(image.read(0, 0, 0, 50, 60)[..., 1:], file.read(0, 0, 0, 50, 60)[..., [2, 0]])
    with pytest.raises(ConfigError, match=r"none .* called 'swir'; it has visual \(B4.*\), B8 \(nir\)"):
        stack.chosen(["swir"])
    with pytest.raises(OpenError, match="several files: visual"):
        open_pyramid(stack)


def test_models_are_fed_the_bands_that_are_named(tmp_path):
    write(tmp_path / "a.tif")
    write(tmp_path / "b.tif", number=1)
    stack = parse_stack(f"A={tmp_path}/a.tif,B={tmp_path}/b.tif")
    alone = hiresattn.classify(tmp_path / "b.tif", MODEL, policy="lowres")
    for bands in (("B",), (2,), ("b",)):
        record = hiresattn.classify(stack, MODEL, policy="lowres", bands=bands)
        assert dict(record.scores) == pytest.approx(dict(alone.scores), abs=1e-6)
        assert record.source == str(stack)
    with rasterio.open(tmp_path / "b.tif", "r+") as file:
        file.set_band_description(1, "nir")
    assert hiresattn.classify(tmp_path / "b.tif", MODEL, policy="lowres", bands=("NIR",)).status == "ok"
    with pytest.raises(ConfigError, match="no band is called 'red'; it has nir"):
        hiresattn.classify(tmp_path / "b.tif", MODEL, policy="lowres", bands=("red",))
    with pytest.raises(ConfigError, match="counted from 1"):
        hiresattn.classify(tmp_path / "b.tif", MODEL, bands=(0,))
