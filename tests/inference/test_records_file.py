"""Files of records: what is there isn't classified again."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hiresattn
from hiresattn.checkpoint import load_model
from hiresattn.datasets.example import Example
from hiresattn.errors import ConfigError
from hiresattn.inference.records_file import write_records

MODEL = Path(hiresattn.__file__).parent / "demo" / "model"


@pytest.fixture(scope="module")
def model():
    return load_model(MODEL)


@pytest.fixture
def images(tmp_path):
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    for number, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (80, 96), np.uint8)).save(path)
    return paths


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_interrupted_run_goes_on_where_it_was(images, model, tmp_path):
    out = tmp_path / "out.jsonl"
    run = write_records(out, images, model, budget=2)
    next(run)
    run.close()
    assert [Path(line["source"]).name for line in lines(out)] == ["a.png"]
    rest = list(write_records(out, images, model, budget=2, resume=True))
    assert [Path(record.source).name for record in rest] == ["b.png", "c.png"]
    assert [Path(line["source"]).name for line in lines(out)] == ["a.png", "b.png", "c.png"]
    assert not list(write_records(out, [*map(str, images)], model, budget="2", resume=True, threads=1))
    with pytest.raises(ConfigError, match="resume adds what is missing"):
        next(write_records(out, images, model))


def test_what_has_changed_is_classified_again(images, model, tmp_path):
    out = tmp_path / "out.jsonl"
    list(write_records(out, images[:1], model, budget=2))

    def again(sources=images[:1], budget=2, model=model):
        return len(list(write_records(out, sources, model, budget=budget, resume=True)))

    assert again() == 0
    assert again(budget=3) == 1
    assert again([Example(images[0], region=(0, 0, 70, 70))]) == 1
    images[1].replace(images[0])
    assert again() == 1
    assert again() == 0
    assert again([images[0], images[0]]) == 1  # named twice: two records


def test_sources_that_failed_are_tried_again(images, model, tmp_path):
    out = tmp_path / "out.jsonl"
    hidden = images[0].rename(tmp_path / "hidden")
    list(write_records(out, images, model, budget=2, on_error="record"))
    assert [line["status"] for line in lines(out)] == ["error", "ok", "ok"]
    hidden.rename(images[0])
    (found,) = write_records(out, images, model, budget=2, on_error="record", resume=True)
    assert found.status == "ok"
    assert sorted(line["status"] for line in lines(out)) == ["ok"] * 3


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_killed_command_is_resumed_to_one_record_per_source(images, model, tmp_path):
    out = tmp_path / "out.jsonl"
    words = ["classify", *map(str, images), "-m", str(MODEL), "--budget", "2", "-o", str(out)]
    code = """if True:
        import os, signal, sys
        from hiresattn.inference.lines import LinesFile
        from hiresattn_cli.main import main
        whole = LinesFile.write
        def write(file, value):
            if "b.png" in value["source"]:
                os.write(file._file, b'{"source": "b.p')
                os.kill(os.getpid(), signal.SIGKILL)
            whole(file, value)
        LinesFile.write = write
        main()
    """
    assert subprocess.run([sys.executable, "-c", code, *words], check=False).returncode == -9  # noqa: S603
    again = [sys.executable, "-m", "hiresattn_cli.main", *words]
    refused = subprocess.run(again, capture_output=True, text=True, check=False)  # noqa: S603
    assert (refused.returncode, "resume adds what is missing" in refused.stderr) == (1, True)
    done = subprocess.run([*again, "--resume"], capture_output=True, text=True, check=False)  # noqa: S603
    assert (done.returncode, "2 ok, 0 failed; 1 were there" in done.stderr) == (0, True)
    assert [Path(line["source"]).name for line in lines(out)] == ["a.png", "b.png", "c.png"]
    assert not list(tmp_path.glob(".*"))
