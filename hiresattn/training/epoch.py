"""One epoch: batches are drawn, traversed and learnt from; then the validation images are searched."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import Tensor

from hiresattn.attention_maps.memory import AttentionMemory
from hiresattn.errors import ConfigError
from hiresattn.inference.budget import Budget
from hiresattn.inference.image_search import Policy
from hiresattn.inference.search import search
from hiresattn.inference.torch_engine import TorchEngine
from hiresattn.model.net import GlimpseNet
from hiresattn.model.select import Selector, selector
from hiresattn.model.traversal import Traversal
from hiresattn.training.augment import draw_augmentations
from hiresattn.training.batch import Batch
from hiresattn.training.curriculum import Curriculum, batch_size, draw_k
from hiresattn.training.data import Loader
from hiresattn.training.distributed import Processes
from hiresattn.training.log import ChoiceDiversity, EpochRecord, RunningMetrics, choice_diversity
from hiresattn.training.losses import BatchLoss, batch_loss, traverse
from hiresattn.training.optim import set_learning_rate, step
from hiresattn.training.options import TrainOptions
from hiresattn.training.samples import Sample
from hiresattn.training.state import State
from hiresattn.training.sync_norms import SyncNorms
from hiresattn.training.targets import TargetSelector

#: Share of batches that come from earlier stages of the curriculum.
REHEARSAL = 0.25
#: The search that validates: what ``classify`` runs by default.
BUDGET = Budget(glimpses=64)
POLICY = Policy()


@dataclass
class Run:
    """What the epochs of a run share."""

    net: GlimpseNet
    optimizer: torch.optim.Optimizer
    loader: Loader
    curriculum: Curriculum
    val_samples: list[Sample]
    options: TrainOptions
    processes: Processes
    class_weights: Tensor | None
    state: State
    memory: AttentionMemory
    norms: SyncNorms | None = None
    """What makes batch norms see all processes' crops; None = each sees its own."""
    left_out: int = 0
    """Images, of training and validation, that could not be opened and are in no sample."""


@dataclass
class _Totals:
    """What an epoch's batches add up to."""

    skipped: int = 0
    seen: RunningMetrics = field(default_factory=RunningMetrics)
    losses: list[float] = field(default_factory=list)
    parts: Counter[str] = field(default_factory=Counter)
    diversity: list[ChoiceDiversity] = field(default_factory=list)


def run_epoch(run: Run, progress: Callable[[float], None]) -> EpochRecord:
    """Train for one epoch and validate. A resumed run goes on alike: all random numbers come from seed and epoch.

    All processes draw the same images, augmentations and numbers of cells, and process their share; which cells are
    sampled and what is dropped differs between them.

    Args:
        run: Its weights and its state are updated.
        progress: Called before every step with the share of the training that is done.

    Raises:
        ConfigError: If the loss is not finite, or no image can be read.
        HiresattnError: If an image can't be read, and none may be skipped.
    """
    options, state, processes = run.options, run.state, run.processes
    started, cpu_started = time.perf_counter(), time.process_time()
    rng = np.random.default_rng([options.seed, state.epoch])
    select, own_rng = _seeded(run, rng)
    run.net.train()
    images = options.epoch_images or len(run.curriculum.stages[state.stage])
    done = part = 0
    totals = _Totals()
    while done < images or part:
        rehearse = state.stage > 0 and rng.random() < REHEARSAL
        drawn = run.curriculum.draw(int(rng.integers(state.stage)) if rehearse else state.stage, state.drawn)
        augmentations = draw_augmentations(drawn, run.loader.config, options, rng)
        share = min((state.epoch + done / images) / options.epochs, 1.0)
        progress(share)
        set_learning_rate(run.optimizer, share, options)
        forward = _forward(run, select, own_rng, draw_k(options, rng), share)
        found, _ = run.loader.process(
            processes.shard(drawn),
            forward,
            processes.shard(augmentations),
            upcoming=processes.shard(run.curriculum.upcoming(state.stage, state.drawn)),
        )
        loss = None if found is None else found[2]
        extra = None if run.norms is None else run.norms.finish(None if found is None else found[1])
        total, read, parts = step(
            run.net, run.optimizer, loss, options, state, processes=processes, part=part, extra=extra
        )
        totals.skipped += len(drawn) - read
        done += len(drawn)
        if read:
            part = (part + 1) % options.accumulate
        elif totals.skipped >= images:
            raise ConfigError(
                f"epoch {state.epoch + 1}: {totals.skipped} images can't be read; check where they are"
            )
        if read and not np.isfinite(total):
            raise ConfigError(f"epoch {state.epoch + 1}: the loss is {total}; lower the learning rate (lr)")
        totals.losses += [total] if read else []
        totals.parts.update({name: value * read for name, value in parts.items()})
        if found is not None and not rehearse:
            _count(run, totals, found)
    processes.average_batch_norms(run.net)
    held = validate(run.net, run.loader, processes.shard(run.val_samples), options).summed(processes)
    state.epoch, state.stage_epochs = state.epoch + 1, state.stage_epochs + 1
    state.seconds += time.perf_counter() - started
    state.cpu_seconds += sum(processes.sum([time.process_time() - cpu_started]))
    record = _record(run, totals, held, done)
    state.records.append(asdict(record))
    _advance(state, record, options)
    return record


def validate(
    net: GlimpseNet, loader: Loader, samples: Sequence[Sample], options: TrainOptions
) -> RunningMetrics:
    """Metrics of images under the search that is deployed, side by side; images that can't be read are left out."""
    net.eval()
    seen = RunningMetrics()

    engine = TorchEngine(net)

    def searched(batch: Batch) -> tuple[Batch, Traversal]:
        found, _ = search(
            engine,
            batch.fetch,
            batch.roots,
            batch.frames,
            budget=BUDGET,
            policy=POLICY,
            foreground=batch.holds,
        )
        return batch, found

    size = batch_size(samples, options) if samples else 1
    with torch.inference_mode():
        for start in range(0, len(samples), size):
            found, _ = loader.process(
                samples[start : start + size], searched, upcoming=samples[start + size : start + 2 * size]
            )
            if found is not None:
                seen.add(*found, net.finest)
    return seen


def _seeded(run: Run, rng: np.random.Generator) -> tuple[Selector, np.random.Generator]:
    """The selector of an epoch and what draws boxes, with random numbers of this process; dropout is seeded, too."""
    processes, options = run.processes, run.options
    own_rng = np.random.default_rng([options.seed, run.state.epoch, 1 + processes.rank])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)) + processes.rank)
    torch.manual_seed(int(rng.integers(2**62)) + processes.rank)
    return training_selector(run.net, options, generator), own_rng


def training_selector(net: GlimpseNet, options: TrainOptions, generator: torch.Generator) -> Selector:
    """What chooses cells in training."""
    # leave-one-out's estimate is of cells drawn without replacement; of gates, each sampled on its own, it is biased
    gate = None if options.estimator == "reinforce-loo" else net.scorer.gate
    return selector(gate, generator if options.select == "sample" else None)


def _forward(
    run: Run, select: Selector, rng: np.random.Generator, k: tuple[int, ...], progress: float
) -> Callable[[Batch], tuple[Batch, Traversal, BatchLoss]]:
    """What is done with a batch before the step."""

    def forward(batch: Batch) -> tuple[Batch, Traversal, BatchLoss]:
        choose = TargetSelector(select, batch.sure_boxes, rng)
        if run.norms is None:
            traversal = traverse(run.net, batch, choose, k, run.options)
        else:
            traversal = run.norms.traversed(batch, lambda met: traverse(run.net, met, choose, k, run.options))
        loss = batch_loss(
            run.net,
            batch,
            traversal,
            run.options,
            baseline=run.state.baseline,
            progress=progress,
            class_weights=run.class_weights,
            memory=run.memory if run.state.epoch else None,
        )
        return batch, traversal, loss

    return forward


def _count(run: Run, totals: _Totals, found: tuple[Batch, Traversal, BatchLoss]) -> None:
    """Add a batch of the current stage to an epoch's totals."""
    batch, traversal, _ = found
    totals.seen.add(batch, traversal, run.net.finest)
    totals.diversity += filter(None, [choice_diversity(traversal, run.net.scorer.gate)])


def _record(run: Run, totals: _Totals, held: RunningMetrics, done: int) -> EpochRecord:
    """The record of an epoch, of all processes."""
    processes, state = run.processes, run.state
    seen = totals.seen.summed(processes)
    read = done - totals.skipped
    fields = range(len(ChoiceDiversity._fields))
    sums = [float(sum(one[at] for one in totals.diversity)) for at in fields]
    *sums, count = processes.sum([*sums, len(totals.diversity)])
    return EpochRecord(
        epoch=state.epoch,
        epochs=run.options.epochs,
        stage=state.stage + 1,
        stages=len(run.curriculum.stages),
        images=read,
        loss=float(np.mean(totals.losses)),
        accuracy=seen.accuracy,
        val_accuracy=held.accuracy,
        val_loss=held.mean_loss if run.val_samples else None,
        glimpses=seen.glimpses / max(seen.images, 1),
        hit=(held if run.val_samples else seen).hit,
        seconds=round(state.seconds, 2),
        cpu_seconds=round(state.cpu_seconds, 2),
        skipped=run.left_out + totals.skipped + len(run.val_samples) - held.images,
        losses={name: value / read for name, value in processes.sum_named(totals.parts).items()},
        **{name: value / count for name, value in zip(ChoiceDiversity._fields, sums, strict=True) if count},
    )


def _advance(state: State, record: EpochRecord, options: TrainOptions) -> None:
    """Go on to the curriculum's next stage when this one is learnt, or has had its share of the epochs."""
    share = max(options.epochs // (2 * record.stages), 1)
    good = record.accuracy is not None and record.accuracy >= options.stage_accuracy
    if record.stage < record.stages and (good or state.stage_epochs >= share):
        state.stage, state.stage_epochs = state.stage + 1, 0
