"""Slides by what a table calls them: found, or not, and never guessed."""

import unicodedata

import pytest

from hiresattn.datasets.join import Names, SlideNames, slides_in
from hiresattn.errors import ConfigError, NotFoundError

UUID = "83fce43e-42ac-4dcd-b156-2908e75f2e47"
FILES = (
    "a/P1-2.svs",
    "a/twice.tif",
    "b/twice.tif",
    "b/007.ndpi",
    "c/both.svs",
    "c/both.png",
    "c/x.svs",
    "c/x.svs.tif",
    "c/field.ome.tif",
    "c/volume.ome.zarr/zarr.json",
    f"c/TCGA-02-0001-01Z-00-DX1.{UUID}.svs",
    "c/Größe.tif",
    "c/1.5.tif",
)


@pytest.fixture
def slides(tmp_path):
    for name in FILES:
        path = tmp_path / "slides" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return slides_in(tmp_path / "slides")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("P1-2.svs", {"a/P1-2.svs"}),
        ("P1-2", {"a/P1-2.svs"}),
        ("p1-2.SVS", {"a/P1-2.svs"}),
        ("a/P1-2", {"a/P1-2.svs"}),
        ("b/P1-2", set()),  # another folder than its own
        ("/mnt/old/a/P1-2.svs", {"a/P1-2.svs"}),
        ("D:\\scans\\a\\P1-2.svs", {"a/P1-2.svs"}),
        ("P1", set()),
        ("twice", {"a/twice.tif", "b/twice.tif"}),
        ("b/twice", {"b/twice.tif"}),
        ("./b/twice.tif", {"b/twice.tif"}),
        ("007", {"b/007.ndpi"}),
        ("7", set()),
        ("both", {"c/both.png", "c/both.svs"}),
        ("both.svs", {"c/both.svs"}),
        ("both.tif", set()),
        ("x.svs", {"c/x.svs"}),  # the whole name wins over one without a suffix
        ("field", {"c/field.ome.tif"}),
        ("field.ome", {"c/field.ome.tif"}),
        ("volume", {"c/volume.ome.zarr"}),
        ("TCGA-02-0001-01Z-00-DX1", {f"c/TCGA-02-0001-01Z-00-DX1.{UUID}.svs"}),
        (f"TCGA-02-0001-01Z-00-DX1.{UUID}", {f"c/TCGA-02-0001-01Z-00-DX1.{UUID}.svs"}),
        (unicodedata.normalize("NFD", "größe"), {"c/Größe.tif"}),
        ("1", set()),
        ("1.5", {"c/1.5.tif"}),
        ("", set()),
        ("/", set()),
    ],
)
def test_a_slide_is_found_by_its_name_with_or_without_suffix_and_folders(slides, text, expected):
    assert {slides[number].name for number in SlideNames(slides).find(text)} == expected


@pytest.mark.parametrize(
    ("file", "ids", "expected"),
    [
        ("P1.svs", ["P1", "P2"], {"P1"}),
        ("P1_left.svs", ["P1", "P11"], {"P1"}),
        ("P11 left.svs", ["P1", "P11"], {"P11"}),
        ("p1-a.svs", ["P1"], {"P1"}),
        ("TCGA-02-0001-01Z-00-DX1.svs", ["TCGA-02-0001", "TCGA-02-0002"], {"TCGA-02-0001"}),
        ("P1-2.svs", ["P1", "P1-2"], {"P1", "P1-2"}),  # slide 2 of P1, or a slide of P1-2
        ("P2/P1.svs", ["P1", "P2"], {"P1", "P2"}),
        ("P2/HE/3.svs", ["P1", "P2"], {"P2"}),
        ("001.svs", ["1"], set()),
        ("left-P1.svs", ["P1"], set()),
        ("P1.svs", ["P1", "p1"], {"P1"}),
        ("1.2.840.99.dcm", ["1", "1.2"], set()),  # the parts of a DICOM file's number are no patients
    ],
)
def test_a_slide_is_of_the_patient_that_its_name_begins_with_or_its_folder_is_named_after(
    tmp_path, file, ids, expected
):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True, parents=True)
    path.touch()
    (slide,) = slides_in(tmp_path)
    names = Names((name, number) for number, name in enumerate(ids))
    assert {ids[number] for number in slide.cases(names)} == expected


def test_a_folder_that_is_none_or_holds_no_slide_is_named(tmp_path):
    with pytest.raises(NotFoundError, match="no such folder; give the folder that the slides are in"):
        slides_in(tmp_path / "absent")
    with pytest.raises(ConfigError, match="no slide in it or below; slides end in"):
        slides_in(tmp_path)
    (tmp_path / "one.zarr").mkdir()
    with pytest.raises(NotFoundError, match="one image; give the folder"):
        slides_in(tmp_path / "one.zarr")
