"""Training: an iterator of epoch records; the model directory is whole after each of them."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiresattn.checkpoint import load_model
from hiresattn.config import did_you_mean
from hiresattn.device import pick_device
from hiresattn.errors import ConfigError, HiresattnError
from hiresattn.geometry import Grid
from hiresattn.manifest import Example
from hiresattn.model.build import build_model
from hiresattn.model.net import GlimpseNet, Traversal
from hiresattn.model.select import GumbelTopK, Selector, TopK
from hiresattn.train.augment import AUGMENTATIONS, changes_of, check_jpeg
from hiresattn.train.data import Batch, Item, Loader
from hiresattn.train.estimators import Choices, choices
from hiresattn.train.guide import Guided, hits
from hiresattn.train.options import ESTIMATORS, EpochRecord, TrainOptions, model_config
from hiresattn.train.start import baseline_of, first_rule, scale_of, start_from
from hiresattn.train.state import STATE, State, fingerprint_of, load_state, save_state
from hiresattn.train.step import check_amp, class_weights, optimizer_of, rate_at, step

#: Share of batches that come from earlier stages of the curriculum.
REHEARSAL = 0.25
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
    train, held_out = _sets(examples, options)
    _report_rare(train, say)
    start = None if options.init_from is None else load_model(options.init_from)
    lost = _Lost(say) if options.on_error == "skip" else None
    rule = first_rule([e.source for e in train], options, start, lost)
    config = model_config(options, tuple(sorted({str(e.label) for e in train})), rule)
    torch.manual_seed(options.seed)
    net = build_model(config, pretrained=options.pretrained and not start, weights=options.weights)
    state = State()
    if start is not None and not resume:
        say(start_from(net, config, start, str(options.init_from)))
        state.baseline = baseline_of(str(options.init_from)) or state.baseline
    net.to(pick_device(options.device))
    check_amp(net.device, options)
    check_jpeg(config.input, options.jpeg)
    loader = Loader(
        config.input,
        config.grid,
        threads=options.threads,
        finest=config.finest,
        glance=config.glance,
        overlap=config.overlap,
        lost=lost,
    )
    try:
        items = loader.items(train, config.classes)
        val_items = loader.items(held_out, config.classes)
        if not items:
            raise ConfigError("none of the training images can be opened; check their paths")
        domain, (mean, spread) = loader.domain(items)
        if options.value_range is None and not (start and scale_of(start, rule.bands, rule.dtype)):
            reach = np.maximum(2 * spread, LEAST_REACH)
            low, high = (tuple(np.round(v, 3).tolist()) for v in (mean - reach, mean + reach))
            config = replace(config, input=replace(config.input, low=low, high=high))
            loader.rescale(config.input)
        pools = _stages(items, config.grid)
        optimizer = optimizer_of(net, options)
        weights = class_weights(items, len(config.classes), options)
        fingerprint = fingerprint_of(items, val_items, options)
        state.drawn = [0] * len(pools)
        if resume:
            state = load_state(output / STATE, net, optimizer, fingerprint)
        name = options.name or output.resolve().name
        while state.epoch < options.epochs:
            record = _epoch(net, optimizer, loader, pools, val_items, options, state, weights)
            save_state(output, net, optimizer, config, domain, options, state, name, fingerprint)
            yield record
    finally:
        loader.close()


class _Lost:
    """Tells of images that are left out, of each cause once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._told: set[str] = set()

    def __call__(self, error: HiresattnError) -> None:
        if str(error) not in self._told:
            self._told.add(str(error))
            self._say(f"Skipped: {error}")


def _sets(examples: Sequence[Example], options: TrainOptions) -> tuple[list[Example], list[Example]]:
    """What is trained on and what is held out."""
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
    return train, held_out


def _report_rare(train: Sequence[Example], say: Callable[[str], None]) -> None:
    """Tell of classes with a single example: nothing that was learnt of them can be told from chance."""
    count = Counter(str(example.label) for example in train)
    rare = sorted(label for label, number in count.items() if number == 1)
    if rare:
        words = ", ".join(map(repr, rare[:5])) + (", …" if len(rare) > 5 else "")
        say(
            f"{len(rare)} of {len(count)} classes have one training image each: {words}; add more, or leave them out"
        )


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


@dataclass
class _Tally:
    """What was seen of some images."""

    right: int = 0
    images: int = 0
    glimpses: int = 0
    found: list[np.ndarray] = field(default_factory=list)

    def add(self, batch: Batch, traversal: Traversal, finest: int) -> None:
        self.right += int((traversal.logits.argmax(1).cpu().numpy() == batch.labels).sum())
        self.images += len(batch.labels)
        self.glimpses += len(traversal.image)
        self.found.append(hits(traversal, batch.boxes, finest))

    @property
    def hit(self) -> float | None:
        """Share of the images with boxes in which one was seen."""
        found = np.concatenate(self.found) if self.found else np.zeros(0)
        return float(found.mean()) if len(found) else None


def _epoch(
    net: GlimpseNet,
    optimizer: torch.optim.Optimizer,
    loader: Loader,
    pools: list[list[Item]],
    val_items: list[Item],
    options: TrainOptions,
    state: State,
    weights: Tensor | None = None,
) -> EpochRecord:
    """One epoch. All chance comes from the seed and the epoch's number, so a resumed run goes on alike."""
    started, cpu_started = time.perf_counter(), time.process_time()
    rng = np.random.default_rng([options.seed, state.epoch])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    torch.manual_seed(int(rng.integers(2**62)))
    select = GumbelTopK(generator) if options.select == "sample" else TopK()
    net.train()
    images = options.epoch_images or len(pools[state.stage])
    done = part = skipped = 0
    seen = _Tally()
    losses = []
    varied: list[Choices] = []
    while done < images or part:
        rehearse = state.stage > 0 and rng.random() < REHEARSAL
        pool = int(rng.integers(state.stage)) if rehearse else state.stage
        drawn = _draw(pools[pool], pool, _batch_size(pools[pool], options), options.seed, state)
        changes = changes_of(
            len(drawn),
            len(loader.config.bands),
            rng,
            turns=options.augment,
            jitter=options.jitter,
            jpeg=options.jpeg,
        )
        progress = min((state.epoch + done / images) / options.epochs, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(progress, options)
        k = options.k
        if options.vary_k:
            k = tuple(int(rng.integers(1, most + 1)) if most else 0 for most in k)

        facts: dict[str, Any] = {"part": part, "weights": weights, "progress": progress}

        def work(
            batch: Batch, k: tuple[int, ...] = k, facts: dict[str, Any] = facts
        ) -> tuple[Batch, Traversal, float]:
            guided = Guided(select, batch.boxes, rng)
            return batch, *step(net, optimizer, batch, guided, k, options, state, **facts)

        made, lost = loader.attempt(drawn, work, changes)
        skipped += lost
        done += len(drawn)
        if made is None:
            if skipped >= images:
                raise ConfigError(
                    f"epoch {state.epoch + 1}: {skipped} images can't be read; check where they are"
                )
            continue
        batch, traversal, loss = made
        part = (part + 1) % options.accumulate
        if not np.isfinite(loss):
            raise ConfigError(f"epoch {state.epoch + 1}: the loss is {loss}; lower the learning rate (--lr)")
        losses.append(loss)
        if not rehearse:
            seen.add(batch, traversal, net.finest)
            varied += filter(None, [choices(traversal)])
    accuracy = seen.right / max(seen.images, 1)
    held = evaluate(net, loader, val_items, TopK(), options)
    state.epoch, state.stage_epochs = state.epoch + 1, state.stage_epochs + 1
    state.seconds += time.perf_counter() - started
    state.cpu_seconds += time.process_time() - cpu_started
    record = EpochRecord(
        epoch=state.epoch,
        epochs=options.epochs,
        stage=state.stage + 1,
        stages=len(pools),
        images=done - skipped,
        loss=float(np.mean(losses)),
        accuracy=accuracy,
        val_accuracy=held.right / held.images if held.images else None,
        glimpses=seen.glimpses / max(seen.images, 1),
        hit=(held if val_items else seen).hit,
        seconds=round(state.seconds, 2),
        cpu_seconds=round(state.cpu_seconds, 2),
        skipped=skipped + len(val_items) - held.images,
        **{n: float(np.mean([getattr(c, n) for c in varied])) for n in Choices._fields if varied},
    )
    state.records.append(asdict(record))
    share = max(options.epochs // (2 * len(pools)), 1)
    if record.stage < len(pools) and (accuracy >= options.advance or state.stage_epochs >= share):
        state.stage, state.stage_epochs = state.stage + 1, 0
    return record


def evaluate(
    net: GlimpseNet, loader: Loader, items: Sequence[Item], select: Selector, options: TrainOptions
) -> _Tally:
    """What is seen of images, of those that can be read, with the most cells per depth that training visits."""
    net.eval()
    seen = _Tally()

    def work(batch: Batch) -> tuple[Batch, Traversal]:
        return batch, net(batch.fetch, batch.roots, batch.frames, select=select, k=options.k)

    with torch.inference_mode():
        size = _batch_size(items, options) if items else 1
        for start in range(0, len(items), size):
            made, _ = loader.attempt(items[start : start + size], work)
            if made is not None:
                seen.add(*made, net.finest)
    return seen


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
