"""The scenes of the odd cell, and the files they are written to."""

import csv
import io
import json
import pickle
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import write_scenes
from hiresattn import open_pyramid
from hiresattn.datasets.manifest import read_manifest
from hiresattn.demo.needle import NeedlePyramid, NeedleScene
from hiresattn.errors import ConfigError, NotFoundError, OpenError, RegionError
from hiresattn.pyramid.array import ArrayPyramid
from scenes import cells as pbc
from scenes import smear, writers

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / pbc.ZIP
SIZES = [(363, 360), (369, 366), (360, 360), (340, 353)]
PER_CLASS = 20


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A folder laid out like the shared one, with a small zip of made-up cells."""
    folder = tmp_path_factory.mktemp("shared")
    rng = np.random.default_rng(0)
    (folder / pbc.ZIP).parent.mkdir(parents=True)
    with zipfile.ZipFile(folder / pbc.ZIP, "w") as archive:
        for name in pbc.CLASSES:
            for i in range(PER_CLASS):
                height, width = SIZES[i % 4]
                grey, tint = rng.integers(60, 200, (12, 12, 1)), rng.integers(-40, 40, 3)
                small = Image.fromarray((grey + tint).astype(np.uint8))
                file = io.BytesIO()
                small.resize((width, height), Image.Resampling.BILINEAR).save(file, "JPEG", quality=90)
                archive.writestr(f"{name}/{i}.jpg", file.getvalue())
        archive.writestr("README.txt", "no image")
    return folder


@pytest.fixture(scope="module")
def cells(shared):
    return str(shared / pbc.ZIP)


def whole(pyramid, level=0):
    has = pyramid.levels[level]
    return pyramid.read(level, 0, 0, has.height, has.width)


def mean_of(image, d):
    """Means of d * d px, cut at the edge."""
    rows, columns = (range(0, side, d) for side in image.shape[:2])
    sums = np.add.reduceat(np.add.reduceat(image.astype(np.int64), rows, axis=0), columns, axis=1)
    ones = np.add.reduceat(np.add.reduceat(np.ones(image.shape[:2], int), rows, axis=0), columns, axis=1)
    return sums / ones[..., None]


# ---- the bank


@pytest.mark.skipif(not REAL.is_file(), reason="the cell images are not here")
def test_real_images_are_dealt_to_splits_by_file():
    banks = {split: pbc.CellBank(REAL, split) for split in ("train", "val", "test")}
    assert {split: len(bank) for split, bank in banks.items()} == {"train": 2240, "val": 320, "test": 640}
    names = [name for bank in banks.values() for name in bank.names]
    assert len(set(names)) == 3200
    for bank in banks.values():
        for label, numbers in bank.numbers.items():
            assert {bank.names[i].split("/")[0] for i in numbers} == {label}
            assert len(numbers) == len(bank) // 8


@pytest.mark.skipif(not REAL.is_file(), reason="the cell images are not here")
def test_a_real_scene_shows_the_images_of_the_zip():
    scene = smear.SmearScene(4, 4, "val")
    pyramid = smear.SmearPyramid(REAL, scene)
    bank = pbc.cell_bank(str(REAL), "val")
    numbers, turns = scene.layout(bank)
    image = whole(pyramid)
    with zipfile.ZipFile(REAL) as archive:
        for row, column in np.ndindex(4, 4):
            with Image.open(io.BytesIO(archive.read(bank.names[numbers[row, column]]))) as file:
                original = pbc.square(np.asarray(file))
            shown = image[row * 360 : row * 360 + 360, column * 360 : column * 360 + 360]
            turned = smear.turned(original, turns[row, column]).astype(int)
            assert np.abs(shown - turned).max() <= 2  # Pillow's decoder is another


def test_splits_share_no_image_and_do_not_depend_on_the_zip_order(shared, cells, tmp_path):
    names = [set(pbc.CellBank(cells, split).names) for split in ("train", "val", "test")]
    assert [len(part) for part in names] == [8 * 14, 8 * 2, 8 * 4]
    assert len(set.union(*names)) == 8 * PER_CLASS
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(cells) as source, zipfile.ZipFile(other, "w") as target:
        for name in reversed(source.namelist()):
            target.writestr(f"folder/{name}", source.read(name))
    again = {name.removeprefix("folder/") for name in pbc.CellBank(other, "val").names}
    assert again == names[1]


def test_images_are_cut_or_filled_to_a_square():
    image = np.arange(366 * 369 * 3, dtype=np.uint32).reshape(366, 369, 3)
    assert np.array_equal(pbc.square(image), image[3:363, 4:364])
    small = pbc.square(image[:340, :360])
    assert small.shape == (360, 360, 3)
    assert np.array_equal(small[10:350], image[:340, :360])
    assert np.array_equal(small[9], image[0, :360])


def test_only_what_is_needed_is_decoded(cells):
    bank = pbc.CellBank(cells, "test")
    bank.require(np.array([3, 5, 3]))
    assert np.flatnonzero(bank._ready).tolist() == [3, 5]
    assert bank.load()._ready.all()
    assert np.array_equal(bank.mips[1][3], pbc.CellBank(cells, "test").load().mips[1][3])


def test_unusable_zips_are_named(tmp_path):
    with pytest.raises(NotFoundError, match="no such file"):
        pbc.CellBank(tmp_path / "absent.zip", "test")
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    with pytest.raises(OpenError, match="damaged"):
        pbc.CellBank(tmp_path / "bad.zip", "test")
    with zipfile.ZipFile(tmp_path / "few.zip", "w") as archive:
        archive.writestr("basophil/1.jpg", b"")
    with pytest.raises(OpenError, match="has no image for split"):
        pbc.CellBank(tmp_path / "few.zip", "val")
    with pytest.raises(ConfigError, match="no split"):
        pbc.CellBank(tmp_path / "few.zip", "dev")


# ---- the scene


@pytest.mark.parametrize(("grid", "background"), [(2, "neutrophil"), (4, "platelet"), (16, "neutrophil")])
def test_exactly_one_cell_is_of_another_class_and_it_is_the_label(cells, grid, background):
    bank = pbc.cell_bank(cells, "train")
    for seed in range(30):
        scene = smear.SmearScene(seed, grid, "train", background)
        numbers, turns = scene.layout(bank)
        classes = np.array([bank.names[i].split("/")[0] for i in numbers.ravel()]).reshape(grid, grid)
        odd = np.argwhere(classes != background)
        assert len(odd) == 1
        row, column = odd[0]
        assert classes[row, column] == scene.label
        assert scene.box == (row * 360, column * 360, 360, 360)
        assert turns.min() >= 0
        assert turns.max() < 8


def test_the_box_holds_the_odd_cell(cells):
    scene = smear.SmearScene(7, 4, "test")
    bank = pbc.cell_bank(cells, "test").load()
    shown = smear.SmearPyramid(cells, scene).read(0, *scene.box)
    own = bank.numbers[scene.label]
    assert any(np.array_equal(shown, smear.turned(bank.mips[1][i], turn)) for i in own for turn in range(8))


def test_labels_places_and_turns_are_drawn_evenly(cells):
    scenes = [smear.SmearScene(seed, 4, "val") for seed in range(700)]
    labels = Counter(scene.label for scene in scenes)
    assert set(labels) == set(pbc.CLASSES) - {"neutrophil"}
    assert min(labels.values()) > 65
    assert min(Counter(scene.position for scene in scenes).values()) > 20
    assert len(Counter(scene.position for scene in scenes)) == 16
    bank = pbc.cell_bank(cells, "val")
    turns = Counter(turn for scene in scenes[:50] for turn in scene.layout(bank)[1].ravel().tolist())
    assert set(turns) == set(range(8))
    assert min(turns.values()) > 60


def test_a_scene_of_one_cell_shows_any_class():
    scenes = [smear.SmearScene(seed, 1) for seed in range(200)]
    assert {scene.label for scene in scenes} == set(pbc.CLASSES)
    assert {scene.box for scene in scenes} == {(0, 0, 360, 360)}


def test_scenes_differ_by_seed_and_split(cells):
    images = [
        whole(smear.SmearPyramid(cells, smear.SmearScene(seed, 2, split)), 2).tobytes()
        for seed in (0, 1)
        for split in ("train", "test")
    ]
    assert len(set(images)) == 4


def test_turns_are_the_eight_of_a_square():
    image = np.arange(16).reshape(4, 4)
    made = {smear.turned(image, turn).tobytes() for turn in range(8)}
    assert made == {np.rot90(part, k).tobytes() for part in (image, image[::-1]) for k in range(4)}
    assert len(made) == 8


def test_unusable_scenes_are_refused(cells):
    for wrong in ({"grid": 0}, {"split": "dev"}, {"background": "cat"}, {"odd": "cat"}, {"place": (0, 16)}):
        with pytest.raises(ConfigError):
            smear.SmearScene(0, **wrong)
    with pytest.raises(ConfigError, match="no image 9"):
        smear.SmearPyramid(cells, smear.SmearScene(0, 2, "val", image=9))


# ---- the pyramid


@pytest.mark.parametrize("grid", [1, 2, 3, 4])
def test_every_level_is_the_area_mean_of_the_finest(cells, grid):
    pyramid = smear.SmearPyramid(cells, smear.SmearScene(grid, grid, "test"))
    finest = whole(pyramid)
    assert finest.shape == (360 * grid, 360 * grid, 3)
    assert pyramid.levels[-1].width <= 64 < pyramid.levels[-2].width
    assert [level.downsample for level in pyramid.levels] == [2**k for k in range(len(pyramid.levels))]
    for level in range(1, len(pyramid.levels)):
        assert np.array_equal(whole(pyramid, level), np.floor(mean_of(finest, 2**level) + 0.5))


def test_any_window_is_a_part_of_the_whole(cells):
    pyramid = smear.SmearPyramid(cells, smear.SmearScene(2, 5, "test"))
    rng = np.random.default_rng(0)
    for level, has in enumerate(pyramid.levels):
        image = whole(pyramid, level)
        for _ in range(10):
            y, x = rng.integers(has.width, size=2).tolist()
            height, width = (int(rng.integers(1, min(has.width - at, 400) + 1)) for at in (y, x))
            assert np.array_equal(
                pyramid.read(level, y, x, height, width), image[y : y + height, x : x + width]
            )


def test_a_pyramid_survives_pickling(cells):
    pyramid = smear.SmearPyramid(cells, smear.SmearScene(3, 2, "val"))
    again = pickle.loads(pickle.dumps(pyramid))  # noqa: S301 - our own bytes
    assert again.scene == pyramid.scene
    assert np.array_equal(whole(again), whole(pyramid))


# ---- examples


def test_examples_are_scenes_with_their_labels(cells):
    found = smear.examples(cells, "val", 5, grid=4, seed0=10)
    assert [example.source.scene.seed for example in found] == [10, 11, 12, 13, 14]
    assert all(example.label == example.source.scene.label for example in found)
    assert {(example.split, example.source.scene.grid) for example in found} == {("val", 4)}


def test_single_cells_lie_off_centre_among_neighbours(cells):
    found = smear.single_cell_examples(cells, "val", 4)
    assert Counter(example.label for example in found) == dict.fromkeys(pbc.CLASSES, 4)
    bank = pbc.cell_bank(cells, "val")
    shifts = set()
    for example in found:
        y, x, height, width = example.region
        assert (height, width) == (360, 360)
        assert abs(y - 360) <= 90
        assert abs(x - 360) <= 90
        shifts.add((y, x))
        numbers = example.source.scene.layout(bank)[0]
        assert numbers[1, 1] in bank.numbers[example.label]
        numbers[1, 1] = bank.numbers["neutrophil"][0]
        assert set(numbers.ravel().tolist()) <= set(bank.numbers["neutrophil"])
    assert len(shifts) > 25
    shown = {e.source.scene.layout(bank)[0][1, 1] for e in found if e.label == "platelet"}
    assert len(shown) == 2  # all there are
    assert len({example.source.source for example in found}) == len(found)
    with pytest.raises(RegionError, match="leaves the scene"):
        smear.single_cell_examples(cells, "val", 1, side=720, shift=200)


# ---- files


@pytest.fixture(scope="module")
def scene_pyramid(cells):
    return smear.SmearPyramid(cells, smear.SmearScene(5, 3, "test"))


@pytest.mark.parametrize("axes", ["yxc", "cyx"])
def test_a_zarr_store_holds_the_scene_exactly(scene_pyramid, tmp_path, axes):
    writers.write_zarr(scene_pyramid, tmp_path / "scene.zarr", axes=axes)
    with open_pyramid(tmp_path / "scene.zarr") as stored:
        assert stored.backend == "zarr"
        _check(stored, scene_pyramid, mean=0.01, worst=1)
        assert np.array_equal(whole(stored), whole(scene_pyramid))


def test_a_tiff_is_a_slide_to_open(scene_pyramid, tmp_path):
    writers.write_tiff(scene_pyramid, tmp_path / "scene.tif")
    with open_pyramid(tmp_path / "scene.tif") as stored:
        assert stored.backend == "openslide"
        _check(stored, scene_pyramid, mean=6, worst=50)


@pytest.mark.parametrize("compress", ["JPEG", "DEFLATE"])
def test_a_cog_is_a_geotiff_to_open(scene_pyramid, tmp_path, compress):
    import rasterio

    writers.write_cog(scene_pyramid, tmp_path / "scene.tif", compress=compress)
    with rasterio.open(tmp_path / "scene.tif") as raster:
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert raster.block_shapes == [(256, 256)] * 3
    with open_pyramid(tmp_path / "scene.tif") as stored:
        assert stored.backend == "rasterio"
        if compress == "DEFLATE":
            assert np.array_equal(whole(stored), whole(scene_pyramid))
            _check(stored, scene_pyramid, mean=0.01, worst=1)
        else:
            _check(stored, scene_pyramid, mean=8, worst=120)
    assert [file.name for file in tmp_path.iterdir()] == ["scene.tif"]


def _check(stored, pyramid, *, mean, worst):
    assert (stored.channels, stored.dtype) == (3, np.uint8)
    assert [(a.width, a.height, a.downsample) for a in stored.levels] == [
        (a.width, a.height, a.downsample) for a in pyramid.levels
    ]
    assert {(a.tile_width, a.tile_height) for a in stored.levels[:3]} == {(256, 256)}
    for level in range(len(stored.levels)):
        gap = whole(stored, level).astype(int) - whole(pyramid, level)
        gap = gap[:-1, :-1]  # 2 x 2 means weigh the last px of an odd side otherwise than the scene does
        assert np.abs(gap).mean() < mean
        assert np.abs(gap).max() <= worst
        assert np.abs(gap.mean((0, 1))).max() < 1


def test_any_pyramid_can_be_written(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 60000, (301, 777, 2)).astype(np.uint16)
    image[:256, :256] = 0  # an empty chunk is stored too
    writers.write_zarr(ArrayPyramid(image), tmp_path / "a.zarr")
    writers.write_cog(ArrayPyramid(image), tmp_path / "a.tif", compress="DEFLATE")
    for name in ("a.zarr", "a.tif"):
        with open_pyramid(tmp_path / name) as stored:
            pixels = stored.read_masked(0, 0, 0, 301, 777)
            assert pixels.missing_tiles == 0
            assert pixels.valid is None
            assert np.array_equal(pixels.data, image)
            gap = whole(stored, 1)[:-1, :-1] - mean_of(image, 2)[:-1, :-1]
            assert np.abs(gap).max() <= 1
    grey = NeedlePyramid(NeedleScene(0, 700))
    writers.write_tiff(grey, tmp_path / "grey.tif")
    with open_pyramid(tmp_path / "grey.tif") as stored:
        assert stored.channels == 1
        assert np.abs(whole(stored).astype(int) - whole(grey)).mean() < 2
    for write in (writers.write_tiff, writers.write_cog):
        with pytest.raises(ConfigError, match="JPEG tiles"):
            write(ArrayPyramid(image), tmp_path / "b.tif")


class _Failing(ArrayPyramid):
    def _read(self, level, y, x, height, width):
        if y:
            raise OSError("gone")
        return super()._read(level, y, x, height, width)


@pytest.mark.parametrize("form", list(writers.WRITERS))
def test_a_failed_write_leaves_what_was_there(tmp_path, form):
    write, suffix = writers.WRITERS[form]
    path = tmp_path / f"scene{suffix}"
    image = np.full((600, 300, 3), 9, np.uint8)
    write(ArrayPyramid(image), path)
    write(ArrayPyramid(image), path)
    with pytest.raises(OSError, match="gone"):
        write(_Failing(image), path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    with open_pyramid(path) as stored:
        assert stored.height == 600
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="no Zarr store"):
        write(ArrayPyramid(image), tmp_path / "folder")


@pytest.mark.parametrize("form", list(writers.WRITERS))
def test_the_command_writes_scenes_and_a_manifest(shared, tmp_path, form):
    for split in ("val", "test", "test"):
        arguments = [str(shared), str(tmp_path), "--count", "2", "--grid", "2", "--split", split]
        result = CliRunner().invoke(write_scenes.main, ["smear", *arguments, "--format", form])
        assert result.exit_code == 0, result.output
    found = read_manifest(tmp_path / "manifest.csv")
    assert [example.split for example in found] == ["val", "val", "test", "test"]
    with (tmp_path / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "label", "split", "boxes"]
    for seed, row, example in zip((0, 1, 0, 1), rows, found, strict=True):
        scene = smear.SmearScene(seed, 2, row["split"])
        assert json.loads(row["boxes"]) == [list(scene.box)]
        assert row["label"] == scene.label
        with open_pyramid(example.source) as stored:
            assert (stored.height, stored.width) == (720, 720)


def test_a_scene_has_as_many_odd_cells_as_it_is_asked_for(cells):
    bank = pbc.cell_bank(cells, "train")
    for several in (0, 1, 5):
        scene = smear.SmearScene(7, 4, several=several)
        odd = bank.numbers[scene.label]
        numbers, _ = scene.layout(bank)
        places = {tuple(at) for at in np.argwhere((numbers >= odd.start) & (numbers < odd.stop)).tolist()}
        assert scene.label == (smear.BACKGROUND if several == 0 else smear.SmearScene(7, 4).label)
        assert len(scene.boxes) == several
        assert places == (set(scene.positions) if several else {tuple(divmod(i, 4)) for i in range(16)})
    assert smear.SmearScene(7, 4, several=5).position == smear.SmearScene(7, 4).position


def test_some_scenes_are_empty_and_few_are_crowded(cells):
    scenes = [e.source.scene for e in smear.examples(cells, "train", 400, several=8, empty=0.25)]
    found = Counter(scene.several for scene in scenes)
    assert 60 < found[0] < 140
    assert found[1] > found[2] + found[3] > 0
    assert max(found) == 7


def test_windows_show_one_to_several_cells_of_their_class(cells):
    one = smear.single_cell_examples(cells, "train", 20, side=720)
    assert {e.source.scene.several for e in one} == {1}
    more = smear.single_cell_examples(cells, "train", 20, side=720, several=9)
    found = Counter(e.source.scene.several for e in more)
    assert set(found) <= set(range(1, 10))
    assert found[1] > found[9] >= 0
    assert max(found) > 5
    bank = pbc.cell_bank(cells, "train")
    for example in more[:40]:
        numbers, _ = example.source.scene.layout(bank)
        own = bank.numbers[example.label]
        shown = ((numbers >= own.start) & (numbers < own.stop)).sum()
        assert example.label == smear.BACKGROUND or shown == example.source.scene.several


def test_a_mixed_scene_shows_cells_of_its_boxes_classes_and_has_none_of_its_own(cells):
    (example,) = smear.examples(cells, "train", 1, grid=4, several=16, mixed=True, seed0=3)
    bank = pbc.cell_bank(str(cells), "train").load()
    scene = example.source.scene
    assert example.label is None
    assert len(example.box_labels) == len(example.boxes) == scene.several > 1
    numbers, _ = scene.layout(bank)
    shown = {
        (y // pbc.CELL, x // pbc.CELL): kind
        for (y, x, _, _), kind in zip(example.boxes, example.box_labels, strict=True)
    }
    for place, number in np.ndenumerate(numbers):
        assert number in bank.numbers[shown.get(place, smear.BACKGROUND)]
