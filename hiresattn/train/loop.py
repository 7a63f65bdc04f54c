"""Training: an iterator of epoch records; the model directory is whole after each of them."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hiresattn.checkpoint import load_model
from hiresattn.config import did_you_mean
from hiresattn.device import pick_device
from hiresattn.errors import ConfigError
from hiresattn.geometry import Grid
from hiresattn.manifest import Example
from hiresattn.model.build import build_model
from hiresattn.model.net import GlimpseNet, Traversal
from hiresattn.model.select import GumbelTopK, Selector, TopK
from hiresattn.train.data import AUGMENTATIONS, Batch, Item, Loader
from hiresattn.train.estimators import Choices, choices, leave_one_out_loss, published_loss
from hiresattn.train.guide import Guided, glimpse_labels, hits, location_loss, value_loss
from hiresattn.train.options import ESTIMATORS, EpochRecord, TrainOptions, model_config
from hiresattn.train.start import baseline_of, input_rule, scale_of, start_from
from hiresattn.train.state import STATE, State, fingerprint_of, load_state, save_state

#: Share of batches that come from earlier stages of the curriculum.
REHEARSAL = 0.25
#: Share of the training over which the learning rate falls to zero.
COOL_DOWN = 0.4
#: Half of the narrowest measured value range, grey levels: a flat, dark scene's noise isn't blown up.
LEAST_REACH = 16.0
#: Images that are one glimpse come in batches this many times larger.
SMALL_IMAGE_BATCH = 3
#: Regions of the first look in a batch, about, where an image has many.
MOST_AT_ONCE = 2048


def fit(
    examples: Sequence[Example],
    output: str | Path,
    options: TrainOptions,
    *,
    resume: bool = False,
    say: Callable[[str], None] = lambda _words: None,
) -> Iterator[EpochRecord]:
    """Train a model; it is saved after every epoch.

    Images are sorted by the depths that a full look takes; a first look of 16 times as many regions counts as one
    more (with cells of a quarter of their region's side). Training starts with the smallest and goes on to
    larger ones when it is good at those it has (``options.advance``), or when they have had their share of
    the epochs. Cells are sampled (Gumbel top-k) and the loss reaches the scores through the straight-through
    gate exp(lp - sg lp). The loss is the image's cross-entropy plus each glimpse's. Where boxes are known, the
    scorer is told which cells hold one, a look is spent there, and only glimpses that hold one answer for the
    label.

    Args:
        examples: Labelled images or windows with splits ``train`` and ``val`` (others are ignored).
        output: Model directory to make.
        options: How to train.
        resume: Go on from what the directory holds.
        say: Is told, in words, what else is worth knowing.

    Yields:
        A record per epoch.

    Raises:
        ConfigError: If the examples can't be trained on, or the loss stops being a number.
        CheckpointError: If ``resume`` finds no state, or one of another configuration; or the model to start from
            has other parts.
        HiresattnError: If an image can't be read.
    """
    output = Path(output)
    train = [e for e in examples if e.split == "train"]
    held_out = [e for e in examples if e.split == "val"]
    if not train:
        raise ConfigError("no examples with split 'train'; a manifest without a split column is all 'train'")
    if any(e.label is None for e in train + held_out):
        first = next(e for e in train + held_out if e.label is None)
        raise ConfigError(f"{first.source}: no label; training needs one in every row")
    for kind, name, known in (
        ("augmentation", options.augment, AUGMENTATIONS),
        ("selection", options.select, ("sample", "best")),
        ("estimator", options.estimator, ESTIMATORS),
    ):
        if name not in known:
            raise ConfigError(f"unknown {kind} {name!r}{did_you_mean(name, known)}")
    start = None if options.init_from is None else load_model(options.init_from)
    rule = input_rule(train[0].source, options, start)
    config = model_config(options, tuple(sorted({str(e.label) for e in train})), rule)
    torch.manual_seed(options.seed)
    net = build_model(config, pretrained=options.pretrained and not start, weights=options.weights)
    state = State()
    if start is not None and not resume:
        say(start_from(net, config, start, str(options.init_from)))
        state.baseline = baseline_of(str(options.init_from)) or state.baseline
    net.to(pick_device(options.device))
    loader = Loader(
        config.input,
        config.grid,
        threads=options.threads,
        finest=config.finest,
        glance=config.glance,
        overlap=config.overlap,
    )
    try:
        items = loader.items(train, config.classes)
        val_items = loader.items(held_out, config.classes)
        domain, (mean, spread) = loader.domain(items)
        if options.value_range is None and not (start and scale_of(start, rule.bands, rule.dtype)):
            reach = np.maximum(2 * spread, LEAST_REACH)
            low, high = (tuple(np.round(v, 3).tolist()) for v in (mean - reach, mean + reach))
            config = replace(config, input=replace(config.input, low=low, high=high))
            loader.rescale(config.input)
        pools = _stages(items, config.grid)
        optimizer = torch.optim.AdamW(net.parameters(), lr=options.lr, weight_decay=options.weight_decay)
        fingerprint = fingerprint_of(items, val_items, options)
        state.drawn = [0] * len(pools)
        if resume:
            state = load_state(output / STATE, net, optimizer, fingerprint)
        name = options.name or output.resolve().name
        while state.epoch < options.epochs:
            record = _epoch(net, optimizer, loader, pools, val_items, options, state)
            save_state(output, net, optimizer, config, domain, options, state, name, fingerprint)
            yield record
    finally:
        loader.close()


def _stages(items: Sequence[Item], grid: Grid) -> list[list[Item]]:
    """Images from small to large, by depths and, in units of what one more depth adds, regions of the first look.

    A size that shows fewer than half of the classes is no stage of its own, it would teach which class is large:
    its images join those one size smaller.
    """
    sizes = [item.depths + round(np.log(item.looks) / -np.log(grid.fraction) / 2) for item in items]
    classes = len({item.label for item in items})
    pools: list[list[Item]] = []
    for size in sorted(set(sizes)):
        same = [item for item, own in zip(items, sizes, strict=True) if own == size]
        shown = [2 * len({item.label for item in pool}) >= classes for pool in (*pools[-1:], same)]
        if pools and not all(shown):
            pools[-1] += same
        else:
            pools.append(same)
    return pools


def _batch_size(items: Sequence[Item], options: TrainOptions) -> int:
    """Images per step: more where an image is one glimpse, fewer where the first look has many regions."""
    looks = max(item.looks for item in items)
    single = looks == max(item.depths for item in items) == 1
    return min(options.batch_size * (SMALL_IMAGE_BATCH if single else 1), max(MOST_AT_ONCE // looks, 2))


def _epoch(
    net: GlimpseNet,
    optimizer: torch.optim.Optimizer,
    loader: Loader,
    pools: list[list[Item]],
    val_items: list[Item],
    options: TrainOptions,
    state: State,
) -> EpochRecord:
    """One epoch. All chance comes from the seed and the epoch's number, so a resumed run goes on alike."""
    started, cpu_started = time.perf_counter(), time.process_time()
    rng = np.random.default_rng([options.seed, state.epoch])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    torch.manual_seed(int(rng.integers(2**62)))
    select = GumbelTopK(generator) if options.select == "sample" else TopK()
    turns = AUGMENTATIONS[options.augment]
    net.train()
    images = options.epoch_images or len(pools[state.stage])
    done = right = seen = glimpses = 0
    found: list[np.ndarray] = []
    losses = []
    varied: list[Choices] = []
    while done < images:
        rehearse = state.stage > 0 and rng.random() < REHEARSAL
        pool = int(rng.integers(state.stage)) if rehearse else state.stage
        drawn = _draw(pools[pool], pool, _batch_size(pools[pool], options), options.seed, state)
        batch = loader.batch(drawn, [turns[i] for i in rng.integers(len(turns), size=len(drawn))])
        _set_rate(optimizer, options, (state.epoch + done / images) / options.epochs)
        k = options.k
        if options.vary_k:
            k = tuple(int(rng.integers(1, most + 1)) if most else 0 for most in k)
        guided = Guided(select, batch.boxes, rng)
        traversal, loss = _step(net, optimizer, batch, guided, k, options, state)
        if not np.isfinite(loss):
            raise ConfigError(f"epoch {state.epoch + 1}: the loss is {loss}; lower the learning rate (--lr)")
        losses.append(loss)
        done += len(batch.labels)
        if not rehearse:
            right += int((traversal.logits.argmax(1).cpu().numpy() == batch.labels).sum())
            seen += len(batch.labels)
            glimpses += len(traversal.image)
            found.append(hits(traversal, batch.boxes, net.finest))
            varied += filter(None, [choices(traversal)])
    accuracy = right / max(seen, 1)
    val_accuracy = None
    if val_items:
        val_accuracy, found = evaluate(net, loader, val_items, TopK(), options)
    hit = np.concatenate(found) if found else np.zeros(0)
    state.epoch += 1
    state.stage_epochs += 1
    state.seconds += time.perf_counter() - started
    state.cpu_seconds += time.process_time() - cpu_started
    record = EpochRecord(
        epoch=state.epoch,
        epochs=options.epochs,
        stage=state.stage + 1,
        stages=len(pools),
        images=done,
        loss=float(np.mean(losses)),
        accuracy=accuracy,
        val_accuracy=val_accuracy,
        glimpses=glimpses / max(seen, 1),
        hit=float(hit.mean()) if len(hit) else None,
        seconds=round(state.seconds, 2),
        cpu_seconds=round(state.cpu_seconds, 2),
        **{n: float(np.mean([getattr(c, n) for c in varied])) for n in Choices._fields if varied},
    )
    state.records.append(asdict(record))
    share = max(options.epochs // (2 * len(pools)), 1)
    if state.stage + 1 < len(pools) and (accuracy >= options.advance or state.stage_epochs >= share):
        state.stage += 1
        state.stage_epochs = 0
    return record


def _step(
    net: GlimpseNet,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    select: Selector,
    k: tuple[int, ...],
    options: TrainOptions,
    state: State,
) -> tuple[Traversal, float]:
    """One forward and backward pass; the weights stay as they were if the loss is no number."""
    labels = torch.from_numpy(batch.labels).to(net.device)
    gate = options.estimator == "straight-through"
    traversal = net(batch.fetch, batch.roots, batch.frames, select=select, k=k, labels=labels, gate=gate)
    single = glimpse_labels(traversal, batch.labels, batch.boxes, net.finest, net.background)
    loss = _task_loss(traversal, labels, torch.from_numpy(single).to(labels.device), options, state)
    where = location_loss(traversal, batch.boxes, net.grid, net.finest)
    if where is not None:
        loss = loss + options.location_loss * where
    worth = None if net.value is None else value_loss(traversal, labels, batch.boxes)
    if worth is not None:
        loss = loss + options.value_loss * worth
    if torch.isfinite(loss):
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if options.clip is not None:
            torch.nn.utils.clip_grad_norm_(net.parameters(), options.clip)
        optimizer.step()
    return traversal, loss.item()


def _task_loss(
    traversal: Traversal, labels: Tensor, single: Tensor, options: TrainOptions, state: State
) -> Tensor:
    """What the answer is worth, by the estimator; moves the state's baseline."""
    weight = options.reinforce
    if options.estimator == "reinforce":
        share = options.image_share
        published = published_loss(
            traversal,
            labels,
            state.baseline,
            weight=0.1 if weight is None else weight,
            image_ce=share,
            image_reward=share,
            cap=options.cap,
        )
        state.baseline = published.baseline
        return published.loss + sum(traversal.scorer_losses.values())
    loss = loss_of(traversal, labels, single, glimpse_weight=options.glimpse_loss)
    where = leave_one_out_loss(traversal, labels) if options.estimator == "reinforce-loo" else None
    return loss if where is None else loss + (1.0 if weight is None else weight) * where


def loss_of(traversal: Traversal, labels: Tensor, single: Tensor, *, glimpse_weight: float) -> Tensor:
    """Cross-entropy of the image, of each of its glimpses (mean per image), and the scorer's own losses.

    Args:
        traversal: A forward pass.
        labels: Class index per image ``[b]``.
        single: What each glimpse should answer alone: class index, -1 = nothing ``[N]``.
        glimpse_weight: Of the glimpses' part.

    Returns:
        The loss.
    """
    loss = functional.cross_entropy(traversal.logits, labels)
    image = torch.from_numpy(traversal.image).to(labels.device)
    alone = functional.cross_entropy(traversal.glimpse_logits, single, reduction="none", ignore_index=-1)
    total, count = (
        torch.zeros(len(labels), device=labels.device).index_add(0, image, rows)
        for rows in (alone, (single >= 0).to(alone.dtype))
    )
    loss = loss + glimpse_weight * (total / count.clamp(min=1)).mean()
    for value in traversal.scorer_losses.values():
        loss = loss + value
    return loss


def evaluate(
    net: GlimpseNet, loader: Loader, items: Sequence[Item], select: Selector, options: TrainOptions
) -> tuple[float, list[np.ndarray]]:
    """Accuracy and hits with the most cells per depth that training visits."""
    net.eval()
    right = 0
    found = []
    with torch.inference_mode():
        size = _batch_size(items, options)
        for start in range(0, len(items), size):
            batch = loader.batch(items[start : start + size])
            traversal = net(batch.fetch, batch.roots, batch.frames, select=select, k=options.k)
            right += int((traversal.logits.argmax(1).cpu().numpy() == batch.labels).sum())
            found.append(hits(traversal, batch.boxes, net.finest))
    return right / len(items), found


def _draw(pool: list[Item], number: int, size: int, seed: int, state: State) -> list[Item]:
    """The next items of a pool: it is shuffled anew each time that it has been through."""
    out: list[Item] = []
    while len(out) < min(size, len(pool)):
        turn, place = divmod(state.drawn[number], len(pool))
        order = np.random.default_rng([seed, number, turn]).permutation(len(pool))
        taken = order[place : place + min(size, len(pool)) - len(out)]
        out += [pool[i] for i in taken]
        state.drawn[number] += len(taken)
    return out


def _set_rate(optimizer: torch.optim.Optimizer, options: TrainOptions, progress: float) -> None:
    """Constant, then falling in a straight line; up from a tenth at the start."""
    rate = options.lr * min(1.0, (1 - progress) / COOL_DOWN) * min(1.0, 0.1 + progress * 30)
    for group in optimizer.param_groups:
        group["lr"] = rate
