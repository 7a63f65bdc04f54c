"""Training looks where a search will: only where there is foreground."""

import numpy as np
import pytest
import torch

from hiresattn.checkpoint import load_model
from hiresattn.config import InputConfig, ModelConfig
from hiresattn.datasets.example import Example
from hiresattn.geometry import Grid, cell_regions
from hiresattn.inference.classify import classify
from hiresattn.model.build import build_model
from hiresattn.model.encoders import find_encoder
from hiresattn.model.select import GumbelTopK
from hiresattn.pyramid.array import ArrayPyramid
from hiresattn.training.augment import ORIENTATIONS, Augmentation
from hiresattn.training.data import Loader
from hiresattn.training.epoch import validate
from hiresattn.training.fit import fit
from hiresattn.training.inputs import input_rule
from hiresattn.training.losses import traverse
from hiresattn.training.options import TrainOptions

RULE = InputConfig(size=32, foreground="tissue")
GRID = Grid(5, 0.25)


def slide(seed=0, side=256, *, tissue=True):
    rng = np.random.default_rng(seed)
    image = np.full((side, side + 64, 3), 244, np.uint8)
    if tissue:
        y, x = rng.integers(0, side - 64, 2)
        image[y : y + 64, x : x + 64] = rng.normal((215, 150, 190), 10, (64, 64, 3)).clip(0, 255)
    return image


def _loader(images, rule=RULE):
    loader = Loader(rule, GRID, threads=0)
    return loader, loader.measure([Example(one, "ab"[n % 2]) for n, one in enumerate(images)], ("a", "b"))


@pytest.mark.parametrize("way", ORIENTATIONS["turns"])
def test_foreground_is_where_the_oriented_image_shows_it(way):
    images = [slide(seed) for seed in range(3)]
    loader, samples = _loader(images)
    batch = loader.batch(samples, [Augmentation(way)] * 3)
    turned = [np.ascontiguousarray(way.apply(one.transpose(2, 0, 1)).transpose(1, 2, 0)) for one in images]
    plain, own = _loader(turned)
    expected = plain.batch(own)
    for one in (batch, expected):
        one.fetch(np.repeat(np.arange(3), [len(roots) for roots in one.roots]), np.concatenate(one.roots))
    image = np.repeat(np.arange(3), len(batch.roots[0]) * 25)
    cells = np.concatenate([cell_regions(roots, GRID, 32).reshape(-1, 4) for roots in batch.roots])
    held = batch.holds(image, cells)
    assert 0.05 < held.mean() < 0.7
    assert (held == expected.holds(image, cells)).mean() > 0.97  # maps differ by what lies on an edge
    tissue = [
        turned[i][y : y + h, x : x + w].min() < 240 for i, (y, x, h, w) in zip(image, cells, strict=True)
    ]
    assert (held == tissue).mean() > 0.85


def test_a_forward_pass_visits_no_cell_without_foreground():
    torch.manual_seed(0)
    loader, samples = _loader([slide(seed) for seed in range(4)])
    net = build_model(ModelConfig(classes=("a", "b"), input=RULE, grid=GRID))
    select = GumbelTopK(torch.Generator().manual_seed(0))
    for rule, most in ((RULE, 0), (InputConfig(size=32), 1)):
        loader, samples = _loader([slide(seed) for seed in range(4)], rule)
        batch = loader.batch(samples, [Augmentation(ORIENTATIONS["turns"][5])] * 4)
        found = traverse(net, batch, select, (8, 4), TrainOptions())
        below = np.flatnonzero(found.depth > 0)
        where = batch.stored(found.image[below], found.region[below])
        empty = [
            slide(i)[max(y - 8, 0) : y + h + 8, max(x - 8, 0) : x + w + 8].min() > 240
            for i, (y, x, h, w) in zip(found.image[below], where.tolist(), strict=True)
        ]
        assert empty
        assert (np.mean(empty) > 0) == most
        assert found.log_prob.isfinite().all()


def test_an_empty_image_is_its_root_regions_in_training_and_in_validation():
    loader, samples = _loader([slide(tissue=False), slide(1)])
    net = build_model(ModelConfig(classes=("a", "b"), input=RULE, grid=GRID))
    found = traverse(net, loader.batch(samples), GumbelTopK(torch.Generator()), (8, 4), TrainOptions())
    assert (found.depth[found.image == 0] == 0).all()
    assert (found.depth[found.image == 1] > 0).any()
    assert found.logits.isfinite().all()
    assert validate(net, loader, samples, TrainOptions(device="cpu")).images == 2


@pytest.mark.parametrize(
    ("foreground", "dtype", "bands", "mpp", "expected"),
    [
        ("auto", "uint8", 3, 0.5, "tissue"),
        ("auto", "uint8", 3, None, None),
        ("auto", "uint8", 3, 100.0, None),
        ("auto", "uint8", 1, 0.5, None),
        ("auto", "uint16", 3, 0.5, None),
        ("tissue", "uint16", 3, None, "tissue"),
        ("none", "uint8", 3, 0.5, None),
    ],
)
def test_slides_are_looked_at_where_they_have_tissue_unless_asked_otherwise(
    foreground, dtype, bands, mpp, expected
):
    image = ArrayPyramid(np.zeros((64, 64, bands), dtype), mpp=mpp)
    options = TrainOptions(foreground=foreground, value_range=(0, 255), crop_size=32)
    assert input_rule(image, options, None, find_encoder("small")).foreground == expected
    if foreground == "auto" and (dtype, bands, mpp) == ("uint8", 3, None):  # the manifest may say it
        assert input_rule(image, options, None, find_encoder("small"), 0.5).foreground == "tissue"


def test_a_model_of_slides_keeps_it_in_its_card_and_calls_an_empty_slide_no_class(tmp_path):
    sources = [ArrayPyramid(slide(seed), mpp=0.5) for seed in range(4)]
    examples = [Example(one, "ab"[n % 2], split="val" if n > 1 else "train") for n, one in enumerate(sources)]
    options = TrainOptions(epochs=1, batch_size=2, crop_size=32, k=(2,), threads=0, device="cpu")
    assert len(list(fit(examples, tmp_path / "model", options))) == 1
    model = load_model(tmp_path / "model")
    assert model.config.input.foreground == "tissue"
    assert classify(slide(tissue=False), model, device="cpu", mpp=0.5).status == "no_foreground"
    assert classify(slide(7), model, device="cpu", mpp=0.5).status == "ok"
