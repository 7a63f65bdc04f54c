"""Keep one kind of warning, or one logger, quiet while a file is opened."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_one_at_a_time = threading.Lock()  # Python's warning filters belong to the process, not to a thread


@contextmanager
def quiet(kind: type[Warning]) -> Iterator[None]:
    """Ignore warnings of one kind; one thread at a time, since filters are shared by all."""
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore", kind)
        yield


@contextmanager
def unlogged(name: str) -> Iterator[None]:
    """Drop what this thread logs under a name: without a handler, Python prints it to stderr."""
    here = threading.get_ident()

    def other_thread(_: logging.LogRecord) -> bool:
        return threading.get_ident() != here

    logger = logging.getLogger(name)
    logger.addFilter(other_thread)
    try:
        yield
    finally:
        logger.removeFilter(other_thread)
