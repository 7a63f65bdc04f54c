import os
import subprocess
import sys

import numpy as np
import pytest

from hiresattn.pyramid import compiled as module
from hiresattn.reading.cache import TileCache

KERNEL = """
import numpy as np
from hiresattn.pyramid.compiled import compiled

@compiled
def double(values, out):
    copy = np.empty(values.size, np.float64)  # needs Numba's runtime
    for i in range(values.size):
        copy[i] = values[i]
    for i in range(values.size):
        out[i] = 2 * copy[i]
"""
RUN = """
import sys, time
from pathlib import Path
import numpy as np
from kernel import double
me, others, names = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
Path(me).touch()
while len(list(Path(".").glob("ready-*"))) < others:  # start together
    time.sleep(0.001)
for name in names:
    out = np.zeros(3, name)
    double(np.arange(3).astype(name), out)
    assert out.tolist() == [0, 2, 4], name
print(sum(double.stats.cache_misses.values()), sum(double.stats.cache_hits.values()), end=" ")
print(int("numba.np.linalg" in sys.modules))  # loaded by who compiles
"""


def start(folder, me, others, dtypes):
    (folder / "kernel.py").write_text(KERNEL)
    env = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "cache")}
    command = [sys.executable, "-c", RUN, f"ready-{me}", str(others), *dtypes]
    return subprocess.Popen(command, env=env, cwd=folder, stdout=subprocess.PIPE, text=True)  # noqa: S603


def counts(process):
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    return tuple(map(int, out.split()))


def test_two_first_runs_at_once_agree_and_a_later_process_compiles_nothing(tmp_path):
    dtypes = ["uint8", "float32", "uint16"]
    first = [start(tmp_path, 1, 2, dtypes), start(tmp_path, 2, 2, dtypes[::-1])]
    assert all(sum(counts(process)[:2]) == 3 for process in first)
    assert counts(start(tmp_path, 3, 0, dtypes)) == (0, 3, 0)
    assert counts(start(tmp_path, 3, 0, ["uint8", "float64"])) == (1, 1, 1)  # compiles after it loaded
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert [path.suffix for path in files] == [".nbc"] * 4
    for path in files:  # cut off as by a full disk
        path.write_bytes(path.read_bytes()[:100])
    assert counts(start(tmp_path, 4, 0, ["uint8"])) == (1, 0, 1)


def test_versions_do_not_share_a_file(tmp_path):
    files = module._Files(tmp_path, "kernel", ("0.68", b"source"))
    other = module._Files(tmp_path, "kernel", ("0.69", b"source"))
    files.save("a", 1)
    files.save("b", 2)
    other.save("a", 3)
    assert [files.load("a"), files.load("b"), other.load("a"), other.load("b")] == [1, 2, 3, None]
    files.flush()
    assert files.load("a") is None


def test_a_place_that_cannot_be_written_costs_no_more_than_compiling(monkeypatch, tmp_path):
    files = module._Files(tmp_path / "absent", "kernel", ())
    files.save("a", 1)
    assert files.load("a") is None

    def nowhere(function):
        raise RuntimeError("no locator available")

    monkeypatch.setattr(module, "_Cache", nowhere)
    assert module.compiled(lambda x: x + 1)(2) == 3


@pytest.mark.parametrize("limit", [0, 100, 250, 1000])
def test_tile_cache_never_holds_more_than_its_limit(limit):
    cache = TileCache(limit)
    rng = np.random.default_rng(0)
    kept = {}
    for key in rng.integers(0, 30, 300).tolist():
        tile = np.zeros(int(rng.integers(1, 300)), np.uint8)
        cache.put(key, tile)
        kept[key] = tile
        assert cache.nbytes <= limit
        held = [cache._tiles[k].nbytes for k in cache._tiles]
        assert cache.nbytes == sum(held)
        assert (cache.get(key) is tile) == (tile.nbytes <= limit)


def test_tile_cache_drops_the_least_recently_used():
    cache = TileCache(2)
    one = np.zeros(1, np.uint8)
    cache.put("a", one)
    cache.put("b", one)
    cache.get("a")
    cache.put("c", one)
    assert [cache.get(key) is not None for key in "abc"] == [True, False, True]
    cache.clear()
    assert cache.nbytes == 0
    assert cache.get("a") is None
