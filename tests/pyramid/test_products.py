"""Folders of Sentinel-2 and Landsat: their bands, and what their metadata say of the values."""

import json
import shutil

import pytest
import rasterio
from rasterio import Affine

import hiresattn
from hiresattn.errors import DomainError
from hiresattn.pyramid import open_pyramid
from hiresattn.pyramid.products import product_of
from tests.pyramid.test_stacked import MODEL, SIDE, write


def test_folders_of_sentinel_2_and_landsat_are_scenes(tmp_path):
    safe = tmp_path / "S2A_MSIL2A_X.SAFE"
    data = safe / "GRANULE/L2A/IMG_DATA"
    write(data / "R10m/T_B04_10m.jp2", driver="JP2OpenJPEG", nodata=None)
    write(data / "R20m/T_B04_20m.jp2", res=20, driver="JP2OpenJPEG", nodata=None)
    write(data / "R20m/T_B8A_20m.jp2", res=20, number=1, driver="JP2OpenJPEG", nodata=None)
    write(data / "R10m/T_TCI_10m.jp2", count=3, driver="JP2OpenJPEG", nodata=None)
    (safe / "MTD_MSIL2A.xml").write_text(
        "<a><PRODUCT_START_TIME>2020-01-02T03:04:05Z</PRODUCT_START_TIME><Special_Values><SPECIAL_VALUE_TEXT>NODATA"
        "</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX></Special_Values></a>"
    )
    stack = product_of(safe)
    assert [(one.name, one.colors, one.nodata) for one in stack.layers] == [
        ("B04", ("red",), 0),
        ("B8A", ("nir08",), 0),
    ]
    assert stack.layers[0].path.endswith("R10m/T_B04_10m.jp2")
    with open_pyramid(stack.chosen(["red", "nir08"])) as image:
        assert (image.width, image.channels, image.meta.acquired) == (SIDE, 2, "2020-01-02T03:04:05Z")
    landsat = tmp_path / "LC08_L2SP"
    for band in ("B4", "B5"):
        write(landsat / f"LC08_L2SP_SR_{band}.TIF")
    (landsat / "LC08_L2SP_MTL.txt").write_text(
        'DATE_ACQUIRED = 2021-05-06\n  SCENE_CENTER_TIME = "07:08:09.1Z"\n'
    )
    assert product_of(landsat).chosen(["nir08"]).layers[0].name == "B5"
    assert product_of(landsat).acquired == "2021-05-06T07:08:09Z"
    assert product_of(tmp_path) is None
    assert hiresattn.classify(safe, MODEL, policy="lowres", bands=("B04",)).status == "ok"
    (record,) = hiresattn.classify_all(str(landsat), MODEL, policy="lowres", bands=("red",))
    assert (record.status, record.source) == ("ok", str(landsat))


def sentinel(folder, level, divisor, offsets="", baseline="05.10"):
    """A SAFE folder of two bands of noise, with what its metadata say of the values."""
    safe = folder / f"S2A_MSIL{level}_{baseline}.SAFE"
    for number, band in enumerate(("B04", "B8A")):
        write(safe / f"GRANULE/L/IMG_DATA/T_{band}.jp2", number=number, driver="JP2OpenJPEG", nodata=None)
    (safe / f"MTD_MSIL{level}.xml").write_text(
        f'<?xml version="1.0"?><n1:P xmlns:n1="x"><PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>'
        f'<{divisor} unit="none">10000</{divisor}><AOT_QUANTIFICATION_VALUE unit="none">1000.0'
        f"</AOT_QUANTIFICATION_VALUE>{offsets}</n1:P>"
    )
    return safe


def added(name, *numbers):
    return "".join(f'<{name} band_id="{number}">{-1000 - number}</{name}>' for number in numbers)


@pytest.mark.parametrize(
    ("level", "divisor", "offsets", "baseline", "wanted"),
    [
        ("2A", "BOA_QUANTIFICATION_VALUE", added("BOA_ADD_OFFSET", 3, 8), "05.10", (-0.1003, -0.1008)),
        ("1C", "QUANTIFICATION_VALUE", added("RADIO_ADD_OFFSET", 3, 8), "04.00", (-0.1003, -0.1008)),
        ("2A", "BOA_QUANTIFICATION_VALUE", "", "02.14", (0, 0)),
        ("2A", "BOA_QUANTIFICATION_VALUE", "", "04.00", None),
        ("2A", "BOA_QUANTIFICATION_VALUE", added("BOA_ADD_OFFSET", 3), "05.10", None),
        ("2A", "OTHER_VALUE", added("BOA_ADD_OFFSET", 3, 8), "05.10", None),
    ],
)
def test_reflectance_of_sentinel_2_is_as_its_metadata_say(
    tmp_path, level, divisor, offsets, baseline, wanted
):
    safe = sentinel(tmp_path, level, divisor, offsets, baseline)
    with open_pyramid(product_of(safe).chosen(["red", "nir08"])) as image:
        assert image.meta.channel_names == ("B04", "B8A")
        if wanted is None:
            assert (image.meta.scales, image.meta.offsets) == (None, None)
        else:
            assert image.meta.scales == pytest.approx((1e-4, 1e-4))
            assert image.meta.offsets == pytest.approx(wanted)
    with open_pyramid(product_of(safe).chosen(["red"])) as image:
        assert image.meta.channel_names == ("B04",)
        known = product_of(safe).layers[0].offsets
        assert (image.meta.offsets, image.meta.scales is None) == (known, known is None)


LANDSAT = {
    "IMAGE_ATTRIBUTES": {"DATE_ACQUIRED": "2021-05-06", "SCENE_CENTER_TIME": "07:08:09.1Z"},
    "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS": {"REFLECTANCE_MULT_BAND_4": "2.75e-05", "REFLECTANCE_ADD_BAND_4": "-0.2"},
    "LEVEL2_SURFACE_TEMPERATURE_PARAMETERS": {
        "TEMPERATURE_MULT_BAND_ST_B10": "0.00341802", "TEMPERATURE_ADD_BAND_ST_B10": "149.0",
    },
    "LEVEL1_RADIOMETRIC_RESCALING": {
        "REFLECTANCE_MULT_BAND_4": "2.0000E-05", "REFLECTANCE_ADD_BAND_4": "-0.100000", "RADIANCE_MULT_BAND_10": "3e-4",
    },
}  # fmt: skip


@pytest.mark.parametrize("form", ["txt", "json"])
@pytest.mark.parametrize(
    ("kinds", "wanted"),
    [
        (("SR_B4", "ST_B10"), [(2.75e-05, -0.2), (0.00341802, 149.0)]),
        (("B4", "B10"), [(2e-05, -0.1), None]),
        (("SR_B4", "SR_B5"), [(2.75e-05, -0.2), None]),
    ],
)
def test_reflectance_of_landsat_is_as_its_metadata_say(tmp_path, form, kinds, wanted):
    folder = tmp_path / "LC08"
    for number, kind in enumerate(kinds):
        write(folder / f"LC08_L2SP_193024_{kind}.TIF", number=number)
    text = json.dumps({"LANDSAT_METADATA_FILE": LANDSAT})
    if form == "txt":
        lines = ["GROUP = LANDSAT_METADATA_FILE"]
        for name, group in LANDSAT.items():
            values = {key: f'"{value}"' if ":" in value else value for key, value in group.items()}
            own = [f"    {key} = {value}" for key, value in values.items()]
            lines += [f"  GROUP = {name}", *own, f"  END_GROUP = {name}"]
        text = "\n".join([*lines, "END_GROUP = LANDSAT_METADATA_FILE", "END", ""])
    (folder / f"LC08_L2SP_193024_MTL.{form}").write_text(text)
    stack = product_of(folder)
    assert stack.acquired == "2021-05-06T07:08:09Z"
    found = {one.name: one.scales and (one.scales[0], one.offsets[0]) for one in stack.layers}
    assert found == {kind[-3:].strip("_"): pair for kind, pair in zip(kinds, wanted, strict=True)}
    with open_pyramid(stack.chosen([kinds[0][-2:]])) as image:
        assert (image.meta.scales, image.meta.offsets) == ((wanted[0][0],), (wanted[0][1],))


def test_a_model_of_reflectance_takes_a_product_and_refuses_one_without_metadata(tmp_path):
    safe = sentinel(tmp_path, "2A", "BOA_QUANTIFICATION_VALUE", added("BOA_ADD_OFFSET", 3, 8))
    folder = tmp_path / "model"
    shutil.copytree(MODEL, folder)
    card = json.loads((folder / "card.json").read_text())
    card["config"]["input"] |= {"scales": [1e-4], "offsets": [-0.1]}
    (folder / "card.json").write_text(json.dumps(card))
    found = hiresattn.classify(safe, folder, policy="lowres", bands=("red",))
    with open_pyramid(product_of(safe).chosen(["red"])) as image:
        pixels = image.read(0, 0, 0, image.height, image.width)
        place = {"crs": image.crs, "transform": Affine(*image.transform), "height": SIDE, "width": SIDE}
    with rasterio.open(tmp_path / "red.tif", "w", driver="GTiff", count=1, dtype="uint8", **place) as file:
        file.write(pixels[..., 0], 1)
        file.scales, file.offsets = (1e-4,), (-0.1003,)
    wanted = hiresattn.classify(tmp_path / "red.tif", folder, policy="lowres")
    assert dict(found.scores) == pytest.approx(dict(wanted.scores), abs=1e-6)
    (safe / "MTD_MSIL2A.xml").unlink()
    with pytest.raises(DomainError, match="scale"):
        hiresattn.classify(safe, folder, policy="lowres", bands=("red",))
