"""Classify gigapixel images by looking at a fraction of them.

The public names are loaded on first use (PEP 562): ``import hiresattn`` loads neither torch nor a reader.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hiresattn.errors import HiresattnError as HiresattnError
    from hiresattn.pyramid import Pyramid as Pyramid
    from hiresattn.pyramid import open_pyramid as open_pyramid

__version__ = "0.1.0"

_HOME = {
    "HiresattnError": "hiresattn.errors",
    "Pyramid": "hiresattn.pyramid",
    "open_pyramid": "hiresattn.pyramid",
}

__all__ = ["HiresattnError", "Pyramid", "__version__", "open_pyramid"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
