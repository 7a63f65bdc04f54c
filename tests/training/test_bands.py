"""Bands that are learnt from by name: those of each image, wherever they lie in it."""

import csv
import json
import shutil

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner

import hiresattn
from hiresattn import register_encoder
from hiresattn.config import InputConfig
from hiresattn.datasets.example import Example
from hiresattn.datasets.feature_files import FeatureFiles
from hiresattn.datasets.features import read_features
from hiresattn.errors import ConfigError, HiresattnError
from hiresattn.geo import mlm_item
from hiresattn.inference.extract import extract
from hiresattn.pyramid import open_pyramid
from hiresattn.reading.fetch import CropFetcher
from hiresattn.training.features import fit_features
from hiresattn.training.options import TrainOptions
from hiresattn_cli.main import cli

SIDE = 96
#: Orders of bands in files, and what each is called.
ORDERS = (("red", "nir08"), ("nir08", "green", "red"))
BY_COLOR = {"red": "B04", "green": "B03", "nir08": "B8A"}


def write(path, bands, label, number, **how):
    """Noise; of class "land" bright in nir08. ``bands`` None = without names."""
    rng = np.random.default_rng(number)
    known = {name: rng.integers(0, 100, (SIDE, SIDE), dtype=np.uint8) for name in ("red", "green", "nir08")}
    known["nir08"] += np.uint8(100 * (label == "land"))
    names = bands or ORDERS[0]
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5e6)}
    shape = {"height": SIDE, "width": SIDE, "count": len(names), "dtype": "uint8", "driver": "GTiff"}
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", **(shape | place | how)) as file:
        file.write(np.stack([known[name] for name in names]))
        for at, name in enumerate(bands or (), start=1):
            file.set_band_description(at, name)


def safe(folder, label, number):
    """The same as a folder of Sentinel-2."""
    for color in ORDERS[1]:
        how = {"driver": "JP2OpenJPEG", "REVERSIBLE": True, "QUALITY": 100}
        write(folder / f"GRANULE/L/IMG_DATA/T_{BY_COLOR[color]}.jp2", (color,), label, number, **how)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Scenes of two orders of bands and of several files, and a model of two of the bands."""
    folder = tmp_path_factory.mktemp("bands")
    rows = []
    for number in range(9):
        label = ("land", "sea")[number % 2]
        name = f"{number}.SAFE" if number >= 6 else f"{number}.tif"
        if number >= 6:
            safe(folder / name, label, number)
        else:
            write(folder / name, ORDERS[number % 4 // 2], label, number)
        rows.append((name, label, "val" if number in (4, 5) else "train"))
    with (folder / "m.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    words = [
        "train",
        folder / "m.csv",
        "-o",
        folder / "model",
        "--bands",
        "red,nir08",
        "--epochs",
        "1",
        "--no-onnx",
    ]
    done = CliRunner().invoke(cli, [*map(str, words), "--crop-size", "32", "--batch-size", "4"])
    assert done.exit_code == 0, done.output
    return folder


def test_names_are_kept_and_found_in_every_image(folder):
    card = json.loads((folder / "model/card.json").read_text())
    assert card["config"]["input"]["band_names"] == ["red", "nir08"]
    assert [band["name"] for band in mlm_item(folder / "model")["properties"]["bands"]] == ["red", "nir08"]


def test_the_bands_of_each_image_are_classified_by_name(folder, tmp_path):
    scores = []
    for number, bands in enumerate(ORDERS):
        write(tmp_path / f"{number}.tif", bands, "land", 99)
        record = hiresattn.classify(tmp_path / f"{number}.tif", folder / "model", budget=4)
        scores.append(dict(record.scores))
    safe(tmp_path / "x.SAFE", "land", 99)
    scores.append(dict(hiresattn.classify(tmp_path / "x.SAFE", folder / "model", budget=4).scores))
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    assert scores[0] == pytest.approx(scores[2], abs=1e-6)
    write(tmp_path / "other.tif", ("green", "nir08"), "land", 99)
    write(tmp_path / "none.tif", None, "land", 99)
    with pytest.raises(ConfigError, match=r"no band is called 'red'; it has green, nir08"):
        hiresattn.classify(tmp_path / "other.tif", folder / "model")
    with pytest.raises(ConfigError, match=r"no band is called 'red'; it has gray"):
        hiresattn.classify(tmp_path / "none.tif", folder / "model")
    given = hiresattn.classify(tmp_path / "none.tif", folder / "model", bands=(1, 2), budget=4)
    assert dict(given.scores) == pytest.approx(scores[0], abs=1e-6)


def test_crops_hold_the_bands_that_are_called_so(tmp_path):
    rule = InputConfig(size=SIDE, bands=(0, 1), band_names=("red", "nir08"), low=(0,) * 2, high=(255,) * 2)
    crops = []
    for number, bands in enumerate(ORDERS):
        write(tmp_path / f"{number}.tif", bands, "land", 5)
        with (
            open_pyramid(tmp_path / f"{number}.tif") as image,
            CropFetcher([image], rule, threads=1) as fetch,
        ):
            crops.append(fetch(np.zeros(1, np.int64), np.array([[0, 0, SIDE, SIDE]])).pixels)
    assert np.array_equal(*crops)


def test_numbers_and_names_are_not_mixed_nor_bands_of_several_orders(folder, tmp_path):
    for wrong in (
        {"bands": (1, "red")},
        {"bands": ("red", "nir"), "cutmix": 0.5},
        {"bands": ("",)},
        {"bands": ()},
    ):
        with pytest.raises(ConfigError, match=r"by name|counted from 1|cutmix"):
            TrainOptions(**wrong)
    shutil.copytree(folder / "model", tmp_path / "model")
    card = json.loads((tmp_path / "model/card.json").read_text())
    card["config"]["input"]["band_names"] = ["red"]
    (tmp_path / "model/card.json").write_text(json.dumps(card))
    with pytest.raises(HiresattnError, match="a name per band"):
        hiresattn.load_model(tmp_path / "model")


class Means(torch.nn.Module):
    """How bright each band is on average."""

    def __init__(self, channels):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.full((1, channels, 1, 1), 2.0))

    def forward(self, crops):
        return (crops.mean((2, 3), keepdim=True) * self.scale).relu()


def test_features_of_bands_by_name_make_a_model_of_them(folder, tmp_path):
    register_encoder("means-by-name", Means)
    examples = [Example(str(folder / f"{n}.tif"), ("land", "sea")[n % 2], "train") for n in range(6)]
    how = {"bands": ("red", "nir08"), "side": 32, "threads": 0}
    assert {one.status for one in extract(examples, "means-by-name", tmp_path / "features", **how)} == {"ok"}
    options = TrainOptions(epochs=1, features=str(tmp_path / "features"), threads=0, device="cpu")
    assert list(fit_features(examples, tmp_path / "model", options))
    assert hiresattn.load_model(tmp_path / "model").config.input.band_names == ("red", "nir08")
    scores = []
    for number, bands in enumerate(ORDERS):
        write(tmp_path / f"{number}.tif", bands, "land", 99)
        scores.append(dict(hiresattn.classify(tmp_path / f"{number}.tif", tmp_path / "model").scores))
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    assert all(
        extract(examples, tmp_path / "model", tmp_path / "more", threads=0)
    )  # by the names in the card
    held = read_features(FeatureFiles(tmp_path / "more", [examples[0].source]).of(examples[0].source))
    assert held.facts["bands"] == ["red", "nir08"]
