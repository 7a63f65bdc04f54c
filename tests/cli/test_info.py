"""`info`: what a file holds, as a table and as JSON."""

import json

import numpy as np
import pytest
import rasterio
import tifffile

from hiresattn import open_pyramid
from hiresattn.reading.estimate import preview
from hiresattn_cli.info import describe

FIELDS = ["path", "backend", "width", "height", "channels", "dtype", "levels"]
FIELDS += ["mpp", "mpp_source", "crs", "transform", "nodata", "channel_names", "colors", "scales"]
FIELDS += ["offsets", "bounds", "gcps", "rpcs", "bytes", "run", "notes", "advice"]


@pytest.fixture
def geotiff(tmp_path):
    path = tmp_path / "float.tif"
    profile = {
        "driver": "GTiff",
        "width": 300,
        "height": 200,
        "count": 1,
        "dtype": "float32",
        "nodata": float("nan"),
        "crs": "EPSG:32633",
        "transform": rasterio.Affine(10, 0, 500000, 0, -10, 5000000),
    }
    with rasterio.open(path, "w", **profile) as out:
        out.write(np.ones((1, 200, 300), np.float32))
    return path


def test_json_has_exactly_the_fields_of_the_schema(run, image):
    facts = json.loads(run("info", image, "--json").stdout)
    assert list(facts) == FIELDS
    assert (facts["width"], facts["height"], facts["channels"], facts["dtype"]) == (128, 96, 3, "uint8")
    assert list(facts["levels"][0]) == ["width", "height", "downsample", "tile_width", "tile_height"]
    assert list(facts["run"]) == ["budget", "tiles", "bytes", "fraction", "requests"]
    assert facts["path"] == str(image)


def test_nan_nodata_is_valid_json_and_the_frame_is_told(run, geotiff):
    text = run("info", geotiff, "--json").stdout
    facts = json.loads(text, parse_constant=pytest.fail)
    assert facts["nodata"] == "nan"
    assert facts["crs"] == "EPSG:32633"
    assert facts["transform"] == [10, 0, 500000, 0, -10, 5000000]


def test_the_table_names_what_the_json_names(run, geotiff):
    text = run("info", geotiff).stdout
    for part in ("300 x 200", "1 band float32", "EPSG:32633", "nan", "a run"):
        assert part in text


def test_what_a_file_declares_and_lacks_is_a_note(run, tmp_path):
    path = tmp_path / "sparse.tif"
    profile = {"driver": "GTiff", "width": 512, "height": 512, "count": 1, "dtype": "uint8", "tiled": True}
    profile["transform"] = rasterio.Affine(2, 0, 10, 0, -2, 20)
    with rasterio.open(path, "w", **profile, blockxsize=128, blockysize=128) as out:
        out.write(np.ones((1, 512, 512), np.uint8))
    with rasterio.open(path, "r+", SPARSE_OK="YES") as out:
        out.build_overviews([2], rasterio.enums.Resampling.nearest)
    with tifffile.TiffFile(path, mode="r+") as file:
        counts = file.pages[1].tags["TileByteCounts"]
        counts.overwrite([0] * counts.count)
    text = run("info", path).stdout
    assert "note       declared levels without any tile are not used: 256 x 256" in text
    assert json.loads(run("info", path, "--json").stdout)["notes"]


@pytest.fixture
def marked(tmp_path):
    """Red, green, blue and near infrared of 8 bits, as most scripts write them: GDAL takes the last for alpha."""
    path = tmp_path / "marked.tif"
    profile = {
        "driver": "GTiff",
        "width": 64,
        "height": 64,
        "count": 4,
        "dtype": "uint8",
        "crs": "EPSG:32633",
    }
    with rasterio.open(path, "w", **profile, transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5e6)) as out:
        out.write(np.full((4, 64, 64), 90, np.uint8))
    return path


NOTE = "band 4 is marked alpha: it is read as validity, not as a band"


def test_a_band_that_is_marked_alpha_is_a_note_until_it_is_no_more(run, marked):
    text = run("info", marked).stdout
    assert "3 bands uint8" in text
    assert f"  note       {NOTE}\n" in text
    with rasterio.open(marked, "r+") as out:
        out.colorinterp = (*out.colorinterp[:3], rasterio.enums.ColorInterp.undefined)
    facts = json.loads(run("info", marked, "--json").stdout)
    assert (facts["channels"], facts["notes"]) == (4, [])


def test_a_tiff_of_no_place_and_convert_say_the_same(run, marked, tmp_path):
    path = tmp_path / "plain.tif"
    options = {"tile": (32, 32), "photometric": "rgb", "extrasamples": ["unassalpha"]}
    tifffile.imwrite(path, np.full((64, 64, 4), 90, np.uint8), **options)
    assert json.loads(run("info", path, "--json").stdout)["notes"] == [NOTE]
    assert f": {NOTE}\n" in run("convert", marked, tmp_path / "out.tif").stderr


def test_several_files_are_json_lines_and_one_that_fails_is_exit_3(run, image, tmp_path):
    result = run("info", image, tmp_path / "absent.tif", image, "--json")
    assert result.exit_code == 3
    assert [json.loads(line)["path"] for line in result.stdout.splitlines()] == [str(image)] * 2
    assert result.stderr.count("Error: ") == 1
    assert run("info", tmp_path / "a.tif", tmp_path / "b.tif").exit_code == 1


def test_a_manifests_own_scale_counts_and_one_given_wins(run, image):
    manifest = image.parent / "m.csv"
    manifest.write_text("path,mpp\nimage.png,0.5\n")
    found = json.loads(run("info", manifest, "--json").stdout)
    assert (found["mpp"], found["mpp_source"]) == (0.5, "given")
    assert json.loads(run("info", manifest, "--json", "--mpp", "0.25").stdout)["mpp"] == 0.25


def test_the_estimate_of_a_large_pyramid_is_small_and_of_a_small_image_is_all():
    from hiresattn.demo.needle import NeedlePyramid, NeedleScene

    large = preview(NeedlePyramid(NeedleScene(seed=1, side=65536)))
    assert large.budget <= 64
    assert 0 < large.fraction < 0.01
    small = preview(open_pyramid(np.zeros((64, 64, 3), np.uint8)))
    assert (small.budget, small.tiles, small.fraction, small.requests) == (1, 1, 1, 1)


def test_no_estimate_reads_a_pixel():
    pyramid = open_pyramid(np.zeros((640, 6400, 3), np.uint8))
    pyramid._read = None
    assert describe("array", pyramid)["run"]["budget"] <= 64


def test_folders_globs_manifests_and_stdin_are_taken_as_classify_takes_them(run, image):
    manifest = image.parent / "m.csv"
    manifest.write_text("path,label,y,x,height,width\nimage.png,x,0,0,8,8\nimage.png,x,8,0,8,8\n")
    for words, stdin in [
        ([image.parent], None),
        ([image.parent / "*.p?g"], None),
        ([manifest], None),
        (["-"], f"{image}\n"),
    ]:
        result = run("info", *words, "--json", stdin=stdin)
        assert result.exit_code == 0, result.stderr
        assert [json.loads(line)["path"] for line in result.stdout.splitlines()] == [str(image)]


def test_a_word_that_names_no_image_is_an_error_and_the_others_go_on(run, image, tmp_path):
    (tmp_path / "empty").mkdir()
    result = run("info", tmp_path / "empty", "x" * 300, image, "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["path"] == str(image)
    assert "no image in it" in result.stderr
    assert "File name too long" in result.stderr
    assert run("info", tmp_path / "empty").exit_code == 1


def test_one_of_a_kind_is_singular(run, tmp_path):
    from PIL import Image

    Image.new("L", (32, 32)).save(tmp_path / "a.png")
    assert "of 1 look of 64 px reads about 1 of 1 tile," in run("info", tmp_path / "a.png").stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tiled": False}, "stored in strips"),
        ({"tiled": True, "blockxsize": 256, "blockysize": 256}, "no overviews"),
    ],
)
def test_a_layout_that_is_slow_to_look_into_gets_the_command_that_mends_it(run, tmp_path, options, words):

    path = tmp_path / "my scene.tif"
    profile = {"driver": "GTiff", "width": 5000, "height": 300, "count": 1, "dtype": "uint8"}
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 500000, 0, -10, 5000000)}
    with rasterio.open(path, "w", **profile, **place, **options, compress="deflate") as out:
        out.write(np.ones((1, 300, 5000), np.uint8))
    facts = json.loads(run("info", path, "--json").stdout)
    assert words in facts["advice"]
    assert f"hiresattn convert '{path}' 'my scene.zarr'" in facts["advice"]
    assert "advice     " in run("info", path).stdout


def test_a_large_plain_image_is_decoded_whole_and_a_small_one_is_well(run, tmp_path, image):
    from PIL import Image

    Image.new("L", (3000, 100)).save(tmp_path / "long.png")
    assert "isn't tiled" in json.loads(run("info", tmp_path / "long.png", "--json").stdout)["advice"]
    assert json.loads(run("info", image, "--json").stdout)["advice"] is None


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_what_a_file_states_of_its_bands_is_shown(run, tmp_path):
    import rasterio

    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "width": 300, "height": 200, "count": 2, "dtype": "uint16"}
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.ones((2, 200, 300), np.uint16))
        file.descriptions = ("B04", "B08")
        file.scales, file.offsets = (0.0001, 0.0001), (-0.1, 0)
        file.gcps = (
            [rasterio.control.GroundControlPoint(0, 0, 10, 50)] * 4,
            rasterio.crs.CRS.from_epsg(4326),
        )
    facts = describe(str(path), open_pyramid(path))
    assert facts["channel_names"] == ["B04", "B08"]
    assert (facts["scales"], facts["offsets"]) == ([0.0001, 0.0001], [-0.1, 0])
    assert (facts["bounds"], facts["gcps"], facts["rpcs"]) == (None, 4, False)
    shown = run("info", path).stdout
    assert "bands      B04, B08\n" in shown
    assert "placed by  4 ground control points\n" in shown
