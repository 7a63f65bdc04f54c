"""Files and directories appear whole or not at all."""

import os
import subprocess
import sys
import time

import pytest

from hiresattn.files import atomic_write


def test_what_was_written_replaces_what_was_there(tmp_path):
    path = tmp_path / "table.csv"
    for text in ("first", "second"):
        with atomic_write(path) as part:
            assert part.name == path.name
            part.write_text(text)
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("directory", [False, True])
def test_a_block_that_fails_leaves_what_was_there_and_nothing_else(tmp_path, error, directory):
    def fail():
        with atomic_write(path, over_directory=directory) as part:
            fill(part, "second", directory)
            raise error

    path = tmp_path / "image"
    fill(path, "first", directory)
    with pytest.raises(error):
        fail()
    assert content(path) == "first"
    assert list(tmp_path.iterdir()) == [path]


def fill(path, text, directory):
    if directory:
        path.mkdir()
        path = path / "chunk"
    path.write_text(text)


def content(path):
    return (path / "chunk" if path.is_dir() else path).read_text()


def test_a_block_that_writes_nothing_changes_nothing(tmp_path):
    path = tmp_path / "image"
    with atomic_write(path):
        pass
    assert list(tmp_path.iterdir()) == []
    path.mkdir()
    with atomic_write(path, over_directory=True):
        pass
    assert list(tmp_path.iterdir()) == [path]


def test_directories_are_replaced_on_demand_only(tmp_path):
    path = tmp_path / "image"
    for number, directory in enumerate((True, True, False, True)):
        with atomic_write(path, over_directory=True) as part:
            fill(part, str(number), directory)
        assert path.is_dir() == directory
        assert content(path) == str(number)
        assert list(tmp_path.iterdir()) == [path]
    for directory in (False, True):
        with pytest.raises(OSError, match="image"), atomic_write(path) as part:
            fill(part, "new", directory)
        assert content(path) == "3"
        assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "missing" / "table.csv"):
        pass


def kill_while_writing(path, code):
    """Run code in a process that kills itself; it has ``part``, in the block that writes ``path``."""
    code = f"""if True:
        import os, signal, sys
        from pathlib import Path
        from hiresattn.files import atomic_write
        path = Path(sys.argv[1])
        with atomic_write(path, over_directory=True) as part:
            {code}
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", code, path], check=False)  # noqa: S603
    assert done.returncode == -9


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    path = tmp_path / "image"
    kill_while_writing(path, "part.mkdir(); (part / 'chunk').write_text('half')")
    assert [one.suffix for one in tmp_path.iterdir()] == [".part"]
    other = tmp_path / ".image.abcdefg.part"  # of somebody else: not a name that is made here
    other.mkdir()
    with atomic_write(path) as part:
        part.write_text("whole")
    assert sorted(tmp_path.iterdir()) == [other, path]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_directory_that_was_being_replaced_comes_back(tmp_path):
    path = tmp_path / "image"
    fill(path, "first", directory=True)
    kill_while_writing(path, "path.rename(part.parent / '.replaced')")
    assert not path.exists()
    with atomic_write(path):
        pass
    assert content(path) == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_living_writer_has_begun_stays(tmp_path):
    path = tmp_path / "image"
    with atomic_write(path) as first:
        first.write_text("first")
        os.utime(first.parent, (time.time() - 1e6,) * 2)
        with atomic_write(path) as second:
            second.write_text("second")
        assert first.read_text() == "first"
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]
