"""GDAL settings of the caller's thread (``rasterio.Env``), carried into the threads that open and read for it."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


def callers_settings() -> dict[str, Any]:
    """What this thread's ``rasterio.Env`` sets; nothing where there is none."""
    if "rasterio" not in sys.modules:
        return {}
    from rasterio.env import getenv, hasenv

    return dict(getenv()) if hasenv() else {}


@contextmanager
def with_settings(settings: Mapping[str, Any]) -> Iterator[None]:
    """Set in this thread what another one's ``rasterio.Env`` sets; what this one's own sets wins."""
    missing = settings.keys() - callers_settings().keys()
    if not missing:
        yield
        return
    import rasterio
    from rasterio.env import setenv

    with rasterio.Env():
        setenv(**{name: settings[name] for name in missing})  # credentials too, which Env itself refuses
        yield
