"""Feature stores: what is written is read, in both formats, and what other tools wrote."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest

from hiresattn.datasets.feature_files import FeatureFiles, feature_file
from hiresattn.datasets.features import FORMATS, Features, read_facts, read_features, write_features
from hiresattn.errors import BackendMissingError, NotFoundError, ReadError

h5py = pytest.importorskip("h5py")


def features(count=5, width=3):
    vectors = np.arange(count * width, dtype=np.float16).reshape(count, width)
    corners = np.stack([10 * np.arange(count), 7 * np.arange(count)], 1)
    regions = np.concatenate([corners, np.full((count, 2), 64)], 1).astype(np.int64)
    return Features(
        vectors, regions, {"source": "a/slide.svs", "side": 64, "size": 32, "mpp": None, "width": 900}
    )


@pytest.mark.parametrize("form", ["zarr", "h5"])
@pytest.mark.parametrize("count", [5, 0])
def test_what_is_written_is_read(tmp_path, form, count):
    path = feature_file(tmp_path, "a/slide.svs", form)
    write_features(path, features(count))
    write_features(path, features(count))  # in its place
    found = read_features(path)
    assert found.vectors.dtype == np.float16
    assert np.array_equal(found.vectors, features(count).vectors)
    assert np.array_equal(found.regions, features(count).regions)
    assert (found.facts["source"], found.facts["side"], found.facts["width"]) == ("a/slide.svs", 64, 900)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_hdf5_has_x_before_y_and_the_attributes_that_clam_and_trident_read(tmp_path):
    write_features(tmp_path / "slide.h5", features())
    with h5py.File(tmp_path / "slide.h5") as file:
        assert file["features"].shape == (5, 3)
        assert file["coords"][:].tolist() == [[7 * n, 10 * n] for n in range(5)]
        attributes = dict(file["coords"].attrs)
    assert (attributes["patch_size_level0"], attributes["patch_size"], attributes["name"]) == (
        64,
        32,
        "slide",
    )


@pytest.mark.parametrize("form", ["zarr", "h5"])
def test_facts_are_the_json_types_that_were_written(tmp_path, form):
    facts = {
        "source": "/a/slide.svs", "encoder": "uni", "tissue": True, "side": 64, "size": 32, "mpp": 0.25,
        "bands": [1, 2, 3], "low": [0.5, 1.0, 2.0], "high": [3.5, 4.0, 5.0], "scaling": [1.0], "asked": "0.5 µm/px",
    }  # fmt: skip
    for given in (facts, facts | {"bands": ["red", "nir"], "tissue": False}):
        path = tmp_path / f"slide{FORMATS[form]}"
        write_features(path, replace(features(), facts=given))
        for found in (read_features(path).facts, read_facts(path)):
            known = {name: found[name] for name in given}
            assert json.loads(json.dumps(known)) == known == given
            assert {name: type(value) for name, value in known.items()} == {
                n: type(v) for n, v in given.items()
            }


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("name", ["patch_size_level0", "patch_size"])
def test_files_of_other_tools_are_read(tmp_path, batched, name):
    vectors = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    with h5py.File(tmp_path / "slide.h5", "w") as file:
        file["features"] = vectors[None] if batched else vectors
        file["coords"] = np.array([[0, 256], [256, 0], [512, 0], [0, 0]])
        file["coords"].attrs[name] = 256
    found = read_features(FeatureFiles(tmp_path, ["elsewhere/slide.svs"]).of("elsewhere/slide.svs"))
    assert np.allclose(found.vectors, vectors, atol=0.01)
    assert found.regions[0].tolist() == [256, 0, 256, 256]
    assert found.facts["side"] == 256


@pytest.mark.parametrize("form", ["zarr", "h5"])
def test_damage_is_an_error_that_names_the_file(tmp_path, form):
    path = feature_file(tmp_path, "slide.svs", form)
    with pytest.raises(NotFoundError):
        read_features(path)
    bad = features()
    bad.vectors[2, 1] = np.nan
    write_features(path, bad)
    with pytest.raises(ReadError, match=r"slide-.*not finite"):
        read_features(path)
    write_features(path, features())
    if form == "h5":
        path.write_bytes(path.read_bytes()[:600])
    else:
        shutil.rmtree(path / "features")
    with pytest.raises(ReadError, match=r"slide-.*extract them anew"):
        read_features(path)


@pytest.mark.parametrize(
    ("attributes", "side"),
    [
        ({"patch_size": 256, "patch_level": 1, "downsample": np.array([4.0, 4.0])}, 1024),
        ({"patch_size": 256, "patch_level": 1, "downsample": 4}, 1024),
        ({"patch_size": 256, "patch_level": 0, "downsample": (1.0, 1.0)}, 256),
        ({"patch_size": 256, "patch_level": 0}, 256),
        ({"patch_size": 256, "patch_level": 2}, None),
        ({"patch_size": 256, "target_magnification": 20, "level0_magnification": 40}, 512),
        ({"patch_size": 256, "patch_size_level0": 512, "target_magnification": 20}, 512),
        ({}, None),
    ],
)
def test_the_side_of_other_tools_patches_is_in_level_0_px(tmp_path, attributes, side):
    with h5py.File(tmp_path / "slide.h5", "w") as file:
        file["features"] = np.zeros((2, 3), np.float32)
        file["coords"] = np.array([[0, 0], [256, 0]])
        file["coords"].attrs.update(attributes)
    if side is None:
        with pytest.raises(ReadError, match=r"don't say the side of a patch.*finest=256"):
            read_features(tmp_path / "slide.h5")
    found = read_features(tmp_path / "slide.h5", 300)
    assert found.facts["side"] == (side or 300)
    assert found.regions[1].tolist() == [0, 256, side or 300, side or 300]


def test_hdf5_without_a_patch_size_or_with_other_rows_is_refused(tmp_path):
    for name, rows in (("a", 4), ("b", 3)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["features"] = np.zeros((4, 2), np.float32)
            file["coords"] = np.zeros((rows, 2), np.int64)
            if name == "b":
                file["coords"].attrs["patch_size"] = 8
    with pytest.raises(ReadError, match=r"a\.h5: its coords don't say the side of a patch"):
        read_features(tmp_path / "a.h5")
    with pytest.raises(ReadError, match=r"b\.h5: features \[4, 2\] and coordinates \[3, 4\]"):
        read_features(tmp_path / "b.h5")


def test_without_h5py_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(BackendMissingError, match=r"hiresattn\[hdf5\]"):
        write_features(tmp_path / "slide.h5", features())
