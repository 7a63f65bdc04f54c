"""What a run holds in memory: its crops, a few tiles, the cache and no more, whatever the size of the image."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

TILE, LEAST = 256, 512
#: Reads a small image, then a large one, on two threads: the most memory for that beyond the idle process, and the
#: bound, bytes. ``crops``: at random places and scales; ``classify``: a search.
RUN = """
import json, sys
from pathlib import Path
import numpy as np
import hiresattn
from hiresattn import open_pyramid, read_crops
from hiresattn.config import InputConfig
from hiresattn.reading.fetch import CropFetcher

way, small, large = sys.argv[1:4]
THREADS, SIZE = 2, 128

def status(key):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) << 10

def crops(path, count=32, calls=20):
    random, found = np.random.default_rng(0), None
    rule = InputConfig(size=SIZE, bands=(0,), low=(0.0,), high=(255.0,))
    with open_pyramid(path) as pyramid, CropFetcher([pyramid], rule, threads=THREADS, cache_bytes=16 << 20) as fetch:
        for _ in range(calls):
            side = random.choice([SIZE, 2 * SIZE, 16 * SIZE], count)
            yx = random.integers(0, pyramid.height + 1 - side[:, None], (count, 2))
            found = fetch(np.zeros(count, np.int64), np.column_stack([yx, side, side]), found)
        read_crops(pyramid, yx, SIZE, threads=THREADS)
        return fetch.stats[0].tiles, sum(part.nbytes for part in found) + (16 << 20)

def classify(path):
    model = hiresattn.load_model(Path(hiresattn.__file__).parent / "demo" / "model")
    record = hiresattn.classify(path, model, budget=64, stop="off", device="cpu", threads=THREADS)
    return record.cost.tiles, 64 * 64 * 64 * 2 * 4 + (64 << 20)  # at most all glimpses at once; the default cache

run = {"crops": crops, "classify": classify}[way]
run(small)
idle = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
tiles, own = run(large)
most = own + THREADS * 4 * 256 * 256 + (50 << 20)
print(json.dumps({"more": status("VmHWM") - idle, "tiles": tiles, "most": most}))
"""

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the system doesn't tell what a process holds"
)


def write_repeating(path, side):
    """A pyramid of grey JPEG tiles, all of which are a few that the file holds once: large images, small files."""
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (16, TILE, TILE)).astype(np.uint8)
    kinds = [imagecodecs.jpeg8_encode(tile, level=60) for tile in noise]
    body = bytearray(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))  # BigTIFF
    places = []
    for kind in kinds:
        places.append((len(body), len(kind)))
        body += kind
    link = 8
    for number in range(64):
        level = side >> number
        if level < LEAST:
            break
        which = random.integers(0, len(kinds), (-(-level // TILE)) ** 2)
        offsets, counts = np.array(places, "<u8")[which].T
        tables = [len(body), len(body) + offsets.nbytes]
        body += offsets.tobytes() + counts.tobytes()
        shared = len(which) > 1
        fields = [
            (254, 4, 1, int(number > 0)), (256, 4, 1, level), (257, 4, 1, level), (258, 3, 1, 8), (259, 3, 1, 7),
            (262, 3, 1, 1), (277, 3, 1, 1), (322, 3, 1, TILE), (323, 3, 1, TILE),
            (324, 16, len(which), tables[0] if shared else int(offsets[0])),
            (325, 16, len(which), tables[1] if shared else int(counts[0])),
        ]  # fmt: skip
        struct.pack_into("<Q", body, link, len(body))
        body += struct.pack("<Q", len(fields))
        body += b"".join(struct.pack("<HHQQ", *field) for field in fields)
        link = len(body)
        body += bytes(8)
    path.write_bytes(body)
    return path


def measured(way, folder, side):
    """What a process that has read a small image needs for a large one."""
    small, large = (write_repeating(folder / f"{px}.tif", px) for px in (2048, side))
    done = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-c", RUN, way, str(small), str(large)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_proc
@pytest.mark.parametrize("side", [8192, 131072])
def test_reading_holds_its_crops_a_few_tiles_and_the_cache_whatever_the_image(tmp_path, side):
    found = measured("crops", tmp_path, side)
    assert found["tiles"] > 256  # more than the cache holds
    assert found["more"] <= found["most"], found


@needs_proc
@pytest.mark.slow
def test_a_classification_of_17_gigapixels_does_too(tmp_path):
    found = measured("classify", tmp_path, 131072)
    assert found["tiles"] > 20
    assert found["more"] <= found["most"], found
