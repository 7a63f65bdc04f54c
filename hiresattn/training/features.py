"""Train a head on features that are on disk: an aggregator and a classifier over a frozen encoder. No image is read."""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiresattn.checkpoint import save_model
from hiresattn.datasets.example import Example
from hiresattn.datasets.feature_files import FeatureFiles
from hiresattn.errors import ConfigError
from hiresattn.model.net import GlimpseNet
from hiresattn.model.reference import Reference
from hiresattn.model.traversal import Rows
from hiresattn.training.bags import Bag, Standard, read_bags
from hiresattn.training.curriculum import BATCH
from hiresattn.training.estimators import correctness, row_cross_entropy
from hiresattn.training.feature_model import common_facts, idle_options, model_of
from hiresattn.training.log import EpochRecord, write_metrics
from hiresattn.training.optim import class_weights, optimizer_of, set_learning_rate
from hiresattn.training.options import TrainOptions
from hiresattn.training.samples import Sample
from hiresattn.training.setup import class_counts, label_counts, split_examples, warn_of_training_set
from hiresattn.training.state import check_folder

#: Regions of one image that a step sees, at most; others of a large image are left out at random.
MOST_REGIONS = 4096
#: Seconds between writes of the model and the metrics.
WRITTEN_EVERY = 10.0


def fit_features(
    examples: Sequence[Example],
    output: str | Path,
    options: TrainOptions,
    *,
    overwrite: bool = False,
    on_message: Callable[[str], None] = lambda _message: None,
    progress: Callable[[float], None] = lambda _share: None,
) -> Iterator[EpochRecord]:
    """Train the aggregator and the classifier on features of all regions of images, from their labels.

    The result is an ordinary model: its encoder is the one that computed the features, and it looks at every region.

    Args:
        examples: Labelled images with splits ``train`` and ``val`` (others are ignored).
        output: Model directory to make.
        options: ``features`` is the folder. Of the others count ``aggregator``, ``background``, ``multi_label``,
            ``class_weights``, ``fold``, ``epochs``, ``batch_size`` (images), the optimiser's, ``seed`` and ``name``.
            Where the features, of other tools, don't say it: ``encoder``; ``finest``, the side of a region, level-0 px;
            ``crop_size``; and ``foreground``, that they are of tissue.
        overwrite: Train anew in a directory that isn't empty; else it is refused.
        on_message: Called with sentences that are worth showing.
        progress: Called with the share of the training that is done.

    Yields:
        A record per epoch. The model, written now and then and at the end, is the best so far on the validation images,
        else the latest.

    Raises:
        ConfigError: If the examples can't be trained on, features of different encoders or scales are mixed, or options
            contradict them.
        CheckpointError: If the encoder is no longer the one that computed the features.
        HiresattnError: If features can't be read.
    """
    folder = Path(output)
    check_folder(folder, resume=False, overwrite=overwrite)
    train, held_out, options = split_examples(examples, options)
    if (words := idle_options(options)) is not None:
        on_message(words)
    warn_of_training_set(train, held_out, options, on_message)
    classes = tuple(sorted(class_counts(train)))
    table = [*train, *held_out, *examples]
    files = FeatureFiles(str(options.features), [str(example.source) for example in table])
    bags, of_each = read_bags(train, files, classes, options, on_message)
    val, of_val = read_bags(held_out, files, classes, options, on_message)
    if not bags:
        raise ConfigError(f"{options.features}: none of the training images has features there")
    every = [*of_each, *of_val]
    facts = common_facts(every, options)
    torch.manual_seed(options.seed)
    model, options = model_of(classes, facts, options, folder)
    net = model.net
    width, found = int(net.encoder.feature_width), bags[0].vectors.shape[1]  # type: ignore[arg-type]
    if width != found:
        raise ConfigError(
            f"{options.features}: the features are {found} numbers each, and the encoder {model.config.encoder} gives "
            f"{width}; name the one that computed them with encoder"
        )
    model = replace(model, reference=_reference(bags, val, train))
    scale = Standard.of(bags)
    bags, val = ([replace(bag, vectors=scale(bag.vectors)) for bag in part] for part in (bags, val))
    optimizer = optimizer_of(net, options)
    weights = class_weights([_sample(bag) for bag in bags], len(classes), options)
    started = written = time.perf_counter()
    cpu, best, records = time.process_time(), -1.0, list[dict[str, Any]]()
    for epoch in range(options.epochs):
        loss, accuracy = _epoch(net, optimizer, bags, weights, options, epoch, progress)
        record = EpochRecord(
            epoch=epoch + 1,
            epochs=options.epochs,
            stage=1,
            stages=1,
            images=len(bags),
            loss=loss,
            accuracy=accuracy,
            val_accuracy=_accuracy(net, val),
            glimpses=float(np.mean([len(bag.vectors) for bag in bags])),
            hit=None,
            seconds=round(time.perf_counter() - started, 2),
            cpu_seconds=round(time.process_time() - cpu, 2),
            skipped=len(train) + len(held_out) - len(every),
        )
        records.append(asdict(record))
        score = record.val_accuracy if record.val_accuracy is not None else 0.0
        if score >= best:
            best, kept = score, {name: value.clone() for name, value in net.state_dict().items()}
            counts = {"validated": label_counts([bag.label for bag in val], classes)}
            training = {**model.training, **counts, **_training(record, facts, options)}
        if epoch + 1 == options.epochs or time.perf_counter() - written > WRITTEN_EVERY:
            best_net = copy.deepcopy(net)
            best_net.load_state_dict(kept)
            save_model(replace(model, net=scale.folded(best_net), training=training), folder)
            write_metrics(folder, records)
            written = time.perf_counter()
        yield record


def _reference(bags: Sequence[Bag], val: Sequence[Bag], train: Sequence[Example]) -> Reference | None:
    """What the training images look like, by their mean features; None of less than two."""
    known, others = (
        np.concatenate([bag.means.numpy() for bag in part]) if part else np.zeros((0, 0))
        for part in (bags, val)
    )
    if len(known) < 2:
        return None
    return Reference.of(known).with_limit(others).with_files((one.source, one.region) for one in train)


def _epoch(
    net: GlimpseNet,
    optimizer: torch.optim.Optimizer,
    bags: Sequence[Bag],
    weights: Tensor | None,
    options: TrainOptions,
    epoch: int,
    progress: Callable[[float], None],
) -> tuple[float, float]:
    """One epoch; the mean loss of its steps, and the share of images that were classified rightly meanwhile."""
    rng = np.random.default_rng([options.seed, epoch])
    order = rng.permutation(len(bags))
    losses, correct = [], 0.0
    net.train()
    net.encoder.eval()
    size = options.batch_size or BATCH
    for start in range(0, len(order), size):
        share = (epoch + start / len(order)) / options.epochs
        progress(share)
        set_learning_rate(optimizer, share, options)
        batch = [bags[i] for i in order[start : start + size].tolist()]
        logits, labels = _predicted(net, batch, rng), _labels(batch)
        loss = row_cross_entropy(logits, labels, weights).mean()
        if not torch.isfinite(loss):
            raise ConfigError(f"epoch {epoch + 1}: the loss is {loss.item()}; lower the learning rate (lr)")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if options.clip is not None:
            torch.nn.utils.clip_grad_norm_(net.parameters(), options.clip)
        optimizer.step()
        losses.append(loss.item())
        correct += float((correctness(logits.detach(), labels) == 1).sum())
    return float(np.mean(losses)), correct / len(bags)


def _training(record: EpochRecord, facts: dict[str, Any], options: TrainOptions) -> dict[str, Any]:
    """What the card has of the training."""
    return {
        "seed": options.seed,
        "epochs": record.epoch,
        "cpu_seconds": record.cpu_seconds,
        "accuracy": record.accuracy,
        "val_accuracy": record.val_accuracy,
        "features": {
            name: facts.get(name) for name in ("encoder", "encoder_sha256", "asked", "side", "micrometres")
        },
        "options": asdict(replace(options, device="auto", name=None)),
    }


def _predicted(net: GlimpseNet, bags: Sequence[Bag], rng: np.random.Generator | None = None) -> Tensor:
    """Logits of images, pooled as in a traversal in which all regions are finest root regions."""
    parts, images = [], []
    for bag in bags:
        vectors = bag.vectors
        if rng is not None and len(vectors) > MOST_REGIONS:
            vectors = vectors[torch.from_numpy(rng.choice(len(vectors), MOST_REGIONS, replace=False))]
        parts.append(vectors.float())
        images.append(len(bag.means) * len(vectors) / len(bag.vectors))  # evidence as of all regions
    image = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    features = torch.cat(parts)
    count = len(features)
    zeros, nowhere = features.new_zeros(count), np.full(count, -1)
    region = np.tile([0, 0, net.finest, net.finest], (count, 1))
    table = Rows(
        image, np.zeros(count, np.int64), nowhere, nowhere, region, zeros, zeros, zeros, zeros[:, None],
        features, zeros[:, None][:, :0],
    )  # fmt: skip
    return net.predict(table, images)[0]


def _labels(bags: Sequence[Bag]) -> Tensor:
    return torch.tensor([bag.label for bag in bags])


def _sample(bag: Bag) -> Sample:
    return Sample(Example(""), bag.label, (0, 0, 1, 1), 1, 1)


def _accuracy(net: GlimpseNet, bags: Sequence[Bag]) -> float | None:
    """Share of images that are classified rightly; None without any."""
    if not bags:
        return None
    net.eval()
    with torch.inference_mode():
        right = [float((correctness(_predicted(net, [bag]), _labels([bag])) == 1).item()) for bag in bags]
    return float(np.mean(right))
