"""The tree and its quirks: which rows there are, and what is left out and said."""

import csv
import json
import shutil
import tarfile
from collections import Counter

import pytest

from hiresattn import open_pyramid
from hiresattn.datasets.manifest import read_manifest
from hiresattn.errors import ConfigError, NotFoundError, OpenError
from hiresattn.fmow.index import Row, rows, write_rows
from hiresattn.fmow.tree import Skipped, View, scan
from scenes import fmow_tree

ALL = ("train", "val", "test", "seq")


@pytest.fixture
def copy(tree, tmp_path):
    """The tree once more, to be spoilt."""
    return shutil.copytree(tree.root, tmp_path / "fmow-rgb")


def views(root, **options):
    return [found for found in scan(root, **options) if isinstance(found, View)]


def reasons(found):
    return Counter(one.reason for one in found if isinstance(one, Skipped))


def made(root, *, splits=ALL, **options):
    return [row for row in rows(scan(root, splits=splits), **options) if isinstance(row, Row)]


def test_every_image_is_a_view_whatever_its_frame_number(tree):
    found = views(tree.root, splits=ALL)
    on_disk = set(tree.root.rglob("*_rgb.jpg"))
    damaged = tree.odd["cut_json"].with_suffix(".jpg")
    assert {view.image for view in found} == on_disk - {damaged}
    assert tree.views == len(on_disk)
    airport = [view for view in found if (view.split, view.sequence) == ("train", "airport_0")]
    assert [view.frame for view in airport] == [0, 2, 3]
    assert {view.image.name.removesuffix(".jpg").rsplit("_", 2)[2] for view in found} == {"rgb"}


def test_categories_with_underscores_and_dashes_are_read_from_the_end(tree):
    found = {(view.category, view.sequence) for view in views(tree.root, splits=("train",))}
    assert {("single-unit_residential", "single-unit_residential_0"), ("crop_field", "crop_field_0")} <= found


def test_the_one_msrgb_that_is_missing_is_no_view(tree):
    rgb, msrgb = (
        {(view.folder, view.frame) for view in views(tree.root, splits=("val",), imagery=imagery)}
        for imagery in ("rgb", "msrgb")
    )
    assert rgb - msrgb == {("airport/airport_61", 3)}


def test_the_full_release_has_tiff_files_and_another_name_for_all_bands(copy):
    for path in list((copy / "val").rglob("*_msrgb.*")):
        path.rename(
            path.with_name(path.name.replace("_msrgb.jpg", "_ms.tif").replace("_msrgb.json", "_ms.json"))
        )
    found = views(copy, splits=("val",), imagery="ms")
    assert {view.image.name.rsplit("_", 1)[1] for view in found} == {"ms.tif"}
    assert len(found) == len(views(copy, splits=("val",))) - 1


def test_test_folders_are_named_by_the_mapping_and_their_boxes_by_the_truth(tree):
    found = made(tree.root, splits=("test",), window="box", false_detections=True)
    assert found
    for row in found:
        assert row.view.folder.isdigit()
        assert row.label == tree.truth[row.box_id]
        assert row.view.sequence == tree.boxes[row.box_id]["sequence"]
        assert not row.view.metadata.timestamp.startswith("1999")  # the truth's, not the noisy one
        assert row.view.metadata.bounds is not None


def test_every_box_of_the_truth_is_found_once_per_frame(tree):
    found = Counter(row.box_id for row in made(tree.root, window="box", false_detections=True))
    odd = {box for box in found if box < 1000}
    spoilt = {
        path.parent.name for name, path in tree.odd.items() if name in ("no_json", "no_image", "cut_json")
    }
    expected = {
        box: len(facts["bounds"])
        for box, facts in tree.boxes.items()
        if (facts["split"], facts["sequence"]) not in {("train", name) for name in spoilt}
    }
    assert {box: count for box, count in found.items() if box not in odd} == expected


def test_every_box_that_the_challenge_scores_has_rows_also_without_images(copy):
    asked = {"window": "box", "false_detections": True}
    whole = {row.box_id for row in made(copy, splits=("test",), **asked)}
    folder = next(path.parent for path in sorted((copy / "test").rglob("*_rgb.jpg")))
    for image in folder.glob("*.jpg"):
        image.unlink()
    found = made(copy, splits=("test",), **asked)
    lost = [row for row in found if row.view.folder == folder.name]
    assert lost
    assert not any(row.croppable or row.region for row in lost)
    assert {row.box_id for row in found} == whole
    assert not any(row.view.folder == folder.name for row in made(copy, splits=("test",)))


def test_a_box_lies_where_its_polygon_says(tree):
    for row in made(tree.root, window="box"):
        if row.box_id < 1000 or row.view.metadata.bounds is None:
            continue
        west, _, east, north = row.view.metadata.bounds
        y, x, h, w = row.region
        px = (east - west) / row.view.metadata.width
        corners = (west + x * px, north - (y + h) * px, west + (x + w) * px, north - y * px)
        assert corners == pytest.approx(tree.boxes[row.box_id]["bounds"][row.view.frame], abs=px / 100)


def test_what_is_left_out_has_a_reason(tree):
    found = reasons(rows(scan(tree.root, splits=ALL), window="context"))
    with_truth = sum(view.metadata is not None and view.metadata.bounds is not None
                     for view in views(tree.root, splits=ALL))  # fmt: skip
    assert found.pop("box of the crowd (ID -1)") == with_truth
    false = sum(len(b["bounds"]) for b in tree.boxes.values() if b["category"] == "false_detection")
    assert found.pop("labelled false_detection") == false + 1  # one under its old name
    assert found == {
        "damaged metadata": 1,
        "image without metadata": 1,
        "metadata without an image": 1,
        "box of at most 2 px": 1,
        "box outside of its image": 1,
    }


def test_a_box_that_leaves_its_image_is_clipped(tree):
    odd = tree.odd["odd_boxes"].with_suffix(".jpg")
    (row,) = [row for row in made(tree.root, window="box") if row.view.image == odd and row.box_id == 3]
    y, x, height, width = row.region
    assert (y + height, x + width) == (row.view.metadata.height, row.view.metadata.width)
    assert (height, width) == (10, 20)


def test_frames_are_labelled_by_their_folder_and_need_no_metadata(tree):
    found = made(tree.root, window="frame")
    by_image = {row.view.image: row for row in found}
    assert by_image[tree.odd["no_json"].with_suffix(".jpg")].label == "zoo"
    assert {row.region for row in found} == {None}
    assert len(found) == tree.views - 1  # one's metadata is damaged
    assert {row.label for row in found} == set(fmow_tree.SIDES)


def test_the_manifest_is_one_that_training_reads(tree, tmp_path):
    path = tmp_path / "below" / "fmow.csv"
    path.parent.mkdir()
    written = list(write_rows(rows(scan(tree.root), window="jhu-baseline"), path, "jhu-baseline", boxes=True))
    examples = read_manifest(path, labels=True)
    assert len(examples) == sum(isinstance(row, Row) for row in written)
    for example in examples:
        with open_pyramid(example.source) as pyramid:
            y, x, height, width = example.region
            assert 0 <= y < y + height <= pyramid.height
            assert 0 <= x < x + width <= pyramid.width
        ((top, left, high, wide),) = example.boxes
        assert y <= top < top + high <= y + height
        assert x <= left < left + wide <= x + width
    assert not list(path.parent.glob(".*"))


def test_boxes_are_told_only_on_request(tree, tmp_path):
    list(write_rows(rows(scan(tree.root)), tmp_path / "m.csv", "frame"))
    assert {example.boxes for example in read_manifest(tmp_path / "m.csv")} == {None}


def test_no_group_is_in_two_splits_though_sequences_share_names(tree, tmp_path):
    list(write_rows(rows(scan(tree.root, splits=ALL)), tmp_path / "m.csv", "frame"))
    with (tmp_path / "m.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    splits = {}
    for row in table:
        splits.setdefault(row["group"], set()).add((row["split"], row["fmow_split"]))
    assert all(len(found) == 1 for found in splits.values())
    assert {"train/zoo_0", "val/zoo_0", "test/zoo_0", "seq/zoo_0"} <= splits.keys()
    assert splits["seq/zoo_0"] == {("test", "seq")}


def test_the_truth_may_be_packed_or_unpacked_or_elsewhere(tree, copy, tmp_path):
    whole = list(rows(scan(tree.root, splits=ALL), window="context"))
    where = [(row.label, row.region, row.box_id) for row in whole if isinstance(row, Row)]
    packed = copy / "groundtruth.tar.bz2"
    packed.rename(tmp_path / "truth.tbz")
    for given in (tmp_path / "truth.tbz", tmp_path / "unpacked", None):
        if given is not None and not given.exists():
            with tarfile.open(tmp_path / "truth.tbz") as archive:
                archive.extractall(given, filter="data")
        elif given is None:  # beside the images
            for path in (tmp_path / "unpacked").glob("*_gt*"):
                path.rename(copy / path.name)
            (tmp_path / "unpacked").rename(copy / "groundtruth")
            for path in copy.glob("*_gt*"):
                path.rename(copy / "groundtruth" / path.name)
        found = rows(scan(copy, splits=ALL, groundtruth=given), window="context")
        assert [(row.label, row.region, row.box_id) for row in found if isinstance(row, Row)] == where


def test_the_truth_may_be_unpacked_into_the_tree_itself(copy, tree):
    with tarfile.open(copy / "groundtruth.tar.bz2") as archive:
        archive.extractall(copy, filter="data")
    (copy / "groundtruth.tar.bz2").unlink()
    for splits in (("test",), ("seq",)):
        labels = [(row.label, row.box_id) for row in made(copy, splits=splits, window="box")]
        assert labels == [(row.label, row.box_id) for row in made(tree.root, splits=splits, window="box")]
        assert None not in dict(labels)


def test_boxes_that_only_the_views_own_file_has_are_kept(copy):
    """As the supplement of false detections has them."""
    path = min((copy / "val" / "tower").rglob("*_rgb.json"))
    facts = json.loads(path.read_text())
    known = [box["ID"] for box in facts["bounding_boxes"]]
    facts["bounding_boxes"].append({"ID": 77, "box": [3, 4, 50, 40], "category": "false_detection"})
    path.write_text(json.dumps(facts))
    found = made(copy, splits=("val",), window="box", false_detections=True)
    mine = {row.box_id: row for row in found if row.view.image == path.with_suffix(".jpg")}
    assert set(mine) == {*known, 77}
    assert mine[77].region == (4, 3, 40, 50)
    assert mine[77].view.metadata.bounds is not None  # the truth's


def test_without_the_truth_test_images_have_no_label_and_keep_their_ids(copy, tree):
    (copy / "groundtruth.tar.bz2").unlink()
    found = made(copy, splits=("test",), window="box", false_detections=True)
    assert {row.label for row in found} == {None}
    assert {row.box_id for row in found} == {b for b, f in tree.boxes.items() if f["split"] == "test"}
    assert {row.label for row in made(copy, splits=("test",))} == {None}


def test_test_images_sorted_into_categories_are_taken_too(copy, tree):
    """As TNet lays them out."""
    with tarfile.open(copy / "groundtruth.tar.bz2") as archive:
        mapping = json.load(archive.extractfile("test_gt_mapping.json"))
    for entry in mapping:
        _, category, sequence = entry["input"].split("/")
        number = entry["output"].split("/")[1]
        (copy / "test" / category).mkdir(exist_ok=True)
        (copy / "test" / number).rename(copy / "test" / category / sequence)
        for path in (copy / "test" / category / sequence).iterdir():
            path.rename(path.with_name(path.name.replace(number, sequence)))
    before = sorted(
        (row.label, row.view.sequence, row.view.frame) for row in made(tree.root, splits=("test",))
    )
    after = sorted((row.label, row.view.sequence, row.view.frame) for row in made(copy, splits=("test",)))
    assert after == before


def test_images_may_lie_elsewhere(copy, tmp_path, tree):
    for path in list(copy.rglob("*_rgb.jpg")):
        target = tmp_path / "pixels" / path.relative_to(copy)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    found = views(copy, images=tmp_path / "pixels", splits=ALL)
    assert len(found) == tree.views - 1
    assert all(view.image.is_relative_to(tmp_path / "pixels") for view in found)
    assert views(copy, splits=ALL) == []


def test_a_folder_of_no_category_is_left_out(copy):
    (copy / "train" / "zoo").rename(copy / "train" / "zoos")
    found = list(scan(copy, splits=("train",)))
    assert reasons(found)["not a category of fMoW"] == 4
    assert "zoo" not in {one.category for one in found if isinstance(one, View)}


def test_a_manifest_stays_as_it_was_if_no_row_comes(tree, tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("before")
    with pytest.raises(ConfigError, match="no row was left"):
        list(write_rows([Skipped("a", "b")], path, "frame"))
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
    half = write_rows(rows(scan(tree.root)), path, "frame")
    next(half)
    half.close()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_asked_for_wrongly_is_said(tree, tmp_path):
    with pytest.raises(ConfigError, match="possible are train, val, test, seq"):
        list(scan(tree.root, splits=("tests",)))
    with pytest.raises(ConfigError, match="did you mean 'context'"):
        list(rows([], window="contxt"))
    with pytest.raises(NotFoundError, match="none of the folders train, val, test"):
        list(scan(tmp_path))
    with pytest.raises(NotFoundError, match="no such ground truth"):
        list(scan(tree.root, groundtruth=tmp_path / "none"))
    with pytest.raises(ConfigError, match="can't be written"):
        list(write_rows(rows(scan(tree.root)), tmp_path / "none" / "m.csv", "frame"))


def test_a_truth_that_is_cut_short_names_its_file(copy):
    path = copy / "groundtruth.tar.bz2"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(OpenError, match=r"groundtruth\.tar\.bz2: damaged or cut short"):
        list(scan(copy))


@pytest.mark.parametrize(
    "text", ["{", "{}", "[1]", '[{"input": "a/b"}]', '[{"input": "a", "output": "test/1"}]', "7"]
)
def test_a_mapping_that_cant_be_used_names_its_file(copy, text):
    (copy / "groundtruth.tar.bz2").unlink()
    (copy / "test_gt_mapping.json").write_text(text)
    if text == "{}":
        assert views(copy, splits=("test",))  # a mapping of nothing
        return
    with pytest.raises(ConfigError, match=r"test_gt_mapping\.json: the mapping can't be used"):
        list(scan(copy))
