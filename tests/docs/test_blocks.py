"""Every command that a page shows is run, or the page says why not; what it prints is what the page shows."""

import contextlib
import csv
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from PIL import Image

import hiresattn
from hiresattn_cli.main import cli
from tests.docs.blocks import ROOT, RUN, blocks, commands, pages, shows
from tests.docs.stac import SERVER, served, write_fields

TUTORIAL = "docs/tutorial-slides.md"
FEW = ("COUNT, SIDE = 60", "COUNT, SIDE = 20")


def slow(page):
    return "<!-- slow page: " in (ROOT / page).read_text(encoding="utf-8")


def runs(block):
    return block.language in RUN and not block.marker.startswith("needs data: ")


def run(words):
    """A command line in this process; what it printed."""
    name, *arguments = shlex.split(words, comments=True)
    assert name == "hiresattn", (
        f"{words}: only hiresattn is run here; say `<!-- needs data: … -->` below the block"
    )
    if arguments[0] == "train" and "-o" in arguments and not {"--resume", "--overwrite"} & set(arguments):
        there = arguments[arguments.index("-o") + 1]
        shutil.rmtree(there, ignore_errors=True)  # the model that all pages start with
    traces = arguments[0] == "export-model"  # a tracer's shapes are no integers
    jaxtyping.config.update("jaxtyping_disable", value=traces)
    done = CliRunner().invoke(cli, arguments, prog_name="hiresattn")
    jaxtyping.config.update("jaxtyping_disable", value=False)
    assert done.exit_code == 0, f"{words}\n{done.output}\n{done.exception!r}"
    return done.output


def execute(code, known):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, known)  # noqa: S102 - the documentation's own
    return printed.getvalue()


def script(text):
    """What a shell script prints, in a process of its own that finds this environment's programs."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    words = ["sh", "-u", "-c", text]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ | {"PATH": path})  # noqa: S603
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def follow(page):
    """Run the blocks of a page in order; where they name a server, of what lies here."""
    found = blocks(page)
    with ExitStack() as stack:
        if any(SERVER in block.text for block in found):
            address = stack.enter_context(served(Path.cwd()))
            found = [replace(block, text=block.text.replace(SERVER, address)) for block in found]
        follow_blocks(page, found)


def follow_blocks(page, found):
    """Run blocks in order."""
    known = {"__name__": "page"}
    printed = ""
    for block in found:
        where = f"{page}, line {block.line}"
        if block.language == "toml":
            Path("run.toml").write_text(block.text, encoding="utf-8")
        elif block.language == "python" and runs(block):
            printed = execute(block.text, known)
        elif block.language == "sh" and runs(block):
            printed = script(block.text)
        elif block.language == "text":
            assert shows(block.text, printed), f"{where}:\n{printed}"
        elif runs(block):
            for command in commands(block):
                printed = run(command.words)
                assert command.output is None or shows(command.output, printed), (
                    f"{where}: {command.words} printed\n{printed}"
                )


def derived_files():
    """What the pages name besides the tutorial's files."""
    shutil.copy("slides/01.tif", "slide.tif")
    Path("more/below").mkdir(parents=True, exist_ok=True)
    shutil.copy("slides/02.tif", "more/below/other.tif")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8))
    image.save("scan.png")
    image.save("strips.tif")
    georeferenced("slide.tif", "scene.tif")
    write_fields(Path("fields.geojson"))
    with Path("manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    patches = [
        (row["path"], row["label"], row["split"], *(json.loads(row["boxes"]) or [(0, 0, 128, 128)])[0])
        for row in rows
    ]
    write_table("patches.csv", ("path", "label", "split", "y", "x", "height", "width"), patches)
    columns = ("path", "label", "split")
    write_table("slides.csv", columns, [[row[column] for column in columns] for row in rows])
    labels = [(row["path"], f"P{row['patient']}", row["label"]) for row in rows]
    write_table("labels.csv", ("Slide", "Patient ID", "Diagnosis"), labels)


def georeferenced(path, target):
    """A copy of an image that lies somewhere."""
    with hiresattn.open_pyramid(path) as image:
        pixels = image.read(0, 0, 0, image.height, image.width)
    height, width, bands = pixels.shape
    shape = {"height": height, "width": width, "count": bands, "dtype": pixels.dtype}
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 500000, 0, -10, 5000000)}
    with rasterio.open(target, "w", driver="GTiff", tiled=True, **shape, **place) as image:
        image.write(np.moveaxis(pixels, 2, 0))


def without_scale(model, target):
    """A copy of a model that takes images of any scale, and looks anywhere, as models of scenes do."""
    shutil.copytree(model, target)
    card = json.loads(Path(target, "card.json").read_text(encoding="utf-8"))
    card["config"]["input"] |= {"mpp": None, "foreground": None}
    Path(target, "card.json").write_text(json.dumps(card), encoding="utf-8")


def write_table(path, columns, rows):
    with Path(path).open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """What the pages' commands are run on: the tutorial's slides, few, and a model trained on them."""
    folder = tmp_path_factory.mktemp("files")
    with contextlib.chdir(folder):
        code = next(block.text for block in blocks(TUTORIAL) if block.language == "python")
        execute(code.replace(*FEW), {})
        derived_files()
        run("hiresattn train manifest.csv -o model --epochs 2 --batch-size 8")
        without_scale("model", "land-use")
    return folder


@pytest.fixture
def here(tmp_path, files, monkeypatch):
    """A folder with the files, and nothing that another page left there."""
    shutil.copytree(files, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")


@pytest.mark.parametrize("page", [*pages()])
def test_every_block_is_run_or_says_why_not(page):
    for block in blocks(page):
        assert block.language, f"{page}, line {block.line}: name the language of the block"
        fine = not block.marker or block.marker.startswith(("needs data: ", "table: ", "end", "slow"))
        assert fine, f"{page}, line {block.line}: unknown marker {block.marker!r}"


@pytest.mark.parametrize(
    "page", [page for page in pages() if any(map(runs, blocks(page))) and not slow(page)]
)
@pytest.mark.filterwarnings("ignore:.*shapely.ops.transform:DeprecationWarning")  # odc-geo's way
@pytest.mark.usefixtures("here")
def test_the_commands_of_a_page_do_what_it_shows(page):
    follow(page)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in pages() if slow(page)])
def test_the_commands_of_a_long_page_do_what_it_shows(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    follow(page)


def test_numbers_and_ellipses_stand_for_others():
    assert shows("a 1.5 s\n…\nlast", "a  20 s\nx\ny\nlast\n")
    assert shows("{…}", '{"a": 1}')
    assert not shows("a 1 s", "b 1 s")
    assert not shows("a", "a\nb")
