"""Names of files that belong to images: no two alike, and the same for the same images."""

import pytest

from hiresattn.report.names import unique_names


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
        (["/", ""], ["image", "image-2"]),
    ],
)
def test_names(sources, names):
    assert unique_names(sources) == names
