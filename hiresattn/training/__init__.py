"""From a manifest to a model directory."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hiresattn.training.log import EpochRecord
    from hiresattn.training.options import TrainOptions
    from hiresattn.training.presets import PRESETS
    from hiresattn.training.run import train

__all__ = ["PRESETS", "EpochRecord", "TrainOptions", "train"]

_MODULES = {"train": "run", "EpochRecord": "log", "PRESETS": "presets", "TrainOptions": "options"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is used: options can be read without loading torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
