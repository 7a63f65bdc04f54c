"""How many images are searched side by side."""

import os
import time
from collections.abc import Iterable, Sized
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np

from hiresattn.card import Card
from hiresattn.config import InputConfig
from hiresattn.inference.engine import Engine
from hiresattn.inference.session import Session

#: Images side by side where that pays.
MOST_IMAGES = 16
#: Memory that an image may take while it is searched: decoded tiles, bytes.
BYTES_PER_IMAGE = 32 << 20
#: A batch is worth it on the CPU if it takes at most this share of the time, a crop, of one at a time.
_WORTH = 0.75
_REPEATS = 3
_MEMINFO = Path("/proc/meminfo")

_measured: WeakKeyDictionary[Card, int] = WeakKeyDictionary()


def batch_images(session: Session, sources: Iterable[object], most_each: int = 1) -> int:
    """How many images, or cases, are searched side by side.

    One where the order of looks would depend on it (random scores), where the clock counts (a budget in seconds), and
    where nothing is searched. Else as many as asked for; ``auto``: 16 on a GPU, on the CPU what a measurement of the
    encoder says is fastest, and never more than there is memory for.

    Args:
        session: Model and options.
        sources: What is to be classified.
        most_each: Images of the largest case.
    """
    options, model = session.options, session.model
    if not options.searches or session.squash is not None or model.config.scorer == "random":
        return 1
    count = len(sources) if isinstance(sources, Sized) else MOST_IMAGES
    if options.batch_images != "auto":
        return max(1, min(int(options.batch_images), count))
    if count < 2 or session.seconds is not None:
        return 1
    most = min(MOST_IMAGES, count, _images_in_memory() // most_each)
    if most < 2:
        return 1
    if session.engine.device != "cpu":
        return most
    if model not in _measured:
        _measured[model] = _fastest_batch(session.engine, model.config.input)
    return min(most, _measured[model])


def _fastest_batch(engine: Engine, config: InputConfig) -> int:
    """Crops in a batch that take the least time each: 1, 4 or 16."""
    best, least = 1, _seconds_per_crop(engine, config, 1)
    alone = least
    for count in (4, 16):
        seconds = _seconds_per_crop(engine, config, count)
        if seconds > _WORTH * alone or seconds > least:
            break
        best, least = count, seconds
    return best


def _seconds_per_crop(engine: Engine, config: InputConfig, count: int) -> float:
    """CPU time of a pass, the quickest of some, for each of ``count`` crops: other programs don't change it."""
    size = config.size
    pixels = np.zeros((count, len(config.bands), size, size), np.float32)
    coverage, finest = np.ones((count, size, size), np.float32), engine.facts.finest
    regions = np.tile(np.array([[0, 0, finest, finest]], np.int64), (count, 1))
    paths = np.zeros((count, 3), np.int64)
    times = []
    for _ in range(_REPEATS + 1):
        started = time.process_time()
        engine.look(pixels, coverage, regions, regions, paths)
        times.append(time.process_time() - started)
    return min(times[1:]) / count


def _images_in_memory() -> int:
    """Images whose decoded tiles take at most a quarter of the memory that is free; as many come next."""
    free = _free_memory()
    return MOST_IMAGES if free is None else max(1, int(free / 4 / (2 * BYTES_PER_IMAGE)))


def _free_memory() -> int | None:
    """Memory that programs can have, bytes: what only caches files counts as free. None = not known."""
    try:
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):  # not Linux
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # not on this system
        return None
