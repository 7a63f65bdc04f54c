"""`train`: where options come from, and what is said of a run. The library trains; images are tiny."""

import json

import numpy as np
import pytest
from PIL import Image

QUICK = ("--device", "cpu", "--threads", "1", "--crop-size", "16", "--k", "1", "--epochs", "1")


@pytest.fixture
def manifest(tmp_path):
    rng = np.random.default_rng(0)
    rows = ["path,label"]
    for number in range(8):
        pixels = rng.integers(90, 160, (48, 48)).astype(np.uint8)
        pixels[8:24, 8:24] = 255 * (number % 2)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{'dark' if number % 2 else 'light'}")
    path = tmp_path / "m.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def _options(folder):
    return json.loads((folder / "card.json").read_text())["training"]["options"]


def test_a_flag_wins_over_the_file_and_the_file_over_the_preset(run, manifest, tmp_path):
    config = tmp_path / "run.toml"
    config.write_text(
        'preset = "timm"\nencoder = "small"\nbatch-size = 4\nlr = 0.5\ngrid = 3\nfraction = 0.5\n'
    )
    words = ("--config", config, "--lr", "0.001", *QUICK)
    result = run("train", manifest, "-o", tmp_path / "model", *words)
    assert result.exit_code == 0, result.stderr
    found = _options(tmp_path / "model")
    assert (found["lr"], found["batch_size"], found["encoder"], found["grid"]) == (0.001, 4, "small", 3)
    config.write_text('preset = "quik"\n')
    assert "did you mean" in run("train", manifest, "-o", tmp_path / "b", "--config", config).stderr
    result = run("train", manifest, "-o", tmp_path / "b", "--config", config, "--preset", "quick", *QUICK)
    assert result.exit_code == 0  # the flag's preset wins over the file's


def test_a_wrong_key_is_exit_1_and_names_file_and_neighbour(run, manifest, tmp_path):
    config = tmp_path / "run.toml"
    config.write_text("epoch = 3\n")
    result = run("train", manifest, "-o", tmp_path / "model", "--config", config)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "run.toml: unknown key 'epoch'; did you mean 'epochs'?" in result.stderr
