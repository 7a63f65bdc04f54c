"""The single list of shared options: one letter and one meaning each.

-m  the model        -o  where the output goes     -v / -q  more or fewer messages (``main``)
"""

from typing import Any

import click

from hiresattn.errors import ConfigError


class _Numbers(click.ParamType[Any]):
    """Numbers with commas between them; counts and bounds are checked."""

    def __init__(self, name: str, kind: type[int] | type[float], example: str, *, count: int = 0) -> None:
        self.name = name
        self._kind = kind
        self._example = example
        self._count = count

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Text to a tuple of numbers."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(self._kind(part) for part in value.split(","))
        except ValueError:
            numbers = ()
        wrong = not numbers or (self._count and len(numbers) != self._count)
        complaint = "not the numbers needed" if wrong else self._complaint(numbers)
        if complaint:
            self.fail(f"{value!r}: {complaint}; write it like {self._example}", param, ctx)
        return self._made(numbers)

    def _complaint(self, numbers: tuple[Any, ...]) -> str:
        return "" if min(numbers) >= 1 else "must be 1 or more"

    def _made(self, numbers: tuple[Any, ...]) -> tuple[Any, ...]:
        return numbers


class _Bands(_Numbers):
    """Bands counted from 1 outside and from 0 inside."""

    def _made(self, numbers: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(number - 1 for number in numbers)


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


BANDS = _Bands("1,2,3", int, "1,2,3")
VALUE_RANGE = _Range("LO,HI", float, "0,10000", count=2)
REGION = _Region("Y,X,H,W", int, "0,2048,1024,1024", count=4)
SIZES = _Numbers("512,1024", int, "512,1024,2048")
DEPTH_COUNTS = _Counts("4,2", int, "4,2")


def check_budget(text: str) -> None:
    """Refuse a budget that can't be read: wrong usage."""
    from hiresattn.inference.search import Budget

    try:
        Budget.parse(text)
    except ConfigError as error:
        raise click.BadParameter(str(error), param_hint="--budget") from error


def use_threads(count: int | None) -> None:
    """Let PyTorch compute with as many threads as read; None = as many as it likes."""
    if count is not None:
        import torch

        torch.set_num_threads(count)


model = click.option(
    "-m", "--model", required=True, metavar="MODEL", help="Model directory, or hf:owner/name."
)
budget = click.option(
    "--budget",
    default="64",
    show_default=True,
    metavar="N|BYTES|SECONDS",
    help="What one image may cost: glimpses (64), bytes (50MB) or time (2s).",
)
stop = click.option(
    "--stop",
    type=_Stop(),
    default="0.95",
    show_default=True,
    metavar="SHARE|off",
    help="Stop as soon as the class is this sure.",
)
policy = click.option(
    "--policy",
    type=click.Choice(["best-first", "top-k", "random", "lowres"]),
    default="best-first",
    show_default=True,
    help="Where to look next. top-k (the cells per region that training visits) and lowres (no closer look at "
    "all) don't use --budget and --stop. random and lowres are for comparison.",
)
scorer = click.option(
    "--scorer",
    metavar="NAME",
    help="random: scores drawn by chance in place of the model's, for comparison. Its own name changes nothing.",
)
nms = click.option(
    "--nms",
    type=click.FloatRange(0, 1),
    metavar="IOU",
    help="No cell that overlaps a better one, or a place already seen, by more than this (intersection over union).",
)
device = click.option(
    "--device", default="auto", show_default=True, metavar="auto|cpu|cuda:N|mps", help="Where the model runs."
)
bands = click.option("--bands", type=BANDS, metavar="1,2,3", help="Bands of the image, counted from 1.")
value_range = click.option(
    "--value-range",
    type=VALUE_RANGE,
    metavar="LO,HI",
    help="Values that stand for darkest and brightest, such as 0,10000.",
)
seed = click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Same seed, same result.")
threads = click.option(
    "--threads", type=click.IntRange(min=1), metavar="N", help="Threads that read, decode and compute."
)
as_json = click.option("--json", "as_json", is_flag=True, help="JSON on stdout in place of the table.")
