"""Which sources words mean."""

import io
import os

import click
import pytest

from hiresattn.datasets.example import Example
from hiresattn.datasets.sources import Unusable
from hiresattn_cli.sources import expand_sources


def unusable(word, split=None):
    """What is wrong with a word that names nothing."""
    found = expand_sources(["before.tif", word, "after.tif"], split)
    assert (found[0], found[1].source, found[2]) == ("before.tif", word, "after.tif")
    return found[1].error


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
    found = expand_sources([str(folder)])
    assert found == [str(folder / name) for name in ("a.svs", "b.tif", "slide.zarr", "deep/c.JPG")]


def test_a_zarr_is_one_image_also_without_its_suffix(folder):
    (folder / "slide.zarr").rename(folder / "plain")
    assert expand_sources([str(folder / "plain")]) == [str(folder / "plain")]


def test_a_quoted_glob_is_expanded_and_one_that_matches_nothing_is_unusable(folder):
    assert expand_sources([f"{folder}/**/*.[Jt]*"]) == [str(folder / "b.tif"), str(folder / "deep/c.JPG")]
    assert "no file matches" in unusable(f"{folder}/*.ndpi")


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path):
    path = tmp_path / "scan[1].tif"
    path.touch()
    assert expand_sources([str(path)]) == [str(path)]


@pytest.mark.parametrize("name", ["a.bmp", "b.GIF", "c.JPEG", "d.vrt", "e.jp2", "f.dcm", "g.btf"])
def test_a_folder_is_searched_for_every_format_that_can_be_read(tmp_path, name):
    (tmp_path / name).touch()
    assert expand_sources([str(tmp_path)]) == [str(tmp_path / name)]


def test_a_folder_without_images_says_so(tmp_path):
    assert "no image in it, and no Zarr" in unusable(str(tmp_path))


def test_a_folder_that_cant_be_listed_is_told_and_the_rest_is_found(folder, monkeypatch):
    walk = os.walk

    def fails(top, onerror):
        yield from walk(top)
        onerror(PermissionError(13, "Permission denied", f"{top}/locked"))

    monkeypatch.setattr("os.walk", fails)
    found = expand_sources([str(folder)])
    assert len(found) == 5
    assert found[-1].source == f"{folder}/locked"
    assert "can't be read (Permission denied)" in found[-1].error


def test_names_that_cant_be_looked_up_are_unusable_and_cost_no_other(tmp_path):
    (tmp_path / "loop.tif").symlink_to("loop.tif")
    words = ["a.tif", "x" * 300, "nul\0.tif", str(tmp_path / "loop.tif"), "b.tif"]
    found = expand_sources(words)
    assert [getattr(source, "source", source) for source in found] == words
    assert [isinstance(source, Unusable) for source in found] == [False, True, True, True, False]
    manifest = tmp_path / "m.csv"
    manifest.write_text(f"path,label,y,x,height,width\na.tif,x,,,,\n/{'y' * 300},z,1,2,3,4\n")
    good, bad = expand_sources([str(manifest)])
    assert good.label == "x"
    assert (bad.source, bad.label, bad.region) == ("/" + "y" * 300, "z", (1, 2, 3, 4))


def test_stdin_gives_one_path_per_line_whatever_its_encoding(monkeypatch, folder):
    def stdin(content):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content), encoding="ascii"))

    stdin(os.fsencode(f"{folder}/a.svs\n\nwith space.tif\r\n") + b"gr\xc3\xb6\xff.tif")
    assert expand_sources(["-"]) == [f"{folder}/a.svs", "with space.tif", "grö\udcff.tif"]
    stdin(b"\n")
    with pytest.raises(click.UsageError, match="stdin"):
        expand_sources(["-"])


def test_urls_and_absent_paths_are_left_to_the_reader():
    words = ["https://example.org/a*.tif?x=1", "/vsicurl/b.tif", "absent.tif"]
    assert expand_sources(words) == words


def test_a_manifest_becomes_examples_of_the_split(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("path,label,split\na.tif,x,train\nb.tif,y,test\n")
    assert len(expand_sources([str(path)])) == 2
    assert expand_sources([str(path)], "test") == [Example(str(tmp_path / "b.tif"), "y", "test")]
    assert "no rows of split 'val'; it has test, train" in unusable(str(path), "val")


def test_split_without_a_manifest_is_wrong_usage_and_an_absent_manifest_unusable(tmp_path):
    with pytest.raises(click.UsageError, match="--split"):
        expand_sources(["a.tif"], "test")
    assert "no such manifest" in unusable(str(tmp_path / "absent.csv"), "test")
    (tmp_path / "bad.csv").write_text("file\na.tif\n")
    assert "no column 'path'" in unusable(str(tmp_path / "bad.csv"))


def test_what_is_remote_is_what_the_reader_says(monkeypatch):
    monkeypatch.setattr("hiresattn.files.REMOTE", ("far:",))
    assert expand_sources(["far:a*.csv"]) == ["far:a*.csv"]
    assert "no file matches" in unusable("https://example.org/*.tif")
