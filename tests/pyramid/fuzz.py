"""Damages images in every format that can be written, at random but from a seed: ``fuzz.py FOLDER SEED CASES``.

A process of its own, so that a crash is an exit status, a hang is ended by an alarm, and memory has a limit. A line
of JSON per case goes to stdout before and after it.
"""

import contextlib
import json
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np

from hiresattn.conversion import convert
from hiresattn.errors import HiresattnError
from hiresattn.pyramid import open_pyramid
from tests import images

#: Memory that a case may take beyond what the readers have mapped already; seconds that it may last.
ROOM, PATIENCE = 4 << 30, 60
#: A header is in the first bytes where it can't be told.
HEAD = 512
#: What the damage may hit: where a file says what it is, where its pixels are, or its end.
PLACES = ("header", "pixels", "cut")


def _converted(target, **options):
    def write(path):
        convert(images.write_ome_tiff(path.with_name("source.ome.tif")), path, **options)
        return path

    return write, target


def _writer(write, name, **options):
    return (lambda path: write(path, **options)), name


#: Format → how it is written, under which name.
FORMATS = {
    "svs jpeg": _writer(images.write_svs, "a.svs"),
    "tiff jpeg": _writer(images.write_pyramid_tiff, "a.tif", compression="jpeg"),
    "tiff 16 bit deflate": _writer(images.write_pyramid_tiff, "a.tif", dtype="uint16"),
    **{
        f"ome-tiff {name}": _writer(images.write_ome_tiff, "a.ome.tif", compression=name)
        for name in ("deflate", "zstd", "lzw", "jpeg2000", "webp", "lzma", "none", "jpeg")
    },
    **{
        f"geotiff {name}": _writer(images.write_geotiff, "a.tif", compression=name)
        for name in ("deflate", "zstd", "lzw", "jpeg")
    },
    "cog deflate": _converted("a.tif"),
    "cog jpeg": _converted("a.tif", compression="jpeg"),
    "ome-zarr, ours": _converted("a.zarr"),
    "jp2": _writer(images.write_jp2, "a.jp2"),
    "zarr 2 blosc": _writer(images.write_ome_zarr, "a.zarr"),
    "zarr 3 zstd": _writer(images.write_ome_zarr, "a.zarr", version="0.5"),
    "zarr 3 sharded": _writer(images.write_ome_zarr, "a.zarr", version="0.5", shards=256),
    **{name: _writer(images.write_image, f"a.{name}") for name in ("png", "jpg", "bmp", "gif")},
}
DATA = Path(__file__).parents[2].parent / "shared" / "data" / "slides"


def _real(name):
    return (lambda path: Path(shutil.copy(DATA / name, path))), f"a{Path(name).suffix}"


#: Formats that nobody here can write.
REAL = {
    name: _real(file)
    for name, file in (("ndpi", "hamamatsu_TRITC.ndpi"), ("dicom", "camelyon_jpeg_tiled.dcm"))
    if (DATA / file).exists()
}
#: Formats whose pixels no change goes unnoticed in: their codecs, or their stores, have checksums.
CHECKED = {
    "tiff 16 bit deflate",
    "ome-tiff deflate",
    "ome-tiff lzma",
    "geotiff deflate",
    "cog deflate",
    "ome-zarr, ours",
    "png",
}
#: Formats decoded whole: what a change does to their pixels does not stay in one tile.
WHOLE = {"jp2", "jpg", "bmp", "gif", *REAL}


def tiles(path):
    """All tiles, by level, row and column; what the levels are."""
    with open_pyramid(path) as pyramid:
        found = {}
        for k, level in enumerate(pyramid.levels):
            for row in range(level.tile_rows):
                for column in range(level.tile_columns):
                    with contextlib.suppress(HiresattnError):
                        found[k, row, column] = pyramid.read_tile(k, row, column)
        return pyramid.levels, found


class Subject:
    """An undamaged image, and where its bytes are."""

    def __init__(self, name, folder):
        write, file = (FORMATS | REAL)[name]
        self.name = name
        self.path = Path(write(folder / file))
        self.levels, self.tiles = tiles(self.path)
        assert len(self.tiles) == sum(level.tile_rows * level.tile_columns for level in self.levels)
        inside = sorted(file for file in self.path.rglob("*") if file.is_file())
        self.files = inside if self.path.is_dir() else [self.path]
        self.whole = {file: file.read_bytes() for file in self.files}
        #: Of each tile: file, first byte, bytes. Empty where that can't be told.
        self.spans = []
        with open_pyramid(self.path) as pyramid:
            native = pyramid.native_tiles
            if hasattr(native, "ranges"):
                for tile in self.tiles:
                    self.spans += [(tile, self.path, *place) for place in native.ranges(*tile)]

    def _files(self, place):
        """Files that hold what is to be damaged."""
        if not self.path.is_dir() or place == "cut":
            return self.files
        header = [file for file in self.files if file.suffix == ".json" or file.name[0] == "."]
        return header if place == "header" else [file for file in self.files if file not in header]

    def harm(self, place, random):
        """Damage it; returns the tile hit, or None."""
        files = self._files(place)
        file = files[int(random.integers(len(files)))]
        content, hit = bytearray(self.whole[file]), None
        if place == "cut":
            file.write_bytes(content[: int(random.integers(len(content)))])
            return None
        start, count = 0, len(content)
        if place == "header" and not self.spans:
            count = min(count, HEAD)
        if place == "pixels" and self.spans:
            hit, _, start, count = self.spans[int(random.integers(len(self.spans)))]
        elif place == "header" and self.spans:
            covered = np.zeros(len(content), bool)
            for _, _, first, length in self.spans:
                covered[first : first + length] = True
            free = np.flatnonzero(~covered)
            start, count = int(free[random.integers(len(free))]), 1
        at = start + int(random.integers(count))
        length = int(min(random.choice([1, 1, 2, 8, 64]), start + max(count, 8) - at, len(content) - at))
        way = random.integers(3)
        if way == 0:
            content[at : at + length] = bytes(length)
        elif way == 1:
            content[at : at + length] = random.integers(0, 256, length, np.uint8).tobytes()
        else:
            content[at] ^= 1 << int(random.integers(8))
        file.write_bytes(content)
        return hit

    def heal(self):
        """Undo the damage, whatever was removed or added."""
        for file, content in self.whole.items():
            file.write_bytes(content)


def outcome(subject, hit):
    """What reading a damaged image gives: ``error``, ``same``, ``here`` (only the tile hit differs), ``other``."""
    try:
        levels, found = tiles(subject.path)
    except HiresattnError as error:
        assert str(subject.path) in str(error), error  # noqa: PT017 - any of ours, as long as it names the file
        return "error"
    if levels != subject.levels:
        return "other"
    differs = [
        key
        for key, tile in found.items()
        if not np.array_equal(tile.data, subject.tiles[key].data) and not tile.missing_tiles  # said so
    ]
    if differs:
        return "here" if set(differs) == {hit} or (hit is None and len(differs) == 1) else "other"
    whole = len(found) == len(subject.tiles) and not any(tile.missing_tiles for tile in found.values())
    return "same" if whole else "error"


def main(folder, seed, cases, names):
    """Run; each case is a line."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process also where no Python runs
    for name in names or FORMATS:
        home = Path(folder) / name.replace(" ", "_")
        home.mkdir()
        subject = Subject(name, home)
        limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + ROOM
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
        for number in range(cases):
            place = PLACES[number % len(PLACES)]
            random = np.random.default_rng([seed, number])
            case = {"format": name, "place": place, "seed": seed, "number": number}
            sys.stdout.write(f"{json.dumps(case)}\n")
            sys.stdout.flush()
            started = time.process_time()
            signal.alarm(PATIENCE)
            hit = subject.harm(place, random)
            found = outcome(subject, hit)
            if found in ("here", "other"):
                assert outcome(subject, hit) == found, "the second read differs from the first"
            subject.heal()
            signal.alarm(0)
            case |= {"outcome": found, "seconds": round(time.process_time() - started, 3)}
            sys.stdout.write(f"{json.dumps(case)}\n")
        shutil.rmtree(home)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
