"""A progress bar on stderr, where that is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hiresattn_cli.output import one_line

Update = Callable[[float, str], None]


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
        yield lambda _done, _note: None
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
        yield lambda done, note: bar.update(task, completed=done, note=one_line(note))
