"""Features of all regions of images: each image once, and only what is missing."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

from hiresattn.datasets.example import Example
from hiresattn.datasets.feature_files import feature_file
from hiresattn.datasets.features import read_features
from hiresattn.errors import ConfigError, WriteError
from hiresattn.files import Lock
from hiresattn.inference.extract import extract
from hiresattn.model.encoders import register_encoder


class Corner(torch.nn.Module):
    """Features that say which px they are of: the mean of each band, and its first px."""

    def forward(self, crops):
        return torch.cat([crops, crops[:, :, :1, :1].expand_as(crops)], 1)

    def __init__(self, channels):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(channels))


@pytest.fixture(scope="module", autouse=True)
def encoder():
    register_encoder("corner", Corner)


def place(tmp_path, name="image.png", side=160):
    """An image whose px encode where they are, in steps of 32 px."""
    y, x = np.mgrid[:side, : side + 64] // 32
    path = tmp_path / name
    Image.fromarray(np.stack([10 * y, 10 * x, np.full_like(y, 7)], 2).astype(np.uint8)).save(path)
    return path


def test_features_are_of_the_regions_that_they_are_said_to_be_of(tmp_path):
    path = place(tmp_path)
    (record,) = extract([str(path)], "corner", tmp_path / "features", side=32, value_range=(0, 200))
    assert (record.status, record.regions, record.side) == ("ok", 5 * 7, 32)
    found = read_features(record.file)
    values = (found.vectors.astype(float) + 1) * 100
    assert values[:, 0] == pytest.approx(10 * found.regions[:, 0] / 32, abs=0.2)
    assert values[:, 1] == pytest.approx(10 * found.regions[:, 1] / 32, abs=0.2)
    assert (found.regions[:, 2:] == 32).all()
    assert found.facts["encoder"] == "corner"


def test_an_image_is_extracted_once_whatever_rows_name_it_and_not_again(tmp_path, monkeypatch):
    path = place(tmp_path)
    rows = [Example(str(path), region=(0, 0, 64, 64)), Example(str(path), region=(64, 0, 64, 64)), str(path)]
    options = {"side": 32, "value_range": (0, 200)}
    (first,) = extract(rows, "corner", tmp_path / "features", **options)
    monkeypatch.setattr("hiresattn.inference.extract.open_pyramid", None)  # to open it would fail
    (again,) = extract(rows, "corner", tmp_path / "features", **options)
    assert (first.status, again.status, again.regions) == ("ok", "held", first.regions)
    monkeypatch.undo()


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_bands_may_be_named_in_the_order_of_each_file(tmp_path):
    values = {"near": 20, "green": 60, "red": 120}
    for number, order in enumerate((("near", "green", "red"), ("red", "near", "green"))):
        path = tmp_path / f"{number}.tif"
        shape = {"height": 64, "width": 64, "count": 3, "dtype": "uint8"}
        with rasterio.open(path, "w", driver="GTiff", **shape) as file:
            file.write(np.stack([np.full((64, 64), values[name], np.uint8) for name in order]))
            file.descriptions = order
        how = {"side": 32, "value_range": (0, 200), "bands": ("red", "near", "green")}
        (record,) = extract([str(path)], "corner", tmp_path / "features", **how)
        found = (read_features(record.file).vectors.astype(float) + 1) * 100
        assert found[:, :3] == pytest.approx(np.tile([120, 20, 60], (len(found), 1)), abs=0.2)
    (record,) = extract([str(path)], "corner", tmp_path / "none", side=32, bands=("red", "near", "swir"))
    assert "no band is called 'swir'" in record.error


def test_a_scale_in_micrometres_is_the_same_for_slides_of_any_resolution(tmp_path):
    path = place(tmp_path)
    for mpp, side in ((0.5, 64), (0.25, 128), (1.0, 32)):
        (record,) = extract([Example(str(path), mpp=mpp)], "corner", tmp_path / f"{mpp}", mpp=0.5)
        assert record.side == side
    (record,) = extract([str(path)], "corner", tmp_path / "none", mpp=0.5)
    assert record.status == "error"
    assert "its µm/px isn't known" in record.error


def test_regions_without_a_measured_px_are_left_out(tmp_path):
    image = np.full((64, 128, 3), 50, np.uint8)
    image[:, :64] = 0
    profile = {"driver": "GTiff", "width": 128, "height": 64, "count": 3, "dtype": "uint8", "nodata": 0}
    with rasterio.open(
        tmp_path / "half.tif", "w", **profile, transform=rasterio.Affine(2, 0, 10, 0, -2, 20)
    ) as file:
        file.write(image.transpose(2, 0, 1))
    (record,) = extract([str(tmp_path / "half.tif")], "corner", tmp_path / "features", side=32)
    assert record.regions == 4
    assert (read_features(record.file).regions[:, 1] >= 64).all()


def test_what_is_wrong_with_one_image_costs_no_other(tmp_path):
    good = place(tmp_path)
    (tmp_path / "bad.png").write_bytes(b"no image")
    names = [str(tmp_path / "bad.png"), str(good), str(tmp_path / "gone.png")]
    found = list(extract(names, "corner", tmp_path / "features"))
    assert [record.status for record in found] == ["error", "ok", "error"]
    assert "bad.png" in found[0].error
    assert [p.name for p in (tmp_path / "features").iterdir()] == [Path(found[1].file).name]


def test_an_image_that_another_process_has_is_left_to_it(tmp_path):
    path = place(tmp_path)
    out = tmp_path / "features"
    out.mkdir()
    lock = Lock(out / f".{feature_file(out, str(path)).stem}.lock")
    assert [record.status for record in extract([str(path)], "corner", out)] == ["elsewhere"]
    lock.release()
    assert [record.status for record in extract([str(path)], "corner", out)] == ["ok"]


def test_damaged_features_are_extracted_anew(tmp_path):
    path = place(tmp_path)
    (record,) = extract([str(path)], "corner", tmp_path / "features", format="h5")
    Path(record.file).write_bytes(b"cut")
    (again,) = extract([str(path)], "corner", tmp_path / "features", format="h5")
    assert again.status == "ok"
    assert len(read_features(again.file).vectors) == record.regions


def test_other_features_are_replaced_only_where_that_is_asked_for(tmp_path):
    pytest.importorskip("h5py")
    path, out = place(tmp_path), tmp_path / "features"
    names, how = [str(path), str(place(tmp_path, "new.png"))], {"side": 32, "value_range": (0, 200)}
    (first,) = extract(names[:1], "corner", out, **how)
    kept = read_features(first.file)
    register_encoder("corner-2", lambda channels: Corner(channels + 1))
    for more, words in (
        (
            {"side": 64},
            r"image-\w+\.zarr: features are there already, with scale 32 px and not 64 px, and so 1 of 2",
        ),
        ({"value_range": (0, 100)}, "high .*200.* and not .*100"),
        ({"format": "h5"}, "format zarr and not h5"),
    ):
        with pytest.raises(ConfigError, match=rf"{words}.*overwrite replaces them"):
            list(extract(names, "corner", out, **{**how, **more}))
    with pytest.raises(ConfigError, match="encoder corner and not corner-2"):
        list(extract(names, "corner-2", out, **how))
    assert [p.name for p in out.iterdir()] == [Path(first.file).name]
    assert np.array_equal(read_features(first.file).vectors, kept.vectors)
    changed = how | {"side": 64, "format": "h5", "overwrite": True}
    assert [one.status for one in extract(names, "corner", out, **changed)] == ["ok", "ok"]
    assert {p.suffix for p in out.iterdir()} == {".h5"}
    assert [one.status for one in extract(names, "corner", out, **changed)] == ["held", "held"]


@pytest.mark.parametrize("form", ["zarr", "h5"])
def test_a_region_larger_than_the_image_is_noted_and_kept_as_it_is(tmp_path, form):
    if form == "h5":
        pytest.importorskip("h5py")
    path, how = place(tmp_path), {"side": 300, "value_range": (0, 200), "format": form}
    for status in ("ok", "held"):
        (record,) = extract([str(path)], "corner", tmp_path / "features", **how)
        assert record.status == status
        assert "a region of 300 px is larger than the image of 160 x 224 px" in record.note
    found = read_features(record.file)
    assert found.regions.tolist() == [[0, 0, 160, 160], [0, 64, 160, 160]]
    (record,) = extract([str(path)], "corner", tmp_path / "more", **how | {"side": 160})
    assert record.note is None


def test_options_that_cannot_be_used_are_refused(tmp_path):
    for wrong in ({"mpp": 1.0, "side": 3}, {"format": "pt"}, {"side": 0}, {"bands": (0,)}, {"nosuch": 1}):
        with pytest.raises(ConfigError):
            list(extract([str(place(tmp_path))], "corner", tmp_path / "features", **wrong))
    with pytest.raises(ConfigError, match="small"):
        list(extract([str(place(tmp_path))], "small", tmp_path / "features"))
    (tmp_path / "file").write_text("")
    with pytest.raises((ConfigError, WriteError)):
        list(extract([str(place(tmp_path))], "corner", tmp_path / "file"))
