"""Manifests: rows become examples; what can't be used is named with its line."""

import csv
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.warp
from PIL import Image
from rasterio import Affine

from hiresattn.datasets import boxes
from hiresattn.datasets.example import Example, names_of
from hiresattn.datasets.manifest import read_manifest
from hiresattn.datasets.write import write_manifest
from hiresattn.errors import BackendMissingError, ConfigError, HiresattnError, NotFoundError
from tests.images import write_pyramid_tiff, write_scn


def write(folder, text, name="m.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def test_a_row_becomes_an_example_with_its_path_beside_the_manifest(tmp_path):
    path = write(tmp_path, "path,label,split\nslides/a.svs,tumour,val\n")
    assert read_manifest(path) == [Example(str(tmp_path / "slides" / "a.svs"), "tumour", "val")]


def test_a_split_that_is_absent_or_empty_is_train(tmp_path):
    assert [e.split for e in read_manifest(write(tmp_path, "path,label\na.tif,x\n"))] == ["train"]
    assert [e.split for e in read_manifest(write(tmp_path, "path,label,split\na.tif,x,\n"))] == ["train"]


def test_a_window_is_rows_columns_height_width(tmp_path):
    path = write(tmp_path, "path,label,y,x,height,width\na.tif,sea,10,20,30,40\n")
    assert read_manifest(path)[0].region == (10, 20, 30, 40)


def test_rows_without_a_window_in_a_manifest_of_windows_mean_the_whole_image(tmp_path):
    path = write(tmp_path, "path,y,x,height,width\na.tif,,,,\n")
    assert read_manifest(path) == [Example(str(tmp_path / "a.tif"))]


@pytest.mark.parametrize(
    "source", ["https://example.org/a.tif", "s3://bucket/a.zarr", "/vsicurl/x.tif", "/data/a.tif"]
)
def test_urls_and_absolute_paths_stay_as_they_are(tmp_path, source):
    assert read_manifest(write(tmp_path, f"path\n{source}\n"))[0].source == source


def test_other_columns_are_ignored_and_a_byte_order_mark_is_no_column(tmp_path):
    path = write(tmp_path, "path,scanner,label\na.tif,7,x\n", encoding="utf-8-sig")
    assert read_manifest(path) == [Example(str(tmp_path / "a.tif"), "x")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file,label\na.tif,x\n", "no column 'path'"),
        ("paths,label\na.tif,x\n", "did you mean 'paths'"),
        ("", "no column 'path'"),
        ("path,label\n", "no rows"),
        ("path,label,split\na.tif,x,tain\n", "line 2: split 'tain' .*did you mean 'train'"),
        ("path,label\na.tif,x\n,y\n", "line 3: the path is empty"),
        ("path,y,x\na.tif,1,2\n", "all of y,x,height,width"),
        ("path,y,x,height,width\na.tif,1,2,3,four\n", "line 2: .*whole numbers"),
        (
            "path,y,x,height,width\na.tif,1,2,3\n",
            "line 2: .*all of y,x,height,width, or none; width is empty",
        ),
        ("path,y,x,height,width\na.tif,,10,64,64\n", "line 2: .*or none; y is empty"),
        ("path,y,x,height,width\na.tif,99,,,\n", "line 2: .*or none; x,height,width is empty"),
        ("path,label\na.tif,x\n\n\n,y\n", "line 5: the path is empty"),
        ('path,note\na.tif,"two\nlines"\n,y\n', "line 4: the path is empty"),
        ("path,note\na.tif,one\u2028line\n,y\n", "line 3: the path is empty"),
        ('path,label\na.tif,x\n"b.tif,y\n', "line 3: not readable as CSV"),
    ],
)
def test_an_unusable_manifest_is_an_error_that_names_the_file_and_the_line(tmp_path, text, says):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=says) as caught:
        read_manifest(path)
    assert str(path) in str(caught.value)


def test_a_manifest_that_is_absent_or_no_text_is_a_typed_error(tmp_path):
    with pytest.raises(NotFoundError, match="no such manifest"):
        read_manifest(tmp_path / "absent.csv")
    path = tmp_path / "binary.csv"
    path.write_bytes(b"\xff\xfe\x00\x01" * 10)
    with pytest.raises(HiresattnError, match="not a text file"):
        read_manifest(path)


def test_a_manifest_whose_name_no_file_can_have_is_a_typed_error(tmp_path):
    for name in ("x" * 300 + ".csv", "nul\0.csv"):
        with pytest.raises(HiresattnError, match="can't be read"):
            read_manifest(tmp_path / name)
    with pytest.raises(NotFoundError, match="a folder"):
        read_manifest(tmp_path)


def test_spaces_around_names_of_columns_and_values_are_none_of_them(tmp_path):
    path = write(tmp_path, "path , label, split\n a.tif , x , \n")
    assert read_manifest(path) == [Example(str(tmp_path / "a.tif"), "x")]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_kind_of_line_end_ends_a_row(tmp_path, end):
    path = write(tmp_path, end.join(["path,label", "a.tif,x", "", "b.tif,y"]))
    assert [e.label for e in read_manifest(path)] == ["x", "y"]


def test_boxes_may_be_longer_than_csv_allows_by_itself_and_its_limit_stays(tmp_path):
    boxes = [[y, 2, 3, 4] for y in range(20_000)]
    usual = csv.field_size_limit()
    found = read_manifest(write(tmp_path, f'path,boxes\na.tif,"{boxes}"\n'))
    assert len(str(boxes)) > usual
    assert len(found[0].boxes) == 20_000
    assert csv.field_size_limit() == usual


def test_a_value_too_long_to_be_one_is_an_error_that_names_the_line(tmp_path, monkeypatch):
    monkeypatch.setattr("hiresattn.datasets.tables._LONGEST", 100)
    with pytest.raises(ConfigError, match="line 2: not readable as CSV"):
        read_manifest(write(tmp_path, f"path,label\na.tif,{'x' * 101}\n"))


def test_training_needs_labels_and_says_which_line_has_none(tmp_path):
    path = write(tmp_path, "path,class\na.tif,x\n")
    assert read_manifest(path)[0].label is None
    with pytest.raises(ConfigError, match="no column 'label'; the first line has path, class"):
        read_manifest(path, labels=True)
    rows = "path,label,split\na.tif,x,train\nb.tif,,test\n"
    assert len(read_manifest(write(tmp_path, rows), labels=True)) == 2
    with pytest.raises(ConfigError, match=r"m\.csv, line 4: no label"):
        read_manifest(write(tmp_path, f"{rows}c.tif,,val\n"), labels=True)


@pytest.mark.parametrize("boxes", ["[[Infinity,0,1,1]]", "[[1,2,3]]", "[5]", "[" * 100_000, "absent.geojson"])
def test_boxes_that_are_none_are_an_error_that_names_the_line(tmp_path, boxes):
    with pytest.raises(ConfigError, match=r"line 2: boxes .* can't be read"):
        read_manifest(write(tmp_path, f'path,boxes\na.tif,"{boxes}"\n'))


@pytest.mark.parametrize("column", ["group", "case_id", "patient", "patient_id", "subject"])
def test_rows_belong_to_a_case_or_a_group(tmp_path, column):
    path = write(tmp_path, f"path,label,{column}\na.tif,x,007\nb.tif,y,\n")
    examples = read_manifest(path)
    assert [e.group if column == "group" else e.case for e in examples] == ["007", None]
    assert [e.case if column == "group" else e.group for e in examples] == [None, None]


def test_the_column_group_comes_before_its_other_names(tmp_path):
    path = write(tmp_path, "path,patient,case_id,group\na.tif,1,2,3\n")
    assert read_manifest(path)[0].group == "3"


LEAKS = [
    ("path,label,split,case_id\na.tif,x,train,7\nb.tif,x,train,8\nc.tif,y,val,8\n", "case_id '8'", (3, 4)),
    ("path,label,split\na.tif,x,train\nb.tif,y,val\n./a.tif,x,test\n", "a.tif", (2, 4)),
    ("path,label,split,y,x,height,width\na,x,train,0,0,8,8\na,x,val,0,0,8,8\n", "a", (2, 3)),
]


@pytest.mark.parametrize(("text", "what", "lines"), LEAKS)
def test_what_is_in_two_splits_can_not_be_trained_on(tmp_path, text, what, lines):
    path = write(tmp_path, text)
    assert read_manifest(path)
    with pytest.raises(ConfigError) as caught:
        read_manifest(path, labels=True)
    said = str(caught.value)
    assert str(path) in said
    assert f"{what} is in split 'train' (line {lines[0]})" in said
    assert f"(line {lines[1]}); " in said


def test_windows_of_an_image_and_empty_groups_may_be_in_several_splits(tmp_path):
    rows = (
        "path,label,split,y,x,height,width,group\na,x,train,0,0,8,8,\na,x,val,8,0,8,8,\na,x,train,0,0,8,8,\n"
    )
    assert len(read_manifest(write(tmp_path, rows), labels=True)) == 3


@pytest.mark.parametrize("name", ["slide", "slide_id"])
def test_a_column_of_slides_stands_for_the_path_where_there_is_none(tmp_path, name):
    (tmp_path / "m.csv").write_text(f"label,{name}\nx,a.tif\n")
    assert [e.source for e in read_manifest(tmp_path / "m.csv")] == [str(tmp_path / "a.tif")]
    (tmp_path / "m.csv").write_text(f"path,{name}\na.tif,b.tif\n")
    assert [e.source for e in read_manifest(tmp_path / "m.csv")] == [str(tmp_path / "a.tif")]


FOLDS = "path,label,case_id,fold\na,x,1,0\nb,y,2,0\nc,x,3,1\nd,y,4,1\ne,x,5,2\nf,y,6,test\n"


def test_a_fold_validates_the_others_train_and_test_rows_stay_so(tmp_path):
    path = write(tmp_path, FOLDS)
    for fold in (1, "1", "1.0"):
        found = [e.split for e in read_manifest(path, labels=True, fold=fold)]
        assert found == ["train", "train", "val", "val", "train", "test"]
    assert [e.fold for e in read_manifest(path)] == ["0", "0", "1", "1", "2", "test"]
    assert [e.split for e in read_manifest(path)] == ["train"] * 5 + ["test"]


def test_a_split_of_test_needs_no_fold_and_names_of_folds_are_any(tmp_path):
    path = write(tmp_path, "path,label,split,fold\na,x,train,left\nb,y,,right\nc,x,test,\n")
    assert [e.split for e in read_manifest(path, fold="right")] == ["train", "val", "test"]


@pytest.mark.parametrize(
    ("text", "fold", "says"),
    [
        (FOLDS, 3, "no rows of fold '3'; there is 0, 1, 2"),
        (FOLDS, "test", "no rows of fold 'test'"),
        ("path,label,folds\na,x,0\n", 0, "no column 'fold'; the first line has path, label, folds"),
        ("path,label,fold\na,x,0\nb,x,\n", 0, "line 3: no fold"),
        ("path,label,fold\na,x,0\nb,x,0\n", 0, "all rows are of fold '0'"),
        ("path,label,split,fold\na,x,val,0\nb,x,train,1\n", 0, "line 2: split 'val' and fold '0'"),
        ("path,label,split,fold\na,x,train,0\nb,x,train,test\n", 0, "line 3: split 'train' and fold 'test'"),
    ],
)
def test_folds_that_say_nothing_or_two_things_are_an_error(tmp_path, text, fold, says):
    with pytest.raises(ConfigError, match=says):
        read_manifest(write(tmp_path, text), fold=fold)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("a,x,1,0\nb,y,1,1\n", r"case_id '1' is in fold '0' \(line 2\) and in fold '1' \(line 3\)"),
        ("a,x,1,0\nb,y,2,1\nc,y,1,2\n", r"case_id '1' is in fold '0' \(line 2\) and in fold '2' \(line 4\)"),
        ("a,x,1,0\nb,y,2,1\nc,y,2,test\n", r"case_id '2' is in fold '1' \(line 3\) and in split 'test'"),
        ("a,x,1,0\na,y,2,1\n", r"a is in fold '0' \(line 2\) and in fold '1' \(line 3\)"),
    ],
)
def test_no_group_and_no_image_crosses_folds_also_where_neither_validates(tmp_path, rows, says):
    path = write(tmp_path, f"path,label,case_id,fold\n{rows}")
    with pytest.raises(ConfigError, match=says):
        read_manifest(path, labels=True, fold=1)


def test_a_scale_of_ones_own_is_a_number_above_0_and_one_per_image(tmp_path):
    path = write(tmp_path, "path,mpp\na.tif,0.25\nb.tif,\n")
    assert [e.mpp for e in read_manifest(path)] == [0.25, None]
    for value in ("0", "-1", "nan", "inf", "0.25um"):
        with pytest.raises(ConfigError, match=f"line 2: mpp '{value}' is no number above 0"):
            read_manifest(write(tmp_path, f"path,mpp\na.tif,{value}\n"))
    rows = "path,mpp,y,x,height,width\na.tif,0.25,0,0,8,8\nb.tif,1,0,0,8,8\n./a.tif,0.5,8,0,8,8\n"
    with pytest.raises(ConfigError, match=r"a.tif has 0.25 µm/px \(line 2\) and 0.5 µm/px \(line 4\)"):
        read_manifest(write(tmp_path, rows))


def test_a_decimal_comma_is_one_where_no_comma_separates_columns(tmp_path):
    for between in ";\t":
        rows = [["path", "label", "mpp"], ["a,1.tif", "0,5", "0,25"], ["b.tif", "x", "0.5"]]
        found = read_manifest(write(tmp_path, "\n".join(map(between.join, rows)) + "\n"))
        assert [(e.source.rsplit("/", 1)[1], e.label, e.mpp) for e in found] == [
            ("a,1.tif", "0,5", 0.25),
            ("b.tif", "x", 0.5),
        ]
    with pytest.raises(ConfigError, match="line 2: mpp '0,25' is no number above 0"):
        read_manifest(write(tmp_path, 'path,mpp\na.tif,"0,25"\n'))


def test_several_labels_stand_in_a_column_labels_or_where_one_asks_for_them(tmp_path):
    path = write(tmp_path, "path,labels\na.tif,b|a\nb.tif,\nc.tif, a | c \n")
    assert [e.label for e in read_manifest(path, labels=True)] == [("b", "a"), (), ("a", "c")]
    path = write(tmp_path, "path,label\na.tif,b|a\nb.tif,\n")
    assert [e.label for e in read_manifest(path)] == ["b|a", None]
    assert [e.label for e in read_manifest(path, labels=True, multi=True)] == [("b", "a"), ()]
    with pytest.raises(ConfigError, match=r"line 2: a label is there twice: 'a\|b\|a'"):
        read_manifest(write(tmp_path, "path,labels\na.tif,a|b|a\n"))
    both = write(tmp_path, "path,label,labels\na.tif,a,b|c\n")
    assert (read_manifest(both)[0].label, read_manifest(both, multi=True)[0].label) == ("a", ("b", "c"))
    assert [names_of(label) for label in ("a|b", "a", (), None)] == [("a", "b"), ("a",), (), None]


def test_boxes_may_say_their_classes_and_stand_for_a_label(tmp_path):
    text = 'path,label,split,boxes\na.tif,,train,"[[1,2,3,4,""x""],[5,6,7,8,""y""]]"\nb.tif,x,val,"[[1,2,3,4]]"\n'
    first, second = read_manifest(write(tmp_path, text), labels=True)
    assert (first.label, first.boxes, first.box_labels) == (None, ((1, 2, 3, 4), (5, 6, 7, 8)), ("x", "y"))
    assert second.box_labels is None
    with pytest.raises(ConfigError, match=r"line 2: no label; training needs the class of every image$"):
        read_manifest(write(tmp_path, text.replace("train", "val")), labels=True)
    with pytest.raises(ConfigError, match=r"line 2: boxes .*all need four numbers, perhaps a class"):
        read_manifest(write(tmp_path, text.replace(',""y""', "")))
    for kind in ("null", '""""', "[1]", '"" ""'):
        with pytest.raises(ConfigError, match=r"line 2: boxes .*the class of a box is a name, not "):
            read_manifest(write(tmp_path, text.replace('""y""', kind)))


def test_boxes_may_say_how_sure_they_are_and_are_written_as_they_were_read(tmp_path):
    text = 'path,label,boxes\na.tif,x,"[[1,2,3,4,0.75],[5,6,7,8,1.0]]"\nb.tif,,"[[1,2,3,4,""y"",0.5]]"\n'
    first, second = read_manifest(write(tmp_path, text), labels=True)
    assert (first.box_labels, first.box_confidence) == (None, (0.75, 1.0))
    assert (second.box_labels, second.box_confidence) == (("y",), (0.5,))
    write_manifest(tmp_path / "again.csv", [first, second])
    assert read_manifest(tmp_path / "again.csv", labels=True) == [first, second]
    for wrong in ("0.0", "1.5", "true"):
        with pytest.raises(ConfigError, match=r"line 2: boxes "):
            read_manifest(write(tmp_path, text.replace("7,8,1.0", f"7,8,{wrong}")))


def test_boxes_with_classes_need_no_column_of_labels_and_an_empty_image_beside_them_no_label(tmp_path):
    text = 'path,boxes\na.tif,"[[1,2,3,4,""x""],[5,6,7,8,"" y ""]]"\nb.tif,[]\n'
    first, second = read_manifest(write(tmp_path, text), labels=True)
    assert first.box_labels == ("x", "y")
    assert (second.label, second.boxes, second.box_labels) == (None, (), None)
    for other in ("b.tif,\n", 'b.tif,"[[1,2,3,4]]"\n'):
        with pytest.raises(ConfigError, match=r"m\.csv, line 3: no label; .* or of its boxes"):
            read_manifest(write(tmp_path, text.replace("b.tif,[]\n", other)), labels=True)
    with pytest.raises(
        ConfigError, match=r"m\.csv, line 2: no label"
    ):  # nothing says that classes are in boxes
        read_manifest(write(tmp_path, "path,label,boxes\na.tif,,[]\nb.tif,x,[]\n"), labels=True)


def test_a_geojson_that_many_rows_name_is_read_once_and_again_when_it_changes(tmp_path, monkeypatch):
    def write(side):
        corners = [[0, 0], [side, 0], [side, 5], [0, 5]]
        feature = {"geometry": {"type": "Polygon", "coordinates": [corners]}, "properties": {}}
        (tmp_path / "a.geojson").write_text(json.dumps({"features": [feature]}))

    asked = []
    load = boxes.json.loads
    monkeypatch.setattr(boxes.json, "loads", lambda text: asked.append(text) or load(text))
    write(7)
    windows = "".join(f"a.tif,x,{y},0,64,64,a.geojson\n" for y in range(5))
    (tmp_path / "m.csv").write_text("path,label,y,x,height,width,boxes\n" + windows)
    assert {e.boxes for e in read_manifest(tmp_path / "m.csv")} == {((0, 0, 5, 7),)}
    assert len(asked) == 1
    write(11)
    assert {e.boxes for e in read_manifest(tmp_path / "m.csv")} == {((0, 0, 5, 11),)}


def test_the_classes_of_a_geojson_count_where_the_row_has_no_label(tmp_path):
    square = {"type": "Polygon", "coordinates": [[[2, 1], [6, 1], [6, 4], [2, 4], [2, 1]]]}
    named = {"type": "Feature", "geometry": square, "properties": {"classification": {"name": "tumour"}}}
    plain = {"type": "Feature", "geometry": square, "properties": {"label": "stroma"}}
    (tmp_path / "a.geojson").write_text(json.dumps({"features": [named, plain]}))
    text = "path,label,boxes\na.tif,,a.geojson\nb.tif,x,a.geojson\n"
    first, second = read_manifest(write(tmp_path, text), labels=True)
    assert first.box_labels == ("tumour", "stroma")
    assert first.boxes == second.boxes == ((1, 2, 3, 4),) * 2
    assert second.box_labels is None
    (tmp_path / "a.geojson").write_text(json.dumps({"features": [named, {**plain, "properties": None}]}))
    with pytest.raises(
        ConfigError, match=r"line 2: .*feature 2 has no class, others have, and its row has no"
    ):
        read_manifest(write(tmp_path, text))
    tests = "path,label,split,boxes\na.tif,,test,a.geojson\n"
    assert read_manifest(write(tmp_path, tests))[0].box_labels is None
    for kind, name in (({"names": ["tumour", "Ki67"]}, "tumour: Ki67"), ("tumour", "tumour"), (None, None)):
        feature = {**named, "properties": {"classification": kind}}
        (tmp_path / "a.geojson").write_text(json.dumps([feature]))
        assert read_manifest(write(tmp_path, text))[0].box_labels == (name and (name,))
    with pytest.raises(
        ConfigError, match=r"line 2: no label; training needs the class of every image, or of its"
    ):
        read_manifest(write(tmp_path, text), labels=True)


# --- Parquet


def parquet(folder, columns, name="m.parquet"):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as files

    files.write_table(arrow.table(columns), folder / name)
    return folder / name


def test_a_parquet_file_gives_the_examples_that_a_csv_of_the_same_rows_gives(tmp_path):
    columns = {
        "slide_id": ["a.tif", "b.tif", "https://x/c.tif"],
        "label": ["tumour", None, "normal"],
        "fold": [0.0, 1.0, None],  # as pandas keeps whole numbers with a gap
        "split": [None, "", "test"],
        "y": [10, None, None],
        "x": [20, None, None],
        "height": [30.0, None, None],
        "width": [40, None, None],
        "boxes": [[[11, 21, 2, 3]], [], None],
        "patient": [7, 8, 9],
        "mpp": [0.25, float("nan"), None],
        "embedding": [[0.5] * 9] * 3,
    }
    found = read_manifest(parquet(tmp_path, columns), fold=0)
    text = (
        "slide_id,label,fold,split,y,x,height,width,boxes,patient,mpp\n"
        'a.tif,tumour,0,,10,20,30,40,"[[11,21,2,3]]",7,0.25\n'
        "b.tif,,1,,,,,,,8,\nhttps://x/c.tif,normal,,test,,,,,,9,\n"
    )
    assert found == read_manifest(write(tmp_path, text), fold=0)
    assert found[0].boxes == ((11, 21, 2, 3),)
    assert [e.split for e in found] == ["val", "train", "test"]


def test_lists_of_labels_in_parquet_are_several_labels(tmp_path):
    path = parquet(tmp_path, {"path": ["a", "b", "c"], "labels": [["x", "y"], [], None]}, "m.PQ")
    assert [e.label for e in read_manifest(path, labels=True)] == [("x", "y"), (), ()]


def test_errors_of_parquet_are_those_of_csv_and_name_the_row(tmp_path):
    path = parquet(tmp_path, {"path": ["a", "b"], "label": ["x", None]})
    with pytest.raises(ConfigError, match=r"m\.parquet, row 2: no label"):
        read_manifest(path, labels=True)
    with pytest.raises(ConfigError, match="no column 'path'; did you mean 'paths'"):
        read_manifest(parquet(tmp_path, {"paths": ["a"], "label": ["x"]}))
    path = parquet(tmp_path, {"path": ["a", "a"], "label": ["x", "x"], "split": ["train", "val"]})
    with pytest.raises(ConfigError, match=r"a is in split 'train' \(row 1\) and in split 'val' \(row 2\)"):
        read_manifest(path, labels=True)
    with pytest.raises(NotFoundError, match="no such manifest"):
        read_manifest(tmp_path / "absent.parquet")
    (tmp_path / "text.parquet").write_text("path,label\n")
    with pytest.raises(ConfigError, match=r"text\.parquet: not readable as Parquet"):
        read_manifest(tmp_path / "text.parquet")


def test_without_pyarrow_a_parquet_file_names_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "m.parquet").touch()
    with pytest.raises(BackendMissingError, match=r"pip install 'hiresattn\[parquet\]'"):
        read_manifest(tmp_path / "m.parquet")


def test_a_slides_name_may_lack_its_suffix_and_a_path_may_not(tmp_path):
    for name in ("TCGA.7.svs", "TCGA.7.json", "b.mrxs", "c.tif", "c.svs", "whole"):
        (tmp_path / name).touch()
    (tmp_path / "b").mkdir()
    (tmp_path / "d.zarr").mkdir()
    rows = "slide_id\nTCGA.7\nb\nd\nwhole\nabsent\nc.tif\n"
    names = ["TCGA.7.svs", "b.mrxs", "d.zarr", "whole", "absent", "c.tif"]
    assert [e.source for e in read_manifest(write(tmp_path, rows))] == [str(tmp_path / n) for n in names]
    assert read_manifest(write(tmp_path, "path\nTCGA.7\n"))[0].source == str(tmp_path / "TCGA.7")
    with pytest.raises(ConfigError, match=r"line 2: .*c may be .*c\.svs or .*c\.tif; give the name with"):
        read_manifest(write(tmp_path, "slide\nc\n"))


@pytest.mark.parametrize(
    ("properties", "moved"),
    [
        ({"objectType": "annotation"}, True),
        ({"classification": {"name": "x"}}, True),
        ({"label": "x"}, False),
        (None, False),
    ],
)
def test_boxes_of_qupath_count_from_the_scanned_part(tmp_path, properties, moved):
    write_scn(tmp_path / "a.scn")
    write_pyramid_tiff(tmp_path / "a.tif")
    ring = [[10, 20], [40, 20], [40, 60], [10, 60], [10, 20]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": properties,
    }
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    table = tmp_path / "table.csv"
    table.write_text("path,label,boxes\na.scn,x,a.geojson\na.tif,x,a.geojson\nabsent.scn,x,a.geojson\n")
    slide, other, absent = read_manifest(table)
    assert slide.boxes == (((420, 710, 40, 30),) if moved else ((20, 10, 40, 30),))
    assert other.boxes == absent.boxes == ((20, 10, 40, 30),)


def square(y, x, side, **properties):
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "properties": properties, "geometry": geometry}


@pytest.fixture
def scene(tmp_path):
    """A scene of 1000 x 1000 px of 10 m, and ``write``: features of (x, y) in a CRS, and the boxes read."""
    profile = {"driver": "GTiff", "width": 1000, "height": 1000, "count": 1, "dtype": "uint8"}
    with rasterio.open(
        tmp_path / "scene.tif",
        "w",
        crs="EPSG:32633",
        transform=Affine(10, 0, 500_000, 0, -10, 5_400_000),
        **profile,
    ):
        pass
    Image.new("L", (1000, 1000)).save(tmp_path / "plain.png")

    def read(features, image="scene.tif", **members):
        text = json.dumps({"type": "FeatureCollection", "features": features} | members)
        (tmp_path / "a.geojson").write_text(text)
        (tmp_path / "m.csv").write_text(f"path,label,boxes\n{image},x,a.geojson\n")
        return read_manifest(tmp_path / "m.csv")[0].boxes

    return read


def moved(feature, into):
    xs, ys = zip(*feature["geometry"]["coordinates"][0], strict=True)
    xs, ys = [500_000 + 10 * x for x in xs], [5_400_000 - 10 * y for y in ys]
    if into != "EPSG:32633":
        xs, ys = rasterio.warp.transform("EPSG:32633", into, xs, ys)
    corners = [list(point) for point in zip(xs, ys, strict=True)]
    return {**feature, "geometry": {"type": "Polygon", "coordinates": [corners]}}


def crs(name):
    return {"crs": {"type": "name", "properties": {"name": name}}}


def test_a_polygon_is_boxes_along_its_outline_and_keeps_its_class(scene):
    corners = [[0, 0], [400, 0], [400, 100], [100, 100], [100, 400], [0, 400], [0, 0]]
    bent = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [corners]}}
    apart = {
        "type": "MultiPolygon",
        "coordinates": [[corners], square(450, 450, 20)["geometry"]["coordinates"]],
    }
    wanted = ((0, 0, 100, 400), (100, 0, 300, 100))
    assert scene([bent]) == wanted
    assert scene([{**bent, "geometry": apart}]) == (*wanted, (450, 450, 20, 20))
    assert len(scene([moved(bent, "EPSG:4326")])) == 2
    line = {"type": "LineString", "coordinates": [[0, 0], [140, 0], [140, 30], [290, 30]]}
    assert scene([{**bent, "geometry": line}]) == ((0, 0, 30, 290),)
    both = {"type": "GeometryCollection", "geometries": [line, square(100, 200, 30)["geometry"]]}
    assert scene([{**bent, "geometry": both}]) == ((0, 0, 30, 290), (100, 200, 30, 30))


def test_a_geojson_in_degrees_or_map_coordinates_is_brought_to_px(scene):
    feature = square(200.5, 300.5, 40)
    assert scene([feature]) == ((200, 300, 41, 41),)  # px
    for into, members in (
        ("EPSG:4326", {}),
        ("EPSG:4326", crs("urn:ogc:def:crs:OGC:1.3:CRS84")),
        ("EPSG:32633", {}),
        ("EPSG:32633", crs("EPSG:32633")),
        ("EPSG:3857", crs("EPSG:3857")),
    ):
        (found,) = scene([moved(feature, into)], **members)
        assert np.allclose(found, (200, 300, 41, 41), atol=1), into


@pytest.mark.parametrize(
    ("features", "image", "members", "message"),
    [
        ([moved(square(0, 0, 9), "EPSG:4326")], "plain.png", {}, "look like longitude and latitude"),
        ([square(0, 0, 9)], "plain.png", crs("EPSG:4326"), "in EPSG:4326, and the image has no CRS"),
        ([moved(square(0, 9000, 9), "EPSG:4326")], "scene.tif", {}, "none of them lies on the image"),
        ([moved(square(0, 9000, 9), "EPSG:32633")], "scene.tif", {}, "none of them lies on the image"),
        ([square(0, 0, 9)], "scene.tif", crs("EPSG:4326"), "by their CRS EPSG:4326"),
        ([square(0, 0, 9)], "scene.tif", crs("EPSG:0"), "can't be brought from EPSG:0"),
    ],
)  # fmt: skip
def test_a_geojson_that_can_not_be_placed_is_refused(scene, features, image, members, message):
    with pytest.raises(ConfigError, match=message):
        scene(features, image, **members)


def test_px_of_an_image_without_a_crs_or_of_no_image_stay(scene):
    for image in ("plain.png", "absent.tif"):
        assert scene([square(10, 20, 30)], image) == ((10, 20, 30, 30),)


def test_ignored_classes_of_qupath_are_no_boxes(scene, caplog):
    ignored = square(1, 2, 50, objectType="annotation", classification={"name": "Ignore*"})
    tumor = square(100, 200, 30, objectType="annotation", classification={"name": "Tumor"})
    assert scene([ignored, tumor], "plain.png") == ((100, 200, 30, 30),)
    assert "a.geojson: left out 1 of 2 boxes: their classes end in *" in caplog.text
    assert scene([ignored], "plain.png") is None


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_header_says_what_separates_the_columns(tmp_path, separator):
    rows = [["path", "label", "note, or; more"], ["a,1.tif", "x; y", "0,5"], ["b.tif", "z", ""]]
    with (tmp_path / "m.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=separator).writerows(rows)
    found = read_manifest(tmp_path / "m.csv")
    assert [(Path(e.source).name, e.label) for e in found] == [("a,1.tif", "x; y"), ("b.tif", "z")]


def test_a_table_that_excel_wrote_is_read_as_it_is(tmp_path):
    text = "Path;Label;Case ID;Split;MPP\r\n007.svs;x;0012;Val;\r\n;;;;\r\n"
    with pytest.raises(ConfigError, match=r"line 2: split 'Val'.*did you mean 'val'"):
        read_manifest(write(tmp_path, text, encoding="utf-8-sig"))
    path = write(tmp_path, text.replace("Val", "val"), encoding="utf-8-sig")
    assert read_manifest(path) == [Example(str(tmp_path / "007.svs"), "x", "val", case="0012")]


@pytest.mark.parametrize("header", ["PATH,Label,Case-ID", " Path , LABEL , CaseId", "path,label,case id"])
def test_how_names_of_columns_are_written_does_not_count(tmp_path, header):
    path = write(tmp_path, f"{header}\na.tif,x,7\n")
    assert read_manifest(path) == [Example(str(tmp_path / "a.tif"), "x", case="7")]


def test_the_name_itself_wins_over_another_spelling_and_two_spellings_are_an_error(tmp_path):
    assert read_manifest(write(tmp_path, "path,Label,label\na.tif,1,x\n"))[0].label == "x"
    for header in ("path,Label,LABEL", "path,label,label"):
        with pytest.raises(
            ConfigError, match=r"the columns '.*' and '.*' both mean 'label'; rename or remove"
        ):
            read_manifest(write(tmp_path, f"{header}\na.tif,1,x\n"))


@pytest.mark.parametrize("name", ["diagnosis", "Diagnosis ", "Label"])
def test_a_column_may_be_named_that_holds_the_label(tmp_path, name):
    path = write(tmp_path, "path,Diagnosis,label\na.tif,x|y,z\n")
    label = "z" if name == "Label" else "x|y"
    assert read_manifest(path, label_column=name)[0].label == label
    several = ("z",) if name == "Label" else ("x", "y")
    assert read_manifest(path, label_column=name, multi=True)[0].label == several
    with pytest.raises(ConfigError, match="no column 'diagnose'; did you mean 'Diagnosis'"):
        read_manifest(path, label_column="diagnose")


def test_paths_may_be_relative_to_another_folder_and_boxes_stay_beside_the_manifest(tmp_path):
    (tmp_path / "slides").mkdir()
    (tmp_path / "b.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    path = write(tmp_path, "path,boxes\nx/a.tif,b.geojson\n/data/b.tif,\ns3://b/c.tif,\n")
    found = read_manifest(path, root=tmp_path / "slides")
    assert [e.source for e in found] == [str(tmp_path / "slides/x/a.tif"), "/data/b.tif", "s3://b/c.tif"]
    assert found[0].boxes == ()
    with pytest.raises(NotFoundError, match="absent: no such folder; root is"):
        read_manifest(path, root=tmp_path / "absent")


def test_a_spreadsheet_and_backslashes_are_named(tmp_path):
    path = write(tmp_path, "PK", name="m.xlsx")
    with pytest.raises(ConfigError, match=r"a spreadsheet \(.xlsx\) is not read; save it as CSV"):
        read_manifest(path)
    if os.sep == "/":
        path = write(tmp_path, "path,label\nslides\\a.svs,x\n")
        with pytest.raises(ConfigError, match=r"line 2: slides\\a.svs has backslashes.*; write slides/a.svs"):
            read_manifest(path)
        (tmp_path / "slides\\a.svs").touch()
        assert read_manifest(path)[0].source.endswith("slides\\a.svs")


def test_a_text_that_a_spreadsheet_would_run_is_written_as_text_and_read_as_it_was(tmp_path):
    names = ["=1+1", "+x", "-y", "@z", "'=q", "'plain", "-1.5", "a=b"]
    examples = [Example(str(tmp_path / f"{name}.tif"), name, group=name) for name in names]
    write_manifest(tmp_path / "m.csv", examples)
    rows = list(csv.reader((tmp_path / "m.csv").read_text().splitlines()))[1:]
    for cell in (cell for row in rows for cell in row):
        assert cell in ("", "-1.5") or cell[0] not in "=+-@"
    assert read_manifest(tmp_path / "m.csv") == examples
