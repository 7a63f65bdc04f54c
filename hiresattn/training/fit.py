"""Training: an iterator of epoch records; the model directory is whole after each of them."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hiresattn.attention_maps.memory import AttentionMemory, share_attention
from hiresattn.checkpoint import load_model
from hiresattn.datasets.example import Example
from hiresattn.errors import ConfigError
from hiresattn.model.build import build_model
from hiresattn.model.net import GlimpseNet
from hiresattn.model.select import Selector, selector
from hiresattn.training.augment import check_jpeg
from hiresattn.training.box_supervision import Guided
from hiresattn.training.curriculum import batch_size, cells_for, changes_for, draw, stages_of
from hiresattn.training.data import Batch, Loader
from hiresattn.training.distributed import Team, team_of
from hiresattn.training.estimators import Choices, choices
from hiresattn.training.log import Board, EpochRecord
from hiresattn.training.metrics import Tally, evaluate
from hiresattn.training.options import TrainOptions, model_config
from hiresattn.training.samples import Item, clear_of
from hiresattn.training.setup import (
    Lost,
    baseline_of,
    classes_of,
    first_rule,
    ranged,
    report_rare,
    scale_of,
    sets_of,
    start_from,
)
from hiresattn.training.state import STATE, State, fingerprint_of, load_state, save_state
from hiresattn.training.statistics import domain_of
from hiresattn.training.step import Looked, check_amp, class_weights, look, move, optimizer_of, set_rate

#: Share of batches that come from earlier stages of the curriculum.
REHEARSAL = 0.25


def fit(
    examples: Sequence[Example],
    output: str | Path,
    options: TrainOptions,
    *,
    resume: bool = False,
    say: Callable[[str], None] = lambda _words: None,
    progress: Callable[[float], None] = lambda _share: None,
) -> Iterator[EpochRecord]:
    """Train a model; it is saved after every epoch.

    Images are sorted by the depths that a full look takes; a first look of 16 times as many regions counts as one
    more (with cells of a quarter of their region's side). Training starts with the smallest and goes on to
    larger ones when it is good at those it has (``options.stage_accuracy``), or when they have had their share of
    the epochs. Cells are sampled (Gumbel top-k) and the loss reaches the scores through the straight-through
    gate exp(lp - sg lp). The loss is the image's cross-entropy plus each glimpse's. Where boxes are known, the
    scorer is told which cells hold one, a look is spent there, and only glimpses that hold one answer for the
    label. Under ``torchrun`` every process takes its share of each batch, and the gradients are summed.

    Args:
        examples: Labelled images or windows with splits ``train`` and ``val`` (others are ignored).
        output: Model directory to make.
        options: How to train.
        resume: Go on from what the directory holds.
        say: Is told, in words, what else is worth knowing.
        progress: Is told, before every step, what share of the training is done.

    Yields:
        A record per epoch.

    Raises:
        ConfigError: If the examples can't be trained on, or the loss stops being a number.
        CheckpointError: If ``resume`` finds no state, or one of another configuration; or the model to start from
            has other parts.
        HiresattnError: If an image can't be read.
    """
    with team_of(options.device) as team:
        yield from _fit(examples, Path(output), options, team, resume=resume, say=say, progress=progress)


def _fit(
    examples: Sequence[Example],
    output: Path,
    options: TrainOptions,
    team: Team,
    *,
    resume: bool,
    say: Callable[[str], None],
    progress: Callable[[float], None],
) -> Iterator[EpochRecord]:
    """``fit`` in one process of a team; the first one writes, and says what all of them would."""
    tell = say if team.leads else _silent
    train, held_out, options = sets_of(examples, options)
    report_rare(train, options.scorer, tell)
    start = None if options.init_from is None else load_model(options.init_from)
    lost = Lost(tell) if options.on_error == "skip" else None
    rule = first_rule([e.source for e in train], options, start, lost)
    config = model_config(options, tuple(sorted(classes_of(train))), rule)
    torch.manual_seed(options.seed)
    net = build_model(config, pretrained=options.pretrained and not start, weights=options.weights)
    state = State()
    if start is not None and not resume:
        tell(start_from(net, config, start, str(options.init_from)))
        state.baseline = baseline_of(str(options.init_from)) or state.baseline
    net.to(team.device)
    check_amp(net.device, options)
    check_jpeg(config.input, options.jpeg)
    board = Board(output)
    loader = Loader(
        config.input,
        config.grid,
        threads=options.threads,
        finest=config.finest,
        root_size=config.root_size,
        overlap=config.overlap,
        lost=lost,
    )
    try:
        items = loader.items([clear_of(e, config.background) for e in train], config.classes)
        val_items = loader.items([clear_of(e, config.background) for e in held_out], config.classes)
        if not items:
            raise ConfigError("none of the training images can be opened; check their paths")
        domain, measured = domain_of(loader, items)
        if options.value_range is None and not (start and scale_of(start, rule.bands, rule.dtype)):
            config = replace(config, input=ranged(config.input, measured))
            loader.rescale(config.input)
        pools = stages_of(items, config.grid)
        optimizer = optimizer_of(net, options)
        weights = class_weights(items, len(config.classes), options)
        fingerprint = fingerprint_of(items, val_items, options)
        team.agree("images", fingerprint)
        if lost is not None:
            lost.say = say
        state.drawn = [0] * len(pools)
        state, memory = (
            load_state(output / STATE, net, optimizer, fingerprint, options)
            if resume
            else (state, AttentionMemory())
        )
        team.follow(net)
        name = options.name or output.resolve().name
        while state.epoch < options.epochs:
            record = _epoch(
                net, optimizer, loader, pools, val_items, options, state, team, memory, weights, progress
            )
            share_attention(memory)
            if team.leads:
                save_state(output, net, optimizer, config, domain, options, state, name, fingerprint, memory)
                board.add(asdict(record))
            yield record
    finally:
        board.close()
        loader.close()


def _silent(_words: str) -> None:
    """Say nothing."""


def _epoch(
    net: GlimpseNet,
    optimizer: torch.optim.Optimizer,
    loader: Loader,
    pools: list[list[Item]],
    val_items: list[Item],
    options: TrainOptions,
    state: State,
    team: Team,
    memory: AttentionMemory,
    weights: Tensor | None,
    told: Callable[[float], None],
) -> EpochRecord:
    """One epoch. All chance comes from the seed and the epoch's number, so a resumed run goes on alike.

    All processes draw the same images, changes and numbers of cells, and look at their share; which cells are
    sampled and what is dropped is each one's own chance.
    """
    started, cpu_started = time.perf_counter(), time.process_time()
    rng = np.random.default_rng([options.seed, state.epoch])
    own = rng if team.size == 1 else np.random.default_rng([options.seed, state.epoch, team.rank])
    select = _seeded(net, options, team, rng)
    net.train()
    images = options.epoch_images or len(pools[state.stage])
    done = part = skipped = 0
    seen = Tally()
    losses = []
    parts: Counter[str] = Counter()
    varied: list[Choices] = []
    while done < images or part:
        rehearse = state.stage > 0 and rng.random() < REHEARSAL
        pool = int(rng.integers(state.stage)) if rehearse else state.stage
        drawn = _next_batch(loader, pools, pool, options, state, team)
        changes = changes_for(drawn, len(loader.config.bands), options, rng)
        progress = min((state.epoch + done / images) / options.epochs, 1.0)
        told(progress)
        set_rate(optimizer, progress, options)
        k = cells_for(options, rng)

        def work(batch: Batch, k: tuple[int, ...] = k, progress: float = progress) -> Looked:
            guided = Guided(select, batch.boxes, own)
            return look(
                net,
                batch,
                guided,
                k,
                options,
                state.baseline,
                weights=weights,
                progress=progress,
                memory=memory if state.epoch else None,
            )

        looked, _ = loader.attempt(team.share(drawn), work, team.share(changes))
        loss, read = move(net, optimizer, looked, options, state, team=team, part=part)
        skipped += len(drawn) - read
        done += len(drawn)
        if not read:
            if skipped >= images:
                raise ConfigError(
                    f"epoch {state.epoch + 1}: {skipped} images can't be read; check where they are"
                )
            continue
        part = (part + 1) % options.accumulate
        if not np.isfinite(loss):
            raise ConfigError(f"epoch {state.epoch + 1}: the loss is {loss}; lower the learning rate (--lr)")
        losses.append(loss)
        if looked is not None:
            parts.update({name: value * len(looked.batch.labels) for name, value in looked.losses.items()})
        if looked is not None and not rehearse:
            seen.add(looked.batch, looked.traversal, net.finest)
            varied += filter(None, [choices(looked.traversal, net.scorer.gate)])
    seen = seen.joined(team)
    team.average_norms(net)
    held = evaluate(net, loader, team.share(val_items), selector(net.scorer.gate, None), options).joined(team)
    state.epoch, state.stage_epochs = state.epoch + 1, state.stage_epochs + 1
    state.seconds += time.perf_counter() - started
    state.cpu_seconds += sum(team.sum([time.process_time() - cpu_started]))
    record = EpochRecord(
        epoch=state.epoch,
        epochs=options.epochs,
        stage=state.stage + 1,
        stages=len(pools),
        images=done - skipped,
        loss=float(np.mean(losses)),
        accuracy=seen.accuracy,
        val_accuracy=held.accuracy,
        glimpses=seen.glimpses / max(seen.images, 1),
        hit=(held if val_items else seen).hit,
        seconds=round(state.seconds, 2),
        cpu_seconds=round(state.cpu_seconds, 2),
        skipped=skipped + len(val_items) - held.images,
        losses={name: total / (done - skipped) for name, total in team.sum_named(parts).items()},
        **_mean(varied, team),
    )
    state.records.append(asdict(record))
    _advance(state, record, options)
    return record


def _seeded(net: GlimpseNet, options: TrainOptions, team: Team, rng: np.random.Generator) -> Selector:
    """What chooses cells, by this process's own chance; what is dropped goes by it too."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)) + team.rank)
    torch.manual_seed(int(rng.integers(2**62)) + team.rank)
    # leave-one-out's estimate is of cells drawn without replacement; of gates, each sampled on its own, it is biased
    gate = None if options.estimator == "reinforce-loo" else net.scorer.gate
    return selector(gate, generator if options.select == "sample" else None)


def _mean(varied: list[Choices], team: Team) -> dict[str, float]:
    """The mean of all processes' choices, by name; nothing where nothing was chosen."""
    *sums, count = team.sum(
        [*(sum(one[at] for one in varied) for at in range(len(Choices._fields))), len(varied)]
    )
    return {name: total / count for name, total in zip(Choices._fields, sums, strict=True) if count}


def _advance(state: State, record: EpochRecord, options: TrainOptions) -> None:
    """Go on to the curriculum's next stage when this one is learnt, or has had its share of the epochs."""
    share = max(options.epochs // (2 * record.stages), 1)
    good = record.accuracy is not None and record.accuracy >= options.stage_accuracy
    if record.stage < record.stages and (good or state.stage_epochs >= share):
        state.stage, state.stage_epochs = state.stage + 1, 0


def _next_batch(
    loader: Loader, pools: list[list[Item]], number: int, options: TrainOptions, state: State, team: Team
) -> list[Item]:
    """The next items of a pool; and this process's share of what will probably follow is read meanwhile."""
    sizes = [batch_size(pool, options) for pool in pools]
    drawn = draw(pools[number], number, sizes[number], options.seed, state.drawn)
    stage = state.stage
    coming = draw(pools[stage], stage, sizes[stage], options.seed, state.drawn[:])
    loader.expect(team.share(coming), meanwhile=team.share(drawn))
    return drawn
