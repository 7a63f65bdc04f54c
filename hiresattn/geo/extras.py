"""The optional packages of ``hiresattn[geo]``, loaded when they are needed."""

from importlib import import_module
from typing import Any

from hiresattn.errors import BackendMissingError


def needed(name: str) -> Any:
    """A module of the extra.

    Raises:
        BackendMissingError: If it can't be imported.
    """
    try:
        return import_module(name)
    except ImportError as error:
        package = name.split(".", maxsplit=1)[0]
        raise BackendMissingError(
            f"layers with coordinates need {package}, which can't be imported ({error}); pip install 'hiresattn[geo]'"
        ) from error
