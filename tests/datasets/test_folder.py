"""Folders as data sets: splits from folders or from a hash of names; what is laid out wrongly is named."""

from collections import Counter

import numpy as np
import pytest
import zarr
from PIL import Image

from hiresattn.datasets.folder import read_examples, read_folder
from hiresattn.datasets.sources import sources_of
from hiresattn.errors import ConfigError, NotFoundError


def fill(root, layout):
    """Make files; those of an image format are tiny images, ``*.zarr`` an array."""
    for name in layout:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir()
        elif name.endswith(".zarr"):
            zarr.save_array(str(path), np.zeros((8, 8, 3), np.uint8))
        elif path.suffix in (".png", ".tif", ".jpg"):
            Image.new("RGB", (8, 8)).save(path)
        else:
            path.touch()
    return root


def test_folders_of_splits_hold_a_folder_per_class_and_every_format_counts(tmp_path):
    root = fill(
        tmp_path,
        [
            *("train/a/1.png", "train/a/deep/2.tif", "train/a/3.zarr", "train/b/1.jpg", "train/b/notes.txt"),
            *("val/a/1.png", "test/b/1.png", "test/b/.hidden.png", "README.md", ".git/x/1.png"),
        ],
    )
    found = [(e.source.removeprefix(f"{root}/"), e.label, e.split) for e in read_folder(root)]
    assert found == [
        ("train/a/1.png", "a", "train"),
        ("train/a/3.zarr", "a", "train"),
        ("train/a/deep/2.tif", "a", "train"),
        ("train/b/1.jpg", "b", "train"),
        ("val/a/1.png", "a", "val"),
        ("test/b/1.png", "b", "test"),
    ]


def test_a_folder_without_splits_is_split_within_each_class_alike_each_time(tmp_path):
    fill(tmp_path, [f"{name}/{i}.png" for name, count in (("a", 20), ("b", 40)) for i in range(count)])
    found = read_folder(tmp_path)
    assert Counter((e.label, e.split) for e in found) == {
        ("a", "train"): 14, ("a", "val"): 3, ("a", "test"): 3,
        ("b", "train"): 28, ("b", "val"): 6, ("b", "test"): 6,
    }  # fmt: skip
    assert found == read_folder(tmp_path)
    assert found != read_folder(tmp_path, seed=1)
    moved = tmp_path.rename(tmp_path.parent / "elsewhere")
    assert [e.split for e in read_folder(moved)] == [e.split for e in found]


def test_another_image_moves_few_others_to_another_split(tmp_path):
    fill(tmp_path, [f"a/{i}.png" for i in range(100)] + ["b/0.png"])
    before = {e.source: e.split for e in read_folder(tmp_path)}
    fill(tmp_path, ["a/new.png"])
    moved = [e for e in read_folder(tmp_path) if before.get(e.source, e.split) != e.split]
    assert len(moved) <= 2


def test_a_class_with_one_image_is_trained_on_and_of_two_one_validates(tmp_path):
    fill(tmp_path, ["one/1.png", "two/1.png", "two/2.png", "three/1.png", "three/2.png", "three/3.png"])
    splits = {}
    for example in read_folder(tmp_path):
        splits.setdefault(example.label, []).append(example.split)
    assert {name: sorted(found) for name, found in splits.items()} == {
        "one": ["train"],
        "two": ["train", "val"],
        "three": ["test", "train", "val"],
    }


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        (["1.png"], "no folders in it|1.png: an image outside of the folders"),
        (["notes.txt"], "no folders in it; the images of each class belong into a folder named after it"),
        (["a/1.png", "b/1.png", "2.png"], r"2\.png: an image outside of the folders"),
        (["train/1.png", "train/a/1.png"], r"train/1\.png: an image outside of the folders"),
        (["a/1.png", "b/notes.txt"], "b: a class without an image; images end in .*png"),
        (["train/a/1.png", "train/b/1.png", "val/a/"], "val/a: a class without an image"),
        (
            ["train/a/1.png", "trial/a/1.png"],
            "trial: none of the splits train, val, test; did you mean 'train'",
        ),
        (["train/a/1.png", "validation/a/1.png"], "validation: none of the splits .*did you mean 'val'"),
        (["training/a/1.png", "valid/a/1.png"], "training: none of the splits .*did you mean 'train'"),
        (
            ["train/tumour/1.png", "val/tumor/1.png"],
            "val/tumor: no such class in 'train'; did you mean 'tumour'",
        ),
        (["val/a/1.png", "test/a/1.png"], "no folder 'train' beside val, test"),
    ],
)
def test_a_folder_that_is_laid_out_otherwise_is_an_error_that_names_what(tmp_path, layout, says):
    with pytest.raises(ConfigError, match=says) as caught:
        read_folder(fill(tmp_path, layout))
    assert str(tmp_path) in str(caught.value)


def test_classes_may_have_names_like_splits_and_folders_in_them(tmp_path):
    fill(tmp_path, ["rain/2019/1.png", "rain/2020/1.png", "snow/1.png"])
    assert {e.label for e in read_folder(tmp_path)} == {"rain", "snow"}


def test_a_zarr_is_one_image_and_no_folder_of_classes(tmp_path):
    with pytest.raises(ConfigError, match="a Zarr directory is one image"):
        read_folder(fill(tmp_path, ["x.zarr"]) / "x.zarr")


def test_a_folder_to_evaluate_needs_no_training_images(tmp_path):
    fill(tmp_path, ["test/a/1.png"])
    assert [e.split for e in read_examples(tmp_path)] == ["test"]
    with pytest.raises(ConfigError, match="no folder 'train' beside test"):
        read_examples(tmp_path, labels=True)


def test_a_folder_can_say_neither_folds_nor_several_labels_and_a_file_is_a_manifest(tmp_path):
    fill(tmp_path, ["a/1.png"])
    with pytest.raises(ConfigError, match="a folder, which can't say fold 1; give a manifest"):
        read_examples(tmp_path, fold=1)
    with pytest.raises(ConfigError, match="can't say several labels per image"):
        read_examples(tmp_path, multi=True)
    with pytest.raises(ConfigError, match="root and label_column are for a manifest"):
        read_examples(tmp_path, label_column="diagnosis")
    (tmp_path / "m.csv").write_text("path,label\na/1.png,x\n")
    assert [e.label for e in read_examples(tmp_path / "m.csv")] == ["x"]
    with pytest.raises(NotFoundError, match="no such manifest"):
        read_examples(tmp_path / "absent")


def test_the_files_that_an_index_names_are_parts_of_its_slide(tmp_path):
    (tmp_path / "slide.vms").write_text(
        "[Virtual Microscope Specimen]\nNoLayers=1\nImageFile=slide.jpg\nImageFile(1,0)=slide(1,0).jpg\n"
        "MapFile=slide_map2.jpg\nMacroImage=slide_macro.jpg\n"
    )
    for name in ("slide.jpg", "slide(1,0).jpg", "slide_map2.jpg", "slide_macro.jpg", "photo.jpg"):
        (tmp_path / name).touch()
    expected = [str(tmp_path / name) for name in ("photo.jpg", "slide.vms")]
    assert list(sources_of(str(tmp_path))) == list(sources_of(str(tmp_path / "*"))) == expected
