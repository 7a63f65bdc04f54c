"""Where the result of a conversion goes, and what may be replaced."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from hiresattn.errors import ConfigError, HiresattnError, WriteError
from hiresattn.files import ZARR_FILES, atomic_write
from hiresattn.pyramid.formats.gdal import reason


def checked_target(source: Any, target: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """The target's path, if something may be written there."""
    name = os.fspath(target)
    if "://" in name or name.startswith("/vsi"):
        raise ConfigError(f"{name}: results are written here, not elsewhere; give a path and copy the result")
    path = Path(name)
    if isinstance(source, str | os.PathLike) and "://" not in os.fspath(source):
        here, there = Path(source).resolve(), path.resolve()
        if here == there or here in there.parents or there in here.parents:
            raise ConfigError(
                f"{name}: source and result are the same file, or one lies in the other; give another name"
            )
    if not path.name or not path.parent.is_dir():
        raise WriteError(f"{name}: there is no folder {path.parent}; make it first")
    if os.path.lexists(path):
        if not overwrite:
            raise ConfigError(f"{name}: is there already; overwrite replaces it")
        if path.is_dir() and not any((path / file).exists() for file in ZARR_FILES):
            raise ConfigError(f"{name}: a directory that is no Zarr is not replaced; give another name")
    return path


@contextmanager
def beside(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """``atomic_write`` whose errors are ``WriteError``, and which replaces nothing unless ``overwrite`` allows it."""
    with ExitStack() as stack:
        with writing(target):
            part = stack.enter_context(atomic_write(target, over_directory=overwrite))
        yield part
        if not overwrite and os.path.lexists(target):
            raise ConfigError(f"{target}: has appeared meanwhile; overwrite replaces it")
        with writing(target):
            stack.close()


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Errors of libraries that write become ``WriteError``."""
    try:
        yield
    except HiresattnError:
        raise
    except Exception as error:  # zarr's, GDAL's, the system's
        raise WriteError(
            f"{target}: can't be written ({reason(error)}); check the free space and the permissions of its folder; "
            "nothing was left there"
        ) from error
