"""Colour jitter and compression: one change per image, at every depth, from the epoch's chance alone."""

from dataclasses import replace

import numpy as np
import pytest

from hiresattn.checkpoint import load_model
from hiresattn.config import InputConfig
from hiresattn.datasets.example import Example
from hiresattn.errors import ConfigError
from hiresattn.geometry import Grid
from hiresattn.training.augment import ORIENTATIONS, Augmentation, draw_augmentations
from hiresattn.training.data import Loader
from hiresattn.training.fit import fit
from hiresattn.training.options import TrainOptions

QUICK = TrainOptions(
    epochs=3, batch_size=4, threads=0, device="cpu", crop_size=16, k=(1,), grid=3, fraction=0.5, jitter=0.2
)
RULE = InputConfig(size=16, bands=(0, 1, 2), low=(0.0,) * 3, high=(255.0,) * 3)


def _images(count=8):
    rng = np.random.default_rng(0)
    return [Example(rng.integers(60, 160, (64, 64, 2)).astype(np.uint8), "ab"[i % 2]) for i in range(count)]


def _drawn(count, **options):
    return draw_augmentations([None] * count, RULE, TrainOptions(**options), np.random.default_rng(0))


def test_slides_have_no_upright_position_and_other_images_keep_theirs():
    def orientations(rule, **options):
        rng = np.random.default_rng(0)
        drawn = draw_augmentations([None] * 200, rule, TrainOptions(**options), rng)
        return {one.orientation for one in drawn}

    slides = replace(RULE, foreground="tissue")
    assert orientations(slides) == set(ORIENTATIONS["turns"])
    assert orientations(RULE) == orientations(slides, augment="none") == set(ORIENTATIONS["none"])
    assert orientations(slides, augment="mirror") == set(ORIENTATIONS["mirror"])


def test_jitter_is_the_same_at_every_depth_of_its_image_and_another_in_another():
    rule = InputConfig(size=16, bands=(0, 1), low=(0.0, 0.0), high=(255.0, 255.0))
    loader = Loader(rule, Grid(3, 0.5), threads=0)
    samples = loader.measure(_images(2), ("a", "b"))
    augmentations = draw_augmentations(samples, rule, TrainOptions(jitter=0.2), np.random.default_rng(3))
    jitters = np.array([one.jitter for one in augmentations])
    regions = np.array([[0, 0, 64, 64], [0, 0, 64, 64], [8, 4, 32, 32], [8, 4, 32, 32], [1, 2, 16, 16]])
    image = np.array([0, 1, 0, 1, 1])
    plain = loader.batch(samples).fetch(image, regions)
    jittered = loader.batch(samples, augmentations).fetch(image, regions)
    for row, index in enumerate(image):
        for band in range(2):
            gain, offset = jitters[index, :, band]
            expected = plain.pixels[row, band] * gain + offset
            assert np.allclose(jittered.pixels[row, band], expected, atol=1e-6)
    assert len(np.unique(jitters)) == jitters.size


def test_what_was_not_measured_stays_the_middle():
    image = np.full((32, 32, 1), 200, np.uint8)
    rule = InputConfig(size=16, bands=(0,), low=(0.0,), high=(255.0,), squash=16)
    loader = Loader(rule, Grid(3, 0.5), threads=0)
    samples = loader.measure([Example(image, "a")], ("a", "b"))
    augmentations = [Augmentation(jitter=np.array([[1.1], [0.3]], np.float32))]
    crops = loader.batch(samples, augmentations).fetch(np.array([0]), np.array([[8, 8, 16, 16]]))
    outside = crops.coverage[0] == 0
    assert outside.any()
    assert (crops.pixels[0, 0][outside] == 0).all()
    assert np.allclose(crops.pixels[0, 0][~outside], (2 * 200 / 255 - 1) * 1.1 + 0.3, atol=1e-5)


def test_jitters_stay_within_their_bounds_and_none_are_drawn_without_jitter():
    jitters = np.array([one.jitter for one in _drawn(500, jitter=0.1)])
    assert np.exp(-0.1) <= jitters[:, 0].min() < 0.91
    assert 1.1 < jitters[:, 0].max() <= np.exp(0.1)
    assert -0.1 <= jitters[:, 1].min() < -0.099
    assert _drawn(5) == [Augmentation()] * 5


def test_compressed_crops_are_what_a_jpeg_of_them_holds():
    import simplejpeg

    rng = np.random.default_rng(1)
    rule = InputConfig(size=32)
    loader = Loader(rule, Grid(3, 0.5), threads=0)
    image = rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)
    samples = loader.measure([Example(image, "a")], ("a", "b"))
    crops = loader.batch(samples, [Augmentation(jpeg=(60, "420"))]).fetch(
        np.array([0]), np.array([[0, 0, 32, 32]])
    )
    stored = simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(image, quality=60, colorsubsampling="420"))
    assert np.abs(stored.astype(int) - image).max() > 20
    assert np.allclose((crops.pixels[0].transpose(1, 2, 0) + 1) * 127.5, stored, atol=1e-3)


def test_compression_is_drawn_for_its_share_of_images_and_with_all_its_qualities():
    drawn = [one.jpeg for one in _drawn(2000, jpeg=0.5)]
    some = [jpeg for jpeg in drawn if jpeg]
    assert 900 < len(some) < 1100
    assert (min(some)[0], max(some)[0]) == (40, 95)
    assert 400 < sum(ways == "420" for _, ways in some) < 600


def test_compression_of_what_jpeg_cannot_store_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="three bands of uint8"):
        list(fit(_images(), tmp_path / "m", replace(QUICK, jitter=0.0, jpeg=0.5)))
    with pytest.raises(ConfigError, match="jpeg must be 0 to 1"):
        replace(QUICK, jpeg=2.0)


def test_a_resumed_run_with_jitter_accumulation_and_balance_ends_bit_by_bit_alike(tmp_path):
    options = replace(QUICK, augment="turns", accumulate=2, class_weights="balanced", schedule="cosine")
    list(fit(_images(), tmp_path / "whole", options))
    run = fit(_images(), tmp_path / "parts", options)
    next(run)
    run.close()
    list(fit(_images(), tmp_path / "parts", options, resume=True))
    list(fit(_images(), tmp_path / "plain", replace(options, jitter=0.0)))
    whole, parts, plain = (load_model(tmp_path / name).sha256 for name in ("whole", "parts", "plain"))
    assert whole == parts != plain
