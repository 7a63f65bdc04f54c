"""`export-attention`: maps of the training images, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import images

SMALL = Path(__file__).parents[1] / "small.toml"
QUICK = ("--config", SMALL, "--device", "cpu", "--threads", "1", "--k", "2")


@pytest.fixture
def manifest(tmp_path):
    """Six pictures, dark or light, and a place on earth."""
    rows = ["path,label,y,x,height,width"]
    for number in range(6):
        rng = np.random.default_rng(number)
        pixels = rng.integers(150 * (number % 2), 150 * (number % 2) + 60, (48, 48, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{('dark', 'light')[number % 2]},,,,")
    images.write_geotiff(tmp_path / "scene.tif")
    rows += ["scene.tif,dark,64,128,96,96", "scene.tif,light,200,300,96,96"]
    (tmp_path / "m.csv").write_text("\n".join(rows))
    return tmp_path / "m.csv"


@pytest.fixture
def trained(run, manifest, tmp_path):
    """Trains with a scorer; gives the model's directory."""

    def trained(scorer, *words):
        result = run("train", manifest, "-o", tmp_path / "model", *QUICK, "--scorer", scorer, *words)
        assert result.exit_code == 0, result.stderr
        return tmp_path / "model"

    return trained


def test_maps_of_all_training_images_are_written(run, manifest, trained, tmp_path):
    config, maps = tmp_path / "run.toml", tmp_path / "out" / "maps"
    config.write_text(f"{SMALL.read_text()}\ncutmix = 0.2\n")
    model = trained("oaa", "--config", config, "--epochs", 3, "--augment", "turns")
    assert json.loads((model / "card.json").read_text())["training"]["options"]["cutmix"] == 0.2
    for _ in range(2):
        result = run("export-attention", model, manifest, "-o", maps)
        assert result.exit_code == 0, result.stderr
        assert f"Maps of 8 images in {maps}" in result.stderr
        names = {file.name for file in maps.iterdir()}
        assert len(names) == 16
        assert {
            "0.dark.png",
            "0.ome.zarr",
            "scene_64_128_96_96.tif",
            "scene_200_300_96_96.light.png",
        } <= names


def test_a_scorer_without_maps_and_a_file_in_the_way_are_refused(run, manifest, trained, tmp_path):
    for scorer, target, said in (
        ("location", tmp_path / "maps", "train with scorer oaa, saol or evidence"),
        ("saol", manifest, "File exists"),
    ):
        model = trained(scorer, "--epochs", 1, "--overwrite")
        result = run("export-attention", model, manifest, "-o", target)
        assert (result.exit_code, said in result.stderr) == (1, True), result.stderr
        assert not (tmp_path / "maps").exists()


def test_an_image_that_is_gone_is_skipped_and_the_exit_status_is_3(run, manifest, trained, tmp_path):
    model = trained("saol", "--epochs", 1)
    (tmp_path / "1.png").write_bytes(b"")
    words = ("export-attention", model, manifest, "-o", tmp_path / "maps")
    result = run(*words)
    assert result.exit_code == 3
    assert result.stderr.count("1.png") == 1
    assert "Maps of 7 images" in result.stderr
    result = run(*words, "--on-error", "raise")
    assert (result.exit_code, "1.png" in result.stderr) == (1, True)
