"""With --hide-names no output names a file or a folder; label and macro images of slides are in none at all."""

import base64
import io
import re
import zipfile
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tifffile import TiffWriter

import hiresattn
from hiresattn.inference.read_records import read_records
from hiresattn.report.hidden import A_PATH, hide_all, hide_names
from hiresattn.report.overlay import draw_overlay
from tests.cli.conftest import prediction

MODEL = hiresattn.__path__[0] + "/demo/model"
#: Parts of the names below, and the colour of label and macro.
NAMES = re.compile(rb"quixley|mrn4711|ward 7", re.IGNORECASE)
MAGENTA = (250, 0, 250)


def write_slide(path, seed):
    """Grey noise as Aperio writes it, with a label and a macro of one colour."""
    pixels = np.repeat(np.random.default_rng(seed).integers(90, 160, (192, 256, 1), np.uint8), 3, axis=2)
    words = "Aperio Image Library v11.2.1\r\n256x192 [0,0 256x192] (64x64)"
    common = {"photometric": "rgb", "metadata": None, "software": False}
    with TiffWriter(path) as tif:
        tif.write(pixels, description=f"{words}|MPP = 0.5", tile=(64, 64), **common)
        for name, kind in (("label", 1), ("macro", 9)):
            aside = np.full((60, 80, 3), MAGENTA, np.uint8)
            tif.write(
                aside, description=f"{words}\r\n{name} 80x60", subfiletype=kind, rowsperstrip=60, **common
            )


@pytest.fixture
def manifest(tmp_path):
    folder = tmp_path / "ward 7" / "QUIXLEY_J_1961"
    folder.mkdir(parents=True)
    for number in range(3):
        write_slide(folder / f"MRN4711-{number}.svs", number)
    (folder / "Jane Quixley.svs").write_bytes(b"II*\0 no slide")
    names = [
        f"ward 7/QUIXLEY_J_1961/{name}.svs"
        for name in ("MRN4711-0", "MRN4711-1", "MRN4711-2", "Jane Quixley")
    ]
    rows = ["path,label,case_id", f"{names[0]},3,P7", f"{names[1]},3,P7", f"{names[2]},3,", f"{names[3]},3,"]
    (tmp_path / "m.csv").write_text("\n".join(rows))
    return tmp_path / "m.csv"


def contents(folder):
    """Name and text of every file; of packed ones what is in them."""
    for path in folder.rglob("*"):
        yield path, str(path.relative_to(folder)).encode()
        if path.suffix == ".parquet":
            yield path, repr(pq.read_table(path).to_pydict()).encode()
        elif path.suffix == ".xlsx":
            with zipfile.ZipFile(path) as packed:
                yield path, b"".join(map(packed.read, packed.namelist()))
        elif path.is_file():
            yield path, path.read_bytes()


def pictures(folder):
    for path in folder.rglob("*"):
        if path.suffix == ".png":
            yield Image.open(path).convert("RGB")
        elif path.suffix == ".html":
            for data in re.findall(r"data:image/jpeg;base64,([^\"]+)", path.read_text()):
                yield Image.open(io.BytesIO(base64.b64decode(data)))


def test_nothing_that_is_written_names_a_file_or_shows_a_label(run, manifest, tmp_path):
    out, plain = tmp_path / "out", tmp_path / "plain"
    words = ["classify", manifest, "-m", MODEL, "--budget", 6, "--bands", 1, "-o"]
    assert run(*words, f"{out}/", "--hide-names").exit_code == 3
    assert run(*words, f"{plain}/", "--no-overlays").exit_code == 3
    assert any(NAMES.search(text) for _, text in contents(plain))
    made = run("report", plain, "-o", out / "report.html", "--hide-names")
    assert made.exit_code == 0, made.stderr
    for kind, name in (("csv", "csv"), ("qupath", "objects"), ("xlsx", "o.xlsx"), ("layers", "o.gpkg")):
        assert run("export", plain, "--to", kind, "-o", out / name, "--hide-names").exit_code == 0
    key = (out / "names.csv").read_text()
    assert key.startswith("name,source\nP7 image 1,")
    assert key.count("\n") == 5
    assert sorted(folder.name for folder, text in contents(out) if b"MRN4711-2.svs" in text) == ["names.csv"]
    found = [pair for pair in contents(out) if pair[0].name != "names.csv"]
    assert len({path for path, _ in found}) > 18
    assert [path for path, text in found if NAMES.search(text)] == []
    assert {path.name for path in (out / "overlays").iterdir()} == {
        "P7 image 1.png", "P7 image 2.png", "image-2.png"
    }  # fmt: skip
    assert [one.source for one in read_records(out)] == ["P7", "image-2", "image-3"]
    shown = list(pictures(out))
    assert len(shown) > 6
    for picture in shown:
        red, green, blue = np.asarray(picture).reshape(-1, 3).T.astype(int)
        assert not ((red > 180) & (green < 70) & (blue > 180)).any()


def test_such_a_folder_is_gone_on_with_and_not_mixed(run, manifest, tmp_path):
    words = ["classify", manifest, "-m", MODEL, "--budget", 6, "--bands", 1, "-o", f"{tmp_path}/out/"]
    assert run(*words, "--hide-names").exit_code == 3
    first = (tmp_path / "out" / "predictions.csv").read_bytes()
    (tmp_path / "out" / "overlays" / "image-2.png").unlink()
    result = run(*words, "--hide-names")
    assert (result.exit_code, "2 were there" in result.stderr) == (3, True)
    assert (tmp_path / "out" / "overlays" / "image-2.png").exists()
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == first
    result = run(*words)
    assert (result.exit_code, "another run (names hidden, not shown)" in result.stderr) == (1, True)
    assert run("classify", manifest, "-m", MODEL, "--hide-names", "-o", tmp_path / "r.jsonl").exit_code == 2


def test_overlays_are_the_same_whatever_the_name_was(image, tmp_path):
    regions = prediction("").regions
    for name in ("Doe", "Roe"):
        record = replace(
            prediction(image, warnings=(f"{name}.svs: odd",)), source=f"ward/{name}.svs", regions=regions
        )
        draw_overlay(image, hide_names(record, "image-1"), tmp_path / f"{name}.png")
    assert (tmp_path / "Doe.png").read_bytes() == (tmp_path / "Roe.png").read_bytes()


def test_in_warnings_and_errors_images_have_other_names():
    texts = (
        "0.25 µm/px, trained at 0.5 µm/px",
        "ward/Doe.svs: dark",
        "Doe.msk was used",
        "in /tmp/x",
        "the DOE slide",
    )
    record = prediction("ward/Doe.svs", warnings=texts, error="ward/Doe.svs: broken", status="error")
    (hidden,) = hide_all([record])
    shown = (texts[0], "image-1: dark", "image-1 was used", f"in {A_PATH}", "the DOE slide")
    assert (hidden.warnings, hidden.error) == (shown, "image-1: broken")


@pytest.mark.parametrize(
    ("source", "text", "shown"),
    [
        ("s/1.svs", "band 1 has a mean of 3.1 µm/px.", None),
        ("tumour/1.svs", "may be tumour or sea; 1.svs is dark", "may be tumour or sea; image-1 is dark"),
        ("a/sea.png", "may be sea or land", None),
        ("a/Jane Doe.svs", "JANE DOE: see '/x/Jane Doe.xml'", f"image-1: see {A_PATH}"),
        (
            "/w/Jane Doe/s.svs",
            "/w/Jane Doe/masks: none; /w/Jane Doe/s.svs: no",
            f"{A_PATH}/masks: none; image-1: no",
        ),
        ("a.tif", "not in /x/My Slides/b c.svs: gone", f"not in {A_PATH}: gone"),
        (
            "a.tif",
            "https://h/x?key=1 said 403; C:\\a\\b; b/c/d.tif",
            f"{A_PATH} said 403; {A_PATH}; {A_PATH}",
        ),
        ("a.tif", "2 / 3 of it, 1/4 and/or", None),
    ],
)
def test_reasons_stay_and_names_go(source, text, shown):
    (hidden,) = hide_all([prediction(source, warnings=(text,))])
    assert hidden.warnings == (text if shown is None else shown,)
