"""Budgeted search: best-first over all open regions of all depths, until confident or out of budget."""

import heapq
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

import numpy as np
import torch

from hiresattn.errors import ConfigError
from hiresattn.geometry import child_paths, expandable, overlaps, root_regions
from hiresattn.model.frontier import Glimpses
from hiresattn.model.net import Fetch, GlimpseNet, joined
from hiresattn.model.traversal import Rows, Traversal

#: Regions of one depth that overlap a visited one by more than this (intersection over union) are not
#: visited: they show the same place, reached through another parent.
SAME_PLACE = 0.5

#: How far look-alikes of a place where nothing was found are put back, at most, and how fast that fades as they
#: look less alike: the power of the cosine between what the scorer saw of them.
HABITUATION, LIKENESS = 5.0, 16

#: Most regions looked at in one pass of the network: bounds memory where the first look has many.
MOST_AT_ONCE = 256

#: Most places of one image that are looked at exhaustively; 16,384 x 16,384 px are 65,536 places of 64 px.
MOST_PLACES = 100_000

_UNITS = {"": 1, "s": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}


@dataclass(frozen=True)
class Budget:
    """What the search of one image may spend; None = no limit. The whole is always looked at once."""

    glimpses: int | None = None
    """Crops, those of depth 0 included."""
    bytes: int | None = None
    """Stored bytes of the tiles read."""
    seconds: float | None = None
    """Wall time."""

    @classmethod
    def parse(cls, text: "str | int | Budget") -> "Budget":
        """Read ``64`` (glimpses), ``50MB`` (bytes) or ``2s`` (seconds).

        Raises:
            ConfigError: If the text is none of these, or not above zero.
        """
        if isinstance(text, Budget):
            return text
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", str(text))
        unit = match[2].lower() if match else "?"
        if match is None or unit not in _UNITS or float(match[1]) <= 0 or (not unit and "." in match[1]):
            raise ConfigError(
                f"budget {text!r} is none of a number of glimpses (64), bytes (50MB) or seconds (2s)"
            )
        value = float(match[1]) * _UNITS[unit]
        if unit != "s" and value < 1:
            raise ConfigError(f"budget {text!r} is less than one glimpse or byte")
        if unit == "s":
            return cls(seconds=value)
        return cls(bytes=int(value)) if unit else cls(glimpses=int(value))


@dataclass(frozen=True)
class Policy:
    """How the next regions are chosen."""

    stop: float | None = 0.95
    """Confidence at which the search ends; None = spend the budget. Of several labels, that of the least sure."""
    width: int = 1
    """Regions looked at per step and image; more is faster on a GPU and less exact in its order."""
    random: bool = False
    """Give every cell the same chance, whatever the scorer says: the control."""
    seed: int = 0
    """Of the random choice."""
    same_place: float = SAME_PLACE
    """Overlap (intersection over union) above which two regions of a depth show the same place."""
    habituation: float = HABITUATION
    """How far a cell that looks, from afar, like a place where only background was found is put back: at most this
    much in log-chance. 0 = not. Needs a network with a background."""
    temperature: float = 1.0
    """What the logits are divided by before they are a confidence."""


class _Node(NamedTuple):
    """An open region; the smallest is next."""

    cost: float
    order: int
    parent: int
    """Row of the glimpse that opened it; -1 at depth 0."""
    cell: int
    region: np.ndarray
    log_prob: float
    base: float = 0.0
    """Its cost when it was opened."""
    looks: np.ndarray | None = None
    """What the cell looks like to the scorer, a unit vector; None = nobody asks."""


@dataclass
class _Search:
    """The search of one image."""

    roots: np.ndarray
    heap: list[_Node] = field(default_factory=list)
    visited: dict[int, list[np.ndarray]] = field(default_factory=dict)
    glimpses: int = 0
    stop_reason: str = ""
    dull: list[tuple[np.ndarray, float]] = field(default_factory=list)
    """What places looked like that turned out to be background, and how surely."""

    def cost(self, node: _Node) -> float:
        """What a node costs by now; it only grows."""
        if not self.dull or node.looks is None:
            return node.cost
        like = np.clip(np.stack([looks for looks, _ in self.dull]) @ node.looks, 0, 1) ** LIKENESS
        return node.base + float((like * [put_back for _, put_back in self.dull]).max())

    @property
    def first_look_left(self) -> int:
        """Regions of depth 0 not looked at yet; they come before all others."""
        return max(len(self.roots) - self.glimpses, 0)


def best_first(
    net: GlimpseNet,
    fetch: Fetch,
    roots: Sequence[np.ndarray],
    frames: np.ndarray,
    *,
    budget: Budget,
    policy: Policy | None = None,
    bytes_read: Callable[[int], int] | None = None,
) -> tuple[Traversal, list[str]]:
    """Search images side by side.

    Every visited region opens its cells. A cell's priority is the chance that what decides the image lies in
    its region (the network's value, now that the region has been looked at; relative to the best region at
    depth 0) times the scorer's softmax within the region. The most promising cell of any depth is next. Where a
    network has a background class, cells that look, from afar, like a place that turned out to be background are
    put back: what misleads once, an artefact or a stain, often recurs all over an image. Cells that a scorer with
    gates keeps shut are not opened, so how much there is to look at depends on the image.

    Args:
        net: The network, in evaluation mode.
        fetch: Where crops come from.
        roots: Regions of depth 0, one array ``[r 4]`` per image.
        frames: The rectangle classified, per image ``[b 4]``, level-0 px.
        budget: Per image.
        policy: How to choose, and when to stop.
        bytes_read: Bytes read so far of an image; needed for a budget in bytes.

    Returns:
        The traversal, and per image why its search ended: ``confidence``, ``budget``, ``exhausted`` or
        ``no_valid_pixels``.
    """
    policy = policy or Policy()
    rng = np.random.default_rng(policy.seed)
    order = count()
    started = time.perf_counter()
    searches = [_Search(np.asarray(regions, np.int64)) for regions in roots]
    for search in searches:
        for region in search.roots:
            heapq.heappush(search.heap, _Node(0.0, next(order), -1, -1, region, 0.0))
    steps: list[Rows] = []
    depths: list[int] = []
    places = np.zeros((0, 3), np.int64)
    while True:
        picks: list[tuple[int, _Node]] = []
        for index, search in enumerate(searches):
            if search.stop_reason:
                continue
            at_once = min(search.first_look_left, MOST_AT_ONCE) or policy.width
            left = _left(budget, search, started, bytes_read(index) if bytes_read else 0)
            picks += [(index, node) for node in _pop(search, min(at_once, left), depths, policy)]
        if not picks:
            break
        image = np.array([index for index, _ in picks])
        nodes = [node for _, node in picks]
        regions = np.stack([node.region for node in nodes])
        parent = np.array([node.parent for node in nodes])
        cell = np.array([node.cell for node in nodes])
        depth = np.array([depths[p] + 1 if p >= 0 else 0 for p in parent])
        where = np.zeros((len(nodes), 3), np.int64)
        where[parent >= 0] = child_paths(places[parent[parent >= 0]], cell[parent >= 0], net.grid)
        places = np.concatenate([places, where])
        look = net.glimpse(fetch(image, regions), regions, frames[image], where)
        own = torch.tensor([node.log_prob for node in nodes], device=net.device)
        first = len(depths)
        depths += depth.tolist()
        habituate = 0.0 if net.background is None or policy.random else policy.habituation
        if habituate:
            _learn_the_dull(net, searches, image, nodes, look, habituate)
        seen = (look.coverage, own, look.value, look.cell_logits, look.features, look.class_log_prob)
        steps.append(Rows(image, depth, parent, cell, regions, *seen))
        looks = look.scored.appearance if habituate else None
        chance = rng if policy.random else None
        _expand(searches, image, nodes, look, looks, first, net.finest, order, chance, net.scorer.gate)
        _conclude(net, searches, steps, policy)
    traversal = net.record(steps, len(searches))
    return traversal, [search.stop_reason for search in searches]


def place_count(height: int, width: int, finest: int, overlap: float = 0.0) -> int:
    """How many places ``everywhere`` looks at, without listing them."""
    side = min(height, width, finest)
    step = max(round(side * (1 - overlap)), 1)
    return (-(-(height - side) // step) + 1) * (-(-(width - side) // step) + 1)


def everywhere(net: GlimpseNet, fetch: Fetch, frame: np.ndarray, *, overlap: float = 0.0) -> Traversal:
    """Look at every place at the finest scale, and conclude from all of them: what a search is compared with.

    Args:
        net: The network, in evaluation mode.
        fetch: Where crops come from.
        frame: The rectangle classified, ``[4]``, level-0 px.
        overlap: Least share of its side that a place has in common with the next.

    Returns:
        The traversal of one image, all of depth 0.

    Raises:
        ConfigError: If that is more than ``MOST_PLACES`` places.
    """
    y, x, height, width = (int(value) for value in frame)
    if (count := place_count(height, width, net.finest, overlap)) > MOST_PLACES:
        raise ConfigError(
            f"{count:,} places of {net.finest} px to look at exhaustively, and at most {MOST_PLACES:,} are; "
            "name a window of the image, or leave exhaustive out"
        )
    regions = root_regions(height, width, y, x, root_size=net.finest, overlap=overlap)
    steps = []
    for start in range(0, len(regions), MOST_AT_ONCE):
        part = regions[start : start + MOST_AT_ONCE]
        none = np.full(len(part), -1)
        at = np.zeros(len(part), np.int64)
        look = net.glimpse(fetch(at, part), part, np.repeat(frame[None], len(part), axis=0))
        own = torch.zeros(len(part), device=net.device)
        seen = (look.coverage, own, look.value, look.cell_logits, look.features, look.class_log_prob)
        steps.append(Rows(at, at, none, none, part, *seen))
    return net.record(steps, 1)


def _left(budget: Budget, search: _Search, started: float, spent: int) -> int:
    """How many more glimpses the budget allows; the first look is always allowed. Sets the stop reason."""
    if search.first_look_left and budget.glimpses is None:
        return search.first_look_left
    if not search.glimpses:
        return budget.glimpses or 1
    over = (
        (budget.bytes is not None and spent >= budget.bytes)
        or (budget.seconds is not None and time.perf_counter() - started >= budget.seconds)
        or (budget.glimpses is not None and search.glimpses >= budget.glimpses)
    )
    if over:
        search.stop_reason = "budget"
        return 0
    return budget.glimpses - search.glimpses if budget.glimpses is not None else 1 << 30


def _pop(search: _Search, at_most: int, depths: list[int], policy: Policy) -> list[_Node]:
    """The best open regions that don't show a place already visited."""
    taken: list[_Node] = []
    while search.heap and len(taken) < at_most:
        node = heapq.heappop(search.heap)
        cost = search.cost(node)
        if search.heap and cost > search.heap[0].cost:  # what was found meanwhile lets others come first
            heapq.heappush(search.heap, node._replace(cost=cost))
            continue
        depth = depths[node.parent] + 1 if node.parent >= 0 else 0
        seen = search.visited.setdefault(depth, [])
        if depth and seen and overlaps(node.region[None], np.stack(seen)).max() > policy.same_place:
            continue
        seen.append(node.region)
        taken.append(node)
    search.glimpses += len(taken)
    if not taken and not search.stop_reason:
        search.stop_reason = "exhausted"
    return taken


def _expand(
    searches: list[_Search],
    image: np.ndarray,
    nodes: list[_Node],
    look: Glimpses,
    looks: torch.Tensor | None,
    first: int,
    finest: int,
    order: Iterator[int],
    rng: np.random.Generator | None,
    gate: float | None,
) -> None:
    """Open the cells of the regions just visited; ``looks [n d g g]`` is what they look like, where that counts.

    With a ``gate``, only cells whose logit is above it, and a region's best where none is.
    """
    logits = look.cell_logits
    alike = None
    if looks is not None:
        alike = torch.nn.functional.normalize(looks.flatten(2), dim=1).transpose(1, 2).cpu().numpy()
    usable = torch.isfinite(logits).cpu().numpy()
    if gate is not None and rng is None:
        best = torch.zeros_like(logits).scatter(1, logits.argmax(1, keepdim=True), 1) > 0
        usable &= (best | (logits > gate)).cpu().numpy()
    log_prob = logits.masked_fill(~torch.isfinite(logits), -1e9).log_softmax(1).cpu().numpy()
    luck = np.zeros_like(log_prob)
    if rng is not None:
        log_prob = np.repeat(-np.log(np.maximum(usable.sum(1, keepdims=True), 1)), usable.shape[1], axis=1)
        luck = -np.log(rng.exponential(size=log_prob.shape))
    worth = torch.nn.functional.logsigmoid(look.value).cpu().numpy()
    for index in np.unique(image):  # the first look covers the image: one of its regions is worth it
        first_look = [row for row, node in enumerate(nodes) if node.parent < 0 and image[row] == index]
        if first_look:
            worth[first_look] -= worth[first_look].max()
    deeper = expandable(np.stack([node.region for node in nodes]), finest)
    for row in range(len(nodes)):
        if not deeper[row]:
            continue
        heap = searches[image[row]].heap
        for cell in np.flatnonzero(usable[row]).tolist():
            own = float(log_prob[row, cell])
            priority = float(luck[row, cell]) if rng is not None else float(worth[row]) + own
            seen = None if alike is None else alike[row, cell]
            node = (first + row, cell, look.cells[row, cell], own, -priority, seen)
            heapq.heappush(heap, _Node(-priority, next(order), *node))


def _learn_the_dull(
    net: GlimpseNet,
    searches: list[_Search],
    image: np.ndarray,
    nodes: list[_Node],
    look: Glimpses,
    habituate: float,
) -> None:
    """Keep what finest regions looked like from afar, and how surely they are background."""
    dull = net.classifier(look.features).softmax(1)[:, net.background].cpu().numpy()
    finest = ~expandable(np.stack([node.region for node in nodes]), net.finest)
    for row, node in enumerate(nodes):
        if finest[row] and node.looks is not None:
            searches[image[row]].dull.append((node.looks, habituate * float(dull[row])))


def _confidence(net: GlimpseNet, logits: torch.Tensor) -> torch.Tensor:
    """The best class's probability, per image; of several labels, how sure the least sure is to be there or not."""
    if net.multi_label:
        return logits.abs().amin(1).sigmoid()
    found = logits.softmax(1)
    if net.background is not None:  # what was not found yet may still be
        found[:, net.background] = 0
    return found.amax(1)


def _conclude(net: GlimpseNet, searches: list[_Search], steps: list[Rows], policy: Policy) -> None:
    """Stop the searches that are sure, and those that saw nothing measured."""
    if all(search.stop_reason or search.first_look_left for search in searches):
        return
    table = joined(steps)
    index = torch.from_numpy(table.image).to(table.coverage.device)
    best = np.zeros(len(searches))
    if policy.stop is not None:
        logits, _ = net.predict(table, len(searches))
        best = _confidence(net, logits / policy.temperature).cpu().numpy()
    measured = (
        torch.zeros(len(searches), device=index.device).index_add(0, index, table.coverage).cpu().numpy()
    )
    for number, search in enumerate(searches):
        if search.stop_reason or search.first_look_left:
            continue
        if measured[number] == 0:
            search.stop_reason = "no_valid_pixels"
        elif policy.stop is not None and best[number] >= policy.stop:
            search.stop_reason = "confidence"
