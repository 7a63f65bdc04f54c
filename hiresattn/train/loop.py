"""Training: an iterator of epoch records; the model directory is whole after each of them."""

import csv
import hashlib
import json
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import functional

from hiresattn.checkpoint import Domain, Model, save_model, save_tensors
from hiresattn.config import InputConfig, ModelConfig, did_you_mean
from hiresattn.errors import CheckpointError, ConfigError, DomainError
from hiresattn.fetch import check_domain
from hiresattn.geometry import Grid
from hiresattn.manifest import Example
from hiresattn.model.build import build_model
from hiresattn.model.net import GlimpseNet, Traversal
from hiresattn.model.select import GumbelTopK, Selector, TopK
from hiresattn.predict import pick_device
from hiresattn.pyramid import Pyramid, open_pyramid
from hiresattn.train.data import AUGMENTATIONS, Item, Loader

STATE = "state.safetensors"
#: Share of batches that come from earlier stages of the curriculum.
REHEARSAL = 0.25
#: Share of the training over which the learning rate falls to zero.
COOL_DOWN = 0.4
#: Images that are one glimpse come in batches this many times larger.
SMALL_IMAGE_BATCH = 3


@dataclass(frozen=True)
class TrainOptions:
    """How to train. The defaults are the recipe for two CPU cores."""

    encoder: str = "small"
    scorer: str = "location"
    aggregator: str = "attention"
    position: bool = True
    size: int = 64
    """Side of a crop, px."""
    grid: int = 7
    """Cells along a side."""
    fraction: float = 0.25
    """Side of a cell over the side of its region."""
    k: tuple[int, ...] = (4, 2)
    """Most cells visited per region, per depth; each batch draws from 1 to this many."""
    epochs: int = 20
    epoch_images: int | None = None
    """Images per epoch; None = all of the curriculum's stage."""
    batch_size: int = 32
    lr: float = 2e-3
    weight_decay: float = 1e-2
    clip: float = 2.0
    """Largest norm of the gradient."""
    glimpse_loss: float = 1.0
    """Weight of the per-glimpse cross-entropy."""
    advance: float = 0.95
    """Training accuracy at which the curriculum goes on to images of one more depth."""
    seed: int = 0
    bands: tuple[int, ...] | None = None
    """Bands to take, counted from 0; None = all."""
    value_range: tuple[float, float] | None = None
    """Native values that become -1 and +1; None = measured on the training images (mean -/+ 2 standard
    deviations of each band) for uint8, an error otherwise."""
    oversample: float = 1.0
    """Px of the stored level per px of a crop, at least; see ``InputConfig``."""
    augment: str = "none"
    """Turns of the training images, the same at every depth: ``none``, ``flips`` or ``turns`` (flips and
    quarter turns)."""
    pretrained: bool = False
    weights: str | None = None
    device: str = "auto"
    threads: int = 2
    name: str | None = None
    """Name of the model; None = the directory's."""


#: Named starting points for ``hiresattn train --preset``.
PRESETS: dict[str, TrainOptions] = {
    "small": TrainOptions(),
    "quick": TrainOptions(epochs=6),
    "timm": TrainOptions(
        encoder="efficientnet_b0", size=224, grid=5, fraction=0.34375, k=(3, 2), batch_size=8, lr=3e-4
    ),
}


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch gave."""

    epoch: int
    """From 1."""
    epochs: int
    stage: int
    """Stage of the curriculum, from 1: images of more and more depths."""
    stages: int
    images: int
    loss: float
    accuracy: float
    """On the training images of this stage, with sampled glimpses."""
    val_accuracy: float | None
    """On the validation images, with the best glimpses; None without any."""
    glimpses: float
    """Mean glimpses per image of this stage."""
    seconds: float
    """Wall time since the training began, earlier sessions included."""
    cpu_seconds: float


@dataclass
class _State:
    """What resuming needs besides tensors."""

    epoch: int = 0
    stage: int = 0
    stage_epochs: int = 0
    drawn: list[int] = field(default_factory=list)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    best: float = -1.0
    records: list[dict[str, Any]] = field(default_factory=list)


def fit(
    examples: Sequence[Example], output: str | Path, options: TrainOptions, *, resume: bool = False
) -> Iterator[EpochRecord]:
    """Train a model; it is saved after every epoch.

    Images are sorted by the depths that a full look takes. Training starts with the smallest and goes on to
    larger ones when it is good at those it has (``options.advance``), or when they have had their share of
    the epochs. Cells are sampled (Gumbel top-k) and the loss reaches the scores through the straight-through
    gate exp(lp - sg lp). The loss is the image's cross-entropy plus each glimpse's.

    Args:
        examples: Labelled images or windows with splits ``train`` and ``val`` (others are ignored).
        output: Model directory to make.
        options: How to train.
        resume: Go on from what the directory holds.

    Yields:
        A record per epoch.

    Raises:
        ConfigError: If the examples can't be trained on, or the loss stops being a number.
        CheckpointError: If ``resume`` finds no state, or one of another configuration.
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
    if options.augment not in AUGMENTATIONS:
        raise ConfigError(
            f"unknown augmentation {options.augment!r}{did_you_mean(options.augment, AUGMENTATIONS)}"
        )
    config = ModelConfig(
        classes=tuple(sorted({str(e.label) for e in train})),
        input=_input_rule(open_pyramid(train[0].source), options),
        encoder=options.encoder,
        scorer=options.scorer,
        grid=Grid(options.grid, options.fraction),
        aggregator=options.aggregator,
        position=options.position,
    )
    torch.manual_seed(options.seed)
    net = build_model(config, pretrained=options.pretrained, weights=options.weights)
    net.to(pick_device(options.device))
    loader = Loader(config.input, config.grid, threads=options.threads)
    try:
        items = loader.items(train, config.classes)
        val_items = loader.items(held_out, config.classes)
        domain, (mean, spread) = loader.domain(items)
        if options.value_range is None:
            reach = np.maximum(2 * spread, 2.0)
            low, high = (tuple(np.round(v, 3).tolist()) for v in (mean - reach, mean + reach))
            config = replace(config, input=replace(config.input, low=low, high=high))
            loader.rescale(config.input)
        pools = [[i for i in items if i.depths == d] for d in sorted({i.depths for i in items})]
        optimizer = torch.optim.AdamW(net.parameters(), lr=options.lr, weight_decay=options.weight_decay)
        fingerprint = _fingerprint(items, val_items, options)
        state = _State(drawn=[0] * len(pools))
        if resume:
            state = _load_state(output / STATE, net, optimizer, fingerprint)
        name = options.name or output.resolve().name
        while state.epoch < options.epochs:
            record = _epoch(net, optimizer, loader, pools, val_items, options, state)
            _save(output, net, optimizer, config, domain, options, state, name, fingerprint)
            yield record
    finally:
        loader.close()


def _epoch(
    net: GlimpseNet,
    optimizer: torch.optim.Optimizer,
    loader: Loader,
    pools: list[list[Item]],
    val_items: list[Item],
    options: TrainOptions,
    state: _State,
) -> EpochRecord:
    """One epoch. All chance comes from the seed and the epoch's number, so a resumed run goes on alike."""
    started, cpu_started = time.perf_counter(), time.process_time()
    rng = np.random.default_rng([options.seed, state.epoch])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    torch.manual_seed(int(rng.integers(2**62)))
    select = GumbelTopK(generator)
    turns = AUGMENTATIONS[options.augment]
    net.train()
    images = options.epoch_images or len(pools[state.stage])
    done = right = seen = glimpses = 0
    losses = []
    while done < images:
        rehearse = state.stage > 0 and rng.random() < REHEARSAL
        pool = int(rng.integers(state.stage)) if rehearse else state.stage
        size = options.batch_size * (SMALL_IMAGE_BATCH if pools[pool][0].depths == 1 else 1)
        drawn = _draw(pools[pool], pool, size, options.seed, state)
        batch = loader.batch(drawn, [turns[i] for i in rng.integers(len(turns), size=len(drawn))])
        _set_rate(optimizer, options, (state.epoch + done / images) / options.epochs)
        k = tuple(int(rng.integers(1, most + 1)) for most in options.k)
        labels = torch.from_numpy(batch.labels).to(net.device)
        traversal = net(batch.fetch, batch.roots, batch.frames, select=select, k=k, labels=labels)
        loss = loss_of(traversal, labels, glimpse_weight=options.glimpse_loss)
        if not torch.isfinite(loss):
            raise ConfigError(
                f"epoch {state.epoch + 1}: the loss is {loss.item()}; lower the learning rate (--lr)"
            )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), options.clip)
        optimizer.step()
        losses.append(loss.item())
        done += len(batch.labels)
        if not rehearse:
            right += int((traversal.logits.argmax(1) == labels).sum())
            seen += len(batch.labels)
            glimpses += len(traversal.image)
    accuracy = right / max(seen, 1)
    val_accuracy = evaluate(net, loader, val_items, TopK(), options) if val_items else None
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
        seconds=round(state.seconds, 2),
        cpu_seconds=round(state.cpu_seconds, 2),
    )
    state.records.append(asdict(record))
    share = max(options.epochs // (2 * len(pools)), 1)
    if state.stage + 1 < len(pools) and (accuracy >= options.advance or state.stage_epochs >= share):
        state.stage += 1
        state.stage_epochs = 0
    return record


def loss_of(traversal: Traversal, labels: Tensor, *, glimpse_weight: float) -> Tensor:
    """Cross-entropy of the image, of each of its glimpses (mean per image), and the scorer's own losses."""
    loss = functional.cross_entropy(traversal.logits, labels)
    image = torch.from_numpy(traversal.image).to(labels.device)
    single = functional.cross_entropy(traversal.glimpse_logits, labels[image], reduction="none")
    total = torch.zeros(len(labels), device=labels.device).index_add(0, image, single)
    loss = loss + glimpse_weight * (total / torch.bincount(image, minlength=len(labels))).mean()
    for value in traversal.scorer_losses.values():
        loss = loss + value
    return loss


def evaluate(
    net: GlimpseNet, loader: Loader, items: Sequence[Item], select: Selector, options: TrainOptions
) -> float:
    """Accuracy with the most cells per depth that training visits."""
    net.eval()
    right = 0
    with torch.inference_mode():
        for start in range(0, len(items), options.batch_size):
            batch = loader.batch(items[start : start + options.batch_size])
            traversal = net(batch.fetch, batch.roots, batch.frames, select=select, k=options.k)
            right += int((traversal.logits.argmax(1).cpu().numpy() == batch.labels).sum())
    return right / len(items)


def _draw(pool: list[Item], number: int, size: int, seed: int, state: _State) -> list[Item]:
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


def _input_rule(pyramid: Pyramid, options: TrainOptions) -> InputConfig:
    """How the pixels of the training images become the network's input."""
    palette = pyramid.palette is not None
    dtype = "uint8" if palette else str(pyramid.dtype)
    bands = options.bands or tuple(range(3 if palette else pyramid.channels))
    if options.value_range is None and dtype != "uint8":
        raise DomainError(
            f"{pyramid.source}: values are {dtype}; say which become darkest and brightest with "
            "--value-range LO,HI, for example 0,10000 for Sentinel-2"
        )
    low, high = options.value_range or (0.0, 255.0)
    count = len(bands)
    rule = InputConfig(
        size=options.size,
        bands=bands,
        low=(low,) * count,
        high=(high,) * count,
        dtype=dtype,
        oversample=options.oversample,
    )
    check_domain(pyramid, rule)
    return rule


def _save(
    output: Path,
    net: GlimpseNet,
    optimizer: torch.optim.Optimizer,
    config: ModelConfig,
    domain: Domain,
    options: TrainOptions,
    state: _State,
    name: str,
    fingerprint: str,
) -> None:
    """Write the model (the best so far on the validation images, else the latest) and the state."""
    record = state.records[-1]
    score = record["val_accuracy"] if record["val_accuracy"] is not None else 0.0
    if record["stage"] < record["stages"] or score >= state.best:
        state.best = score if record["stage"] == record["stages"] else -1.0
        training = {
            "seed": options.seed,
            "epochs": state.epoch,
            "cpu_seconds": round(state.cpu_seconds, 1),
            "accuracy": record["accuracy"],
            "val_accuracy": record["val_accuracy"],
            "options": asdict(replace(options, device="auto", name=None)),
            "versions": {"torch": torch.__version__, "python": platform.python_version()},
        }
        save_model(Model(net, config, name, "", domain, options.k, training), output)
    tensors = {f"net.{key}": value for key, value in net.state_dict().items()}
    for number, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{key}": torch.as_tensor(value) for key, value in values.items()}
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    words = {"state": json.dumps(asdict(state)), "fingerprint": fingerprint}
    try:
        save_tensors(tensors, output / STATE, words)
        temporary = output / ".metrics.csv"
        with temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(record))
            writer.writeheader()
            writer.writerows(state.records)
        temporary.replace(output / "metrics.csv")
    except OSError as error:
        raise CheckpointError(f"{output}: the training state can't be written: {error}") from error


def _load_state(file: Path, net: GlimpseNet, optimizer: torch.optim.Optimizer, fingerprint: str) -> _State:
    if not file.is_file():
        raise CheckpointError(f"{file}: no training state to resume; train without --resume first")
    try:
        with safe_open(file, framework="pt") as stored:
            words = stored.metadata()
            tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118 - not a dict
        if words["fingerprint"] != fingerprint:
            raise CheckpointError(
                f"{file}: the training state is of other images or options; resume with the same manifest and "
                "options, or train into another directory"
            )
        net.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("net.")})
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, number, name = key.split(".", 2)
                slots.setdefault(int(number), {})[name] = value
        optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
        return _State(**json.loads(words["state"]))
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{file}: the training state is damaged ({error}); train anew") from error


def _fingerprint(items: list[Item], val_items: list[Item], options: TrainOptions) -> str:
    """What must not change between a run and its resumption."""
    digest = hashlib.sha256()
    for item in [*items, *val_items]:
        source = item.example.source
        name = source.source if isinstance(source, Pyramid) else str(source)
        digest.update(f"{name}|{item.label}|{item.region}\n".encode())
    digest.update(
        json.dumps(asdict(replace(options, device="", threads=0, name=None)), sort_keys=True).encode()
    )
    return digest.hexdigest()
