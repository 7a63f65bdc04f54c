"""The single list of shared options: one letter and one meaning each.

-m  the model        -o  where the output goes     -v / -q  more or fewer messages (``main``)
"""

import os
import sys
from typing import Any

import click

from hiresattn.errors import ConfigError


class _Numbers(click.ParamType[Any]):
    """Numbers with commas between them; counts and bounds are checked."""

    def __init__(self, name: str, number: type[int] | type[float], example: str, *, count: int = 0) -> None:
        self.name = name
        self._number = number
        self._example = example
        self._count = count

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Text to a tuple of numbers."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(self._number(part) for part in value.split(","))
        except ValueError:
            numbers = ()
        wrong = not numbers or (self._count and len(numbers) != self._count)
        complaint = "not the numbers needed" if wrong else self._complaint(numbers)
        if complaint:
            self.fail(f"{value!r}: {complaint}; write it like {self._example}", param, ctx)
        return numbers

    def _complaint(self, numbers: tuple[Any, ...]) -> str:
        return "" if min(numbers) >= 1 else "must be 1 or more"


class _Counts(_Numbers):
    def _complaint(self, numbers: tuple[Any, ...]) -> str:
        return "" if min(numbers) >= 0 else "must be 0 or more"


class _Range(_Numbers):
    def _complaint(self, numbers: tuple[Any, ...]) -> str:
        return "" if numbers[0] < numbers[1] else "the first must lie below the second"


class _Region(_Numbers):
    def _complaint(self, numbers: tuple[Any, ...]) -> str:
        good = min(numbers[:2]) >= 0 and min(numbers[2:]) >= 1
        return "" if good else "Y and X start at 0, and H and W must be 1 or more"


class _Box(_Numbers):
    def _complaint(self, numbers: tuple[Any, ...]) -> str:
        west, south, east, north = numbers
        good = -90 <= south < north <= 90 and -180 <= west <= 180 and -180 <= east <= 180 and west != east
        return "" if good else "longitudes are -180 to 180, latitudes -90 to 90, S below N"


class _Bounds(_Numbers):
    def _complaint(self, numbers: tuple[Any, ...]) -> str:
        left, bottom, right, top = numbers
        return "" if left < right and bottom < top else "left lies below right, bottom below top"


class _CountOrAuto(click.ParamType[Any]):
    name = "count"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A whole number from 1, or ``auto``."""
        if value == "auto" or not isinstance(value, str):
            return value
        if not value.isdecimal() or int(value) < 1:
            self.fail(f"{value!r}: a whole number from 1, or auto", param, ctx)
        return int(value)


class _Stop(click.ParamType[Any]):
    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A confidence, or ``off``."""
        if value == "off" or not isinstance(value, str):
            return value
        try:
            share = float(value)
        except ValueError:
            share = 0.0
        if not 0 < share <= 1:
            self.fail(f"{value!r}: a confidence above 0 and up to 1, such as 0.95, or off", param, ctx)
        return share


class _Mpp(click.ParamType[Any]):
    name = "mpp"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Micrometres, or ``auto`` or ``off``."""
        if value in ("auto", "off") or not isinstance(value, str):
            return value
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r}: micrometres per px, such as 0.5, auto or off", param, ctx)


class _Bands(click.ParamType[Any]):
    name = "bands"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Numbers from 1, or names, with commas between them."""
        if isinstance(value, tuple):
            return value
        bands = tuple(int(part) if part.isdecimal() else part for part in map(str.strip, value.split(",")))
        if not all(bands):
            self.fail(
                f"{value!r}: bands are counted from 1, or named; write them like 4,3,2 or red,green,blue",
                param,
                ctx,
            )
        return bands


BANDS = _Bands()
VALUE_RANGE = _Range("LO,HI", float, "0,10000", count=2)
REGION = _Region("Y,X,H,W", int, "0,2048,1024,1024", count=4)
BOX = _Box("W,S,E,N", float, "-75.2,39.9,-75.1,40.0", count=4)
BOUNDS = _Bounds("LEFT,BOTTOM,RIGHT,TOP", float, "500000,4990000,510000,5000000", count=4)
SIZES = _Numbers("512,1024", int, "512,1024,2048")
COUNT_OR_AUTO = _CountOrAuto()
MPP = _Mpp()
DEPTH_COUNTS = _Counts("4,2", int, "4,2")


def check_budget(text: str, most: str | None = None) -> None:
    """Refuse a budget, or what an unsure image may cost, that can't be read: wrong usage."""
    from hiresattn.inference.budget import Budget

    for hint, one in (("--budget", text), ("--max-budget", most)):
        try:
            Budget.parse(one or 1)
        except ConfigError as error:
            raise click.BadParameter(str(error), param_hint=hint) from error


def use_threads(count: int | None) -> None:
    """Let PyTorch compute with as many threads as read, also where it isn't loaded yet; None = as many as it likes."""
    if count is None:
        return
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(max(count, 1))
    else:
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(max(count, 1))


model = click.option(
    "-m", "--model", required=True, metavar="MODEL", help="Model directory, or hf:owner/name."
)
budget = click.option(
    "--budget",
    default="64",
    show_default=True,
    metavar="N|BYTES|SECONDS",
    help="What one image may cost: glimpses (64), bytes read (50MB) or time (2s).",
)
stop = click.option(
    "--stop",
    type=_Stop(),
    default="0.95",
    show_default=True,
    metavar="SHARE|off",
    help="Probability of the class at which the search stops; off = spend the budget.",
)
until_confidence = click.option(
    "--until-confidence",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="SHARE",
    help="Go on beyond --budget while the probability is below this, up to --max-budget.",
)
max_budget = click.option(
    "--max-budget",
    metavar="N|BYTES|SECONDS",
    help="What an image that is not sure may cost in all, such as 512.",
)
policy = click.option(
    "--policy",
    type=click.Choice(["best-first", "top-k", "random", "lowres"]),
    default="best-first",
    show_default=True,
    help="Order of the search. top-k visits the cells per region that training does; random and lowres (root "
    "regions only) are controls. top-k and lowres don't use --budget and --stop.",
)
scorer = click.option(
    "--scorer",
    metavar="NAME",
    help="random replaces the scorer by random scores (a control). [default: the model's]",
)
nms = click.option(
    "--nms",
    type=click.FloatRange(0, 1),
    metavar="IOU",
    help="Largest overlap (intersection over union) with a better cell or a visited region. [default: 1]",
)
device = click.option(
    "--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda, cuda:N or mps."
)
engine = click.option(
    "--engine",
    type=click.Choice(["auto", "torch", "onnx", "onnx-int8"]),
    default="auto",
    show_default=True,
    help="What runs the network. auto: ONNX Runtime on the CPU, where `export-model` wrote the network for it.",
)
provider = click.option(
    "--provider",
    metavar="NAME",
    help="ONNX Runtime's execution provider, such as openvino. [default: by --device]",
)
precision = click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="What PyTorch multiplies in; bfloat16 is faster on GPUs, scores differ in the third digit.",
)
bands = click.option(
    "-b",
    "--bands",
    "--bidx",
    "bands",
    type=BANDS,
    metavar="1,2,3|NAMES",
    help="Bands of the image, counted from 1, or by name: B04,B03,B02; red,green,blue. [default: the model's]",
)
value_range = click.option(
    "--value-range",
    type=VALUE_RANGE,
    metavar="LO,HI",
    help="Stored values that are darkest and brightest, such as 0,10000. [default: the model's]",
)
hide_names = click.option(
    "--hide-names",
    is_flag=True,
    help="Write no names of files and folders: cases are called by case_id, else by number.",
)
seed = click.option(
    "--seed", type=click.IntRange(min=0), metavar="N", help="Seed of all random numbers. [default: 0]"
)
threads = click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Threads that read and compute. [default: the cores, at most 8]",
)
assume_mpp = click.option(
    "--assume-mpp",
    type=click.FloatRange(min=0, min_open=True),
    metavar="X",
    help="µm per level-0 px of images of which the manifest says none, and the file none that can be meant.",
)
mpp = click.option(
    "--mpp",
    type=click.FloatRange(min=0, min_open=True),
    metavar="X",
    help="µm per level-0 px, in place of what the file or manifest says.",
)
per_source = click.option(
    "--per-source", is_flag=True, help="Answer for each image, also where a manifest names cases."
)
nodata = click.option(
    "--nodata",
    type=float,
    metavar="VALUE",
    help="Stored value of px that were not measured, in place of what the file says.",
)
foreground = click.option(
    "--foreground",
    metavar="tissue|none|MASK",
    help="What is looked at closely: tissue, all (none), or where MASK, an image of one band that shows the whole of "
    "the source, is above 0. [default: as trained]",
)
one_thread = click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Threads that read.",
)
label_column = click.option(
    "--label-column", metavar="NAME", help="Column of the manifest that holds the label. [default: label]"
)
root = click.option(
    "--root",
    metavar="DIR",
    help="Folder that paths in the manifest are relative to. [default: the manifest's]",
)
batch_images = click.option(
    "--batch-images",
    type=COUNT_OR_AUTO,
    default="auto",
    show_default=True,
    metavar="N|auto",
    help="Images searched side by side, which share batches of the network.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON in place of the table.")
