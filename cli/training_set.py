"""The labelled images that ``train`` takes, refused in the manifest's name where they can't be trained on."""

from typing import TYPE_CHECKING

from hiresattn.errors import ConfigError

if TYPE_CHECKING:
    from hiresattn.datasets.example import Example
    from hiresattn.training.options import TrainOptions


def training_set(manifest: str, chosen: "TrainOptions") -> "list[Example]":
    """Read and check a manifest, or a folder.

    Raises:
        ConfigError: If a row is unusable, or nothing can be learnt of the whole.
        HiresattnError: If it can't be read.
    """
    from hiresattn.datasets.folder import read_examples

    examples = read_examples(
        manifest, labels=True, multi=chosen.multi_label, fold=chosen.fold, seed=chosen.seed
    )
    _check(manifest, examples, chosen.fold)
    return examples


def _check(manifest: str, examples: "list[Example]", fold: int | str | None) -> None:
    """Refuse a set that nothing can be learnt of."""
    from hiresattn.config import did_you_mean
    from hiresattn.datasets.example import classes_in

    train = [example for example in examples if example.split == "train"]
    if not train:
        raise ConfigError(f"{manifest}: no rows of split 'train'; without a column split all are")
    folds = sorted({example.fold for example in examples if example.fold and example.fold != "test"})
    if fold is None and folds and all(example.split in ("train", "test") for example in examples):
        raise ConfigError(
            f"{manifest}: a column fold, and nothing says which validates; name one with --fold: {', '.join(folds)}"
        )
    classes = {name for example in train for name in classes_in(example)}
    if not classes:
        raise ConfigError(f"{manifest}: no image of split 'train' has a label; training needs one or more")
    if len(classes) < 2 and not isinstance(train[0].label, tuple):
        raise ConfigError(
            f"{manifest}: one class in split 'train', {classes.pop()!r}; training needs two or more"
        )
    for example in examples:
        for name in sorted(classes_in(example)) if example.split == "val" else ():
            if name not in classes:
                near = did_you_mean(name, classes)
                raise ConfigError(f"{manifest}: label {name!r} in split 'val' and not in 'train'{near}")
