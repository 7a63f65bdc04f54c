"""Classify sources: open, search, and say what was found, where it was, and what that cost."""

import copy
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hiresattn.checkpoint import Model, load_model
from hiresattn.config import InputConfig, did_you_mean
from hiresattn.datasets.example import Example, Label, names_of
from hiresattn.errors import ConfigError, HiresattnError
from hiresattn.inference.answer import Job, blank_record, classify_one, frame_of, name_of
from hiresattn.inference.budget import Budget
from hiresattn.inference.image_search import MAX_OVERLAP, Policy
from hiresattn.inference.record import Prediction
from hiresattn.inference.roots import MOST_AT_ONCE
from hiresattn.model.device import pick_device
from hiresattn.model.scorers import RandomScorer
from hiresattn.pyramid import Pyramid
from hiresattn.reading.fetch import CropFetcher
from hiresattn.reading.prefetch import Opened, one_ahead
from hiresattn.reading.squash import SquashFetcher

POLICIES = ("best-first", "top-k", "random", "lowres", "exhaustive")


def classify(
    sources: Iterable[Any],
    model: Model | str | Path,
    *,
    budget: str | int | Budget = 64,
    stop: float | str | None = 0.95,
    policy: str = "best-first",
    device: str = "auto",
    bands: tuple[int, ...] | None = None,
    value_range: tuple[float, float] | None = None,
    strict: bool = False,
    on_error: str = "raise",
    seed: int = 0,
    threads: int | None = None,
    nms: float = 1.0,
    scorer: str | None = None,
) -> Iterator[Prediction]:
    """Classify images by looking at a fraction of them.

    Args:
        sources: Paths, URLs, arrays ``[h w c]``, open pyramids, or ``Example``s (a window of an image); or one
            of these.
        model: A model directory, a hub name (``hf:owner/name``) or a loaded model.
        budget: What one image may cost: glimpses (``64``), stored bytes (``"50MB"``) or seconds (``"2s"``).
        stop: Confidence at which the search ends early, 0 to 1; None or "off" = spend the budget.
        policy: ``best-first``; ``top-k`` (the training's k cells per region and depth, whatever the budget);
            ``random`` cells, ``lowres`` (the first glance only) or ``exhaustive`` (every place at the finest
            scale, whatever the budget), to compare with.
        device: ``auto``, ``cpu``, ``cuda:N`` or ``mps``.
        bands: Bands to feed the model, counted from 0, in place of the model's own.
        value_range: Native values that stand for the model's darkest and brightest; for images of another
            data type or range than the training's.
        strict: Whether a tile that a file leaves out is an error; else it counts as not measured.
        on_error: ``raise``, or ``record`` to yield a record with status ``error`` and go on.
        seed: Of the random policy.
        threads: Threads that read; default: the machine's cores, at most 8.
        nms: Largest overlap (intersection over union) of two chosen cells of a region, or, in a search, of two
            visited regions of a depth: at most .5 there, whatever this says. 1 = any.
        scorer: ``random``, a control: random scores in place of the model's, all else as it is. None, or the
            model's own by name, = the model's.

    Returns:
        An iterator of one record per source, in order; each is classified when it is asked for. While one is, a
        thread opens the next and reads its root regions: memory holds two images' caches.

    Raises:
        ConfigError: If an option is unusable.
        HiresattnError: With ``on_error="raise"``, what is wrong with a source.
    """
    if policy not in POLICIES:
        raise ConfigError(f"unknown policy {policy!r}{did_you_mean(policy, POLICIES)}")
    if on_error not in ("raise", "record"):
        raise ConfigError(f"on_error must be 'raise' or 'record'; got {on_error!r}")
    confidence = None if stop == "off" else stop
    if confidence is not None and not (isinstance(confidence, (int, float)) and 0 < confidence <= 1):
        raise ConfigError(f"stop is a confidence above 0 and at most 1, or None; got {stop!r}")
    if not 0 <= nms <= 1:
        raise ConfigError(f"nms is an intersection over union, 0 to 1; got {nms}")
    if threads is not None and threads < 0:
        raise ConfigError(f"threads must be 0 or more; got {threads}")
    if seed < 0:
        raise ConfigError(f"seed must be 0 or more; got {seed}")
    if value_range is not None:
        check_value_range(value_range)
    if isinstance(sources, (str, Path, Example, Pyramid)) or hasattr(sources, "dtype"):
        sources = [sources]
    loaded = with_scorer(model if isinstance(model, Model) else load_model(model), scorer, seed)
    job = Job(
        model=loaded,
        budget=Budget.parse(budget),
        search=Policy(
            stop=confidence,
            random=policy == "random",
            seed=seed,
            max_overlap=min(nms, MAX_OVERLAP),
            temperature=loaded.temperature,
        ),
        policy=policy,
        nms=nms,
        bands=bands,
        value_range=value_range,
        rules={"strict": strict} | ({} if threads is None else {"threads": threads}),
    )
    job.model.net.to(pick_device(device)).eval()
    return _classify(sources, job, on_error)


def with_scorer(model: Model, scorer: str | None, seed: int = 0) -> Model:
    """A model with another scorer, which can only be the random one: others are a part of what was trained.

    Args:
        model: Stays as it is.
        scorer: ``random``; or the model's own name or None, for the model itself.
        seed: Of the random scores.

    Raises:
        ConfigError: If it is another.
    """
    if scorer in (None, model.config.scorer):
        return model
    if scorer != "random":
        raise ConfigError(
            f"the model {model.name!r} was trained with the scorer {model.config.scorer!r}, not {scorer!r}; train "
            "one with it, or compare with 'random'"
        )
    if model.config.head == "scorer":
        raise ConfigError(
            f"the model {model.name!r} predicts with its scorer's own head; it can't be replaced"
        )
    net = copy.deepcopy(model.net)
    net.scorer = RandomScorer(grid=model.config.grid.size, seed=seed)
    return replace(model, net=net, config=replace(model.config, scorer="random"))


@dataclass
class _Turn:
    """A source whose turn comes: opened, and its first glance read; or what went wrong."""

    example: Example
    fetcher: CropFetcher | SquashFetcher | None = None
    pyramid: Pyramid | None = None
    error: Exception | None = None
    opened: float = 0.0
    glanced: float = 0.0


def _classify(sources: Iterable[Any], job: Job, on_error: str) -> Iterator[Prediction]:
    images = Opened()
    examples = (source if isinstance(source, Example) else Example(source) for source in sources)
    try:
        with closing(one_ahead(examples, partial(_prepared, job, images), partial(_done, images))) as turns:
            for turn in turns:
                try:
                    answer = _answer(turn, job)
                except (HiresattnError, MemoryError, torch.OutOfMemoryError) as error:
                    if on_error == "raise":
                        raise
                    words = (
                        str(error) or f"{name_of(turn.example)}: out of memory; lower --budget or --threads"
                    )
                    answer = replace(blank_record(turn.example, job.model), status="error", error=words)
                finally:
                    _done(images, turn)
                yield answer
    finally:
        images.close()


def _prepared(job: Job, images: Opened, example: Example) -> _Turn:
    """Open a source and read its first glance. Runs in another thread, while the source before is searched."""
    started = time.perf_counter()
    turn = _Turn(example)
    try:
        turn.pyramid = pyramid = images.take(_key(example))
        _check_label(example, pyramid, job.model)
        config = input_for(job.model.config.input, pyramid, job.bands, job.value_range)
        turn.fetcher = _fetcher(pyramid, config, example.region, job.rules)
        turn.opened = time.perf_counter() - started
        if isinstance(turn.fetcher, CropFetcher) and job.policy != "exhaustive":
            _, _, roots = frame_of(pyramid, example, None, job.model)
            if len(roots) <= min(MOST_AT_ONCE, job.budget.glimpses or MOST_AT_ONCE):  # looked at all at once
                turn.fetcher.prepare(np.zeros(len(roots), np.int64), roots)
        turn.glanced = time.perf_counter() - started - turn.opened
    except Exception as error:  # noqa: BLE001 - raised when it is this source's turn
        turn.error = error
    return turn


def _answer(turn: _Turn, job: Job) -> Prediction:
    if turn.error is not None:
        raise turn.error
    assert turn.pyramid is not None  # noqa: S101 - there is one where there is no error
    assert turn.fetcher is not None  # noqa: S101
    started = time.perf_counter()
    found = classify_one(turn.pyramid, turn.example, turn.fetcher, job)
    total = time.perf_counter() - started + turn.opened + turn.glanced
    seconds = replace(
        found.cost.seconds,
        open=round(turn.opened, 4),
        read=round(found.cost.seconds.read + turn.glanced, 4),
        total=round(total, 4),
    )
    return replace(found, cost=replace(found.cost, seconds=seconds))


def _done(images: Opened, turn: _Turn) -> None:
    """Let go of a source."""
    if isinstance(turn.fetcher, CropFetcher):
        turn.fetcher.close()
    if turn.pyramid is not None:
        images.give_back(_key(turn.example))


def _key(example: Example) -> Any:
    """Windows of one file are one image, however its path was given."""
    return str(example.source) if isinstance(example.source, Path) else example.source


def check_value_range(value_range: tuple[float, float]) -> tuple[float, float]:
    """A pair of finite values, the lower one first.

    Raises:
        ConfigError: If it is not that.
    """
    if len(value_range) != 2 or not np.isfinite(value_range).all() or not value_range[0] < value_range[1]:
        raise ConfigError(f"a value range is two finite values, the lower one first; got {value_range}")
    return value_range


def input_for(
    config: InputConfig,
    pyramid: Pyramid,
    bands: tuple[int, ...] | None,
    value_range: tuple[float, float] | None,
) -> InputConfig:
    """The model's input rule with what the caller says of this image.

    Raises:
        ConfigError: If the number of bands is not the model's, or the range is empty.
    """
    if bands is not None:
        if len(bands) != len(config.bands):
            raise ConfigError(
                f"{pyramid.source}: {len(bands)} bands were named, the model takes {len(config.bands)}; name as "
                f"many, for example --bands {','.join(str(b + 1) for b in config.bands)}"
            )
        config = replace(config, bands=bands, channels=None)
    if value_range is not None:
        low, high = check_value_range(value_range)
        count = len(config.bands)
        config = replace(config, low=(low,) * count, high=(high,) * count, dtype=str(pyramid.dtype))
    return config


def _fetcher(
    pyramid: Pyramid, config: InputConfig, region: tuple[int, int, int, int] | None, rules: Mapping[str, Any]
) -> CropFetcher | SquashFetcher:
    """What reads the image as the model was trained to see it."""
    if config.squash is None:
        return CropFetcher([pyramid], config, **rules)
    return SquashFetcher(pyramid, config, region, strict=rules["strict"])


def _check_label(example: Example, pyramid: Pyramid, model: Model) -> None:
    """A label that the model doesn't know would count as a wrong answer."""
    for name in known_labels(example.label, model) or ():
        if name not in model.classes:
            raise ConfigError(
                f"{pyramid.source}: label {name!r} is none of the model's classes "
                f"({', '.join(model.classes)}){did_you_mean(name, model.classes)}; mend the manifest, or leave the "
                "label empty"
            )


def known_labels(label: Label | None, model: Model) -> tuple[str, ...] | None:
    """What a model should answer: of one that takes several labels all, else one; None = not known.

    Raises:
        ConfigError: If there are several labels and the model answers with one.
    """
    if model.config.multi_label:
        return names_of(label)
    if isinstance(label, tuple):
        raise ConfigError(
            f"several labels ({', '.join(label) or 'none'}), and model {model.name!r} answers with one class; give "
            "a column label in place of labels, or a model trained with --multi-label"
        )
    return None if label is None else (label,)
