"""From a source to its reader; what is no image, or a damaged one."""

import os
import struct
import subprocess
import sys

import numpy as np
import pytest

from hiresattn.errors import ConfigError, HiresattnError, NotFoundError, OpenError
from hiresattn.pyramid import open_pyramid
from tests.images import (
    SHAPES,
    TILE,
    coded,
    write_geotiff,
    write_image,
    write_ome_tiff,
    write_ome_zarr,
    write_pyramid_tiff,
    write_svs,
)
from tests.pyramid.damage import set_tag, zero_tile_entry


def test_a_pyramid_is_returned_as_it_is():
    pyramid = open_pyramid(coded())
    assert open_pyramid(pyramid) is pyramid


def test_a_path_may_be_text_or_a_path(tmp_path):
    path = write_image(tmp_path / "image with spaces, ünïcode.png")
    for source in (path, str(path)):
        with open_pyramid(source) as pyramid:
            assert pyramid.source == str(path)


def test_a_missing_path_is_a_not_found_error_and_nothing_is_made(tmp_path):
    for name in ("image.svs", "image.zarr", "image"):
        with pytest.raises(NotFoundError, match=f"{name}: there is no such file"):
            open_pyramid(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x.svs", "x.tif", "x.png", "x.zarr", "x.jp2", "x.dcm", "x"])
@pytest.mark.parametrize(
    "content", [b"", b"words, not pixels\n" * 50, b"\0" * 5000, b"II*\0", b"MM\0+\0\x08"]
)
def test_an_empty_a_text_and_a_headless_file_are_open_errors(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(OpenError, match=name):
        open_pyramid(path)


def test_a_source_that_is_no_image_is_an_open_error():
    for source in (None, 5, {"a": 1}):
        with pytest.raises(OpenError, match="is no image"):
            open_pyramid(source)


def test_a_scale_that_is_not_positive_is_a_config_error(tmp_path):
    path = write_image(tmp_path / "image.png")
    for mpp in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="must be positive"):
            open_pyramid(path, mpp=mpp)


@pytest.mark.parametrize("name", ["x" * 300 + ".tif", "x" * 5000, "folder/" * 2000])
def test_a_name_that_no_file_can_have_is_a_not_found_error(name):
    with pytest.raises(NotFoundError, match="no file has a name as long as that"):
        open_pyramid(name)


@pytest.mark.parametrize("scheme", ["ftp", "file", "az"])
def test_an_address_of_another_kind_is_an_open_error_that_names_those_possible(scheme):
    with pytest.raises(
        OpenError, match=f"no reader takes addresses of {scheme}://; possible are http://, "
    ) as said:
        open_pyramid(f"{scheme}://host/image.tif")
    assert not isinstance(said.value, NotFoundError)


@pytest.mark.parametrize("name", ["http://127.0.0.1:9/image.tif", "https://host.invalid/image.tif"])
def test_what_is_out_of_reach_is_an_open_error_that_says_what_to_check(name):
    with pytest.raises(OpenError, match="check the address") as said:
        open_pyramid(name)
    assert "convert" not in str(said.value)


def test_lacking_credentials_are_an_open_error_that_says_what_to_check(monkeypatch, tmp_path):
    import rasterio

    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_NO_SIGN_REQUEST"):
        monkeypatch.delenv(key, raising=False)
    none = {"CPL_AWS_CREDENTIALS_FILE": str(tmp_path / "none"), "AWS_CONFIG_FILE": str(tmp_path / "none")}
    none |= {"CPL_AWS_AUTODETECT_EC2": "NO", "CPL_AWS_EC2_API_ROOT_URL": "disabled"}
    with (
        rasterio.Env(**none),
        pytest.raises(OpenError, match="check the address"),
    ):
        open_pyramid("s3://bucket-of-nobody/image.tif")


def test_a_file_that_may_not_be_read_is_an_open_error(tmp_path):
    path = write_image(tmp_path / "image.png")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(OpenError, match="permissions"):
        open_pyramid(path)


@pytest.mark.parametrize("write", [write_svs, write_ome_tiff, write_geotiff, write_pyramid_tiff])
@pytest.mark.parametrize("number", [256, 257])
def test_an_absurd_size_is_an_open_error_before_anything_is_allocated(tmp_path, write, number):
    path = write(tmp_path / "image.tif")
    set_tag(path, number, 60000 if write is not None else 0)
    with pytest.raises(OpenError, match=r"announces .*60000.* px, that is \d+ tiles, but lists 30"):
        open_pyramid(path)


@pytest.mark.parametrize(
    ("number", "value", "said"),
    [
        (256, 0, "announces 0 x 517 px"),
        (322, 0, "tiles of 0 x 128 px"),
        (277, 0, "tiles of 128 x 128"),
        (259, 52479, "compression 52479, which no reader here decodes; possible are none"),
    ],
)
def test_an_impossible_header_is_an_open_error_that_says_what(tmp_path, number, value, said):
    path = write_ome_tiff(tmp_path / "image.tif")
    set_tag(path, number, value)
    with pytest.raises(OpenError, match=said):
        open_pyramid(path)


def test_tiles_of_gigabytes_are_an_open_error(tmp_path):
    path = write_pyramid_tiff(tmp_path / "image.tif")
    for number in (322, 323):
        set_tag(path, number, 65520)
    with pytest.raises(OpenError, match="over 1 GiB each"):
        open_pyramid(path)


@pytest.mark.parametrize("write", [write_svs, write_ome_tiff, write_geotiff, write_pyramid_tiff])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_level_whose_tiles_are_all_left_out_is_not_used_and_an_open_error_at_level_0(
    tmp_path, write, level
):
    path = write(tmp_path / "image.tif")
    rows, columns = (-(-side // TILE) for side in SHAPES[level])
    for row in range(rows):
        for column in range(columns):
            zero_tile_entry(path, level, row, column)
    if level:
        with open_pyramid(path) as pyramid:
            assert len(pyramid.levels) == 2
        return
    with pytest.raises(OpenError, match=r"all tiles of its largest image .* are missing"):
        open_pyramid(path)


def test_directories_that_form_a_loop_are_an_open_error(tmp_path):
    path = write_pyramid_tiff(tmp_path / "image.tif")
    content = bytearray(path.read_bytes())
    first = struct.unpack_from("<I", content, 4)[0]
    count = struct.unpack_from("<H", content, first)[0]
    struct.pack_into("<I", content, first + 2 + 12 * count, first)
    path.write_bytes(content)
    with pytest.raises(OpenError, match="form a loop"):
        open_pyramid(path)


def test_a_lost_level_is_an_open_error_not_a_shorter_pyramid(tmp_path):
    path = write_pyramid_tiff(tmp_path / "image.tif")
    content = bytearray(path.read_bytes())
    first = struct.unpack_from("<I", content, 4)[0]
    count = struct.unpack_from("<H", content, first)[0]
    struct.pack_into("<I", content, first + 2 + 12 * count, len(content) + 8)
    path.write_bytes(content)
    with pytest.raises(OpenError, match="damaged or cut short"):
        open_pyramid(path)


@pytest.mark.parametrize("write", [write_svs, write_ome_tiff, write_geotiff, write_pyramid_tiff, write_image])
def test_a_file_cut_anywhere_or_with_a_wrong_byte_gives_pixels_or_one_of_our_errors(tmp_path, write):
    path = write(tmp_path / ("image.png" if write is write_image else "image.tif"))
    whole = path.read_bytes()
    random = np.random.default_rng(11)
    harmed = [whole[: int(kept)] for kept in random.integers(1, len(whole), 15)]
    for _ in range(60):
        wrong = bytearray(whole)
        # Headers, directories and tables are what lies at both ends.
        place = int(random.integers(0, 1200)) * (1 if random.random() < 0.5 else -1)
        wrong[place % len(whole)] = int(random.integers(0, 256))
        harmed.append(bytes(wrong))
    for content in harmed:
        path.write_bytes(content)
        try:
            with open_pyramid(path) as pyramid:
                for level, has in enumerate(pyramid.levels[:4]):
                    pyramid.read(level, 0, 0, min(has.height, 600), min(has.width, 600))
        except HiresattnError as error:
            assert str(path) in str(error)  # noqa: PT017 - any of ours, as long as it names the file


def test_importing_the_package_loads_no_reader():
    readers = [
        "openslide",
        "rasterio",
        "zarr",
        "tifffile",
        "dask",
        "xarray",
        "PIL",
        "simplejpeg",
        "imagecodecs",
        "torch",
    ]
    code = f"import sys, hiresattn.pyramid; print([name for name in {readers} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip() == "[]"


def test_opening_an_array_or_a_store_leaves_the_other_readers_out(tmp_path):
    store = write_ome_zarr(tmp_path / "image.zarr")
    code = (
        "import sys; from hiresattn.pyramid import open_pyramid; open_pyramid(sys.argv[1]).read(0, 0, 0, 5, 5); "
        "print([name for name in ('openslide', 'rasterio', 'tifffile', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, store], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip() == "[]"


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(NotFoundError, match="there is no such file; check the path"):
        open_pyramid(tmp_path / "a.tif")
    with pytest.raises(NotFoundError, match=f"no such file, and no folder {tmp_path}/nas; check"):
        open_pyramid(tmp_path / "nas" / "slides" / "a.tif")
    with pytest.raises(NotFoundError, match=r"no such file; check the path \(here folders are parted by /"):
        open_pyramid("slides\\a.tif")
