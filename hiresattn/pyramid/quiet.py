"""Keep one kind of warning quiet while a file is opened."""

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
