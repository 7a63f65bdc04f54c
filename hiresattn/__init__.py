"""Classify gigapixel images by looking at a fraction of them.

The public names are loaded on first use (PEP 562): ``import hiresattn`` loads neither torch nor a reader.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hiresattn import errors as errors
from hiresattn.errors import HiresattnError as HiresattnError

if TYPE_CHECKING:
    from hiresattn.checkpoint import Model as Model
    from hiresattn.checkpoint import load_model as load_model
    from hiresattn.inference.classify import classify as classify
    from hiresattn.inference.record import Prediction as Prediction
    from hiresattn.model.encoders import register_encoder as register_encoder
    from hiresattn.pyramid import Pyramid as Pyramid
    from hiresattn.pyramid import open_pyramid as open_pyramid
    from hiresattn.reading.crops import read_crops as read_crops

__version__ = "0.1.0"

_HOME = {
    "Model": "hiresattn.checkpoint",
    "Prediction": "hiresattn.inference.record",
    "Pyramid": "hiresattn.pyramid",
    "classify": "hiresattn.inference.classify",
    "load_model": "hiresattn.checkpoint",
    "open_pyramid": "hiresattn.pyramid",
    "read_crops": "hiresattn.reading.crops",
    "register_encoder": "hiresattn.model.encoders",
}

__all__ = [
    "HiresattnError",
    "Model",
    "Prediction",
    "Pyramid",
    "classify",
    "errors",
    "load_model",
    "open_pyramid",
    "read_crops",
    "register_encoder",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
