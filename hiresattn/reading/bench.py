"""Times reading crops of a file: this library, the usual loop over another one, and a lower bound.

The lower bound ("floor") is decoding each different tile under the crops once, from stored bytes in memory.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import starmap
from typing import Any

import numpy as np

from hiresattn.config import InputConfig
from hiresattn.errors import ConfigError, RegionError
from hiresattn.option_types import did_you_mean
from hiresattn.pyramid.base import Pyramid
from hiresattn.reading.baselines import BASELINES
from hiresattn.reading.crops import kept_tiles, read_crops
from hiresattn.reading.fetch import CropFetcher
from hiresattn.reading.plan import plan_windows

PATTERNS = ("clustered", "grid", "random")

#: The loop is timed this often, the others ``_FAST`` times as often, in turns; the least CPU time counts.
ROUNDS = 3
_FAST = 3

_CENTRES, _SIGMA = 10, 400.0

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Timing:
    """Time per crop, in ms."""

    cpu_ms: float
    wall_ms: float


@dataclass(frozen=True)
class Ours(Timing):
    """``read_crops`` of this library: ``[n h w c]`` as stored."""

    tiles: int
    """Tiles decoded."""
    unique_tiles: int
    """Different tiles that the crops touch."""
    bytes: int
    """Stored bytes read."""


@dataclass(frozen=True)
class Loop(Timing):
    """One call per crop of the usual library for the format."""

    name: str


@dataclass(frozen=True)
class Floor:
    """Decoding each different tile once."""

    decoder: str
    cpu_ms: float


@dataclass(frozen=True)
class Fused(Timing):
    """``CropFetcher``: float32 ``[n c s s]``, scaled to -1 … 1, and the mask of what was measured."""

    ratio_to_floor: float | None
    max_abs_difference: float
    """From ours, in native values."""


@dataclass(frozen=True)
class ReadBench:
    """What was measured, at level 0 and on one thread."""

    pattern: str
    crops: int
    size: int
    ours: Ours
    loop: Loop
    floor: Floor | None
    """None where tiles are not read natively."""
    fused: Fused
    speedup_over_loop: float
    """CPU time of the loop over ours."""
    ratio_to_floor: float | None
    """CPU time of ours over the floor."""
    max_abs_difference: float
    """Between our px and the loop's, in native values."""

    def to_json(self) -> dict[str, Any]:
        """The values as JSON types."""
        return asdict(self)


def bench_reading(
    pyramid: Pyramid,
    pattern: str = "clustered",
    *,
    crops: int = 500,
    size: int = 224,
    progress: Progress | None = None,
) -> ReadBench:
    """Time reading crops of level 0 on one thread, beside the usual library and the floor.

    All read the same crops, in turns, and their px are compared. Kernels are compiled and the file is in the system's
    cache before, and the arrays that crops are written to are used again.

    Args:
        pyramid: The image.
        pattern: ``clustered`` (10 centres, 400 px around them), ``grid`` (contiguous, shuffled) or ``random``.
        crops: How many.
        size: Side of a crop, px.
        progress: Called with the rounds done and what is being timed.

    Returns:
        The times.

    Raises:
        ConfigError: If the pattern is unknown, or there is no other library for this source.
        RegionError: If the image is too small for the crops.
        ReadError: If a tile can't be decoded.
    """
    report = progress or (lambda _done, _what: None)
    yx = crop_corners(pattern, pyramid.height, pyramid.width, crops, size, what=pyramid.source)
    if pyramid.backend not in BASELINES:
        raise ConfigError(f"{pyramid.source}: there is no usual way to read this; give a file")
    name, opened = BASELINES[pyramid.backend]
    decode = _floor(pyramid, yx, size)
    config = _as_it_is(pyramid, size)
    regions = np.concatenate([yx, np.full_like(yx, size)], axis=1)
    image = np.zeros(len(yx), np.int64)

    report(0, "first reads")
    read = read_crops(pyramid, yx, size)
    with opened(pyramid, size) as cut:
        difference = max(map(_difference, read.pixels, starmap(cut, yx.tolist())))
    with CropFetcher([pyramid], config, threads=1, cache_bytes=0) as fetch:
        fused = fetch(image, regions)
        back = _unscaled_difference(read.pixels, fused.pixels, pyramid, config)

        def loop() -> None:
            with opened(pyramid, size) as cut:
                for y, x in yx.tolist():
                    cut(y, x)

        def ours() -> None:
            pyramid.close()  # as the loop does: no library keeps what it decoded
            kept_tiles(pyramid).clear()
            read_crops(pyramid, yx, size, out=read.pixels)

        def ready() -> None:
            pyramid.close()
            fetch(image, regions, fused)

        ways: dict[str, Callable[[], Any]] = {"ours": ours, "fused": ready, name: loop}
        if decode is not None:
            ways["floor"] = decode
        turns = [way for way in ways if way != name] * _FAST + [name]
        best = {way: Timing(np.inf, np.inf) for way in ways}
        for done in range(ROUNDS * len(turns)):
            way = turns[done % len(turns)]
            report(done / len(turns), way)
            best[way] = min(best[way], _timed(ways[way], len(yx)), key=lambda timing: timing.cpu_ms)
    report(ROUNDS, "done")
    native = pyramid.native_tiles
    floor = None if native is None else Floor(native.decoder, best["floor"].cpu_ms)
    return ReadBench(
        pattern=pattern,
        crops=crops,
        size=size,
        ours=Ours(**asdict(best["ours"]), tiles=read.tiles, unique_tiles=read.unique_tiles, bytes=read.bytes),
        loop=Loop(**asdict(best[name]), name=name),
        floor=floor,
        fused=Fused(
            **asdict(best["fused"]),
            ratio_to_floor=None if floor is None else best["fused"].cpu_ms / floor.cpu_ms,
            max_abs_difference=back,
        ),
        speedup_over_loop=best[name].cpu_ms / best["ours"].cpu_ms,
        ratio_to_floor=None if floor is None else best["ours"].cpu_ms / floor.cpu_ms,
        max_abs_difference=difference,
    )


def crop_corners(
    pattern: str, height: int, width: int, count: int, size: int, *, seed: int = 0, what: str = "the image"
) -> np.ndarray:
    """First rows and columns of crops, int64 ``[n 2]``.

    Args:
        pattern: One of ``PATTERNS``.
        height: Rows of the image.
        width: Columns of the image.
        count: How many crops.
        size: Side of a crop, px.
        seed: Same seed, same crops.
        what: Name of the image, for messages.

    Raises:
        ConfigError: If the pattern is unknown.
        RegionError: If the crops don't fit into the image.
    """
    if pattern not in PATTERNS:
        raise ConfigError(f"unknown pattern {pattern!r}{did_you_mean(pattern, PATTERNS)}")
    random = np.random.default_rng(seed)
    room = np.array([height, width]) - size
    if min(room) < 0 or min(size, count) < 1:
        raise RegionError(
            f"{what}: {count} crops of {size} px; it has {height} x {width} px, so ask for smaller ones"
        )
    if pattern == "random":
        return random.integers(0, room + 1, (count, 2))
    if pattern == "clustered":
        centres = random.random((_CENTRES, 2)) * room
        corners = centres[np.arange(count) % _CENTRES] + random.normal(0, _SIGMA, (count, 2))
        return np.clip(np.rint(corners), 0, room).astype(np.int64)
    columns = min(int(np.ceil(np.sqrt(count))), width // size)
    rows = -(-count // columns)
    if rows * size > height:
        fit = columns * (height // size)
        raise RegionError(f"{what}: {fit} crops of {size} px lie side by side in it; ask for as many")
    nth = np.arange(count)
    start = (np.array([height, width]) - np.array([rows, columns]) * size) // 2
    return random.permutation(np.stack([nth // columns, nth % columns], axis=1) * size + start)


def _timed(run: Callable[[], Any], crops: int) -> Timing:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Timing(round(1e3 * cpu / crops, 4), round(1e3 * wall / crops, 4))


def _floor(pyramid: Pyramid, yx: np.ndarray, size: int) -> Callable[[], None] | None:
    """What decodes each different tile once, from memory; None where tiles aren't read natively."""
    native = pyramid.native_tiles
    if native is None:
        return None
    windows = np.concatenate([yx, np.full_like(yx, size)], axis=1).astype(np.float64)
    plan = plan_windows(windows, np.zeros(len(yx), np.int64), pyramid.levels)
    held = [(row, column, native.stored(0, row, column)) for _, row, column in plan.tiles.tolist()]
    there = [(row, column, stored) for row, column, stored in held if stored is not None]
    buffer = native.buffer(0)

    def decode() -> None:
        pyramid.close()
        for row, column, stored in there:
            native.decode(0, row, column, stored, buffer)

    return decode


def _as_it_is(pyramid: Pyramid, size: int) -> InputConfig:
    """All bands, unresampled; -1 and +1 are the ends of the data type's range (of floats: 0 and 1)."""
    palette = pyramid.palette is not None
    count = 3 if palette else pyramid.channels
    dtype = np.dtype(np.uint8) if palette else pyramid.dtype
    low, high = (0.0, 1.0) if dtype.kind == "f" else (float(np.iinfo(dtype).min), float(np.iinfo(dtype).max))
    return InputConfig(
        size=size, bands=tuple(range(count)), low=(low,) * count, high=(high,) * count, dtype=dtype.name
    )


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    if ours.shape != theirs.shape:
        return float("inf")
    return float(np.nan_to_num(np.abs(ours.astype(np.float64) - theirs)).max())


def _unscaled_difference(ours: np.ndarray, fused: np.ndarray, pyramid: Pyramid, config: InputConfig) -> float:
    """How far the scaled crops, scaled back, are from ours; what isn't measured (0 there) aside."""
    low, high = config.low[0], config.high[0]
    worst = 0.0
    for crop, scaled in zip(ours, fused, strict=True):
        native = crop if pyramid.palette is None else np.take(pyramid.palette, crop[:, :, 0], 0, mode="clip")
        back = (scaled.transpose(1, 2, 0).astype(np.float64) + 1) / 2 * (high - low) + low
        difference = np.abs(native - back)[(scaled != 0).any(axis=0)]
        worst = max(worst, float(difference.max(initial=0.0)))
    return worst
