"""A bound on what building a network may allocate."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules import module

#: Values that are made on the way and not kept, as those of a layer that is replaced: times of what is kept, and more.
_TIMES, _MORE = 3, 10_000_000


@contextmanager
def parameters_in_proportion(values: int, sizes: Any) -> Iterator[None]:
    """Refuse to build more parameters than fit weights of so many values, before any is filled.

    Args:
        values: How many the weights hold.
        sizes: What the network is built with; a whole number in it that is larger is refused at once.

    Raises:
        MemoryError: From the layer that asks for too many.
    """
    if (largest := max(_whole_numbers(sizes), default=0)) > values:
        raise MemoryError(f"it asks for a part of {largest:,}, and its weights have {values:,} values")
    most, made, mine = _TIMES * values + _MORE, 0, threading.get_ident()

    def count(_module: nn.Module, _name: str, parameter: Any) -> None:
        nonlocal made
        if parameter is None or threading.get_ident() != mine:
            return
        made += parameter.numel()
        if made > most:
            raise MemoryError(
                f"it asks for {made:,} parameters or more, and its weights have {values:,} values"
            )

    hook = module.register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def _whole_numbers(found: Any) -> Iterator[int]:
    """All whole numbers in nested JSON types."""
    if isinstance(found, Mapping | list | tuple):
        for value in found.values() if isinstance(found, Mapping) else found:
            yield from _whole_numbers(value)
    elif isinstance(found, int):
        yield found
