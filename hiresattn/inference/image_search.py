"""The search of one case: what is next, what was found, and when it ends. NumPy only."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from hiresattn.geometry import EXPAND_FROM, frame_numbers
from hiresattn.inference.budget import Budget
from hiresattn.inference.cover import Unseen, finest_count
from hiresattn.inference.engine import NetFacts, Outputs
from hiresattn.inference.open_cells import Choice, OpenCells, OpenRegion
from hiresattn.inference.pooling import confidence, pool_for
from hiresattn.inference.roots import ordered_roots, roots_at_once
from hiresattn.inference.suppression import SUPPRESSION
from hiresattn.inference.table import GlimpseTable, traversal_of
from hiresattn.inference.visited import Region, Visited
from hiresattn.model.traversal import Traversal

#: ``holds(regions [n 4])`` → which of them hold foreground ``[n]``.
Holds = Callable[[np.ndarray], np.ndarray]

#: Regions of one depth that overlap a visited one by more than this (intersection over union) are not
#: visited: they show the same, reached through another parent.
MAX_OVERLAP = 0.5


@dataclass(frozen=True)
class Policy:
    """How the next regions are chosen."""

    stop: float | None = 0.95
    """Confidence at which the search ends; None = spend the budget. Of several labels, that of the least sure."""
    until: float | None = None
    """Confidence below which a search goes on beyond its budget, until it is that sure or has spent ``max_budget``;
    None = it ends with its budget."""
    max_budget: Budget = field(default_factory=Budget)
    """What an image that isn't sure may cost in all."""
    width: int = 1
    """Regions looked at per step and image; more is faster on a GPU and less exact in its order."""
    random: bool = False
    """Choose cells at random, whatever the scorer gives: the control."""
    seed: int = 0
    """Of the random choice, which is the same for every image."""
    max_overlap: float = MAX_OVERLAP
    """Intersection over union above which two regions of a depth show the same."""
    suppression: float = SUPPRESSION
    """Largest log-priority penalty for cells that resemble a known background region. 0 = none. Needs a network with
    a background class."""
    temperature: float = 1.0
    """What the logits are divided by before they are a confidence."""


class ImageSearch:
    """The state of the search of one case: an image, or several on one canvas (see ``reading.canvas``).

    Args:
        facts: Of the network.
        budget: Of this case.
        policy: How to choose, and when to stop.
        roots: Root regions ``[r 4]``.
        frames: The rectangles classified ``[m 4]``, level-0 px, side by side.
        started: Reading of ``time.perf_counter`` when the first was spent on the case, s.
        bytes_read: Stored bytes read so far; None = unknown, none.
        holds: Which regions ``[n 4]`` hold foreground; asked once the root regions were read. None = all.
    """

    def __init__(
        self,
        facts: NetFacts,
        budget: Budget,
        policy: Policy,
        *,
        roots: np.ndarray,
        frames: np.ndarray,
        started: float,
        bytes_read: Callable[[], int] | None = None,
        holds: Holds | None = None,
    ) -> None:
        roots = np.asarray(roots, np.int64)
        self.frames = np.asarray(frames, np.int64).reshape(-1, 4)
        self.rng = np.random.default_rng(policy.seed)
        self.reason = ""
        self.error: Exception | None = None
        self._facts, self._budget, self._policy = facts, budget, policy
        self._beyond = False  # the budget that it began with
        self._roots = ordered_roots(roots, budget)
        self._all_roots = roots
        self._root_count = len(roots)
        self._started, self._bytes_read, self._holds = started, bytes_read, holds
        self._table, self._pool = GlimpseTable(), pool_for(facts, len(self.frames))
        self._open_cells, self._visited = OpenCells(facts.grid.size), Visited(policy.max_overlap)
        self._opened: list[
            tuple[OpenRegion, float]
        ] = []  # root regions: their cells open when all were looked at
        self._measured = 0.0
        self._seen: list[Region] = []  # finest regions, until there are as many as would cover the frames
        self._needed = sum(finest_count(h, w, facts.finest) for _, _, h, w in self.frames.tolist())
        self._unseen: Unseen | None = None  # from then on
        self._put_off: deque[Choice] = deque()  # cells that show little of it

    @property
    def _roots_left(self) -> int:
        """Root regions not looked at yet; they come before all others."""
        return max(len(self._roots) - len(self._table), 0)

    @property
    def glimpses(self) -> int:
        """Crops looked at so far."""
        return len(self._table)

    @property
    def most(self) -> int | None:
        """Crops that it may look at; None = its budget is none of glimpses."""
        return self._budget.glimpses

    def choose(self) -> list[Choice]:
        """What is looked at next; nothing where the search ends, which sets its reason."""
        looked, spent = len(self._table), self._spent()
        if looked and spent >= 1 and self._goes_on():
            spent = self._spent()
        if looked and spent >= 1:
            self.reason = "budget"
            return []
        budget = self._budget
        if self._roots_left:
            roots = self._roots[looked : looked + roots_at_once(budget, looked, spent)]
            for root in roots.tolist():
                self._note_seen(tuple(root))
            return [Choice(tuple(root)) for root in roots.tolist()]
        width = self._policy.width
        if budget.glimpses is not None:
            width = min(width, budget.glimpses - looked)
        choices: list[Choice] = []
        while len(choices) < width and (choice := self._next()) is not None:
            if not self._visited.shows(choice.depth, choice.region):
                self._visited.add(choice.depth, choice.region)
                self._note_seen(choice.region)
                choices.append(choice)
        if not choices:
            self.reason = "exhausted"
        return choices

    def take_in(
        self,
        columns: dict[str, np.ndarray],
        choices: list[Choice],
        found: Outputs,
        first: int,
        divided: dict[int, OpenRegion],
    ) -> None:
        """Append what was found to the table, pool it, open cells, and see whether the search ends.

        Args:
            columns: The new rows of the table.
            choices: What was looked at.
            found: What the network gave in this step, other images included.
            first: Row in ``found`` of the first choice.
            divided: The regions of this step that can be divided, by row in ``found``.
        """
        offset = len(self._table) - first
        self._table.append(columns)
        self._measured += sum(columns["coverage"].tolist())
        worth = (-np.logaddexp(0, -columns["value"].astype(np.float64))).tolist()
        finest = columns["finest"].tolist()
        for number, choice in enumerate(choices):
            row = first + number
            self._pool.add(found, row, log_prior=choice.log_prior, finest=finest[number])
            region = divided.get(row)
            if region is not None:
                region.row, region.depth, region.path = row + offset, choice.depth, choice.path
                region.log_prior = choice.log_prior + worth[number]
                if found.appearance is not None:
                    region.appearance = found.appearance[row]
                    region.compared = np.zeros(len(region.cells), np.int64)
                self._open(region, worth[number])
            elif finest[number] and choice.appearance is not None:
                self._learn_background(choice.appearance, found.class_logits[row])
        if not self._roots_left:
            self._open_roots()
            self._conclude()

    def result(self) -> tuple[Traversal, str, tuple[str, ...]]:
        """The traversal, why the search ended, and what the user should know of it, a sentence each."""
        notes = []
        if (seen := min(len(self._table), len(self._roots))) < self._root_count:
            notes.append(
                f"the budget ended among the {self._root_count:,} root regions: {seen:,} of them, spread out over "
                "the image, were seen; raise the budget to see all of it"
            )
        if self.reason == "exhausted" and len(self._table) > self._root_count:
            rest = (
                "no region was left to look at: the others have no valid pixels, or the scorer closes them"
                if self._holds is None
                else "no region with foreground was left to look at"
            )
            if self._unseen is not None and not self._unseen.px:
                rest = "every part of it was seen at the finest scale"
            notes.append(f"the budget is larger than the image: after {len(self._table):,} glimpses {rest}")
        pool = self._pool
        traversal = traversal_of(self._table, pool.weights(self._table), pool.logits(), pool.running())
        return traversal, self.reason, tuple(notes)

    def _goes_on(self) -> bool:
        """Whether a search that has spent its budget gets the larger one: once, where it isn't sure enough."""
        until = self._policy.until
        if until is None or self._beyond or self._confidence() >= until:
            return False
        self._beyond, self._budget = True, self._policy.max_budget
        seen = {tuple(root) for root in self._roots.tolist()}
        left = [root for root in self._all_roots.tolist() if tuple(root) not in seen]
        if left:
            self._roots = np.concatenate([self._roots, np.array(left, np.int64)])
        return True

    def _spent(self) -> float:
        """The share of the budget's bytes or seconds that is spent; 1 where its glimpses are."""
        if self._budget.glimpses is not None and len(self._table) >= self._budget.glimpses:
            return 1.0
        spent = 0.0
        if self._budget.bytes is not None and self._bytes_read is not None:
            spent = self._bytes_read() / self._budget.bytes
        if self._budget.seconds is not None:
            spent = max(spent, (time.perf_counter() - self._started) / self._budget.seconds)
        return spent

    def _open(self, region: OpenRegion, worth: float) -> None:
        """Open a region's cells; those of root regions only when all of these were looked at."""
        if region.depth == 0:
            self._opened.append((region, worth))
        else:
            self._open_foreground(region, -worth)

    def _open_foreground(self, region: OpenRegion, cost: float) -> None:
        """Open those of a region's cells that hold foreground."""
        scored = not self._policy.random
        if self._holds is not None:
            region.keep(self._holds(region.cells), scored=scored)
        if scored:
            region.raise_cost(cost)
        self._open_cells.open(region)

    def _open_roots(self) -> None:
        """Open the cells of the root regions. They cover the image, so the best of all counts as worth it."""
        if not self._opened:
            return
        values = self._table["value"][: len(self._roots)].astype(np.float64)
        best = float(np.max(-np.logaddexp(0, -values)))
        for region, worth in self._opened:
            self._open_foreground(region, best - worth)
        self._opened = []

    def _learn_background(self, appearance: np.ndarray, logits: np.ndarray) -> None:
        """Note what a finest region looked like from afar, and how surely it is background."""
        shares = np.exp(logits - logits.max())
        sure = float(shares[self._facts.background] / shares.sum())
        self._open_cells.known.add(appearance, self._policy.suppression * sure)

    def _conclude(self) -> None:
        """End a search that is sure, or that saw nothing measured or no foreground."""
        stop = self._policy.until if self._beyond else self._policy.stop
        if self._measured == 0:
            self.reason = "no_valid_pixels"
        elif self._holds is not None and not self._holds(self._roots).any():
            self.reason = "no_foreground"
        elif len(self._table) == self._root_count and self._shows_nothing():
            self.reason = "empty_image"
        elif stop is not None and self._confidence() >= stop:
            self.reason = "confidence"

    def _shows_nothing(self) -> bool:
        """Whether one of the images holds no foreground; the search begins anew without it."""
        if self._holds is None or len(self.frames) == 1:
            return False
        held = frame_numbers(self._roots[self._holds(self._roots)], self.frames)
        return len(np.unique(held)) < len(self.frames)

    def _next(self) -> Choice | None:
        """The most promising cell; None = none is left, or all of the image was seen at the finest scale.

        Once as many finest regions were looked at as would cover the image, cells that show little unseen come after
        all others, and those that show nothing unseen never: so that a search without a limit ends. One that may look
        at less is as it would be without this.
        """
        if self._unseen is None:
            return self._open_cells.next()
        while self._unseen.px and (choice := self._open_cells.next()) is not None:
            if 2 * self._unseen.px_in(choice.region) > choice.region[2] * choice.region[3]:
                return choice
            self._put_off.append(choice)
        while self._unseen.px and self._put_off:
            choice = self._put_off.popleft()
            if self._unseen.px_in(choice.region):
                return choice
        return None

    def _note_seen(self, region: Region) -> None:
        """Note a region that is looked at, if it is a finest one."""
        if min(region[2:]) >= EXPAND_FROM * self._facts.finest:
            return
        if self._unseen is not None:
            self._unseen.add(region)
            return
        self._seen.append(region)
        if len(self._seen) >= self._needed:
            self._unseen = Unseen(self.frames, self._facts.finest)
            for seen in self._seen:
                self._unseen.add(seen)
            self._seen = []

    def _confidence(self) -> float:
        return confidence(self._pool.logits() / self._policy.temperature, self._facts)
