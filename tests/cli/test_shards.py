"""Shards of a run: dealt out, and put together again as one process would have written them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hiresattn
from hiresattn.cluster.claims import claimed
from hiresattn.cluster.merge import merge
from hiresattn.cluster.shards import Shard
from hiresattn.errors import ConfigError, NotFoundError

MODEL = Path(hiresattn.__file__).parent / "demo" / "model"
HOW = ("-m", MODEL, "--budget", "2", "--batch-images", "1", "--threads", "1")
#: What no two runs have alike.
TIMES = re.compile(rb'"seconds": {[^}]*}|"started": "[^"]*"')


@pytest.fixture
def images(tmp_path):
    """A manifest of five cases, one of which has two images and one a broken one."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 255, (80, 96), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "3.png").write_bytes(b"no image")
    rows = ["path,label,case_id", *(f"{n}.png,0,{'A' if n in (1, 4) else n}" for n in range(6))]
    (folder / "m.csv").write_text("\n".join(rows) + "\n")
    return folder / "m.csv"


def same(one, other):
    """Byte for byte, apart from times."""
    return TIMES.sub(b"", Path(one).read_bytes()) == TIMES.sub(b"", Path(other).read_bytes())


def test_every_case_is_in_one_shard():
    cases = list(range(10))
    parts = [Shard(number, 4).part(cases) for number in range(1, 5)]
    assert parts[0] == [0, 4, 8]
    assert sorted(case for part in parts for case in part) == cases
    assert Shard(7, 1000).folder("out") == Path("out/shard-0007-of-1000")


def _sharing(images, output):
    """A process that does shards of a run as they are free."""
    words = ["classify", images, *HOW, "-o", f"{output}/", "--shard", "any/5"]
    return subprocess.Popen(  # noqa: S603 - our own words
        [sys.executable, "-m", "hiresattn_cli.main", *map(str, words)], stderr=subprocess.DEVNULL
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_processes_share_shards_and_take_over_those_of_a_killed_one(run, images, tmp_path):
    alone, shared, merged = (tmp_path / name for name in ("alone", "shared", "merged"))
    assert run("classify", images, *HOW, "-o", f"{alone}/").exit_code == 3
    killed = _sharing(images, shared)
    claims = shared / "claims"
    while not list(claims.glob("shard-*.0")):
        time.sleep(0.02)
        assert killed.poll() is None
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    (left,) = {path.stem for path in claims.glob("shard-*.0")} - {path.stem for path in claims.glob("*.done")}
    assert len(list(claims.glob("*.done"))) < 5
    os.utime(claims / f"{left}.0", (time.time() - 3600,) * 2)  # an hour ago
    both = [_sharing(images, shared) for _ in range(2)]
    assert {process.wait(timeout=200) for process in both} <= {0, 3}
    assert (claims / f"{left}.1").exists()
    assert len(list(claims.glob("*.done"))) == 5
    result = run("merge", shared, "-o", f"{merged}/")
    assert "missing" not in result.stderr
    assert same(alone / "records.jsonl", merged / "records.jsonl")


def test_a_shard_is_claimed_by_one_at_a_time_and_taken_over_when_its_claim_is_old(tmp_path, monkeypatch):
    monkeypatch.setattr("hiresattn.cluster.claims.BEAT", 0.01)
    first, second = claimed(tmp_path, 3), claimed(tmp_path, 3)
    assert [next(first).number, next(second).number] == [1, 2]
    assert next(second).number == 3  # and its first is done
    first.close()  # ended before it was done
    assert [shard.number for shard in second] == [1]
    assert list(claimed(tmp_path, 3)) == []
    old, later = claimed(tmp_path / "b", 1), claimed(tmp_path / "b", 1)
    monkeypatch.setattr("hiresattn.cluster.claims.BEAT", 30.0)  # a process that hangs
    assert next(old).number == 1
    os.utime(tmp_path / "b" / "shard-01-of-1.0", (1, 1))
    assert next(later).number == 1
    assert (tmp_path / "b" / "shard-01-of-1.1").exists()


@pytest.mark.parametrize(
    ("words", "said"), [(("-o", "x.jsonl"), "-o DIR/"), (("-o", "x/", "--overwrite"), "can't go with")]
)
def test_sharing_needs_a_folder_that_is_gone_on_with(run, words, said):
    result = run("classify", "a.png", *HOW, "--shard", "any/4", *words)
    assert (result.exit_code, said in result.stderr) == (2, True)


@pytest.mark.parametrize("text", ["any/0", "0/16", "17/16", "3", "-1/3", "1/0", "a/b"])
def test_what_names_no_shard_is_refused(run, text):
    result = run("classify", "a.png", *HOW, "-o", "x.jsonl", f"--shard={text}")
    assert result.exit_code == 2
    assert ("--array=1-16" in result.stderr) == (text == "0/16")


def test_a_job_array_gives_what_one_process_gives(run, images, tmp_path):
    alone = tmp_path / "alone"
    plain = ("--no-overlays", "--no-qupath")
    assert run("classify", images, *HOW, *plain, "-o", f"{alone}/").exit_code == 3
    for number in (3, 1, 2):
        run("classify", images, *HOW, "-o", f"{tmp_path}/out/", "--shard", f"{number}/3")
        run("classify", images, *HOW, "-o", tmp_path / f"part-{number}.jsonl", "--shard", f"{number}/3")
    result = run("merge", *sorted((tmp_path / "out").iterdir()), "-o", f"{tmp_path}/all/")
    assert (result.exit_code, result.stderr) == (3, f"5 records, 1 of them failed, in {tmp_path}/all/\n")
    assert run("merge", f"{tmp_path}/out/", "-o", tmp_path / "all.jsonl").exit_code == 3
    names = sorted(path.name for path in alone.iterdir())
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == names
    assert len(names) == 5
    for name in names:
        assert same(alone / name, tmp_path / "all" / name), name
    parts = sorted(tmp_path.glob("part-*.jsonl"))
    merge(parts, tmp_path / "one.jsonl")
    assert same(tmp_path / "one.jsonl", alone / "records.jsonl")
    assert same(tmp_path / "all.jsonl", alone / "records.jsonl")
    again = run("classify", images, *HOW, "-o", f"{tmp_path}/all/")
    assert "1 failed; 4 were there" in again.stderr  # a merged folder is gone on with


def test_what_is_missing_is_named_and_what_is_doubled_is_kept_once(run, images, tmp_path):
    parts = [tmp_path / f"{number}.jsonl" for number in (1, 2, 3)]
    for number, path in enumerate(parts, 1):
        run("classify", images, *HOW, "-o", path, "--shard", f"{number}/3")
    first = parts[0].read_text().splitlines(keepends=True)
    bad = json.dumps(json.loads(first[0]) | {"status": "error", "error": "e"}) + "\n"
    parts[0].write_text(bad + first[0] + first[0] + "{torn")
    result = run("merge", *parts[:2], "-o", tmp_path / "all.jsonl")
    assert result.exit_code == 3
    assert "shard 3/3 is missing" in result.stderr
    assert f"no record of {images.parent / '3.png'}" in result.stderr or "no record of 3" in result.stderr
    assert "2 records of cases that have another were left out" in result.stderr
    found = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert [line["status"] for line in found] == ["ok", "ok", "ok"]
    assert "is there already" in run("merge", *parts, "-o", tmp_path / "all.jsonl").stderr


def test_parts_of_other_runs_are_refused_by_what_differs(run, images, tmp_path):
    one, other, few = (tmp_path / f"{name}.jsonl" for name in ("one", "other", "few"))
    run("classify", images, *HOW, "-o", one, "--shard", "1/2")
    run("classify", images, *HOW, "--seed", "3", "-o", other, "--shard", "2/2")
    run("classify", images.parent / "1.png", *HOW, "-o", few, "--shard", "1/3")
    with pytest.raises(ConfigError, match=r"another run than .*one\.jsonl \(seed 3, not 0\)"):
        merge([one, other], tmp_path / "all.jsonl")
    with pytest.raises(ConfigError, match="a list of 1 case, not of 5; one of 3 shards, not of 2"):
        merge([one, few], tmp_path / "all.jsonl")
    one.with_suffix(".shard.json").unlink()
    with pytest.raises(NotFoundError, match=r"one\.shard\.json isn't beside it"):
        merge([one], tmp_path / "all.jsonl")
    assert not (tmp_path / "all.jsonl").exists()


def test_a_share_goes_where_it_can_be_merged_from(run, images):
    for output in ((), ("-o", "a.gpkg")):
        result = run("classify", images, *HOW, "--shard", "1/2", *output)
        assert (result.exit_code, "-o part-2.jsonl" in result.stderr) == (2, True)
