"""The fMoW benchmark from end to end on a small synthetic tree."""

import pytest

import fmow_protocols
from scenes import fmow_tree


@pytest.mark.slow
def test_both_protocols_run_from_a_tree_to_a_table(tmp_path):
    tree = fmow_tree.write_tree(
        tmp_path / "fmow-rgb", places=4
    )  # of three, all of the zoos in train are odd ones
    training = "--epochs 1 --k 0 --crop-size 32 --threads 1"
    reports = fmow_protocols.measure(
        tree.root, tmp_path, (training, training), "--threads 1 --budget 4", None
    )
    tests, vals = (len(list((tree.root / split).rglob("*_rgb.jpg"))) for split in ("test", "val"))
    rows = {name: (found["letter"], found["rows"], found["formats"]) for name, found in reports.items()}
    assert rows == {
        "B, JPEG": ("B", tests, {".jpg": tests}),
        "B, COG": ("B", tests, {".tif": tests}),
        "C, JPEG": ("C", vals, {".jpg": vals}),
    }
    for found in reports.values():
        assert found["rows"] == found["of"] == sum(bucket["rows"] for bucket in found["buckets"])
        assert found["overall"]["failed"] == 0
        assert found["overall"]["decode_ms"] > 0
        assert found["overall"]["model_ms"] > 0
    assert len(fmow_protocols.table(reports).splitlines()) == 1 + sum(
        len(found["buckets"]) + 1 for found in reports.values()
    )


def test_the_generator_makes_the_same_tree_from_the_same_seed(tmp_path):
    made = [fmow_tree.write_tree(tmp_path / name, places=1, seed=3, archive=False).root for name in "ab"]
    files = [{p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()} for root in made]
    assert files[0] == files[1]
    assert files[0]
