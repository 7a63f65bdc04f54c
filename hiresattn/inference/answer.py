"""One opened image: searched, and what was found as a record."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hiresattn
from hiresattn.checkpoint import Model
from hiresattn.datasets.example import Example, names_of
from hiresattn.errors import DomainError
from hiresattn.geometry import check_region, root_regions
from hiresattn.inference.budget import Budget
from hiresattn.inference.domain import band_means, warnings_for
from hiresattn.inference.exhaustive import everywhere
from hiresattn.inference.image_search import Policy
from hiresattn.inference.record import LIKELY, Cost, Prediction, Seconds, VisitedRegion
from hiresattn.inference.search import search
from hiresattn.inference.torch_engine import TorchEngine
from hiresattn.model.select import selector
from hiresattn.model.traversal import Traversal
from hiresattn.pyramid import Pyramid
from hiresattn.reading.fetch import CropFetcher, Crops
from hiresattn.reading.squash import SquashFetcher, unsquashed


@dataclass(frozen=True)
class Job:
    """What is the same for every source."""

    model: Model
    budget: Budget
    search: Policy
    policy: str
    nms: float
    bands: tuple[int, ...] | None
    value_range: tuple[float, float] | None
    rules: dict[str, Any]


def frame_of(
    pyramid: Pyramid, example: Example, squash: int | None, model: Model
) -> tuple[tuple[int, int, int, int], np.ndarray, np.ndarray]:
    """The region classified; the rectangle that the network is told of; the regions of depth 0 in that."""
    region = example.region or (0, 0, pyramid.height, pyramid.width)
    check_region(region, pyramid.height, pyramid.width, pyramid.source)
    seen = region if squash is None else (0, 0, squash, squash)
    rule = model.config
    roots = root_regions(*seen[2:], *seen[:2], root_size=rule.root_size, overlap=rule.overlap)
    return region, np.array([seen], np.int64), roots


def classify_one(
    pyramid: Pyramid, example: Example, fetcher: CropFetcher | SquashFetcher, job: Job
) -> Prediction:
    """Search one image, and say what was found.

    Args:
        pyramid: The image.
        example: Which part of it, and what is known of it.
        fetcher: Reads its crops.
        job: How to search.

    Returns:
        The record; its ``status`` is ``no_valid_pixels`` where nothing was measured.

    Raises:
        DomainError: If the model's answer is not a number.
        HiresattnError: If the image can't be read.
    """
    model = job.model
    side = fetcher.config.squash
    region, frames, regions = frame_of(pyramid, example, side, model)
    _, _, height, width = region
    roots = [regions]
    stats = fetcher.stats[0]
    reading = 0.0
    root_means: list[np.ndarray] = []

    def fetch(image: np.ndarray, regions: np.ndarray) -> Crops:
        nonlocal reading
        before = time.perf_counter()
        crops = fetcher(image, regions)
        reading += time.perf_counter() - before
        if not root_means or job.policy == "exhaustive":
            root_means.append(band_means(crops))
        return crops

    started = time.perf_counter()
    with torch.inference_mode():
        if job.policy in ("best-first", "random"):
            traversal, (reason,) = search(
                TorchEngine(model.net),
                fetch,
                roots,
                frames,
                budget=job.budget,
                policy=job.search,
                bytes_read=lambda _: stats.bytes,
            )
        elif job.policy == "exhaustive":
            traversal = everywhere(TorchEngine(model.net), fetch, frames[0], overlap=model.config.overlap)
            reason = "depth" if traversal.coverage.any() else "no_valid_pixels"
        else:
            k = (0,) if job.policy == "lowres" else model.k
            traversal = model.net(
                fetch, roots, frames, select=selector(model.net.scorer.gate, nms=job.nms), k=k
            )
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
    record = replace(
        blank_record(example, model),
        cost=cost,
        regions=_visited(traversal, region, side, _chooser(job)),
        mpp=example.mpp or pyramid.mpp,
        mpp_source="given" if example.mpp else pyramid.meta.mpp_source,
    )
    if reason == "no_valid_pixels":
        return replace(record, status="no_valid_pixels")
    logits = torch.as_tensor(traversal.logits[0]).double() / model.temperature
    several = model.config.multi_label
    scores = (logits.sigmoid() if several else logits.softmax(0)).tolist()
    if not np.isfinite(scores).all():
        raise DomainError(
            f"{pyramid.source}: the model's answer is not a number; look at the image's values (an undeclared "
            "nodata value?), or give --value-range LO,HI"
        )
    order = sorted(range(len(scores)), key=lambda c: -scores[c])
    means = root_means[0] if len(root_means) == 1 else np.nanmean(root_means, axis=0)
    return replace(
        record,
        class_name=None if several else model.classes[order[0]],
        score=None if several else scores[order[0]],
        labels=tuple(model.classes[c] for c in order if scores[c] >= LIKELY) if several else None,
        scores=dict(zip(model.classes, scores, strict=True)),
        warnings=tuple(
            warnings_for(
                pyramid,
                model.domain,
                model.config.input,
                fetcher.config,
                means,
                min(height, width),
                example.mpp,
            )
        ),
    )


def blank_record(example: Example, model: Model) -> Prediction:
    """What is known of a source before it is looked at."""
    return Prediction(
        source=name_of(example),
        status="ok",
        region=example.region,
        label=names_of(example.label) if model.config.multi_label else example.label,
        scorer=model.config.scorer,
        model={"name": model.name, "sha256": model.sha256},
        version=hiresattn.__version__,
    )


def name_of(example: Example) -> str:
    """What records and errors call a source."""
    source = example.source
    name = source.source if isinstance(source, Pyramid) else source
    return str(name) if isinstance(name, (str, Path)) else "<array>"


def _chooser(job: Job) -> str:
    """What chooses regions."""
    return "random" if job.policy == "random" else job.model.config.scorer


def _visited(
    traversal: Traversal, frame: tuple[int, int, int, int], squash: int | None, scorer: str
) -> tuple[VisitedRegion, ...]:
    regions = traversal.region if squash is None else unsquashed(traversal.region, frame, squash)
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
            scorer=scorer if parent >= 0 else None,
        )
        for row, (parent, depth, (y, x, height, width)) in enumerate(
            zip(traversal.parent, traversal.depth, regions.tolist(), strict=True)
        )
    )
