"""`classify` on a cluster writes what one process writes."""

import re
from pathlib import Path

import distributed
import numpy as np
import pytest
from PIL import Image

import hiresattn
from hiresattn.card import read_card
from hiresattn.datasets.feature_files import feature_file
from hiresattn.datasets.features import read_features
from tests.encoders import write_encoder

MODEL = Path(hiresattn.__file__).parent / "demo" / "model"
HOW = ("-m", MODEL, "--budget", "2", "--batch-images", "1", "--threads", "1")
TIMES = re.compile(r'"seconds": {[^}]*}')


@pytest.fixture(scope="module")
def scheduler():
    how = {"dashboard": False, "dashboard_address": ":0"}
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, scheduler_kwargs=how
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def images(tmp_path):
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 255, (80, 96), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    (tmp_path / "3.png").write_bytes(b"no image")
    return [*sorted(tmp_path.glob("*.png")), tmp_path / "absent*.tif"]


def plain(text):
    return TIMES.sub("", text)


def test_a_file_is_that_of_one_process_and_gone_on_with(run, images, scheduler, tmp_path):
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    assert run("classify", *images, *HOW, "-o", one).exit_code == 3
    run("classify", *images[:2], *HOW, "-o", two)
    result = run("classify", *images, *HOW, "-o", two, "--resume", "--scheduler", scheduler)
    assert (result.exit_code, result.stderr.splitlines()[-1][:31]) == (3, "3 ok, 2 failed; 2 were there; m")
    assert plain(two.read_text()) == plain(one.read_text())
    result = run("classify", *images, *HOW, "--json", "--scheduler", scheduler)
    assert [plain(line) for line in result.stdout.splitlines()] == [
        re.sub(r', "key": "[^"]*", "subject": \[[^\]]*\]', "", plain(line))
        for line in one.read_text().splitlines()
    ]


def test_the_environment_names_a_scheduler_unless_workers_are_asked_for(run, images, monkeypatch):
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://127.0.0.1:9")
    monkeypatch.setattr("hiresattn.cluster.connect._WAIT", 0.2)
    result = run("classify", images[0], *HOW)
    assert (result.exit_code, "tcp://127.0.0.1:9: no scheduler answers" in result.stderr) == (1, True)


def test_extract_and_locate_write_what_one_process_writes(run, images, scheduler, tmp_path):
    write_encoder(tmp_path / "encoder", "test_resnet", size=32)
    given = ["--encoder", f"local-dir:{tmp_path / 'encoder'}", "--threads", "1"]
    one, two, colour = (tmp_path / name for name in ("one", "two", "colour"))
    colour.mkdir()
    for path in images[:5]:
        if path.name != "3.png":
            Image.open(path).convert("RGB").save(colour / path.name)
    (colour / "3.png").write_bytes(b"no image")
    ran = [
        run("extract", *sorted(colour.iterdir()), *given, "-o", out, *more)
        for out, more in ((one, ()), (two, ("--scheduler", scheduler)))
    ]
    assert [result.exit_code for result in ran] == [3, 3]
    assert "4 images extracted" in ran[1].stderr
    assert ran[0].stderr.splitlines()[:1] == ran[1].stderr.splitlines()[:1]  # which image failed, and why
    for path in images[:3]:
        name = str(colour / path.name)
        found, wanted = (read_features(feature_file(folder, name, "zarr")) for folder in (two, one))
        assert found.facts == wanted.facts
        assert np.allclose(found.vectors, wanted.vectors, atol=1e-2)  # of 16 bits
        assert np.array_equal(found.regions, wanted.regions)

    classes = read_card(MODEL).config.classes
    rows = [f"{path},{classes[number % 2]}" for number, path in enumerate(images[:5])]
    (tmp_path / "m.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    words = ["locate", tmp_path / "m.csv", "-m", MODEL, "--threads", "1", "--on-error", "skip", "-o"]
    ran = [
        run(*words, tmp_path / name, *more)
        for name, more in (("a.csv", ()), ("b.csv", ("--scheduler", scheduler)))
    ]
    assert [result.exit_code for result in ran] == [3, 3]
    assert ran[1].stderr == ran[0].stderr.replace("a.csv", "b.csv")
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()
    assert "[[" in (tmp_path / "b.csv").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--retries", "3"), "--retries is for a cluster"),
        (("--workers", "2", "--scheduler", "tcp://a:1"), "give one of --workers and --scheduler"),
        (("--workers", "2", "--resources", "GPU"), "such as GPU=1"),
    ],
)
def test_what_makes_no_sense_is_refused(run, images, words, said):
    result = run("classify", images[0], *HOW, *words)
    assert (result.exit_code, said in result.stderr) == (2, True)
