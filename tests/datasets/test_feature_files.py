"""Which file of features is an image's: by its path, else by its name, and never another image's."""

import shutil

import numpy as np
import pytest

from hiresattn.datasets.feature_files import FeatureFiles, feature_file
from hiresattn.datasets.features import Features, write_features
from hiresattn.errors import ConfigError, NotFoundError

h5py = pytest.importorskip("h5py")


def find_features(folder, source):
    """The features of the only image of a table."""
    return FeatureFiles(folder, [source]).of(source)


def keep(path, source):
    """Write features that say which image they are of."""
    path.parent.mkdir(exist_ok=True)
    write_features(
        path, Features(np.zeros((1, 2), np.float16), np.array([[0, 0, 8, 8]]), {"source": source, "side": 8})
    )
    return path


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"image")
    return str(path)


def test_the_features_of_an_image_are_found_by_its_path_else_by_its_stem(tmp_path):
    for folder in ("a", "b"):
        keep(feature_file(tmp_path, f"{folder}/slide.svs"), "a/slide.svs")
    assert find_features(tmp_path, "a/slide.svs") == feature_file(tmp_path, "a/slide.svs")
    with pytest.raises(NotFoundError, match=r"c/slide\.svs: 2 files of features .* none its path"):
        find_features(tmp_path, "c/slide.svs")
    shutil.rmtree(feature_file(tmp_path, "a/slide.svs"))
    assert find_features(tmp_path, "c/slide.svs") == feature_file(tmp_path, "b/slide.svs")
    with pytest.raises(NotFoundError, match=r"other\.svs: no features of it in .*hiresattn extract"):
        find_features(tmp_path, "other.svs")


@pytest.mark.parametrize("form", ["zarr", "h5"])
def test_the_features_of_another_image_of_the_table_are_not_taken_by_name(tmp_path, form):
    one, two = (image(tmp_path / folder / "i.tif") for folder in "ab")
    path = keep(feature_file(tmp_path / "f", one, form), one)
    files = FeatureFiles(tmp_path / "f", [two, one])
    with pytest.raises(NotFoundError, match=rf"{two}: no features of it .* is of {one}, another image"):
        files.of(two)
    assert files.of(one) == path
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(NotFoundError, match="another image"):  # by the hash, wherever they are
        files.of(two)


def test_the_features_of_an_image_that_is_still_elsewhere_are_not_taken_by_name(tmp_path):
    one, two = (image(tmp_path / folder / "i.tif") for folder in "ab")
    path = keep(feature_file(tmp_path / "f", one), one)
    with pytest.raises(NotFoundError, match=rf"is of {one}, another image"):
        find_features(tmp_path / "f", two)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert find_features(tmp_path / "f", str(tmp_path / "link" / "i.tif")) == path


@pytest.mark.parametrize("there", [True, False])
def test_the_features_of_images_whose_folder_was_moved_are_found_by_name_and_folders(tmp_path, there):
    paths = {}
    for folder in "ab":
        paths[folder] = image(tmp_path / "old" / folder / "i.tif")
        keep(feature_file(tmp_path / "f", paths[folder]), paths[folder])
    (tmp_path / "new" / "place").mkdir(parents=True)
    shutil.move(tmp_path / "old", tmp_path / "new" / "place" / "moved")
    if not there:
        shutil.rmtree(tmp_path / "new")
    table = [str(tmp_path / "new" / "place" / "moved" / folder / "i.tif") for folder in "ab"]
    files = FeatureFiles(tmp_path / "f", table)
    assert [files.of(name) for name in table] == [
        feature_file(tmp_path / "f", paths[folder]) for folder in "ab"
    ]


def test_features_of_an_image_of_another_suffix_are_not_taken(tmp_path):
    keep(feature_file(tmp_path, "/gone/i.svs"), "/gone/i.svs")
    with pytest.raises(NotFoundError, match=r"is of /gone/i\.svs"):
        find_features(tmp_path, "/here/i.tif")


def test_one_file_for_two_images_of_a_table_is_an_error_that_names_both(tmp_path):
    with h5py.File(tmp_path / "i.h5", "w") as file:
        file["features"], file["coords"] = np.zeros((1, 2)), np.zeros((1, 2), np.int64)
    files = FeatureFiles(tmp_path, ["a/i.svs", "b/i.svs"])
    assert files.of("a/i.svs") == files.of("a/i.svs") == tmp_path / "i.h5"  # windows of one image
    with pytest.raises(ConfigError, match=r"i\.h5: .* two images, a/i\.svs and b/i\.svs"):
        files.of("b/i.svs")


def test_features_in_both_formats_are_refused(tmp_path):
    for form in ("zarr", "h5"):
        keep(feature_file(tmp_path, "i.svs", form), "i.svs")
    with pytest.raises(NotFoundError, match=r"there twice, as i-\w+\.zarr and i-\w+\.h5; remove one"):
        find_features(tmp_path, "i.svs")


def test_a_name_that_ends_like_a_hash_is_a_name(tmp_path):
    with h5py.File(tmp_path / "i-00c0ffee.h5", "w") as file:
        file["features"], file["coords"] = np.zeros((1, 2)), np.zeros((1, 2), np.int64)
    assert find_features(tmp_path, "i-00c0ffee.svs") == tmp_path / "i-00c0ffee.h5"
    with pytest.raises(NotFoundError, match="is of i-00c0ffee, another image"):
        find_features(tmp_path, "i.svs")
