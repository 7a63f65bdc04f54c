"""Classify gigapixel images by looking at a fraction of them.

``train`` a model on a manifest of images, ``evaluate`` it, ``classify`` images with it, and ``draw_overlay`` of what it
visited; ``open_pyramid``, ``read_crops`` and ``convert`` work without a model, too. What the command line does, these
functions do.

The public names are loaded on first use (PEP 562): ``import hiresattn`` loads neither torch nor a reader.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hiresattn import errors as errors
from hiresattn.errors import HiresattnError as HiresattnError

if TYPE_CHECKING:
    from hiresattn.checkpoint import Model as Model
    from hiresattn.checkpoint import load_model as load_model
    from hiresattn.conversion.convert import ConvertOptions as ConvertOptions
    from hiresattn.conversion.convert import convert as convert
    from hiresattn.datasets.cases import Case as Case
    from hiresattn.datasets.cohort import Cohort as Cohort
    from hiresattn.datasets.cohort import CohortOptions as CohortOptions
    from hiresattn.datasets.cohort import make_manifest as make_manifest
    from hiresattn.datasets.example import Example as Example
    from hiresattn.datasets.manifest import read_manifest as read_manifest
    from hiresattn.evaluation.run import EvaluateOptions as EvaluateOptions
    from hiresattn.evaluation.run import evaluate as evaluate
    from hiresattn.inference.budget import Budget as Budget
    from hiresattn.inference.classify import classify as classify
    from hiresattn.inference.classify import classify_all as classify_all
    from hiresattn.inference.extract import extract as extract
    from hiresattn.inference.locate import locate as locate
    from hiresattn.inference.options import ClassifyOptions as ClassifyOptions
    from hiresattn.inference.options import ExtractOptions as ExtractOptions
    from hiresattn.inference.options import LocateOptions as LocateOptions
    from hiresattn.inference.record import Record as Record
    from hiresattn.inference.records_file import write_records as write_records
    from hiresattn.model.encoders import register_encoder as register_encoder
    from hiresattn.pyramid import Pyramid as Pyramid
    from hiresattn.pyramid import open_pyramid as open_pyramid
    from hiresattn.reading.crops import read_crops as read_crops
    from hiresattn.report.overlay import draw_overlay as draw_overlay
    from hiresattn.training.options import TrainOptions as TrainOptions
    from hiresattn.training.run import train as train

__version__ = "0.1.0"

#: Public name → its module.
_HOME = {
    "Budget": "hiresattn.inference.budget",
    "Case": "hiresattn.datasets.cases",
    "ClassifyOptions": "hiresattn.inference.options",
    "Cohort": "hiresattn.datasets.cohort",
    "CohortOptions": "hiresattn.datasets.cohort",
    "ConvertOptions": "hiresattn.conversion.convert",
    "EvaluateOptions": "hiresattn.evaluation.run",
    "Example": "hiresattn.datasets.example",
    "ExtractOptions": "hiresattn.inference.options",
    "LocateOptions": "hiresattn.inference.options",
    "Model": "hiresattn.checkpoint",
    "Pyramid": "hiresattn.pyramid",
    "Record": "hiresattn.inference.record",
    "TrainOptions": "hiresattn.training.options",
    "classify": "hiresattn.inference.classify",
    "classify_all": "hiresattn.inference.classify",
    "convert": "hiresattn.conversion.convert",
    "draw_overlay": "hiresattn.report.overlay",
    "evaluate": "hiresattn.evaluation.run",
    "extract": "hiresattn.inference.extract",
    "load_model": "hiresattn.checkpoint",
    "locate": "hiresattn.inference.locate",
    "make_manifest": "hiresattn.datasets.cohort",
    "open_pyramid": "hiresattn.pyramid",
    "read_crops": "hiresattn.reading.crops",
    "read_manifest": "hiresattn.datasets.manifest",
    "register_encoder": "hiresattn.model.encoders",
    "train": "hiresattn.training.run",
    "write_records": "hiresattn.inference.records_file",
}

__all__ = [
    "Budget",
    "Case",
    "ClassifyOptions",
    "Cohort",
    "CohortOptions",
    "ConvertOptions",
    "EvaluateOptions",
    "Example",
    "ExtractOptions",
    "HiresattnError",
    "LocateOptions",
    "Model",
    "Pyramid",
    "Record",
    "TrainOptions",
    "classify",
    "classify_all",
    "convert",
    "draw_overlay",
    "errors",
    "evaluate",
    "extract",
    "load_model",
    "locate",
    "make_manifest",
    "open_pyramid",
    "read_crops",
    "read_manifest",
    "register_encoder",
    "train",
    "write_records",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        try:
            return getattr(import_module(_HOME[name]), name)
        except ImportError as error:
            raise errors.missing_package(error, f"hiresattn.{name}") or error from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
