"""What holds for every command: help is light, errors are one line, exit statuses mean something."""

import json
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from hiresattn import __version__
from hiresattn.errors import ReadError
from hiresattn_cli.groups import with_flags
from hiresattn_cli.main import cli
from tests.test_layers import ROOT

COMMAND = [sys.executable, "-m", "hiresattn_cli.main"]


def test_help_and_version_load_nothing_heavy():
    code = (
        "import sys; from hiresattn_cli.main import cli; cli(['--help'], standalone_mode=False);"
        "heavy = {'torch', 'rasterio', 'numba', 'rich', 'numpy', 'zarr', 'dask', 'openslide', 'PIL', 'timm'};"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert "classify" in done.stdout


def test_version(run):
    assert run("--version").stdout == f"hiresattn, version {__version__}\n"


def test_a_missing_file_is_one_line_on_stderr_and_exit_1():
    done = subprocess.run([*COMMAND, "info", "absent.tif"], capture_output=True, text=True, check=False)  # noqa: S603
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    assert "absent.tif" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["info"],
        ["info", "a.tif", "--mpp", "-1"],
        ["classify", "a.tif"],
        ["classify", "a.tif", "-m", "m", "--stop", "2"],
        ["classify", "a.tif", "-m", "m", "--bands", "0,1"],
        ["classify", "a.tif", "-m", "m", "--bands", "0,red"],
        ["classify", "a.tif", "-m", "m", "--value-range", "5,5"],
        ["classify", "a.tif", "-m", "m", "--value-range", "5"],
        ["classify", "a.tif", "-m", "m", "--region", "0,0,0,5"],
        ["classify", "a.tif", "-m", "m", "--region", "1,2,3"],
        ["classify", "a.tif", "-m", "m", "--policy", "worst-first"],
        ["classify", "a.tif", "-m", "m", "--budget", "lots"],
        ["classify", "a.tif", "-m", "m", "--split", "test"],
        *(
            ["classify", "a.tif", "-m", "m", "--workers", "1", "--resources", v]
            for v in ("GPU=0", "=1", "GPU")
        ),
        ["train", "m.csv"],
        ["train", "m.csv", "-o", "d", "--epochs", "0"],
    ],
)
def test_wrong_usage_is_exit_2(run, words):
    result = run(*words)
    assert result.exit_code == 2
    assert "Error: " in result.stderr
    assert result.stdout == ""


def failing(error):
    """The command group with one command that raises."""

    @click.command()
    def fail():
        raise error

    group = type(cli)(commands={"fail": fail})
    return CliRunner().invoke(group, ["fail"])


def test_a_typed_error_of_two_lines_becomes_one():
    result = failing(ReadError("a.tif: tile 3\n  can't be decoded"))
    assert (result.exit_code, result.stderr) == (1, "Error: a.tif: tile 3 can't be decoded\n")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModuleNotFoundError("No module named 'torch'", name="torch"), "isn't installed; pip install torch"),
        (
            ModuleNotFoundError("No module named 'PIL.Image'", name="PIL.Image"),
            "isn't installed; pip install pillow",
        ),
        (
            ImportError("libc10.so: no such file", name="torch._C"),
            "can't be imported (libc10.so: no such file); pip install --force-reinstall torch",
        ),
    ],
)
def test_a_package_that_is_not_there_is_one_line(error, words):
    result = failing(error)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: `root fail` needs ")
    assert result.stderr.endswith(f"{words}\n")


def test_an_import_of_ours_that_fails_is_a_defect():
    error = ImportError("cannot import name 'tile'", name="hiresattn.pyramid")
    assert failing(error).exception is error


#: Commands where torch can't be found, each by itself.
WITHOUT_TORCH = """
import json, sys
from pathlib import Path
from click.testing import CliRunner

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "timm"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from hiresattn_cli.main import cli

for words in json.loads(sys.argv[1]):
    done = CliRunner().invoke(cli, words, prog_name="hiresattn")
    print(json.dumps([done.exit_code, done.stdout, done.stderr, repr(done.exception)]))
"""


def test_without_torch_commands_end_in_one_sentence_or_do_what_they_can(image, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text(f"path,label\n{image},a\n{image},b\n")
    model = str(ROOT / "hiresattn" / "demo" / "model")
    out = str(tmp_path / "out")
    needing = [
        ["train", str(table), "-o", out],
        ["evaluate", model, str(table)],
        ["extract", str(table), "--encoder", "resnet18", "-o", out],
        ["locate", str(table), "-m", model, "-o", f"{out}.csv"],
        ["export-model", model],
        ["export-attention", model, str(table), "-o", out],
        ["demo", "-o", out],
        ["describe", "small"],
    ]
    without = [["info", str(image)], ["describe", model], ["describe", model, "--json"]]
    done = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-c", WITHOUT_TORCH, json.dumps(needing + without)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for (name, *_), (code, _, stderr, _) in zip(needing, found, strict=False):
        assert (code, stderr) == (
            1,
            f"Error: `hiresattn {name}` needs torch, which isn't installed; pip install torch\n",
        )
    (info, table, facts) = found[-3:]
    assert [code for code, *_ in (info, table, facts)] == [0, 0, 0]
    assert "128 x 96 px" in info[1]
    assert "classes     " in table[1]
    assert table[2] == "Note: the table of its parts needs torch, which isn't installed; pip install torch\n"
    assert list(json.loads(facts[1])) == ["name", "model"]


def test_interrupt_is_exit_130_and_one_line():
    result = failing(KeyboardInterrupt())
    assert result.exit_code == 130
    assert result.stderr.count("\n") == 1


def test_a_defect_is_not_dressed_up_as_a_user_error():
    assert isinstance(failing(ZeroDivisionError()).exception, ZeroDivisionError)


def test_a_reader_that_goes_away_is_no_error(image):
    words = " ".join(f"'{word}'" for word in [*COMMAND, "info", "--json", *[str(image)] * 200])
    done = subprocess.run(  # noqa: S602 - a pipe is the point
        f"{words} | head -n 1", shell=True, capture_output=True, text=True, check=False
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "closed"),
    [
        ("info -", "<&-"),
        ("info {image}", ">&-"),
        ("info absent.tif", "2>&-"),
        ("info -", "<&- >&- 2>&-"),
        ("info --json {image}", "| true"),
        ("info absent.tif", "2>&1 | true"),
    ],
)
def test_closed_streams_and_broken_pipes_give_no_traceback(image, closed, words, tmp_path):
    said = tmp_path / "said"
    command = f"{{ {' '.join(COMMAND)} {words.format(image=image)} {closed}; }} 2>{said}"
    subprocess.run(["/bin/bash", "-c", command], capture_output=True, check=False)  # noqa: S603 - this interpreter
    assert not any(word in said.read_text() for word in ("Traceback", "Exception", "Errno"))


def test_control_characters_of_a_name_are_escaped_on_the_terminal(tmp_path, image):
    odd = image.rename(tmp_path / "a\x1b]0;title\x07\x9bm\u202eb.png")
    for words in (["info", odd], ["info", f"{odd}.absent"]):
        done = subprocess.run([*COMMAND, *words], capture_output=True, check=False)  # noqa: S603 - this interpreter
        text = (done.stdout + done.stderr).decode()
        assert text.replace("\n", "").isprintable()
        assert r"a\x1b]0;title\x07\x9bm\u202eb.png" in text


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("give it with mpp=0.5, or with assume_mpp=0.5", "give it with --mpp 0.5, or with --assume-mpp 0.5"),
        (
            "out: is there; resume adds, overwrite starts anew",
            "out: is there; --resume adds, --overwrite starts anew",
        ),
        ("a/value_range.tif, the mpp and a run to resume", "a/value_range.tif, the mpp and a run to resume"),
        ("no_such_option and x=1", "no_such_option and x=1"),
    ],
)
def test_errors_name_options_as_the_command_line_does(message, shown):
    assert with_flags(message, cli.commands["classify"]) == shown
