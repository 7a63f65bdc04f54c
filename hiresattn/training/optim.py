"""The optimiser, its learning rate, and one step: backward in all processes, then an update of the weights."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hiresattn.errors import ConfigError
from hiresattn.model.net import GlimpseNet
from hiresattn.training.curriculum import BATCH
from hiresattn.training.distributed import BATCH_NORM, Processes
from hiresattn.training.estimators import reinforce_baseline
from hiresattn.training.losses import BatchLoss
from hiresattn.training.options import TrainOptions
from hiresattn.training.samples import Sample
from hiresattn.training.state import State

#: Largest learning rate where nothing else is asked for, in batches of ``BATCH`` and more cases.
LR = 2e-3
#: It falls with smaller batches by this power of their size.
LR_POWER = 2 / 3
#: Share of the training over which ``linear`` falls to zero.
COOL_DOWN = 0.4
#: Share of the training after which ``step`` falls to a tenth, as TNet's does.
DROP = 0.8
#: Layers that scale what they normalise.
NORMS = (BATCH_NORM, nn.GroupNorm, nn.LayerNorm)


def optimizer_of(net: GlimpseNet, options: TrainOptions) -> torch.optim.Optimizer:
    """The optimiser: ``adamw``; or ``adam`` as TNet uses it, with L2 decay of all but norms and epsilon 1e-7."""
    learned = [p for p in net.parameters() if p.requires_grad]
    if options.optimizer == "adamw":
        return torch.optim.AdamW(learned, lr=largest_lr(options), weight_decay=options.weight_decay)
    norms = {id(p) for part in net.modules() if isinstance(part, NORMS) for p in part.parameters()}
    groups = [
        {"params": [p for p in learned if id(p) not in norms], "weight_decay": options.weight_decay},
        {"params": [p for p in learned if id(p) in norms], "weight_decay": 0.0},
    ]
    return torch.optim.Adam(groups, lr=largest_lr(options), eps=1e-7)


def largest_lr(options: TrainOptions) -> float:
    """The largest learning rate."""
    return LR if options.lr is None else options.lr


def lr_of_batches(size: int) -> float:
    """Largest learning rate for batches of ``size`` cases: in small ones the gradient is mostly noise.

    Of 66 cases with two slides each, in batches of 4, 5e-4 and 2.5e-4 learn from image labels in every run, 7e-4 in one
    of three and 2e-3 in one of four.
    """
    return round(LR * min(size / BATCH, 1.0) ** LR_POWER, 6)


def learning_rate(progress: float, options: TrainOptions) -> float:
    """The learning rate after a share of the training, 0 to 1.

    It rises from a tenth over ``options.warm_up``; then ``linear``: constant, at the end linear to zero; ``cosine``:
    half a cosine to zero; ``step``: constant, then a tenth.
    """
    if options.schedule == "cosine":
        fall = (1 + math.cos(math.pi * progress)) / 2
    elif options.schedule == "step":
        fall = 1.0 if progress < DROP else 0.1
    else:
        fall = min(1.0, (1 - progress) / COOL_DOWN)
    slope = round(0.9 / options.warm_up, 9) if options.warm_up else math.inf
    return largest_lr(options) * fall * (min(1.0, 0.1 + progress * slope) if options.warm_up else 1.0)


def set_learning_rate(optimizer: torch.optim.Optimizer, progress: float, options: TrainOptions) -> None:
    """Set ``learning_rate`` for all weights."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(progress, options)


def class_weights(samples: Sequence[Sample], classes: int, options: TrainOptions) -> Tensor | None:
    """Weight per class ``[classes]``, by inverse frequency, with mean 1 over labelled images; None = all alike.

    Of several labels: the number of images without one over that of images with it.
    """
    if options.class_weights == "none":
        return None
    if options.multi_label:
        having = torch.tensor([sample.label for sample in samples]).sum(0)
        return (len(samples) - having).clamp(min=1) / having.clamp(min=1)
    count = Counter(sample.label for sample in samples if sample.label != -1)
    if not count:
        return None
    return torch.tensor([count.total() / (len(count) * max(count[label], 1)) for label in range(classes)])


def check_amp(device: torch.device, options: TrainOptions) -> None:
    """Check that the device computes in half precision.

    Raises:
        ConfigError: On another device than CUDA or the CPU.
    """
    if options.amp and device.type not in ("cuda", "cpu"):
        raise ConfigError(f"amp computes in bfloat16 on cuda or cpu, not on {device.type}; leave it out")


class Step(NamedTuple):
    """What ``step`` found."""

    loss: float
    """Of all processes; NaN where nothing could be read."""
    images: int
    """Images of all processes that could be read."""
    parts: dict[str, float]
    """This process's shares of the loss by name; see ``BatchLoss.joined``."""


def step(
    net: GlimpseNet,
    optimizer: torch.optim.Optimizer,
    loss: BatchLoss | None,
    options: TrainOptions,
    state: State,
    *,
    processes: Processes,
    part: int = 0,
    extra: Tensor | None = None,
) -> Step:
    """One backward pass, in all processes together; the weights stay as they were if the loss is not finite.

    Each process has its share of every term, also of those that are means over regions, of which processes have
    unequal numbers: the gradient is that of all their images in one batch.

    Args:
        net: In training mode.
        optimizer: Of its weights.
        loss: Of this process's part of the batch; None = none of it could be read.
        options: How to train.
        state: Its baseline is updated.
        processes: All of this run.
        part: Which batch of a step's ``options.accumulate`` it is; the weights are updated after the last.
        extra: A further part of this process's loss; also where it has no image.
    """
    own = {"": (0.0,)} if loss is None else loss.sums | {"": (float(loss.images),)}
    sums = processes.sum_all(own)
    images = round(sums[""][0])
    if not images:
        return Step(math.nan, 0, {})
    share, parts = (None, {}) if loss is None else loss.joined(sums)
    (total,) = processes.sum([0.0 if share is None else share.item()])
    if options.estimator == "reinforce":
        state.baseline = reinforce_baseline(sums["reinforce"], state.baseline, options.image_share)
    if (
        next(net.scorer.buffers(), None) is not None
    ):  # its losses update them: take them from who had all passes
        processes.take_buffers(net.scorer, processes.first_with_most(len(own)))
    if math.isfinite(total):
        if part == 0:
            optimizer.zero_grad()
        if extra is not None:
            share = extra if share is None else share + extra
        if share is not None and share.requires_grad:
            (share / options.accumulate).backward()  # type: ignore[no-untyped-call]
        if part == options.accumulate - 1:
            processes.sum_gradients(net)
            if options.clip is not None:
                torch.nn.utils.clip_grad_norm_(net.parameters(), options.clip)
            optimizer.step()
    return Step(total, images, parts)
