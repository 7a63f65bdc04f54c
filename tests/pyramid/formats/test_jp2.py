"""JPEG 2000 by GDAL: no checksums, so what is whole is found out from the layout and from the decoder."""

import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from hiresattn.errors import HiresattnError, OpenError, ReadError
from hiresattn.pyramid import open_pyramid
from tests.images import SHAPES, coded, write_jp2
from tests.pyramid.damage import overwrite_file

DATA = Path(__file__).parents[3].parent / "shared" / "data" / "geotiff" / "sentinel2_60m.jp2"

SHARES = [0.01, 0.3, 0.7, 0.99]

LAYOUTS = {
    "tiles": {},
    "one tile": {"BLOCKYSIZE": 1024},
    "parts": {"TILEPARTS": "RESOLUTIONS"},
    "bare": {"CODEC": "J2K"},
}


@pytest.fixture(scope="module", params=[*LAYOUTS, "real"])
def scene(request, tmp_path_factory):
    """A whole file, and its pixels."""
    path = tmp_path_factory.mktemp("jp2") / "scene.jp2"
    if request.param != "real":
        return write_jp2(path, **LAYOUTS[request.param]), coded()
    if not DATA.exists():
        pytest.skip("no real files beside this checkout")
    shutil.copy(DATA, path)
    with open_pyramid(path) as pyramid:
        return path, pyramid.read(0, 0, 0, pyramid.height, pyramid.width)


@pytest.fixture
def unchecked(monkeypatch):
    """As a file that can't be checked before: one elsewhere."""
    monkeypatch.setattr("hiresattn.pyramid.formats.geotiff.check_jp2", lambda _: False)
    monkeypatch.setattr("hiresattn.pyramid.storage.jp2header.check_jp2", lambda path: path is not None)


def _all_levels(path):
    """What is read of each level, finest first."""
    with open_pyramid(path) as pyramid:
        return [pyramid.read(k, 0, 0, level.height, level.width) for k, level in enumerate(pyramid.levels)]


def test_a_whole_file_gives_its_pixels(scene):
    path, pixels = scene
    with open_pyramid(path) as pyramid:
        assert pyramid.backend == "rasterio"
        assert np.array_equal(pyramid.read(0, 0, 0, pyramid.height, pyramid.width), pixels)


@pytest.mark.parametrize("share", SHARES)
def test_a_file_cut_short_is_an_open_error(scene, tmp_path, share):
    whole = scene[0].read_bytes()
    path = tmp_path / "scene.jp2"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(OpenError, match=r"scene\.jp2: the JPEG 2000 file is damaged or cut short"):
        open_pyramid(path)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("share", SHARES)
def test_gdal_reports_what_was_cut_off_and_prints_nothing(tmp_path, capfd, share):
    import rasterio

    path = write_jp2(tmp_path / "scene.jp2")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises((OpenError, ReadError), match=r"scene\.jp2"):
        _all_levels(path)
    with (
        rasterio.Env(GDAL_NUM_THREADS="ALL_CPUS"),
        pytest.raises((OpenError, ReadError), match=r"scene\.jp2"),
    ):
        _all_levels(path)
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("unchecked")
def test_tiles_before_the_cut_are_read_and_those_after_it_are_read_errors(tmp_path):
    path = write_jp2(tmp_path / "scene.jp2")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.7)])
    rows, columns = SHAPES[0]
    with open_pyramid(path) as pyramid:
        assert np.array_equal(pyramid.read(0, 0, 0, 200, 200), coded()[:200, :200])
        with pytest.raises(ReadError, match="GDAL can't read it"):
            pyramid.read(0, rows - 100, columns - 100, 100, 100)
        with pytest.raises(ReadError, match="GDAL can't read it"):
            pyramid.read(0, 0, 0, rows, columns)
        assert np.array_equal(pyramid.read(0, 0, 0, 200, 200), coded()[:200, :200])


@pytest.mark.parametrize("harm", ["zeros", "random"])
@pytest.mark.parametrize(
    ("scene", "share"),
    [*product(LAYOUTS, [0.0, 0.05, 0.3, 0.6, 0.9]), ("real", 0.3)],  # reading the real one takes seconds
    indirect=["scene"],
)
def test_overwritten_bytes_are_an_error_or_change_some_pixels_but_read_no_foreign_memory(
    scene, tmp_path, capfd, harm, share
):
    path = tmp_path / "scene.jp2"
    shutil.copy(scene[0], path)
    overwrite_file(path, share, 200, harm)
    found = []
    for _ in range(2):
        try:
            found.append(b"".join(level.tobytes() for level in _all_levels(path)))
        except HiresattnError as error:
            assert str(path) in str(error)  # noqa: PT017 - any of ours, as long as it names the file
            found.append(str(error))
    assert found[0] == found[1]
    assert capfd.readouterr().err == ""


def test_a_tile_that_is_not_there_is_an_open_error(tmp_path):
    path = write_jp2(tmp_path / "scene.j2k", CODEC="J2K")
    content = path.read_bytes()
    first = content.index(b"\xff\x90\0\x0a")
    length = int.from_bytes(content[first + 6 : first + 10], "big")
    path.write_bytes(content[:first] + content[first + length :])
    with pytest.raises(OpenError, match=r"1 of its 3 tiles are missing"):
        open_pyramid(path)
