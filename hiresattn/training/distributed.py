"""Data parallelism: the processes of a run, one or as many as ``torchrun`` starts, share every batch."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce

from hiresattn.errors import ConfigError
from hiresattn.model.device import pick_device

_T = TypeVar("_T")
_K = TypeVar("_K")
#: Parts that normalise by their batch.
BATCH_NORM = nn.modules.batchnorm._NormBase  # noqa: SLF001 - what all of them are


@dataclass(frozen=True)
class Processes:
    """The processes of a run, as seen from this one. What is summed is the same, bit by bit, in all of them."""

    device: torch.device
    rank: int = 0
    """Index of this process."""
    world_size: int = 1
    """Number of processes."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def shard(self, everything: Sequence[_T]) -> list[_T]:
        """This process's part of what all of them have: every ``world_size``-th element."""
        return list(everything[self.rank :: self.world_size])

    def sum(self, values: Sequence[float]) -> list[float]:
        """The values of all processes, added up."""
        if self.world_size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        self._all_reduce(total)
        return total.tolist()

    def summed(self, values: Tensor) -> Tensor:
        """A tensor that all processes have, of one shape, added up; its gradient is that of all of them."""
        if self.world_size == 1:
            return values
        with _explained():
            total: Tensor = all_reduce(values)  # type: ignore[no-untyped-call]
        return total

    def sum_named(self, values: Mapping[_K, float]) -> dict[_K, float]:
        """The values of all processes, added up by name; a process need not have every name."""
        total: dict[_K, float] = {}
        for one in self._all_gather(dict(values)):
            total |= {name: total.get(name, 0.0) + value for name, value in one.items()}
        return total

    def sum_all(self, values: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
        """As ``sum_named``, of several values under each name, as many in all processes."""
        flat = {(name, at): value for name, own in values.items() for at, value in enumerate(own)}
        total: dict[str, list[float]] = {}
        for (name, at), value in sorted(self.sum_named(flat).items()):
            assert at == len(total.setdefault(name, []))  # noqa: S101 - sorted
            total[name].append(value)
        return total

    def sum_gradients(self, net: nn.Module) -> None:
        """Give every weight the sum of its gradients in all processes; none where no process has one.

        Which weights have one may differ between processes: their traversals may end at different depths.
        """
        if self.world_size == 1:
            return
        weights = [weight for weight in net.parameters() if weight.requires_grad]
        flat = torch.cat(
            [
                *[torch.zeros_like(w).flatten() if w.grad is None else w.grad.flatten() for w in weights],
                torch.tensor([float(w.grad is not None) for w in weights], device=self.device),
            ]
        )
        self._all_reduce(flat)
        *parts, had = torch.split(flat, [*[w.numel() for w in weights], len(weights)])
        for weight, part, any_has in zip(weights, parts, had.tolist(), strict=True):
            weight.grad = part.view_as(weight).clone() if any_has else None

    def broadcast_weights(self, net: nn.Module) -> None:
        """Take the first process's weights."""
        if self.world_size == 1:
            return
        with _explained():
            for values in net.state_dict().values():
                distributed.broadcast(values, 0)

    def first_with_most(self, count: int) -> int:
        """The first process that has the largest count."""
        counts = self._all_gather(count)
        return counts.index(max(counts))

    def take_buffers(self, module: nn.Module, rank: int) -> None:
        """Take one process's buffers of a part of the network."""
        if self.world_size > 1:
            with _explained():
                for values in module.buffers():
                    distributed.broadcast(values, rank)

    def average_batch_norms(self, net: nn.Module) -> None:
        """Give batch norms' running statistics their mean over all processes.

        In training each process normalises by its own share, as the paper's GPUs did.
        """
        if self.world_size == 1:
            return
        for part in net.modules():
            if not part.training:  # a frozen encoder's have learnt nothing
                continue
            for buffer in part.buffers(recurse=False) if isinstance(part, BATCH_NORM) else ():
                if buffer.is_floating_point():
                    self._all_reduce(buffer)
                    buffer.div_(self.world_size)

    def check_same(self, what: str, words: str) -> None:
        """Check that all processes have the same.

        Raises:
            ConfigError: If they haven't.
        """
        if len(set(self._all_gather(words))) > 1:
            raise ConfigError(
                f"the {self.world_size} processes see different {what}; they need the same files and options"
            )

    def _all_gather(self, own: _T) -> list[_T]:
        """What each process has, in their order."""
        found = [own] * self.world_size
        if self.world_size > 1:
            with _explained():
                distributed.all_gather_object(found, own)
        return found

    def _all_reduce(self, values: Tensor) -> None:
        with _explained():
            distributed.all_reduce(values)


@contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started, if it did; leave them at the end.

    Args:
        device: What to compute on; on CUDA each process of a machine takes a GPU of its own.

    Yields:
        The processes; a single one without ``torchrun``.

    Raises:
        ConfigError: If there is no such device, or the processes can't meet.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    own = pick_device(device)
    if size == 1:
        yield Processes(own)
        return
    if own.type == "cuda":
        if own.index is None:
            own = pick_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
        torch.cuda.set_device(own)
    try:
        distributed.init_process_group("nccl" if own.type == "cuda" else "gloo")
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"the {size} processes can't meet ({error}); start them with torchrun") from error
    try:
        yield Processes(own, distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what is raised when another process ended into a message."""
    try:
        yield
    except RuntimeError as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"another process of this run ended ({why}), so this one does too; see its error message"
        ) from error
