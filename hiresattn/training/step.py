"""One step of training: forward, the task's loss, backward in all processes, and how far the weights then move."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hiresattn.attention_maps.memory import AttentionMemory
from hiresattn.errors import ConfigError
from hiresattn.model.net import GlimpseNet
from hiresattn.model.scorers import Scorer
from hiresattn.model.select import Selector
from hiresattn.model.traversal import Traversal
from hiresattn.training.box_supervision import glimpse_labels, location_loss, value_loss
from hiresattn.training.cutmix import Pastes
from hiresattn.training.data import Batch
from hiresattn.training.distributed import BATCH_NORM, Team
from hiresattn.training.estimators import leave_one_out_loss, published_loss, surprise
from hiresattn.training.options import TrainOptions
from hiresattn.training.samples import Item
from hiresattn.training.state import State
from hiresattn.training.targets import TargetOf, targets

#: Share of the training over which ``linear`` falls to zero.
COOL_DOWN = 0.4
#: Share of the training after which ``step`` falls to a tenth, as the paper's does.
DROP = 0.8
#: Parts that scale what they normalise.
NORMS = (BATCH_NORM, nn.GroupNorm, nn.LayerNorm)


def optimizer_of(net: GlimpseNet, options: TrainOptions) -> torch.optim.Optimizer:
    """What moves the weights: ``adamw``; or ``adam`` as the paper's, weight decay a part of the loss (L2).

    The paper's decay spares the norms, and its epsilon is 1e-7.
    """
    if options.optimizer == "adamw":
        return torch.optim.AdamW(net.parameters(), lr=options.lr, weight_decay=options.weight_decay)
    norms = {id(p) for part in net.modules() if isinstance(part, NORMS) for p in part.parameters()}
    groups = [
        {"params": [p for p in net.parameters() if id(p) not in norms], "weight_decay": options.weight_decay},
        {"params": [p for p in net.parameters() if id(p) in norms], "weight_decay": 0.0},
    ]
    return torch.optim.Adam(groups, lr=options.lr, eps=1e-7)


def rate_at(progress: float, options: TrainOptions) -> float:
    """The learning rate after a share of the training, 0 to 1.

    From a tenth up over ``options.warm_up``; then ``linear``: constant, at the end falling in a straight line;
    ``cosine``: half a cosine down to zero; ``step``: constant, then a tenth.
    """
    if options.schedule == "cosine":
        fall = (1 + math.cos(math.pi * progress)) / 2
    elif options.schedule == "step":
        fall = 1.0 if progress < DROP else 0.1
    else:
        fall = min(1.0, (1 - progress) / COOL_DOWN)
    slope = round(0.9 / options.warm_up, 9) if options.warm_up else math.inf
    return options.lr * fall * (min(1.0, 0.1 + progress * slope) if options.warm_up else 1.0)


def set_rate(optimizer: torch.optim.Optimizer, progress: float, options: TrainOptions) -> None:
    """Give all weights ``rate_at``."""
    for group in optimizer.param_groups:
        group["lr"] = rate_at(progress, options)


def class_weights(items: Sequence[Item], classes: int, options: TrainOptions) -> Tensor | None:
    """Weight per class ``[classes]``, 1 in the mean over labelled images: the rarer, the more; None = all alike.

    Of several labels, how many images don't have one for each that has it.
    """
    if options.class_weights == "none":
        return None
    if options.multi_label:
        having = torch.tensor([item.label for item in items]).sum(0)
        return (len(items) - having).clamp(min=1) / having.clamp(min=1)
    count = Counter(item.label for item in items if item.label != -1)
    if not count:
        return None
    return torch.tensor([count.total() / (len(count) * max(count[label], 1)) for label in range(classes)])


def check_amp(device: torch.device, options: TrainOptions) -> None:
    """Refuse half precision where it can't be had.

    Raises:
        ConfigError: On another device than CUDA or the CPU.
    """
    if options.amp and device.type not in ("cuda", "cpu"):
        raise ConfigError(f"amp computes in bfloat16 on cuda or cpu, not on {device.type}; leave it out")


class Looked(NamedTuple):
    """A batch after its forward pass."""

    batch: Batch
    traversal: Traversal
    loss: Tensor
    losses: dict[str, float]
    """What the scorer's own losses, ``location`` and ``value`` add to the loss, by name; those that there are."""
    baseline: float
    """Of REINFORCE, for the next step."""


def look(
    net: GlimpseNet,
    batch: Batch,
    select: Selector,
    k: tuple[int, ...],
    options: TrainOptions,
    baseline: float,
    *,
    weights: Tensor | None = None,
    progress: float = 0.0,
    memory: AttentionMemory | None = None,
) -> Looked:
    """One forward pass, and what it is worth.

    Args:
        net: In training mode.
        batch: What is looked at.
        select: Chooses cells.
        k: Cells per region, per depth.
        options: How to train.
        baseline: Of REINFORCE.
        weights: Per class, for the cross-entropies; None = all alike.
        progress: Share of the training done.
        memory: Attention accumulated so far, for scorers that learn from it; None = there is none yet.

    Returns:
        What was seen, and the loss, which ``move`` learns from.
    """
    labels = torch.from_numpy(batch.labels).to(net.device)
    gate = options.estimator == "straight-through"
    weights = None if weights is None else weights.to(net.device)
    target_of = targets(
        net, batch, options.scorer_loss, progress=progress, class_weights=weights, memory=memory
    )
    with torch.autocast(net.device.type, torch.bfloat16, enabled=options.amp):
        traversal = net(batch.fetch, batch.roots, batch.frames, select=select, k=k, straight_through=gate)
        own = scorer_losses(net.scorer, traversal, target_of)
    if options.amp:
        traversal, own = _in_full(traversal), {name: value.float() for name, value in own.items()}
    single = glimpse_labels(traversal, batch.labels, batch.boxes, net.finest, net.background, batch.kinds)
    alone = torch.from_numpy(single).to(labels.device)
    loss, baseline = _task_loss(traversal, labels, alone, options, baseline, weights, batch.pastes)
    parts = dict(own)
    loss = loss + sum(own.values())
    where = (
        None if net.scorer.learns_from_boxes else location_loss(traversal, batch.boxes, net.grid, net.finest)
    )
    if where is not None:
        parts["location"] = options.location_loss * where
        loss = loss + parts["location"]
    worth = (
        None
        if net.value is None
        else value_loss(traversal, torch.from_numpy(batch.main).to(labels.device), batch.boxes)
    )
    if worth is not None:
        parts["value"] = options.value_loss * worth
        loss = loss + parts["value"]
    return Looked(batch, traversal, loss, {name: part.item() for name, part in parts.items()}, baseline)


def move(
    net: GlimpseNet,
    optimizer: torch.optim.Optimizer,
    looked: Looked | None,
    options: TrainOptions,
    state: State,
    *,
    team: Team,
    part: int = 0,
) -> tuple[float, int]:
    """One backward pass, in all processes together; the weights stay as they were if the loss is no number.

    Every process counts by its images, so that the gradient is that of all their images in one batch; but for terms
    that are means over regions (boxes, values, sibling rewards), where processes looked at unequal numbers of those.

    Args:
        net: In training mode.
        optimizer: Of its weights.
        looked: This process's share of the batch; None = none of it could be read.
        options: How to train.
        state: Its baseline moves.
        team: The processes.
        part: Which batch of a step's ``options.accumulate`` it is; the weights move after the last.

    Returns:
        The loss and the images of all processes; NaN and 0 where nothing could be read.
    """
    mine = 0 if looked is None else len(looked.batch.labels)
    (images,) = team.sum([mine])
    if not images:
        return math.nan, 0
    share = mine / images
    loss, baseline = team.sum(
        [0.0, 0.0] if looked is None else [share * looked.loss.item(), share * looked.baseline]
    )
    state.baseline = baseline
    if math.isfinite(loss):
        if part == 0:
            optimizer.zero_grad()
        if looked is not None:
            (looked.loss / options.accumulate * share).backward()  # type: ignore[no-untyped-call]
        if part == options.accumulate - 1:
            team.sum_gradients(net)
            if options.clip is not None:
                torch.nn.utils.clip_grad_norm_(net.parameters(), options.clip)
            optimizer.step()
    return loss, round(images)


def scorer_losses(scorer: Scorer, traversal: Traversal, target_of: TargetOf) -> dict[str, Tensor]:
    """The scorer's own losses by name, summed over the passes of a traversal.

    Args:
        scorer: Whose.
        traversal: A forward pass.
        target_of: What training knows of regions.
    """
    losses: dict[str, Tensor] = {}
    start = 0
    for scored in traversal.scored:
        rows = slice(start, start := start + len(scored.logits))
        target = target_of(traversal.image[rows], traversal.depth[rows], traversal.region[rows])
        for name, value in scorer.losses(scored, target).items():
            losses[name] = losses[name] + value if name in losses else value
    return losses


def _in_full(traversal: Traversal) -> Traversal:
    """A traversal in single precision, for the losses."""
    values: dict[str, Any] = {
        name: value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in vars(traversal).items()
    }
    return Traversal(**values)


def _task_loss(
    traversal: Traversal,
    labels: Tensor,
    single: Tensor,
    options: TrainOptions,
    baseline: float,
    weights: Tensor | None,
    pastes: Pastes | None,
) -> tuple[Tensor, float]:
    """What the answer is worth, by the estimator; and the next baseline."""
    weight = options.reinforce_weight
    if options.estimator == "reinforce":
        share = options.image_share
        published = published_loss(
            traversal,
            labels,
            baseline,
            weight=0.1 if weight is None else weight,
            image_ce=share,
            image_reward=share,
            depths=options.glimpse_loss_depths,
            class_weights=weights,
        )
        return published.loss, published.baseline
    loss = loss_of(
        traversal,
        labels,
        single,
        glimpse_weight=options.glimpse_loss,
        class_weights=weights,
        pastes=pastes,
    )
    where = leave_one_out_loss(traversal, labels) if options.estimator == "reinforce-loo" else None
    return loss if where is None else loss + (1.0 if weight is None else weight) * where, baseline


def loss_of(
    traversal: Traversal,
    labels: Tensor,
    single: Tensor,
    *,
    glimpse_weight: float,
    class_weights: Tensor | None = None,
    pastes: Pastes | None = None,
) -> Tensor:
    """Cross-entropy of the image, and of each of its glimpses (mean per image).

    Args:
        traversal: A forward pass.
        labels: Class index per image ``[b]``, or of several labels 1 where an image has it ``[b c]``.
        single: What each glimpse should answer alone, likewise; -1 = nothing ``[N]`` or ``[N c]``.
        glimpse_weight: Of the glimpses' part.
        class_weights: See ``estimators.surprise``; None = all alike.
        pastes: What CutMix pasted: an image, and each of its glimpses, should answer for either label by its share of
            what is looked at; None = nothing.

    Returns:
        The loss.
    """
    image = torch.from_numpy(traversal.image).to(labels.device)
    counted = single.reshape(len(image), -1)[:, 0] >= 0
    count = torch.zeros(len(labels), device=labels.device).index_add(0, image, counted.float())

    def answering(labels: Tensor, single: Tensor, share: Tensor | float, part: Tensor | float) -> Tensor:
        several = labels.ndim == 2
        alone = surprise(traversal.glimpse_logits, single, class_weights if several else None)
        mean = torch.zeros_like(count).index_add(0, image, alone * part) / count.clamp(min=1)
        if class_weights is not None and not several:
            mean = mean * class_weights[labels.clamp(min=0)].masked_fill(labels < 0, 1)
        return surprise(traversal.logits, labels, class_weights) * share + glimpse_weight * mean

    if pastes is None:
        loss = answering(labels, single, 1.0, 1.0).mean()
    else:
        shares = pastes.share, pastes.share_of(traversal.image, traversal.region)
        share, part = (torch.from_numpy(values).to(traversal.logits) for values in shares)
        donors = torch.from_numpy(pastes.labels).to(labels.device)
        of_donor = torch.where(counted if single.ndim == 1 else counted[:, None], donors[image], -1)
        loss = answering(labels, single, 1 - share, 1 - part) + answering(donors, of_donor, share, part)
        loss = loss.mean()
    return loss
