"""CutMix of images that are read lazily: the box's law, one mix at every depth, labels and boxes to match."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hiresattn.checkpoint import load_model
from hiresattn.config import InputConfig
from hiresattn.datasets.example import Example
from hiresattn.errors import ConfigError, DomainError, ReadError
from hiresattn.geometry import Grid, cell_regions
from hiresattn.model.build import build_model
from hiresattn.model.select import TopK
from hiresattn.pyramid.array import ArrayPyramid
from hiresattn.reading.fetch import CropFetcher
from hiresattn.training.augment import ORIENTATIONS, Augmentation
from hiresattn.training.cutmix import CutMix, draw_cutmix
from hiresattn.training.data import Loader
from hiresattn.training.fit import fit
from hiresattn.training.losses import batch_loss, classification_loss, scorer_losses, traverse
from hiresattn.training.options import TrainOptions, model_config
from hiresattn.training.samples import Sample
from hiresattn.training.targets import scorer_targets
from tests.reading.test_fetch import coordinates, means

RULE = InputConfig(size=16, low=(-1.0,) * 3, high=(1.0,) * 3, dtype="float32")


def item(height=300, width=400, y=0, x=0, step=1, label=0):
    return Sample(Example("none"), label, (y, x, height, width), 2, 1, step=step)


def scene(offset, height=256, width=256):
    base = coordinates(height, width)[0] + offset
    return ArrayPyramid([base, means(base, 2), means(base, 8)], source=f"scene {offset}")


def loader_of(examples, rule=RULE, **more):
    loader = Loader(rule, Grid(3, 0.5), threads=0, **more)
    return loader, loader.measure(examples, ("a", "b"))


def draws(samples, count, seed=0, probability=1.0):
    rng = np.random.default_rng(seed)
    return [draw_cutmix(samples, probability, rng)[0] for _ in range(count)]


def test_the_box_follows_its_law():
    height, width = 100_000, 200_000
    found = draws([item(height, width), item(height, width)], 20_000)
    y, x, h, w = np.array([mix.box for mix in found], np.float64).T
    share = h * w / (height * width)
    # E[(c - c^2/4)^2] with c = sqrt(u), u ~ U(0, 1): each side is c long and loses c^2/4 of it at the ends
    assert share.mean() == pytest.approx(1 / 2 - 1 / 5 + 1 / 48, abs=4 * share.std() / 20_000**0.5)
    whole = (y > 0) & (x > 0) & (y + h < height) & (x + w < width)
    assert np.allclose(
        (h / height)[whole], (w / width)[whole], atol=1e-4
    )  # nothing cut off: sides of one ratio
    for start, side, length in ((y, h, height), (x, w, width)):
        centre = (start + side / 2) / length
        assert centre[whole].mean() == pytest.approx(0.5, abs=0.01)
        ends = ((start == 0) | (start + side == length)).mean()
        # P(cut at an end) = E[c] = 2/3, as the centre is within c/2 of one of the two
        assert ends == pytest.approx(2 / 3, abs=0.015)


def test_the_probability_and_the_donors_are_even():
    samples = [replace(item(), name=str(number)) for number in range(5)]
    rng = np.random.default_rng(1)
    drawn = [draw_cutmix(samples, 0.3, rng) for _ in range(4000)]
    pasted = np.array([[mix is not None for mix in mixes] for mixes in drawn])
    assert pasted.mean() == pytest.approx(0.3, abs=0.01)
    count = np.zeros((5, 5))
    for mixes in drawn:
        for row, mix in enumerate(mixes):
            if mix is not None:
                count[row, int(mix.donor.name)] += 1
    assert (np.diag(count) == 0).all()
    others = count[~np.eye(5, dtype=bool)]
    assert (np.abs(others - others.mean()) < 5 * np.sqrt(others.mean())).all()


def test_without_probability_nothing_is_drawn():
    rng = np.random.default_rng(2)
    before = rng.bit_generator.state
    assert draw_cutmix([item(), item()], 0.0, rng) == [None, None]
    assert draw_cutmix([item()], 1.0, rng) == [None]
    assert rng.bit_generator.state == before


@pytest.mark.parametrize(
    ("host", "donor"),
    [
        (item(300, 400), item(300, 400)),
        (item(300, 400, 70, 90), item(50, 900, 5, 7)),
        (item(640, 480, step=8), item(320, 960, step=4)),
        (item(640, 480, 3, 5, step=8), item(640, 480, 3, 5, step=8)),
    ],
)
def test_boxes_lie_inside_both_images_and_on_the_levels_px(host, donor):
    step = max(host.step, donor.step)
    for mix in filter(None, draws([host, donor], 500)):
        for axis in (0, 1):
            start, side, at = mix.box[axis], mix.box[axis + 2], mix.at[axis]
            low, length = host.region[axis], host.region[axis + 2]
            other, reach = donor.region[axis], donor.region[axis + 2]
            assert low <= start < start + side <= low + length
            assert other <= at < at + side <= other + reach
            ends = (low, low + length, start + reach)
            assert start % step == 0 or start in ends
            assert (start + side) % step == 0 or start + side in ends
            if host.region == donor.region:
                assert at == start


def test_every_depth_sees_one_mix_and_the_boxes_share_of_it():
    loader, samples = loader_of([Example(scene(0), "a"), Example(scene(10_000), "b")])
    mix = CutMix(samples[1], (64, 32, 96, 128), (64, 32))
    batch = loader.batch(samples, [Augmentation(cutmix=mix), Augmentation()])
    whole = scene(0)._arrays[0].copy()
    whole[64:160, 32:160] = scene(10_000)._arrays[0][64:160, 32:160]
    roots = batch.roots[0]
    cells = cell_regions(roots, Grid(3, 0.5), 16)[0]
    finer = cell_regions(cells, Grid(3, 0.5), 16).reshape(-1, 4)
    regions = np.concatenate([roots, cells, finer])
    image = np.zeros(len(regions), np.int64)
    plain = ArrayPyramid([whole, means(whole, 2), means(whole, 8)])
    with CropFetcher([plain], RULE) as fetch:
        wanted = fetch(image, regions)
    found = batch.fetch(image, regions)
    assert np.allclose(found.pixels, wanted.pixels, atol=1e-2)
    donor = found.pixels[:, 0] > 5000
    assert donor.any(axis=(1, 2)).sum() > 20
    share = batch.pastes.share_of(image, regions)
    ratio = (found.pixels[:, 0] // 5000).clip(0, 1).mean((1, 2))
    assert np.abs(share - ratio).max() < 1 / 16  # px of a crop that straddle the edge
    assert share[0] == pytest.approx(96 * 128 / 256**2)
    assert batch.pastes.share.tolist() == [pytest.approx(96 * 128 / 256**2), 0]
    assert batch.pastes.labels.tolist() == [1, 1]
    assert batch.labels.tolist() == [0, 1]
    other = np.ones(1, np.int64)
    assert batch.fetch(other, batch.roots[1]).pixels[0, 0].min() > 5000


@pytest.mark.parametrize("turn", ORIENTATIONS["turns"])
@pytest.mark.parametrize("squash", [None, 48])
def test_a_turned_or_squashed_mix_is_the_mix_turned_or_squashed(turn, squash):
    rule = RULE if squash is None else replace(RULE, squash=squash)
    examples = [Example(scene(0, 128, 192), "a"), Example(scene(10_000, 128, 192), "b")]
    loader, samples = loader_of(examples, rule)
    mix = CutMix(samples[1], (32, 16, 64, 64), (32, 16))
    batch = loader.batch(samples, [Augmentation(turn, cutmix=mix), Augmentation(turn)])
    whole = scene(0, 128, 192)._arrays[0].copy()
    whole[32:96, 16:80] = scene(10_000, 128, 192)._arrays[0][32:96, 16:80]
    single = ArrayPyramid([whole, means(whole, 2), means(whole, 8)])
    mixed, mixed_items = loader_of([Example(single, "a"), examples[1]], rule)
    plain = mixed.batch(mixed_items, [Augmentation(turn), Augmentation(turn)])
    image, regions = np.zeros(len(batch.roots[0]), np.int64), batch.roots[0]
    found = batch.fetch(image, regions)
    assert np.allclose(found.pixels, plain.fetch(image, regions).pixels, atol=1e-2)
    inside = found.pixels[:, 0] > 5000
    for row, (y0, x0, y1, x1) in enumerate(batch.pastes.within(image, regions) * 16):
        ys, xs = np.nonzero(inside[row])
        if len(ys):
            edges = np.array([ys.min(), xs.min(), ys.max() + 1, xs.max() + 1])
            assert np.abs(edges - [y0, x0, y1, x1]).max() <= 1
    assert np.array_equal(batch.stored(image, regions), plain.stored(image, regions))


def test_the_donor_alone_lies_where_it_is_pasted():
    loader, samples = loader_of([Example(scene(0), "a"), Example(scene(10_000, 160, 200), "b")])
    mix = CutMix(samples[1], (64, 32, 96, 128), (40, 20))
    batch = loader.batch(samples, [Augmentation(cutmix=mix), Augmentation()])
    image, regions = np.zeros(1, np.int64), np.array([[64, 48, 64, 64]])
    mixed, clean = batch.fetch(image, regions), batch.pastes.clean(image, regions)
    assert np.array_equal(mixed.pixels, clean.pixels)
    around = np.array([[24, 12, 64, 64]])  # host and donor in the mix; the donor alone
    assert (batch.fetch(image, around).pixels[0, 0] < 5000).any()
    found = batch.pastes.clean(image, around).pixels[0, 0]
    assert (found > 5000).all()
    assert found[0, 0] == pytest.approx(10_000 + 24 - 24 + 2)  # host row 24 is the donor's row 0
    far = batch.pastes.clean(image, np.array([[192, 128, 64, 64]])).pixels[0, 0]
    assert (far < 5000).all()  # the donor doesn't reach there


def test_targets_that_are_covered_go_and_those_that_are_shown_come():
    host = Example(scene(0), "a", boxes=((70, 40, 10, 10), (0, 0, 20, 20), (60, 150, 20, 20)))
    donor = Example(scene(1), "b", boxes=((100, 50, 10, 10), (30, 100, 80, 20), (0, 0, 10, 10)))
    loader, samples = loader_of([host, donor])
    mix = CutMix(samples[1], (64, 32, 96, 128), (44, 32))
    batch = loader.batch(samples, [Augmentation(cutmix=mix), Augmentation()])
    shown = [[120, 50, 10, 10], [64, 100, 66, 20]]
    assert batch.boxes[0].tolist() == [[0, 0, 20, 20], [60, 150, 20, 20], *shown]
    assert batch.boxes[1].tolist() == [list(box) for box in donor.boxes]
    _, (unknown, *_) = loader_of([replace(donor, boxes=None), donor])
    assert mix._replace(donor=unknown).boxes(samples[0], None) is None


def test_images_that_do_not_belong_together_are_an_error_with_both_names():
    grey = ArrayPyramid([np.zeros((256, 256, 4), np.float32)], source="four bands")
    loader, samples = loader_of([Example(scene(0), "a"), Example(grey, "b")])
    with pytest.raises(DomainError, match="four bands can't be pasted into scene 0"):
        loader.batch(
            samples, [Augmentation(cutmix=CutMix(samples[1], (0, 0, 64, 64), (0, 0))), Augmentation()]
        )


class _Broken(ArrayPyramid):
    def _read(self, *window):
        raise ReadError("broken.tif: damaged")


def test_a_donor_that_cannot_be_read_costs_its_own_image_only():
    told = []
    broken = _Broken([np.zeros((256, 256, 3), np.float32)])
    loader, samples = loader_of([Example(scene(0), "a"), Example(broken, "b")], on_skip=told.append)
    changes = [Augmentation(cutmix=CutMix(samples[1], (64, 32, 96, 128), (64, 32))), Augmentation()]

    def work(batch):
        image = np.concatenate([np.full(len(roots), i) for i, roots in enumerate(batch.roots)])
        return batch, batch.fetch(image, np.concatenate(batch.roots))

    (batch, crops), lost = loader.process(samples, work, changes)
    assert (lost, len(told), len(crops.pixels), batch.pastes) == (1, 1, 1, None)
    assert batch.samples == [samples[0]]


def test_levels_that_crops_are_read_from_say_how_boxes_are_aligned():
    (deep, flat), wanted = loader_of([Example(scene(0), "a"), Example(scene(0)._arrays[0], "a")])[1], (8, 1)
    assert (deep.step, flat.step) == wanted
    (window,) = loader_of([Example(scene(0), "a", region=(8, 8, 64, 64))])[1]
    assert window.step == 2
    assert window.name == "array 0 [8, 8, 64, 64]"


def _noise(count=8, side=64):
    """Images of two classes, dark and light."""
    rng = np.random.default_rng(0)
    shift = np.array([0, 60])
    return [
        Example((rng.integers(40, 120, (side, side, 2)) + shift[i % 2]).astype(np.uint8), "ab"[i % 2])
        for i in range(count)
    ]


QUICK = TrainOptions(
    epochs=3,
    batch_size=4,
    threads=0,
    device="cpu",
    crop_size=16,
    k=(2,),
    grid=3,
    fraction=0.5,
    augment="turns",
)


def _traversed(options, seed=0):
    """A forward pass of a fresh network over images, pasted and not."""
    rule = InputConfig(size=16, bands=(0, 1), low=(0.0,) * 2, high=(255.0,) * 2)
    loader = Loader(rule, Grid(3, 0.5), threads=0)
    samples = loader.measure(_noise(4), ("a", "b"))
    torch.manual_seed(seed)
    net = build_model(model_config(options, ("a", "b"), rule))
    mixes = draw_cutmix(samples, 0.6, np.random.default_rng(5))
    assert {mix is None for mix in mixes} == {True, False}
    batch = loader.batch(samples, [Augmentation(cutmix=mix) for mix in mixes])
    torch.manual_seed(seed + 1)
    traversal = traverse(net, batch, TopK(), (2,), options)
    return batch, net, traversal, batch_loss(net, batch, traversal, options, baseline=0.5)


def test_the_loss_weighs_both_labels_by_what_each_look_shows():
    batch, _, traversal, loss = _traversed(QUICK)
    pastes = batch.pastes
    single = torch.from_numpy(batch.labels[traversal.image])
    single[5] = -1
    found = classification_loss(
        traversal, torch.from_numpy(batch.labels), single, glimpse_weight=0.7, pastes=pastes
    )
    whole, alone = (-x.log_softmax(1).detach().numpy() for x in (traversal.logits, traversal.glimpse_logits))
    images = []
    for image in range(4):
        own, other, share = batch.labels[image], pastes.labels[image], pastes.share[image]
        loss = (1 - share) * whole[image, own] + share * whole[image, other]
        rows = [row for row in np.flatnonzero(traversal.image == image) if single[row] >= 0]
        parts = pastes.share_of(np.full(len(rows), image), traversal.region[rows])
        looks = [
            (1 - s) * alone[row, own] + s * alone[row, other] for row, s in zip(rows, parts, strict=True)
        ]
        images.append(loss + 0.7 * np.mean(looks))
    assert found.item() == pytest.approx(np.mean(images), rel=1e-5)
    plain = classification_loss(traversal, torch.from_numpy(batch.labels), single, glimpse_weight=0.7)
    assert abs(plain.item() - found.item()) > 1e-4


def test_the_answer_counted_is_that_of_the_larger_part():
    batch, *_ = _traversed(QUICK)
    wanted = np.where(batch.pastes.share > 0.5, batch.pastes.labels, batch.labels)
    assert np.array_equal(batch.main_labels, wanted)


def test_saol_is_told_where_and_what_was_pasted_by_one_further_look_that_teaches_nothing_else():
    options = replace(QUICK, scorer="saol", estimator="none")
    batch, net, traversal, _ = _traversed(options)
    losses = scorer_losses(net.scorer, traversal, scorer_targets(net, batch, (1.0,), progress=0.0))
    _, parts = losses.joined(losses.sums)
    assert {"paste_where", "paste_what"} <= set(parts)
    assert all(np.isfinite(value) for value in parts.values())
    share = batch.pastes.share_of(np.arange(4), np.concatenate(batch.roots))
    target_of = scorer_targets(net, batch, (1.0,), progress=0.0)
    passes = []
    net.encoder.register_forward_hook(
        lambda encoder, *_: passes.append((encoder.training, torch.is_grad_enabled()))
    )
    target = target_of(np.arange(4), np.zeros(4, np.int64), np.concatenate(batch.roots))
    assert passes == [(False, False)]
    assert net.training
    assert target.pasted.rows.tolist() == np.flatnonzero(share > 0).tolist()
    assert np.allclose(target.pasted.share, share)
    with torch.no_grad():
        crops = batch.pastes.clean(target.pasted.rows.numpy(), np.concatenate(batch.roots)[share > 0])
    donors = [batch.augmentations[i].cutmix.donor for i in target.pasted.rows]
    direct = [np.asarray(donor.example.source, np.float32).mean() for donor in donors]
    assert np.allclose((crops.pixels.mean((1, 2, 3)) + 1) * 127.5, direct, atol=0.5)
    deeper = target_of(np.arange(4), np.ones(4, np.int64), np.concatenate(batch.roots))
    assert deeper.pasted.clean is None


def test_a_resumed_run_with_cutmix_ends_bit_by_bit_alike(tmp_path):
    options = replace(QUICK, cutmix=0.5, scorer="saol", epochs=2)
    list(fit(_noise(), tmp_path / "whole", options))
    run = fit(_noise(), tmp_path / "parts", options)
    next(run)
    run.close()
    list(fit(_noise(), tmp_path / "parts", options, resume=True))
    list(fit(_noise(), tmp_path / "plain", replace(options, cutmix=0.0)))
    whole, parts, plain = (load_model(tmp_path / name).sha256 for name in ("whole", "parts", "plain"))
    assert whole == parts != plain


def test_what_cannot_be_mixed_is_refused():
    for changes in ({"background": "a"}, {"estimator": "reinforce"}, {"estimator": "reinforce-loo"}):
        with pytest.raises(ConfigError, match="cutmix mixes labels"):
            replace(QUICK, cutmix=0.5, **changes)
    with pytest.raises(ConfigError, match="cutmix must be 0 to 1"):
        replace(QUICK, cutmix=1.5)
