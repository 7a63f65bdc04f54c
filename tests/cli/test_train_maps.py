"""`train --export-attention` and `--cutmix`: maps of the training images, and refusals before any training."""

import json

import numpy as np
import pytest
from PIL import Image

from tests import images

QUICK = (
    "--device",
    "cpu",
    "--threads",
    "1",
    "--crop-size",
    "16",
    "--k",
    "2",
    "--grid",
    "3",
    "--fraction",
    "0.5",
)


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


def test_maps_of_all_training_images_are_written_at_the_end(run, manifest, tmp_path):
    maps = tmp_path / "out" / "maps"
    words = (
        "--scorer",
        "oaa",
        "--epochs",
        3,
        "--export-attention",
        maps,
        "--cutmix",
        0.2,
        "--augment",
        "turns",
    )
    result = run("train", manifest, "-o", tmp_path / "model", *QUICK, *words)
    assert result.exit_code == 0, result.stderr
    assert f"Maps of 8 images in {maps}" in result.stderr
    names = {file.name for file in maps.iterdir()}
    assert len(names) == 16
    assert {"0.dark.png", "0.ome.zarr", "scene_64_128_96_96.tif", "scene_200_300_96_96.light.png"} <= names
    card = json.loads((tmp_path / "model" / "card.json").read_text())
    assert card["training"]["options"]["cutmix"] == 0.2
    again = run("train", manifest, "-o", tmp_path / "model", *QUICK, *words, "--resume")
    assert again.exit_code == 0, again.stderr
    assert {file.name for file in maps.iterdir()} == names


def test_what_cannot_be_written_is_said_before_training(run, manifest, tmp_path):
    for scorer, target, said in (
        ("location", tmp_path / "maps", "train with --scorer oaa, saol or evidence"),
        ("oaa", manifest, "a file is in the way"),
    ):
        words = ("--scorer", scorer, "--export-attention", target)
        result = run("train", manifest, "-o", tmp_path / "model", *QUICK, *words)
        assert (result.exit_code, said in result.stderr) == (1, True), result.stderr
        assert not (tmp_path / "model").exists()


def test_an_image_that_has_gone_is_skipped_if_that_was_asked_for(run, manifest, tmp_path):
    words = ("--scorer", "saol", "--epochs", 1)
    assert run("train", manifest, "-o", tmp_path / "model", *QUICK, *words).exit_code == 0
    (tmp_path / "1.png").write_bytes(b"")
    from hiresattn.attention_maps.export import export_attention
    from hiresattn.datasets.manifest import read_manifest
    from hiresattn.errors import HiresattnError

    examples = read_manifest(manifest)
    lost = []
    done = list(export_attention(tmp_path / "model", examples, tmp_path / "maps", lost=lost.append))
    assert (len(done), len(lost)) == (7, 1)
    with pytest.raises(HiresattnError, match=r"1\.png"):
        list(export_attention(tmp_path / "model", examples, tmp_path / "maps"))
