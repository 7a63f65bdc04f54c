"""Manifests: rows become examples; what can't be used is named with its line."""

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
    path = write(tmp_path, "path,patient,label\na.tif,7,x\n", encoding="utf-8-sig")
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
        ("path,y,x,height,width\na.tif,1,2,3\n", "line 2: .*whole numbers"),
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
