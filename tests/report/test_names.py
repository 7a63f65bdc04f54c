"""Names of files that belong to images: no two alike, and the same for the same images."""

import pytest

from hiresattn.report.names import case_names, unique_names


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        ([], []),
        (["/a/1.svs", "/a/2.svs"], ["1.svs", "2.svs"]),
        (["/a/1.svs", "/b/1.svs", "/b/2.svs"], ["a_1.svs", "b_1.svs", "2.svs"]),
        (["/x/a/1.svs", "/y/a/1.svs"], ["x_a_1.svs", "y_a_1.svs"]),
        (["1.svs", "1.svs"], ["1.svs", "1.svs-2"]),
        (["a/1.svs", "a_1.svs", "1.svs"], ["a_1.svs", "a_1.svs-2", "1.svs"]),
        (["a.SVS", "b/A.svs"], ["a.SVS", "b_A.svs"]),
        (["https://h/x.tif?token=/secret/a", "../y"], ["x.tif", "y"]),
        (["a/1?.svs", "b/1#2.svs"], ["1?.svs", "1#2.svs"]),
        (["/", ""], ["image", "image-2"]),
    ],
)
def test_names(sources, names):
    assert unique_names(sources) == names


def test_every_record_has_an_identifier():
    window = (0, 8, 64, 64)
    records = [
        (None, "/a/1.svs", None),
        (None, "/b/1.svs", None),
        (None, "/b/2.ome.tif", window),
        (None, "/b/3.svs", None),
        (None, "/b/3.tif", None),
        ("P1", "P1", None),
        (None, "/c/P1.svs", None),
        (None, "image-7", None),
        (None, "TCGA-01.5f.svs", None),
    ]
    assert case_names(records) == [
        "a_1", "b_1", "2_0_8_64_64", "3.svs", "3.tif", "P1", "P1-2", "image-7", "TCGA-01.5f"
    ]  # fmt: skip
