"""One task a case on a cluster: a few at a time, and each ends with a result or with why there is none."""

import logging
import queue
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hiresattn.cluster.connect import check_workers, distributed
from hiresattn.errors import ClusterError, ConfigError

_log = logging.getLogger(__name__)

#: Tasks that are submitted at a time, for each thread of the workers: one that runs, one that waits there.
_PER_THREAD = 2
#: Results in order: how many may wait for an earlier one, as a multiple of the tasks at a time.
_WAITING = 8
#: How often the clock and the number of workers are looked at, s.
_TICK = 0.5
#: Wait for a scheduler that was lost, s.
_LOST = 60.0
#: How often a case is tried alone: a worker may still end from what ran on it before.
_ALONE = 2
#: Wait for a worker to be started again, s.
_RESTART = 30


@dataclass(frozen=True)
class Lost:
    """In place of a result: why there is none."""

    why: str


@dataclass(frozen=True, kw_only=True)
class Care:
    """What is done about workers that are lost.

    Args:
        retries: How often a case whose worker was lost is tried again.
        timeout: How long a case may run, s; then its worker is started again. None = any time.
        resources: What a worker must have for a case, such as ``{"GPU": 1}``.

    Raises:
        ConfigError: If a value can't be used.
    """

    retries: int = 2
    timeout: float | None = None
    resources: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise ConfigError(f"retries must be 0 or more; got {self.retries}")
        if self.timeout is not None and not self.timeout > 0:
            raise ConfigError(f"timeout is a number of seconds above 0; got {self.timeout}")
        for name, amount in (self.resources or {}).items():
            if not amount > 0:
                raise ConfigError(f"resources are amounts above 0; got {name}={amount}")


@dataclass
class _Task:
    number: int
    case: Any
    deaths: int = 0
    future: Any = None
    started: float | None = None
    worker: str = ""
    alone: int = 0
    """How often it was tried while nothing else ran beside it."""


class Tasks:
    """The tasks of one run.

    A case whose worker was lost is submitted again, up to ``retries`` times; after that while nothing else runs, twice,
    so that a case that ends its worker is told from those that were beside it.

    Args:
        client: Of the scheduler.
        function: What a worker does with a case; takes the case, and a topic that it tells its beginning to.
        care: What is done about lost workers.
    """

    def __init__(self, client: Any, function: Callable[[Any, str | None], Any], care: Care) -> None:
        self._client = client
        self._function = function
        self._care = care
        self._name = f"hiresattn-{uuid.uuid4().hex[:12]}"
        self._topic = self._name if care.timeout is not None else None
        self._events: queue.SimpleQueue[tuple[str, Any, Any]] = queue.SimpleQueue()
        self._running: dict[str, _Task] = {}
        self._again: deque[_Task] = deque()
        self._suspects: deque[_Task] = deque()
        self._width = 0
        self._looked = 0.0
        self._submitted = 0

    def run(self, cases: Iterable[Any], *, ordered: bool = False) -> Iterator[tuple[int, Any]]:
        """Do all cases.

        Args:
            cases: One by one, as there is room for them.
            ordered: In their order; else as they are done.

        Yields:
            The position of a case, and its result or ``Lost``.

        Raises:
            ClusterError: If the scheduler is lost and doesn't come back, or there is no worker.
            ConfigError: If no worker has the resources.
            Exception: What the function raised.
        """
        check_workers(self._client, self._care.resources)
        self._listen()
        done = self._done(enumerate(cases), ordered=ordered)
        try:
            yield from _in_order(done) if ordered else done
        finally:
            futures = [task.future for task in self._running.values()]
            self._running = {}
            if self._client.status == "running":
                self._client.cancel(futures, force=True)
                if self._topic is not None:
                    self._client.unsubscribe_topic(self._topic)

    def _listen(self) -> None:
        """Hear when tasks begin."""
        if self._topic is not None:
            self._client.subscribe_topic(
                self._topic, lambda event: self._events.put(("started", event[1], None))
            )

    def _done(self, cases: Iterator[tuple[int, Any]], *, ordered: bool) -> Iterator[tuple[int, Any]]:
        """The results as they come."""
        more, latest = True, -1
        undone: set[int] = set()
        while more or self._running or self._again or self._suspects:
            while len(self._running) < self._room():
                if self._again:
                    self._submit(self._again.popleft())
                    continue
                far = ordered and latest - min(undone, default=latest) > _WAITING * self._width
                item = next(cases, None) if more and not far else None
                if item is None:
                    more = more and far
                    break
                latest = item[0]
                undone.add(latest)
                self._submit(_Task(*item))
            if not self._running and self._suspects:
                task = self._suspects.popleft()
                task.alone += 1
                self._submit(task)
            for number, result in self._next():
                undone.discard(number)
                yield number, result

    def _room(self) -> int:
        """Tasks at a time, for the workers that there are."""
        if self._client.status != "running":
            return 0
        if time.monotonic() - self._looked > _TICK or not self._width:
            with suppress(OSError):  # the scheduler is being lost
                self._width = max(1, _PER_THREAD * sum(self._client.nthreads().values()))
            self._looked = time.monotonic()
        return self._width

    def _submit(self, task: _Task) -> None:
        self._submitted += 1
        key = f"{self._name}-{task.number}-{self._submitted}"
        task.started = None
        resources = dict(self._care.resources) if self._care.resources else None
        task.future = self._client.submit(
            self._function, task.case, self._topic, key=key, pure=False, retries=0, resources=resources
        )
        self._running[key] = task
        task.future.add_done_callback(lambda future: self._events.put(("done", future.key, future.status)))

    def _next(self) -> Iterator[tuple[int, Any]]:
        """What came of the next event, and of cases that run too long."""
        if self._client.status != "running":
            self._reconnect()
        finished = []
        for what, told, status in self._new_events():
            task = self._running.get(told["key"] if what == "started" else told)
            if task is None:
                continue
            if what == "started":
                task.started, task.worker = time.monotonic(), told["worker"]
            elif status in ("cancelled", "lost"):
                self._reconnect()
            elif status == "finished":
                finished.append(self._running.pop(told))
            else:
                yield from self._failed(self._running.pop(told))
        yield from self._finished(finished)
        if self._care.timeout is not None:
            yield from self._overdue(self._care.timeout)

    def _new_events(self) -> list[tuple[str, Any, Any]]:
        """What has happened; waits a moment where nothing has."""
        found = []
        with suppress(queue.Empty):
            found.append(self._events.get(timeout=_TICK))
            while True:
                found.append(self._events.get_nowait())
        return found

    def _finished(self, tasks: list[_Task]) -> Iterator[tuple[int, Any]]:
        """The results of tasks, fetched at once."""
        try:
            results = self._client.gather([task.future for task in tasks]) if tasks else []
        except (OSError, CancelledError, distributed().KilledWorker):  # lost before they could be fetched
            for task in tasks:
                if task.future.status == "error":
                    yield from self._failed(task)
                else:
                    self._again.append(task)
            return
        for task, result in zip(tasks, results, strict=True):
            task.future.release()
            yield task.number, result

    def _failed(self, task: _Task) -> Iterator[tuple[int, Any]]:
        """What becomes of a task that has no result: it is tried again, or has none.

        Raises:
            Exception: What the function raised.
        """
        error = task.future.exception()
        if not isinstance(error, distributed().KilledWorker):
            raise error
        task.deaths += error.allowed_failures + 1
        task.future.release()
        if task.alone >= _ALONE:
            yield (
                task.number,
                Lost(
                    f"its worker ended {task.deaths} times while it was worked on, at last {task.alone} times alone: "
                    "the memory ran out, or a reader crashed; look at the worker's log, or try it without a cluster"
                ),
            )
        elif task.alone or task.deaths > self._care.retries:
            self._suspects.append(task)
        else:
            self._again.append(task)

    def _overdue(self, timeout: float) -> Iterator[tuple[int, Any]]:
        now = time.monotonic()
        late = [
            (key, task)
            for key, task in self._running.items()
            if task.started and now - task.started > timeout
        ]
        for key, task in late:
            del self._running[key]
            self._client.cancel([task.future], force=True)
            try:
                self._client.restart_workers([task.worker], timeout=_RESTART, raise_for_error=False)
            except (OSError, ValueError) as error:
                _log.warning("%s can't be started again (%s)", task.worker, error)
            yield (
                task.number,
                Lost(f"took more than {timeout:g} s and was given up; raise timeout, or lower budget"),
            )

    def _reconnect(self) -> None:
        """Wait for a scheduler that was lost, and submit what ran there again."""
        _log.warning("lost the scheduler; waiting up to %g s for it", _LOST)
        deadline = time.monotonic() + _LOST
        while self._client.status != "running":
            if time.monotonic() > deadline or self._client.status == "closed":
                raise ClusterError(
                    "the scheduler was lost and didn't come back; what was finished is kept: start the scheduler, then "
                    "the same again with resume"
                )
            time.sleep(_TICK)
        check_workers(self._client, self._care.resources)
        self._listen()
        self._again.extendleft(sorted(self._running.values(), key=lambda task: -task.number))
        self._running = {}


def _in_order(done: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    waiting: dict[int, Any] = {}
    turn = 0
    for number, result in done:
        waiting[number] = result
        while turn in waiting:
            yield turn, waiting.pop(turn)
            turn += 1
