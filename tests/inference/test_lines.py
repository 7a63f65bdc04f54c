"""Files of JSON lines: whole lines, whatever ends the process, and one writer at a time."""

import json
import os
import subprocess
import sys

import pytest

from hiresattn.errors import ConfigError, WriteError
from hiresattn.inference.lines import LinesFile

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX")


def child(code, *words):
    line = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, check=False)  # noqa: S603


def held(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@posix
def test_a_killed_writer_leaves_whole_lines_and_no_lock(tmp_path):
    path = tmp_path / "out.jsonl"
    code = """if True:
        import os, signal, sys
        from hiresattn.inference.lines import LinesFile
        file = LinesFile(sys.argv[1])
        for number in range(3):
            file.write({"n": number})
        os.write(file._file, b'{"n": 3, "to')
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert child(code, path).returncode == -9
    assert path.read_bytes().endswith(b'\n{"n": 3, "to')
    with LinesFile(path, resume=True) as file:
        assert file.held == [{"n": 0}, {"n": 1}, {"n": 2}]
        file.write({"n": 4})
    assert held(path) == [{"n": 0}, {"n": 1}, {"n": 2}, {"n": 4}]
    assert [one.name for one in tmp_path.iterdir()] == ["out.jsonl"]


@posix
def test_a_full_disk_leaves_whole_lines_and_says_how_to_go_on(tmp_path):
    path = tmp_path / "out.jsonl"
    code = """if True:
        import resource, sys
        from hiresattn.errors import WriteError
        from hiresattn.inference.lines import LinesFile
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        with LinesFile(sys.argv[1]) as file:
            for number in range(99):
                try:
                    file.write({"number": number, "text": "x" * 20})
                except WriteError as error:
                    print(number, error)
                    break
    """
    done = child(code, path)
    assert done.stdout.startswith("2 ")
    assert "File too large" in done.stdout
    assert "go on with resume" in done.stdout
    assert [line["number"] for line in held(path)] == [0, 1]


def test_a_second_writer_is_refused(tmp_path):
    path = tmp_path / "out.jsonl"
    with LinesFile(path) as first:
        with pytest.raises(ConfigError, match="another process is writing it"):
            LinesFile(path, resume=True)
        first.write({})
        code = "import sys; from hiresattn.inference.lines import LinesFile; LinesFile(sys.argv[1], overwrite=True)"
        assert "another process is writing it" in child(code, path).stderr
    LinesFile(path, resume=True).close()
    assert held(path) == [{}]


def test_overwriting_loses_nothing_before_the_first_line(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text('{"old": 1}\n' * 9)
    LinesFile(path, overwrite=True).close()
    assert len(held(path)) == 9
    with LinesFile(path, overwrite=True) as file:
        file.write({"new": 1})
    assert held(path) == [{"new": 1}]


def test_a_file_of_something_else_is_not_added_to(tmp_path):
    path = tmp_path / "notes"
    path.write_text("dear diary\nthis is no JSON\n")
    with pytest.raises(ConfigError, match=r"line 1: 'dear diary.*is no JSON object"):
        LinesFile(path, resume=True)
    assert path.read_text() == "dear diary\nthis is no JSON\n"


def test_a_file_without_lines_is_as_good_as_none(tmp_path):
    path = tmp_path / "out.jsonl"
    path.touch()
    LinesFile(path).close()
    with pytest.raises(ConfigError, match="that is a folder"):
        LinesFile(tmp_path)
    with pytest.raises(WriteError, match="can't be written"):
        LinesFile(tmp_path / "absent" / "out.jsonl")


@posix
def test_a_device_is_written_to():
    with LinesFile(os.devnull) as file:
        file.write({"a": 1})
