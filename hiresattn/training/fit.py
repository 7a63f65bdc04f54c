"""Training: an iterator of epoch records; the model directory is whole after each of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from hiresattn.attention_maps.memory import AttentionMemory, share_attention
from hiresattn.card import read_card
from hiresattn.checkpoint import Model, load_model, set_reference
from hiresattn.config import ModelConfig
from hiresattn.datasets.example import Example
from hiresattn.errors import ConfigError
from hiresattn.model.build import build_model
from hiresattn.model.encoders import EncoderSpec
from hiresattn.model.net import GlimpseNet
from hiresattn.training.augment import check_jpeg
from hiresattn.training.curriculum import Curriculum
from hiresattn.training.data import Loader
from hiresattn.training.distributed import Processes, join_processes
from hiresattn.training.epoch import Run, run_epoch
from hiresattn.training.inputs import (
    chosen_encoder,
    earlier_card,
    encoder_origin,
    first_rule,
    known_range,
    warn_of_encoder,
    with_measured_range,
)
from hiresattn.training.log import EpochRecord, TensorBoardLog
from hiresattn.training.optim import check_amp, class_weights, learning_rate, optimizer_of
from hiresattn.training.options import TrainOptions, model_config
from hiresattn.training.reference import measured_reference
from hiresattn.training.samples import Sample, without_background_boxes
from hiresattn.training.scale import training_scale
from hiresattn.training.setup import (
    SkippedImages,
    class_counts,
    dataset_statistics,
    label_counts,
    split_examples,
    warn_of_training_set,
)
from hiresattn.training.start import load_baseline, load_weights
from hiresattn.training.state import (
    STATE,
    State,
    check_folder,
    check_output,
    fingerprint_of,
    load_state,
    save_state,
)
from hiresattn.training.sync_norms import sync_norms


def _ignore(_: Any) -> None:
    """Report nothing."""


def fit(
    examples: Sequence[Example],
    output: str | Path,
    options: TrainOptions,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_message: Callable[[str], None] = _ignore,
    progress: Callable[[float], None] = _ignore,
) -> Iterator[EpochRecord]:
    """Train a model, epoch by epoch; it is saved after every epoch.

    Images are sorted by the number of depths down to their finest regions. Training starts with the smallest and goes
    on to larger ones when its accuracy on those is ``options.stage_accuracy``, or when they have had their share of
    the epochs. Where boxes are known, the scorer learns which cells are on one, one of those is always visited, and
    only glimpses that hold a box have the label. Under ``torchrun`` every process takes its share of each batch, and
    the gradients are summed.

    Args:
        examples: Labelled images or windows with splits ``train`` and ``val`` (others are ignored).
        output: Model directory to make.
        options: How to train.
        resume: Go on from what the directory holds; with more epochs, its learning rate goes on as in the middle of
            such a run.
        overwrite: Train anew in a directory that isn't empty. Without either, it is refused.
        on_message: Called with sentences that are worth showing.
        progress: Called before every step with the share of the training that is done.

    Yields:
        A record per epoch.

    Raises:
        ConfigError: If the examples can't be trained on, the directory isn't empty, or the loss stops being a number.
        CheckpointError: If ``resume`` finds no state, or one of another configuration; or the model to start from
            has other parts.
        HiresattnError: If an image can't be read.
    """
    threads = torch.get_num_threads()
    with join_processes(options.device) as processes:
        if processes.is_main:
            check_folder(Path(output), resume=resume, overwrite=overwrite)
        try:
            yield from _fit(examples, Path(output), options, processes, on_message, progress, resume=resume)
        finally:
            torch.set_num_threads(threads)


def _fit(
    examples: Sequence[Example],
    output: Path,
    options: TrainOptions,
    processes: Processes,
    on_message: Callable[[str], None],
    progress: Callable[[float], None],
    *,
    resume: bool,
) -> Iterator[EpochRecord]:
    """``fit`` in one of the processes; the main one writes files and the messages that all have in common."""
    on_common = on_message if processes.is_main else _ignore
    train_examples, val_examples, options = split_examples(examples, options)
    warn_of_training_set(train_examples, val_examples, options, on_common)
    start = None if resume or options.init_from is None else load_model(options.init_from)
    skipped = SkippedImages(on_common) if options.on_error == "skip" else None
    earlier = earlier_card(options, output if resume else None)
    encoder, options = chosen_encoder(options, earlier, resume=resume)
    at, train_examples, val_examples = training_scale(
        train_examples, val_examples, options, earlier, on_common
    )
    warn_of_encoder(encoder, options, on_common)
    config = model_config(
        options,
        tuple(sorted(class_counts(train_examples))),
        first_rule([e.source for e in train_examples], options, earlier, encoder, skipped, at),
        encoder,
    )
    net = _fresh_net(config, encoder, options).to(processes.device)
    state, memory = State(), AttentionMemory()
    _take_over(start, net, config, options, state, on_common)
    _check_start(net, config, output if processes.is_main else None, options)
    board = TensorBoardLog(output)
    loader = Loader(
        config.input,
        config.grid,
        threads=options.threads,
        finest=config.finest,
        root_size=config.root_size,
        overlap=config.overlap,
        on_skip=skipped,
    )
    try:
        samples, val_samples = (
            loader.measure(
                [without_background_boxes(e, config.background) for e in part],
                config.classes,
                per_source=options.per_source,
            )
            for part in (train_examples, val_examples)
        )
        if not samples:
            raise ConfigError("none of the training images can be opened; check their paths")
        domain, measured = dataset_statistics(loader, samples)
        if known_range(config.input.bands, config.input.dtype, options, earlier, encoder) is None:
            config = replace(config, input=with_measured_range(config.input, measured))
            loader.rescale(config.input)
        curriculum = Curriculum(samples, config.grid, options)
        optimizer = optimizer_of(net, options)
        fingerprint = fingerprint_of(samples, val_samples, options)
        processes.check_same("images", fingerprint)
        if skipped is not None:
            skipped.on_message = on_message
        state.drawn = [0] * len(curriculum.stages)
        if resume:
            state, memory = _resumed(output, net, optimizer, fingerprint, options, on_common)
        _compute_as_begun(state, net)
        processes.broadcast_weights(net)
        model = Model(
            net=net,
            config=config,
            name=options.name or output.resolve().name,
            sha256="",
            domain=domain,
            k=options.k,
            training={
                "encoder": encoder_origin(encoder, options, earlier),
                "validated": label_counts([sample.label for sample in val_samples], config.classes),
            },
        )
        run = Run(
            net=net,
            optimizer=optimizer,
            loader=loader,
            curriculum=curriculum,
            val_samples=val_samples,
            options=options,
            processes=processes,
            class_weights=class_weights(samples, len(config.classes), options),
            state=state,
            memory=memory,
            norms=sync_norms(processes, net, options, size=config.input.size, bands=len(config.input.bands)),
            left_out=len(train_examples)
            + len(val_examples)
            - sum(len(s.images) for s in [*samples, *val_samples]),
        )
        while state.epoch < options.epochs:
            record = run_epoch(run, progress)
            share_attention(memory)
            if processes.is_main:
                save_state(output, model, optimizer, options, state, memory, fingerprint)
                board.add(asdict(record))
            yield record
        _add_reference(output, run, samples)
    finally:
        board.close()
        loader.close()


def _resumed(
    output: Path,
    net: GlimpseNet,
    optimizer: torch.optim.Optimizer,
    fingerprint: str,
    options: TrainOptions,
    on_message: Callable[[str], None],
) -> tuple[State, AttentionMemory]:
    """What ``load_state`` loads; reports another number of epochs, and what that does to the learning rate.

    Of a calibrated model it reports that better weights drop the calibration.
    """
    state, memory = load_state(output / STATE, net, optimizer, fingerprint, options)
    before = state.records[-1]["epochs"] if state.records else options.epochs
    if state.epoch < options.epochs != before:
        rate = learning_rate(state.epoch / options.epochs, options)
        on_message(
            f"{state.epoch} of {before} epochs are done, and the run goes on to {options.epochs}: the learning rate "
            f"goes on at {rate:.3g}, as after {state.epoch} of {options.epochs}"
        )
    card = read_card(output)
    if state.epoch < options.epochs and (card.temperature != 1.0 or card.conformal is not None):
        on_message(
            f"{output} is calibrated, for the weights that it has: an epoch that replaces them drops the temperature "
            "and the prediction sets; calibrate it again then (`hiresattn evaluate --calibrate`)"
        )
    return state, memory


def _fresh_net(config: ModelConfig, encoder: EncoderSpec, options: TrainOptions) -> GlimpseNet:
    """The network before its first step."""
    torch.manual_seed(options.seed)
    net = build_model(config, start=encoder if encoder.trained else None)
    if options.freeze_encoder:
        net.freeze_encoder()
    return net


def _take_over(
    start: Model | None,
    net: GlimpseNet,
    config: ModelConfig,
    options: TrainOptions,
    state: State,
    on_message: Callable[[str], None],
) -> None:
    """Start from the weights of another model, if there is one, and say what of it was taken."""
    if start is None:
        return
    message = load_weights(net, config, start, str(options.init_from))
    taken = options.encoder == TrainOptions.encoder != config.encoder
    on_message(f"{message}; its encoder is {config.encoder}" if taken else message)
    state.baseline = load_baseline(str(options.init_from)) or state.baseline


def _check_start(net: GlimpseNet, config: ModelConfig, output: Path | None, options: TrainOptions) -> None:
    """Refuse before anything is read what can't be computed, or written; ``output`` is the main process's."""
    check_amp(net.device, options)
    check_jpeg(config.input, options.jpeg)
    if output is not None:
        check_output(output, net)


def _add_reference(output: Path, run: Run, samples: Sequence[Sample]) -> None:
    """Write what the training images look like from afar beside the finished model, unless it is there."""
    if not run.processes.is_main or (saved := load_model(output)).reference is not None:
        return
    net = saved.net.to(run.processes.device)
    found = measured_reference(net, run.loader, samples, run.val_samples, run.options)
    if found is not None:
        set_reference(output, found)


def _compute_as_begun(state: State, net: GlimpseNet) -> None:
    """Let PyTorch compute with as many threads as the run began with: the last bits of its sums depend on them."""
    if state.threads and net.device.type == "cpu":
        torch.set_num_threads(state.threads)
    state.threads = state.threads or torch.get_num_threads()
