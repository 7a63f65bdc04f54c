"""Looks as QuPath's objects: its own reading rules take them, and they lie where it shows them."""

import json
import math
from dataclasses import replace
from uuid import UUID

import numpy as np
import pytest
from PIL import Image

from hiresattn.datasets.boxes import read_boxes
from hiresattn.errors import ConfigError
from hiresattn.inference.record import CaseSource, Record, VisitedRegion
from hiresattn.pyramid import open_pyramid
from hiresattn.report import qupath
from hiresattn.report.colours import depth_colour, rgb
from hiresattn.report.qupath import write_qupath
from tests.images import write_scn
from tests.report import qupath_rules


def record(source="/a/1.svs", seed=0, **changes):
    """A random tree of looks, over all of an image of 4096 x 8192 px."""
    rng = np.random.default_rng(seed)
    regions = [VisitedRegion(0, None, 0, 0, 0, 4096, 4096, 0.1, 0.0)]
    regions += [VisitedRegion(1, None, 0, 0, 4096, 4096, 4096, 0.1, 0.0)]
    for number in range(2, int(rng.integers(3, 30))):
        above = regions[int(rng.integers(number))]
        side = above.height // 4
        y, x = (int(value) for value in rng.integers(0, above.height - side, 2))
        at = (above.y + y, above.x + x, side, side)
        regions.append(VisitedRegion(number, above.id, above.depth + 1, *at, float(rng.random()), -1.5))
    values = {
        "class_name": "tumour",
        "score": 0.75,
        "scores": {"normal": 0.25, "tumour": 0.75},
        "sufficient": (len(regions) - 1,),
        "regions": tuple(regions),
        "sources": (CaseSource(str(source), height=4096, width=8192),),
        "model": {"name": "m", "sha256": "0"},
        "version": "0.1.0",
    }
    return Record(str(source), "ok", **{**values, **changes})


def objects(path):
    return [one for root in qupath_rules.read(path) for one in root.all()]


@pytest.mark.parametrize("seed", range(25))
def test_qupath_reads_every_look_in_its_place(tmp_path, seed):
    corner = np.random.default_rng(seed).integers(0, 900, 2).tolist() if seed % 2 else [0, 0]
    own = record(seed=seed)
    if seed % 2:
        own = replace(own, sources=(replace(own.sources[0], bounds=(*corner, 3000, 7000)),))
    (path,) = write_qupath([own], tmp_path)
    found = {one.measurements["Look"]: one for one in objects(path)}
    assert sorted(found) == [region.id for region in own.regions]
    for region in own.regions:
        one = found[region.id]
        left, top = region.x - corner[1], region.y - corner[0]
        assert one.ring[0] == [left, top]
        assert one.ring[2] == [left + region.width, top + region.height]
        assert (one.measurements["Depth"], one.measurements["Attention"]) == (region.depth, region.attention)
        shares = {name: one.measurements[name] for name in one.measurements if name.startswith("p_")}
        decisive = region.id in (own.sufficient or ())
        assert not decisive or shares == {f"p_{name}": share for name, share in own.scores.items()}
        children = [other.id for other in own.regions if other.parent == region.id]
        assert [child.measurements["Look"] for child in one.children] == children
        assert all(child.metadata["parent"] == str(one.id) for child in one.children)
        grey = tuple(rgb(depth_colour(region.depth)))
        assert one.color == ((213, 94, 0) if region.id in own.sufficient else grey)
        assert one.kind == ("annotation" if region.id in own.sufficient else "detection")
        assert one.path_class == ("tumour" if one.kind == "annotation" else f"look: depth {region.depth}")


def test_our_own_reader_of_boxes_reads_it_back(tmp_path):
    image = tmp_path / "1.png"
    Image.fromarray(np.zeros((4096, 8192), np.uint8)).save(image)
    own = record(image, seed=3)
    (path,) = write_qupath([own], tmp_path)
    boxes = read_boxes(path.name, tmp_path / "m.csv", "line 2", source=str(image), known={}, named=True)
    places = [(region.y, region.x, region.height, region.width) for region in own.regions]
    assert sorted(boxes.boxes) == sorted(places)
    assert boxes.labels[boxes.boxes.index(places[-1])] == "tumour"


def test_a_slide_s_scanned_part_is_where_both_count_from(tmp_path):
    slide = write_scn(tmp_path / "a.scn")
    with open_pyramid(slide) as pyramid:
        facts = CaseSource(str(slide), bounds=pyramid.meta.bounds)
    own = record(slide, seed=3, sources=(facts,))
    (path,) = write_qupath([own], tmp_path)
    assert objects(path)[0].ring[0] == [-facts.bounds[1], -facts.bounds[0]]
    boxes = read_boxes(path.name, tmp_path / "m.csv", "line 2", source=str(slide), known={})
    assert set(boxes.boxes) == {(one.y, one.x, one.height, one.width) for one in own.regions}
    converted = replace(facts, source=str(tmp_path / "a.zarr"))
    (path,) = write_qupath([replace(own, source=converted.source, sources=(converted,))], tmp_path)
    assert objects(path)[0].ring[0] == [0, 0]


def test_a_second_run_writes_the_same_bytes_and_ids_differ(tmp_path):
    some = [record(f"/{folder}/1.svs", seed=1) for folder in "ab"]
    first, second = (write_qupath(some, tmp_path / run) for run in "xy")
    assert [path.name for path in first] == ["a_1.svs.geojson", "b_1.svs.geojson"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    ids = [one.id for path in first for one in objects(path)]
    assert len(set(ids)) == len(ids)
    assert all(isinstance(one, UUID) for one in ids)


def test_a_case_has_a_file_for_each_of_its_images(tmp_path):
    sources = (
        CaseSource("a.tif", bounds=(5, 7, 90, 90)),
        CaseSource("b.tif"),
        CaseSource("c.tif", error="broken"),
    )
    regions = (
        VisitedRegion(0, None, 0, 5, 7, 90, 90, 0.5, 0.0, source=0),
        VisitedRegion(1, None, 0, 0, 0, 64, 64, 0.25, 0.0, source=1),
        VisitedRegion(2, 1, 1, 8, 8, 16, 16, 0.25, -1.0, source=1),
    )
    own = record("P1", case="P1", sources=sources, regions=regions, sufficient=None)
    paths = write_qupath([own], tmp_path)
    assert [path.name for path in paths] == ["a.tif.geojson", "b.tif.geojson"]
    assert [[one.ring[0] for one in objects(path)] for path in paths] == [[[0, 0]], [[0, 0], [8, 8]]]


def test_the_looks_that_carry_an_answer_are_marked_in_their_image_unless_the_others_say_the_same(tmp_path):
    sources = (CaseSource("a.tif"), CaseSource("b.tif"))
    regions = tuple(VisitedRegion(n, None, 0, 0, 0, 9, 9, 0.25, 0.0, source=n // 2) for n in range(4))
    own = record("P1", case="P1", sources=sources, regions=regions, sufficient=(3,), score_without=0.2)
    kinds = [[one.kind for one in objects(path)] for path in write_qupath([own], tmp_path)]
    assert kinds == [["detection"] * 2, ["detection", "annotation"]]
    spread = replace(own, score_without=0.7)
    kinds = [[one.kind for one in objects(path)] for path in write_qupath([spread], tmp_path, overwrite=True)]
    assert kinds == [["detection"] * 2] * 2


def test_windows_of_one_image_share_a_file_and_errors_have_none(tmp_path):
    windows = [record(seed=n, region=(0, n, 4096, 4096)) for n in (1, 2)]
    error = Record("b.svs", "error", error="b.svs: broken", sources=(CaseSource("b.svs"),))
    (path,) = write_qupath([*windows, error], tmp_path)
    assert len(objects(path)) == sum(len(one.regions) for one in windows)


def test_many_objects_are_compressed(tmp_path, monkeypatch):
    monkeypatch.setattr(qupath, "_MANY", 2)
    (path,) = write_qupath([record(seed=3)], tmp_path)
    assert path.name == "1.svs.geojson.gz"
    assert len(objects(path)) == len(record(seed=3).regions)


def test_what_is_not_finite_is_left_out_and_odd_trees_stay_readable(tmp_path):
    regions = (
        VisitedRegion(0, 1, 1, 0, 0, 8, 8, math.nan, -math.inf),
        VisitedRegion(1, 0, 1, 0, 0, 8, 8, 0.5, 0.0),
        VisitedRegion(2, 7, 9, 0, 0, 8, 8, 0.5, 0.0),
    )
    (path,) = write_qupath([record(regions=regions, sufficient=(9,))], tmp_path)
    assert [one.measurements["Look"] for one in objects(path)] == [0, 1, 2]
    assert "NaN" not in path.read_text()


def test_several_labels_and_none(tmp_path):
    several = record(seed=1, class_name=None, labels=("tumour", "normal"))
    none = record("/a/2.svs", seed=1, class_name=None, labels=())
    first, second = (objects(path) for path in write_qupath([several, none], tmp_path))
    assert {one.path_class for one in first if one.kind == "annotation"} == {"tumour"}
    assert all(one.kind == "detection" for one in second)


def test_what_is_there_is_replaced_only_when_asked(tmp_path):
    (path,) = write_qupath([record()], tmp_path)
    path.write_text(json.dumps("mine"))
    with pytest.raises(ConfigError, match="is there already"):
        write_qupath([record()], tmp_path)
    assert write_qupath([record()], tmp_path, overwrite=True) == [path]
    assert objects(path)
