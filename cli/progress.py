"""A progress bar on stderr, where that is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hiresattn_cli.output import one_line


class Update:
    """A bar, or none: ``update(done, note)``."""

    def __init__(self, show: Callable[[float, str], None] | None = None, bar: Any = None) -> None:
        self._show, self._bar = show, bar

    def __call__(self, done: float, note: str) -> None:
        """Show how much is done, in the units of the total, and what is being done."""
        if self._show is not None:
            self._show(done, note)

    @property
    def shown(self) -> bool:
        """Whether somebody sees it."""
        return self._show is not None

    @contextmanager
    def above(self) -> Iterator[None]:
        """Without the bar while the block writes to stdout."""
        if self._bar is None:
            yield
            return
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()


@contextmanager
def progress_bar(what: str, total: float | None, *, wanted: bool = True) -> Iterator[Update]:
    """Show a bar while the block runs.

    Args:
        what: What is being done.
        total: When it is done, in the units of ``update``; None = unknown.
        wanted: False never shows it.

    Yields:
        ``update(done, note)``. Does nothing where stderr isn't a terminal. Lines that others write to
        stderr meanwhile go above the bar.
    """
    if not (wanted and sys.stderr.isatty()):
        yield Update()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False, transient=True) as bar:
        task = bar.add_task(what, total=total, note="")
        yield Update(lambda done, note: bar.update(task, completed=done, note=one_line(note)), bar)
