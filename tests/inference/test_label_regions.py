"""Which regions show an image's label, with a network that knows."""

from types import SimpleNamespace

import numpy as np
import pytest

from hiresattn.geometry import Grid, overlaps
from hiresattn.inference.engine import NetFacts, Outputs
from hiresattn.inference.label_regions import LEAST, label_regions, shown_share

FRAME = np.array([0, 0, 128, 128])


class Oracle:
    """A region shows class 1 if it holds most of an object."""

    facts = NetFacts(Grid(3, 0.5), 32, background=0)

    def __init__(self, *objects):
        self.objects = np.array(objects)
        self.looked = 0

    def look(self, pixels, coverage, regions, frames, paths):
        self.looked += len(regions)
        y, x = (
            np.minimum(regions[:, None, i] + 32, self.objects[:, i] + self.objects[:, i + 2])
            - np.maximum(regions[:, None, i], self.objects[:, i])
            for i in (0, 1)
        )
        held = y.clip(0) * x.clip(0) / (self.objects[:, 2] * self.objects[:, 3])
        shown = (held > 0.6).any(1)
        n = len(regions)
        logits = np.stack([np.zeros(n), np.where(shown, 8.0, -8.0)], 1).astype(np.float32)
        zeros = np.zeros((n, 1), np.float32)
        return Outputs(zeros, zeros, zeros[:, 0], logits, zeros[:, 0])


def fetch(image, regions):
    return SimpleNamespace(pixels=np.zeros((len(regions), 1, 4, 4)), coverage=np.ones((len(regions), 4, 4)))


def found(*objects):
    return label_regions(Oracle(*objects), fetch, FRAME, [1], known=True)


@pytest.mark.parametrize("y", [0, 20, 36, 100, 116])
@pytest.mark.parametrize("x", [0, 20, 52, 116])
def test_a_small_object_is_found_in_a_quarter_of_a_region(y, x):
    regions = found((y, x, 8, 8))
    assert (regions.probability > 0.9).all()
    assert overlaps(regions.region, np.array([[y, x, 8, 8]])).max() > 0
    assert (regions.region[:, 2:] == 16).all()
    assert len(regions.region) <= 2  # two where it lies across their border


def test_an_object_as_large_as_a_region_keeps_the_region_whole():
    assert found((32, 64, 32, 32)).region.tolist() == [[32, 64, 32, 32]]


def test_objects_side_by_side_are_two_quarters():
    regions = found((36, 36, 8, 8), (36, 52, 8, 8)).region.tolist()
    assert regions == [[32, 32, 16, 16], [32, 48, 16, 16]]


def test_regions_are_looked_at_once_and_only_near_what_was_found_again():
    oracle = Oracle((36, 36, 8, 8))
    label_regions(oracle, fetch, FRAME, [1], known=True)
    assert oracle.looked == 16 + 8


def test_nothing_but_what_may_show_the_label_is_kept():
    regions = found((200, 200, 8, 8))  # it is outside: all regions are alike, and show nothing
    assert (regions.probability >= LEAST).all()
    assert (regions.probability < 0.5).all()


def test_the_likeliest_is_kept_where_none_is_likely_and_one_is_asked_for():
    frame = np.array([0, 0, 512, 512])  # each of 256 regions may show it as well as any other
    nowhere = Oracle((1000, 1000, 8, 8))
    assert len(label_regions(nowhere, fetch, frame, [1], known=True).region) == 0
    kept = label_regions(nowhere, fetch, frame, [1], known=True, always=True)
    assert len(kept.region) == 1
    assert kept.probability < LEAST


def test_an_image_without_a_measured_px_tells_nothing():
    def blank(image, regions):
        return SimpleNamespace(
            pixels=np.zeros((len(regions), 1, 4, 4)), coverage=np.zeros((len(regions), 4, 4))
        )

    assert label_regions(Oracle((0, 0, 8, 8)), blank, FRAME, [1], known=True) is None


def test_a_single_region_without_a_label_is_no_find_because_it_is_the_likeliest():
    for evidence in (-0.3, 0.0, 0.3):
        assert shown_share(np.array([evidence]), known=False) < 0.5
    assert shown_share(np.array([-0.3])) > 0.9  # a label that must show somewhere


def test_how_common_the_label_is_is_learnt_from_the_image():
    rng = np.random.default_rng(0)
    for odd in (1, 40, 160):
        evidence = np.concatenate([rng.normal(5, 2, odd), rng.normal(-5, 2, 320 - odd)])
        found = shown_share(2.5 * evidence) * len(evidence)  # the log-ratio of the two normals
        assert found == pytest.approx(odd, rel=0.1, abs=0.5)
