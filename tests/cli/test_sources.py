"""Which sources words mean."""

import io

import click
import pytest

from hiresattn.errors import ConfigError, NotFoundError
from hiresattn.manifest import Example
from hiresattn_cli.sources import expand_sources


@pytest.fixture
def folder(tmp_path):
    names = [
        "b.tif",
        "a.svs",
        "notes.md",
        ".hidden.png",
        "deep/c.JPG",
        "slide.zarr/zarr.json",
        "slide.zarr/x.png",
    ]
    for name in names:
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "images"


def test_a_folder_is_its_images_in_order_and_a_zarr_is_one_image(folder):
    found = expand_sources([str(folder)], None)
    assert found == [str(folder / name) for name in ("a.svs", "b.tif", "slide.zarr", "deep/c.JPG")]


def test_a_zarr_is_one_image_also_without_its_suffix(folder):
    (folder / "slide.zarr").rename(folder / "plain")
    assert expand_sources([str(folder / "plain")], None) == [str(folder / "plain")]


def test_a_quoted_glob_is_expanded_and_one_that_matches_nothing_is_an_error(folder):
    assert expand_sources([f"{folder}/**/*.[Jt]*"], None) == [
        str(folder / "b.tif"),
        str(folder / "deep/c.JPG"),
    ]
    with pytest.raises(ConfigError, match="no file matches"):
        expand_sources([f"{folder}/*.ndpi"], None)


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path):
    path = tmp_path / "scan[1].tif"
    path.touch()
    assert expand_sources([str(path)], None) == [str(path)]


def test_a_folder_without_images_says_so(tmp_path):
    with pytest.raises(ConfigError, match="no image in it, and no Zarr"):
        expand_sources([str(tmp_path)], None)


def test_stdin_gives_one_path_per_line(monkeypatch, folder):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{folder}/a.svs\n\nwith space.tif\n"))
    assert expand_sources(["-"], None) == [f"{folder}/a.svs", "with space.tif"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    with pytest.raises(ConfigError, match="stdin"):
        expand_sources(["-"], None)


def test_urls_and_absent_paths_are_left_to_the_reader():
    words = ["https://example.org/a*.tif?x=1", "/vsicurl/b.tif", "absent.tif"]
    assert expand_sources(words, None) == words


def test_a_manifest_becomes_examples_of_the_split(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("path,label,split\na.tif,x,train\nb.tif,y,test\n")
    assert len(expand_sources([str(path)], None)) == 2
    assert expand_sources([str(path)], "test") == [Example(str(tmp_path / "b.tif"), "y", "test")]
    with pytest.raises(ConfigError, match="no rows of split 'val'; it has test, train"):
        expand_sources([str(path)], "val")


def test_split_without_a_manifest_is_wrong_usage_and_an_absent_manifest_an_error(tmp_path):
    with pytest.raises(click.UsageError, match="--split"):
        expand_sources(["a.tif"], "test")
    with pytest.raises(NotFoundError):
        expand_sources([str(tmp_path / "absent.csv")], None)
