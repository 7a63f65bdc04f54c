"""Classify sources: open, search, and say what was found, where it was, and what that cost."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

import hiresattn
from hiresattn.checkpoint import Domain, Model, load_model
from hiresattn.config import InputConfig, did_you_mean
from hiresattn.errors import ConfigError, HiresattnError
from hiresattn.fetch import CropFetcher, Crops
from hiresattn.geometry import check_region, root_regions
from hiresattn.manifest import Example
from hiresattn.model.net import Traversal
from hiresattn.model.select import TopK
from hiresattn.pyramid import Pyramid, open_pyramid
from hiresattn.report.record import Cost, Prediction, Seconds, VisitedRegion
from hiresattn.search import Budget, Policy, best_first

POLICIES = ("best-first", "top-k", "random", "lowres")

#: An image's scale may differ from the training images' by this factor before a warning.
SCALE_SLACK = 1.25


def classify(
    sources: Iterable[Any],
    model: Model | str | Path,
    *,
    budget: str | int | Budget = 64,
    stop: float | None = 0.95,
    policy: str = "best-first",
    device: str = "auto",
    bands: tuple[int, ...] | None = None,
    value_range: tuple[float, float] | None = None,
    strict: bool = False,
    on_error: str = "raise",
    seed: int = 0,
    threads: int | None = None,
) -> Iterator[Prediction]:
    """Classify images by looking at a fraction of them.

    Args:
        sources: Paths, URLs, arrays ``[h w c]``, open pyramids, or ``Example``s (a window of an image).
        model: A model directory, a hub name (``hf:owner/name``) or a loaded model.
        budget: What one image may cost: glimpses (``64``), stored bytes (``"50MB"``) or seconds (``"2s"``).
        stop: Confidence at which the search ends early, 0 to 1; None = spend the budget.
        policy: ``best-first``; ``top-k`` (the training's k cells per region and depth, whatever the budget);
            ``random`` cells or ``lowres`` (the first glance only), as controls.
        device: ``auto``, ``cpu``, ``cuda:N`` or ``mps``.
        bands: Bands to feed the model, counted from 0, in place of the model's own.
        value_range: Native values that stand for the model's darkest and brightest; for images of another
            data type or range than the training's.
        strict: Whether a tile that a file leaves out is an error; else it counts as not measured.
        on_error: ``raise``, or ``record`` to yield a record with status ``error`` and go on.
        seed: Of the random policy.
        threads: Threads that read; default: the machine's cores, at most 8.

    Yields:
        One record per source, in order.

    Raises:
        ConfigError: If an option is unusable.
        HiresattnError: With ``on_error="raise"``, what is wrong with a source.
    """
    if policy not in POLICIES:
        raise ConfigError(f"unknown policy {policy!r}{did_you_mean(policy, POLICIES)}")
    if on_error not in ("raise", "record"):
        raise ConfigError(f"on_error must be 'raise' or 'record'; got {on_error!r}")
    if stop is not None and not 0 < stop <= 1:
        raise ConfigError(f"stop is a confidence above 0 and at most 1, or None; got {stop}")
    budget = Budget.parse(budget)
    if not isinstance(model, Model):
        model = load_model(model)
    model.net.to(pick_device(device)).eval()
    rules: dict[str, Any] = {"strict": strict} | ({} if threads is None else {"threads": threads})
    choose = Policy(stop=stop, random=policy == "random", seed=seed)
    with _Held() as held:
        for source in sources:
            example = source if isinstance(source, Example) else Example(source)
            started = time.perf_counter()
            try:
                pyramid = held.open(example.source)
                _check_label(example, pyramid, model)
                config = input_for(model.config.input, pyramid, bands, value_range)
                with CropFetcher([pyramid], config, **rules) as fetcher:
                    opened = time.perf_counter() - started
                    found = _classify_one(pyramid, example, model, fetcher, budget, choose, policy)
                total = time.perf_counter() - started
                seconds = replace(found.cost.seconds, open=round(opened, 4), total=round(total, 4))
                yield replace(found, cost=replace(found.cost, seconds=seconds))
            except HiresattnError as error:
                if on_error == "raise":
                    raise
                yield replace(_blank(example, model), status="error", error=str(error))


class _Held:
    """The image opened last, kept for the next window of it. Pyramids that were given stay the caller's."""

    def __init__(self) -> None:
        self._name: str | None = None
        self._pyramid: Pyramid | None = None

    def open(self, source: Any) -> Pyramid:
        name = str(source) if isinstance(source, (str, Path)) else None
        if self._pyramid is not None and name is not None and name == self._name:
            return self._pyramid
        self.close()
        pyramid = open_pyramid(source)
        if name is not None:
            self._name, self._pyramid = name, pyramid
        return pyramid

    def close(self) -> None:
        if self._pyramid is not None:
            self._pyramid.close()
        self._name = self._pyramid = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def pick_device(name: str) -> torch.device:
    """The device of a name; ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: If the device does not exist here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).splitlines()[0]
        raise ConfigError(
            f"device {name!r} can't be used here ({first}); use auto, cpu, cuda:N or mps"
        ) from error
    return device


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
        config = replace(config, bands=bands)
    if value_range is not None:
        low, high = value_range
        count = len(config.bands)
        config = replace(config, low=(low,) * count, high=(high,) * count, dtype=str(pyramid.dtype))
    return config


def _check_label(example: Example, pyramid: Pyramid, model: Model) -> None:
    """A label that the model doesn't know would count as a wrong answer."""
    if example.label is not None and example.label not in model.classes:
        raise ConfigError(
            f"{pyramid.source}: label {example.label!r} is none of the model's classes "
            f"({', '.join(model.classes)}){did_you_mean(example.label, model.classes)}; mend the manifest, "
            "or leave the label empty"
        )


def _classify_one(
    pyramid: Pyramid,
    example: Example,
    model: Model,
    fetcher: CropFetcher,
    budget: Budget,
    search: Policy,
    policy: str,
) -> Prediction:
    region = example.region or (0, 0, pyramid.height, pyramid.width)
    check_region(region, pyramid.height, pyramid.width, pyramid.source)
    y, x, height, width = region
    roots = [root_regions(height, width, y, x, glance=model.config.glance)]
    frames = np.array([region], np.int64)
    stats = fetcher.stats[0]
    reading = 0.0
    glance: list[np.ndarray] = []

    def fetch(image: np.ndarray, regions: np.ndarray) -> Crops:
        nonlocal reading
        before = time.perf_counter()
        crops = fetcher(image, regions)
        reading += time.perf_counter() - before
        if not glance:
            glance.append(_band_means(crops))
        return crops

    started = time.perf_counter()
    with torch.inference_mode():
        if policy in ("best-first", "random"):
            traversal, (reason,) = best_first(
                model.net,
                fetch,
                roots,
                frames,
                budget=budget,
                policy=search,
                bytes_read=lambda _: stats.bytes,
            )
        else:
            k = (0,) if policy == "lowres" else model.k
            traversal = model.net(fetch, roots, frames, select=TopK(), k=k)
            reason = "depth" if traversal.coverage.any() else "no_valid_pixels"
    thinking = time.perf_counter() - started - reading
    cost = Cost(
        glimpses=len(traversal.image),
        tiles=stats.tiles,
        missing_tiles=stats.missing_tiles,
        pixels_decoded=stats.pixels,
        bytes_read=stats.bytes,
        bytes_estimated=not stats.bytes_exact,
        fraction_read=stats.pixels / (height * width),
        seconds=Seconds(read=round(reading, 4), model=round(thinking, 4)),
        stop_reason=reason,
    )
    record = replace(_blank(example, model), cost=cost, regions=_visited(traversal))
    if reason == "no_valid_pixels":
        return replace(record, status="no_valid_pixels")
    scores = traversal.logits[0].softmax(0).tolist()
    best = int(np.argmax(scores))
    return replace(
        record,
        class_name=model.classes[best],
        score=scores[best],
        scores=dict(zip(model.classes, scores, strict=True)),
        warnings=tuple(_warnings(pyramid, model, fetcher.config, glance[0], min(height, width))),
    )


def _blank(example: Example, model: Model) -> Prediction:
    source = example.source
    name = source.source if isinstance(source, Pyramid) else source
    return Prediction(
        source=str(name) if isinstance(name, (str, Path)) else "<array>",
        status="ok",
        region=example.region,
        label=example.label,
        scorer=model.config.scorer,
        model={"name": model.name, "sha256": model.sha256},
        version=hiresattn.__version__,
    )


def _visited(traversal: Traversal) -> tuple[VisitedRegion, ...]:
    weight, log_prob = traversal.weight.tolist(), traversal.log_prob.tolist()
    return tuple(
        VisitedRegion(
            id=row,
            parent=int(parent) if parent >= 0 else None,
            depth=int(depth),
            y=y,
            x=x,
            height=height,
            width=width,
            attention=weight[row],
            select_logp=log_prob[row],
        )
        for row, (parent, depth, (y, x, height, width)) in enumerate(
            zip(traversal.parent, traversal.depth, traversal.region.tolist(), strict=True)
        )
    )


def _band_means(crops: Crops) -> np.ndarray:
    """Mean of each band over what was measured, scaled values; NaN where nothing was."""
    weight = crops.coverage.sum()
    if weight == 0:
        return np.full(crops.pixels.shape[1], np.nan)
    return (crops.pixels * crops.coverage[:, None]).sum((0, 2, 3)) / weight


def _warnings(
    pyramid: Pyramid, model: Model, config: InputConfig, means: np.ndarray, side: int
) -> Iterator[str]:
    """Where an image leaves what the model was trained on."""
    if side < config.size:
        yield f"the image is {side} px wide or high and a glimpse is {config.size}: it was upsampled"
    domain: Domain = model.domain
    known = [("µm/px", pyramid.mpp, domain.mpp), ("CRS units per px", resolution(pyramid), domain.resolution)]
    for unit, value, span in known:
        if span is None:
            continue
        if value is None:
            yield f"the image does not say its {unit}; the model was trained at {_span(span)}"
        elif not span[0] / SCALE_SLACK <= value <= span[1] * SCALE_SLACK:
            yield f"the image has {value:.4g} {unit}; the model was trained at {_span(span)}"
    if domain.low is None or domain.high is None:
        return
    trained = model.config.input
    for band, mean in enumerate(means.tolist()):
        low, high = (
            2 * (v[band] - trained.low[band]) / (trained.high[band] - trained.low[band]) - 1
            for v in (domain.low, domain.high)
        )
        slack = max(0.5 * (high - low), 0.1)
        if not low - slack <= mean <= high + slack:
            value = (mean + 1) / 2 * (config.high[band] - config.low[band]) + config.low[band]
            yield (
                f"band {config.bands[band] + 1} has a mean of {value:.4g}; the training images had "
                f"{domain.low[band]:.4g} to {domain.high[band]:.4g}"
            )


def resolution(pyramid: Pyramid) -> float | None:
    """Ground size of a level-0 px in units of the CRS; None without one."""
    if pyramid.crs is None or pyramid.transform is None:
        return None
    a, b, _, d, e, _ = pyramid.transform
    return float(abs(a * e - b * d) ** 0.5)


def _span(span: tuple[float, float]) -> str:
    return f"{span[0]:.4g}" if span[0] == span[1] else f"{span[0]:.4g} to {span[1]:.4g}"
