"""The processes of a run: one, or as many as ``torchrun`` starts, each with its share of every batch."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

from hiresattn.errors import ConfigError
from hiresattn.model.device import pick_device

_T = TypeVar("_T")
#: Parts that normalise by their batch.
BATCH_NORM = nn.modules.batchnorm._NormBase  # noqa: SLF001 - what all of them are


@dataclass(frozen=True)
class Team:
    """Which of how many processes this one is. What is summed is the same, bit by bit, in all of them."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def share(self, items: Sequence[_T]) -> list[_T]:
        """This process's part of what all of them have: every ``size``-th."""
        return list(items[self.rank :: self.size])

    def sum(self, values: Sequence[float]) -> list[float]:
        """The values of all processes, added up."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        self._add_up(total)
        return total.tolist()

    def sum_named(self, values: Mapping[str, float]) -> dict[str, float]:
        """The values of all processes, added up by name; a process need not have every name."""
        total: dict[str, float] = {}
        for one in self._gathered(dict(values)):
            total |= {name: total.get(name, 0.0) + value for name, value in one.items()}
        return total

    def sum_gradients(self, net: nn.Module) -> None:
        """Give every weight the sum of its gradients in all processes; none where no process has one.

        Which weights have one may differ between processes: their looks may end at different depths.
        """
        if self.size == 1:
            return
        weights = [weight for weight in net.parameters() if weight.requires_grad]
        flat = torch.cat(
            [
                *[torch.zeros_like(w).flatten() if w.grad is None else w.grad.flatten() for w in weights],
                torch.tensor([float(w.grad is not None) for w in weights], device=self.device),
            ]
        )
        self._add_up(flat)
        *parts, had = torch.split(flat, [*[w.numel() for w in weights], len(weights)])
        for weight, part, any_has in zip(weights, parts, had.tolist(), strict=True):
            weight.grad = part.view_as(weight).clone() if any_has else None

    def follow(self, net: nn.Module) -> None:
        """Take the first process's weights."""
        if self.size == 1:
            return
        with _told():
            for values in net.state_dict().values():
                distributed.broadcast(values, 0)

    def average_norms(self, net: nn.Module) -> None:
        """Give batch norms' running statistics their mean over all processes.

        In training each process normalises by its own share, as the paper's GPUs did.
        """
        if self.size == 1:
            return
        for part in net.modules():
            for buffer in part.buffers(recurse=False) if isinstance(part, BATCH_NORM) else ():
                if buffer.is_floating_point():
                    self._add_up(buffer)
                    buffer.div_(self.size)

    def agree(self, what: str, words: str) -> None:
        """Make sure that all processes have the same.

        Raises:
            ConfigError: If they haven't.
        """
        if len(set(self._gathered(words))) > 1:
            raise ConfigError(
                f"the {self.size} processes see different {what}; they need the same files and options"
            )

    def _gathered(self, mine: _T) -> list[_T]:
        """What each process has, in their order."""
        found = [mine] * self.size
        if self.size > 1:
            with _told():
                distributed.all_gather_object(found, mine)
        return found

    def _add_up(self, values: Tensor) -> None:
        with _told():
            distributed.all_reduce(values)


@contextmanager
def team_of(device: str) -> Iterator[Team]:
    """Join the processes that ``torchrun`` started, if it did; leave them at the end.

    Args:
        device: What to compute on; on CUDA each process of a machine takes a GPU of its own.

    Yields:
        The team; of one process without ``torchrun``.

    Raises:
        ConfigError: If there is no such device, or the processes can't meet.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    own = pick_device(device)
    if size == 1:
        yield Team(own)
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
        yield Team(own, distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()


@contextmanager
def _told() -> Iterator[None]:
    """Turn what is raised when another process ended into a message."""
    try:
        yield
    except RuntimeError as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"another process of this run ended ({why}), so this one does too; see what that one said"
        ) from error
