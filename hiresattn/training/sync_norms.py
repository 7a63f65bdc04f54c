"""Batch norms over the batch of all processes: sums of statistics, and equal numbers of passes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from hiresattn.errors import ConfigError
from hiresattn.model.net import GlimpseNet
from hiresattn.model.traversal import Traversal
from hiresattn.reading.fetch import Crops
from hiresattn.training.batch import Batch
from hiresattn.training.distributed import Processes
from hiresattn.training.options import TrainOptions


class SyncNorms:
    """Makes the batch norms of a traversal normalise by the crops of all processes, on CUDA and on the CPU.

    Every pass of a process meets a pass of each other one: who has no more regions passes none.

    Args:
        processes: Of the run.
        net: The network that they train.
        size: Side of its crops, px.
        bands: Bands of its crops.
    """

    def __init__(self, processes: Processes, net: GlimpseNet, size: int, bands: int) -> None:
        self._processes, self._net = processes, net
        self._nothing = Crops(
            np.zeros((0, bands, size, size), np.float32), np.zeros((0, size, size), np.float32)
        )

    def traversed(self, batch: Batch, traverse: Callable[[Batch], Traversal]) -> Traversal:
        """Traverse a batch, where batch norms normalise by all crops; each pass meets those of the other processes."""

        def fetch(image: np.ndarray, regions: np.ndarray) -> Crops:
            crops: Crops = batch.fetch(image, regions)
            self._processes.sum([1.0])
            return crops

        with _JointStatistics(self._processes):
            return traverse(replace(batch, fetch=fetch))

    def finish(self, traversal: Traversal | None) -> Tensor:
        """Make passes without regions until no process has one; call it once for each batch, in all processes.

        Args:
            traversal: This process's; None = it had no image.

        Returns:
            0, with a graph through every pass: added to the loss, each process goes back through as many.
        """
        none, regions = torch.zeros(()), np.zeros((0, 4), np.int64)
        with _JointStatistics(self._processes):
            if traversal is not None:
                none = 0 * traversal.features.sum()
            while self._processes.sum([0.0])[0]:
                none = none + 0 * self._net.glimpse(self._nothing, regions, regions).features.sum()
        return none


class _JointStatistics(TorchFunctionMode):
    """Replaces ``functional.batch_norm`` in training by one over all processes."""

    def __init__(self, processes: Processes) -> None:
        super().__init__()
        self._processes = processes

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch."""
        named = dict(kwargs or {})
        if func is functional.batch_norm:
            names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
            given = dict(zip(names, args, strict=False)) | named
            if given.get("training"):
                return self._normalized(**given)
        return func(*args, **named)

    def _normalized(
        self,
        input: Tensor,  # noqa: A002 - torch's name
        running_mean: Tensor | None = None,
        running_var: Tensor | None = None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = True,  # noqa: ARG002, FBT001, FBT002 - torch's
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        values = input.float()
        over = (0, *range(2, values.ndim))
        (count,) = self._processes.sum([values.numel() / values.shape[1]])
        mean = self._processes.summed(values.sum(over)) / count
        shape = (1, -1, *[1] * (values.ndim - 2))
        centred = values - mean.view(shape)
        var = self._processes.summed(centred.square().sum(over)) / count
        with torch.no_grad():
            if running_mean is not None and running_var is not None:
                running_mean.lerp_(mean.to(running_mean), momentum)
                running_var.lerp_((var * (count / max(count - 1, 1))).to(running_var), momentum)
        scale = (var + eps).rsqrt() * (1 if weight is None else weight)
        out = centred * scale.view(shape)
        return (out if bias is None else out + bias.view(shape)).to(input.dtype)


def sync_norms(
    processes: Processes, net: GlimpseNet, options: TrainOptions, *, size: int, bands: int
) -> SyncNorms | None:
    """What ``options.sync_batch_norms`` asks for; None = nothing, or there is one process only.

    Raises:
        ConfigError: With options under which processes can't make equal numbers of passes.
    """
    if not options.sync_batch_norms:
        return None
    for name, bad in (("coarse_encoder", options.coarse_encoder), ("on_error", options.on_error == "skip")):
        if bad:
            raise ConfigError(
                f"sync_batch_norms needs the same passes in all processes, which {name} doesn't give; leave one out"
            )
    return None if processes.world_size == 1 else SyncNorms(processes, net, size, bands)
