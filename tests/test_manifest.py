"""Manifests: rows become examples; what can't be used is named with its line."""

import csv

import pytest

from hiresattn.errors import ConfigError, HiresattnError, NotFoundError
from hiresattn.manifest import Example, read_manifest


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
    monkeypatch.setattr("hiresattn.manifest._LONGEST", 100)
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


@pytest.mark.parametrize("column", ["group", "case_id", "patient"])
def test_a_group_is_what_rows_belong_to(tmp_path, column):
    path = write(tmp_path, f"path,label,{column}\na.tif,x,7\nb.tif,y,\n")
    assert [e.group for e in read_manifest(path)] == ["7", None]


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
