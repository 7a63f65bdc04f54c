"""Every error that hiresattn raises on purpose.

Each names the file, what was asked, what is possible and what to do. Each is also the builtin a caller
would guess, so ``except OSError`` around a read works.
"""

import sys

#: Packages that are installed by another name than they are imported by.
_INSTALLED_AS = {
    "PIL": "pillow",
    "openslide": "openslide-python openslide-bin",
    "google_crc32c": "google-crc32c",
}


def counted(count: int, name: str) -> str:
    """A number of things, for messages: ``1 tile``, ``2 tiles``."""
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


class HiresattnError(Exception):
    """The root of every error raised by hiresattn."""

    image: int | None = None
    """Index of the image that failed, where several are read in one call; None = not known, or there is one."""


class OpenError(HiresattnError, OSError):
    """A source exists but can't be opened as an image: unknown format, damaged header, truncated file."""


class UnknownFormatError(OpenError):
    """A source is of no format that a reader knows."""


class NotFoundError(OpenError, FileNotFoundError):
    """A source does not exist."""


class ReadError(HiresattnError, OSError):
    """Pixels could not be read or decoded. Never replaced by blank pixels."""


class WriteError(HiresattnError, OSError):
    """An output could not be written, or doesn't hold what was written."""


class RegionError(HiresattnError, ValueError):
    """A level, region or window that the image does not have."""


class DomainError(HiresattnError, ValueError):
    """The image is not one that this model can classify: bands, data type or value range."""


class ConfigError(HiresattnError, ValueError):
    """An option, manifest or configuration value that can't be used."""


class CheckpointError(HiresattnError, ValueError):
    """A model directory is damaged, foreign, or of another configuration."""


class ClusterError(HiresattnError, ConnectionError):
    """A scheduler or its workers can't be reached, or were lost; what was finished is kept."""


class BackendMissingError(HiresattnError, ImportError):
    """An optional package is needed and not installed; the message gives the command that installs it."""


def missing_package(error: ImportError, what: str) -> BackendMissingError | None:
    """The error for a package that isn't installed, or can't be loaded.

    Args:
        error: What its import raised.
        what: What needs it, for the message.

    Returns:
        The error to raise; None = it is no package's fault.
    """
    if isinstance(error, BackendMissingError):
        return error
    name = (error.name or "").partition(".")[0]
    if not name or name in sys.stdlib_module_names or name.startswith("hiresattn"):
        return None
    package = _INSTALLED_AS.get(name, name)
    if isinstance(error, ModuleNotFoundError):
        return BackendMissingError(f"{what} needs {package}, which isn't installed; pip install {package}")
    return BackendMissingError(
        f"{what} needs {package}, which can't be imported ({reason(error)}); pip install --force-reinstall {package}"
    )


def reason(error: BaseException) -> str:
    """An error's first line; its type where it has none."""
    return (str(error) or type(error).__name__).splitlines()[0]
