"""Budgeted best-first search over the open regions of all depths, many cases side by side. NumPy only."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from hiresattn.geometry import expandable, frames_of
from hiresattn.inference.budget import Budget
from hiresattn.inference.engine import Engine, Outputs
from hiresattn.inference.image_search import Holds, ImageSearch, Policy
from hiresattn.inference.open_cells import Choice, divided_cells
from hiresattn.inference.table import joined
from hiresattn.model.traversal import Traversal

#: ``fetch(image [n], regions [n 4])`` → crops with ``pixels [n c s s]`` and ``coverage [n s s]``, float32.
Fetch = Callable[[np.ndarray, np.ndarray], Any]

#: The images of one step, by index, and what is looked at in each.
Picks = list[tuple[int, list[Choice]]]


class Search:
    """Searches images side by side; those of a step share a fetch and a pass of the network.

    Every visited region opens its cells. A cell's priority is the chance that what decides the image lies in its
    region (the network's value, now that the region has been looked at; relative to the best root region) times the
    scorer's softmax within the region. The most promising cell of any depth is next. Where a network has a background
    class, cells that look, from afar, like a region that turned out to be background are put back: what misleads
    once, an artefact or a stain, often recurs all over an image. Cells that a scorer with gates keeps shut are not
    opened, so how much there is to look at depends on the image.

    Args:
        engine: The network.
        fetch: Where crops come from, by the index of an image.
        budget: Of each image.
        policy: How to choose, and when to stop.
    """

    def __init__(self, engine: Engine, fetch: Fetch, *, budget: Budget, policy: Policy | None = None) -> None:
        self._engine = engine
        self._fetch = fetch
        self._budget = budget
        self._policy = policy or Policy()
        self._images: dict[int, ImageSearch] = {}
        self._running: dict[int, ImageSearch] = {}
        suppresses = self._policy.suppression > 0 and not self._policy.random
        self._suppress = suppresses and engine.facts.background is not None

    def add(
        self,
        index: int,
        roots: np.ndarray,
        frames: np.ndarray,
        *,
        seconds: float = 0.0,
        bytes_read: Callable[[], int] | None = None,
        holds: Holds | None = None,
    ) -> None:
        """Take on a case: an image, or several on one canvas; it is looked at from the next step on.

        Args:
            index: What ``fetch`` knows it by.
            roots: Root regions ``[r 4]``.
            frames: The rectangle classified ``[4]``, level-0 px; of several images ``[m 4]``, side by side.
            seconds: Spent on it already: opening, reading ahead.
            bytes_read: Stored bytes read of it so far; needed for a budget in bytes.
            holds: Which regions hold foreground, once the root regions were fetched; others are never looked at.
                None = all.
        """
        image = ImageSearch(
            self._engine.facts,
            self._budget,
            self._policy,
            roots=roots,
            frames=frames,
            started=time.perf_counter() - seconds,
            bytes_read=bytes_read,
            holds=holds,
        )
        self._images[index] = self._running[index] = image

    def step(self) -> list[int]:
        """Look once at every image whose search goes on; the indices of those whose search ended."""
        chosen = [(index, image.choose()) for index, image in self._running.items()]
        picks = [(index, choices) for index, choices in chosen if choices]
        if picks:
            self._look(picks)
        ended = [index for index, image in self._running.items() if image.reason]
        for index in ended:
            del self._running[index]
        return ended

    def so_far(self, index: int) -> tuple[int, int | None]:
        """Glimpses of an image until now, and those that it may cost; None = its budget is none of glimpses."""
        return self._images[index].glimpses, self._images[index].most

    def take(self, index: int) -> tuple[Traversal, str, tuple[str, ...]]:
        """Hand over an image whose search ended, and forget it.

        Returns:
            The traversal of this image alone; why it ended: ``confidence``, ``budget``, ``exhausted``,
            ``no_valid_pixels`` or ``no_foreground``; and what the user should know of it, one sentence each.

        Raises:
            Exception: What went wrong in reading it or looking at it.
        """
        image = self._images.pop(index)
        self._running.pop(index, None)
        if image.error is not None:
            raise image.error
        return image.result()

    def _look(self, picks: Picks) -> None:
        """Fetch and encode what was chosen, and take in what the network gives."""
        choices = [choice for _, of_image in picks for choice in of_image]
        index = np.array([index for index, of_image in picks for _ in of_image])
        regions = np.array([choice.region for choice in choices], np.int64)
        paths = np.array([choice.path for choice in choices], np.int64)
        frames = np.concatenate(
            [frames_of(regions[index == number], self._images[number].frames) for number, _ in picks]
        )
        try:
            crops = self._fetch(index, regions)
            coverage = crops.coverage.reshape(len(regions), -1).mean(axis=1)
            found = self._engine.look(
                crops.pixels, crops.coverage, regions, frames, paths, appearance=self._suppress
            )
        except Exception as error:  # noqa: BLE001 - raised when the image is taken
            if len(picks) == 1:
                image = self._images[picks[0][0]]
                timed = self._budget.seconds or self._policy.max_budget.seconds
                if timed is not None and image.glimpses and _timed_out(error):
                    image.reason = "budget"
                else:
                    image.error, image.reason = error, "error"
                return
            for pick in picks:  # whose fault it is
                self._look([pick])
            return
        self._take_in(picks, choices, regions, coverage, found)

    def _take_in(
        self, picks: Picks, choices: list[Choice], regions: np.ndarray, coverage: np.ndarray, found: Outputs
    ) -> None:
        """Share out what the network gave among the images."""
        facts = self._engine.facts
        finest = ~expandable(regions, facts.finest)
        columns = {
            "region": regions,
            "depth": np.array([choice.depth for choice in choices]),
            "parent": np.array([choice.parent for choice in choices]),
            "cell": np.array([choice.cell for choice in choices]),
            "log_prob": np.array([choice.log_prob for choice in choices], np.float32),
            "log_prior": np.array([choice.log_prior for choice in choices]),
            "coverage": coverage,
            "finest": finest,
            "value": found.value,
            "cell_logits": found.cell_logits,
            "features": found.features,
            "class_logits": found.class_logits,
            "weight_logit": found.weight_logits,
        }
        divided = divided_cells(
            np.flatnonzero(~finest), regions, found.cell_logits, facts, self._noise(picks)
        )
        first = 0
        for index, of_image in picks:
            end = first + len(of_image)
            rows = {name: values[first:end] for name, values in columns.items()}
            self._images[index].take_in(rows, of_image, found, first, divided)
            first = end

    def _noise(self, picks: Picks) -> np.ndarray | None:
        """Random costs for the cells of every region chosen; None = the scorer chooses. Drawn image by image."""
        if not self._policy.random:
            return None
        cells = self._engine.facts.grid.size**2
        draws = [self._images[index].rng.exponential(size=(len(many), cells)) for index, many in picks]
        return np.asarray(np.log(np.concatenate(draws)))


def _timed_out(error: BaseException | None) -> bool:
    """Whether a read ended because its time was over."""
    while error is not None and not isinstance(error, TimeoutError):
        error = error.__cause__
    return error is not None


def search(
    engine: Engine,
    fetch: Fetch,
    roots: Sequence[np.ndarray],
    frames: Sequence[np.ndarray] | np.ndarray,
    *,
    budget: Budget,
    policy: Policy | None = None,
    bytes_read: Callable[[int], int] | None = None,
    foreground: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> tuple[Traversal, list[str]]:
    """Search images side by side; see ``Search``.

    Args:
        engine: The network.
        fetch: Where crops come from.
        roots: Root regions, one array ``[r 4]`` per image.
        frames: The rectangle classified, per image ``[b 4]``, level-0 px; or per case several ``[m 4]``, side by side.
        budget: Per image.
        policy: How to choose, and when to stop.
        bytes_read: Bytes read so far of an image; needed for a budget in bytes.
        foreground: Which regions ``[n 4]`` of images ``[n]`` hold foreground; see ``Search.add``.

    Returns:
        The traversal, image by image; and per image why its search ended: ``confidence``, ``budget``, ``exhausted``,
        ``no_valid_pixels`` or ``no_foreground``.
    """
    running = Search(engine, fetch, budget=budget, policy=policy)
    for index, (regions, frame) in enumerate(zip(roots, frames, strict=True)):
        spent = None if bytes_read is None else partial(bytes_read, index)
        holds = None if foreground is None else partial(_of_image, foreground, index)
        running.add(index, regions, frame, bytes_read=spent, holds=holds)
    left = len(frames)
    while left:
        left -= len(running.step())
    found = [running.take(index) for index in range(len(frames))]
    return joined([traversal for traversal, _, _ in found]), [reason for _, reason, _ in found]


def _of_image(
    foreground: Callable[[np.ndarray, np.ndarray], np.ndarray], index: int, regions: np.ndarray
) -> np.ndarray:
    """Which regions of one image hold foreground."""
    return foreground(np.full(len(regions), index), regions)
