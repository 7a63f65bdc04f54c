"""Manifests that are written are read as the same examples."""

import numpy as np
import pytest

from hiresattn.datasets.example import Example
from hiresattn.datasets.manifest import read_manifest
from hiresattn.datasets.write import write_manifest
from hiresattn.errors import ConfigError


@pytest.mark.parametrize(
    "labels", [("sea", "land", None), (("sea", "land"), (), ("land",))], ids=["one label", "several"]
)
def test_what_is_written_is_read_again(tmp_path, labels):
    examples = [
        Example(str(tmp_path / "a.tif"), labels[0], "train", (0, 1, 8, 9), boxes=((1, 2, 3, 4),)),
        Example(str(tmp_path / "x, y.tif"), labels[1], "val", boxes=(), group="7", mpp=0.25),
        Example("https://host/b.tif", labels[2], "test", boxes=((0, 0, 2, 2),), box_labels=("sea",)),
    ]
    write_manifest(tmp_path / "m.csv", examples)
    assert read_manifest(tmp_path / "m.csv", multi=isinstance(labels[0], tuple)) == examples


def test_a_folder_that_is_not_there_and_an_array_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="there is no folder"):
        write_manifest(tmp_path / "absent" / "m.csv", [])
    with pytest.raises(ConfigError, match="ndarray has no path"):
        write_manifest(tmp_path / "m.csv", [Example(np.zeros((8, 8)))])
    assert list(tmp_path.iterdir()) == []
