"""Probabilities from scores, by what images with and without a label have."""

import numpy as np
import pytest

from hiresattn.datasets.example import Example
from hiresattn.inference.attention_regions import (
    SAMPLED,
    Calibration,
    RegionScores,
    calibrated_boxes,
    kept_scores,
)


def scores(rng, odd, count=200):
    """Scores of a class for regions: high for the first ``odd``."""
    own = rng.normal(0, 1, count)
    own[:odd] += 8
    return np.stack([own, rng.normal(0, 1, count)], 1)


def test_regions_that_only_images_with_the_label_have_show_it():
    rng = np.random.default_rng(0)
    calibration = Calibration(2)
    for number in range(40):
        calibration.add(scores(rng, 5 if number % 2 else 0), [0 if number % 2 else 1])
    found = calibration.probability(scores(rng, 5)[:, 0], 0)
    assert found[:5].min() > 0.95
    assert found[5:].mean() < 0.1


def test_what_is_alike_in_all_images_shows_nothing():
    rng = np.random.default_rng(1)
    calibration = Calibration(2)
    given = [scores(rng, 5) for _ in range(100)]
    for number, one in enumerate(given):
        calibration.add(one, [number % 2])
    assert calibration.probability(scores(rng, 5)[:, 0], 0).max() < 0.5
    of_those_that_calibrated = [calibration.probability(one[:, 0], 0) for one in given[::2]]
    assert np.concatenate(of_those_that_calibrated).max() < 0.9


def test_a_probability_is_the_share_of_regions_as_high_that_show_the_label():
    rng = np.random.default_rng(2)
    calibration = Calibration(2)
    shown, seen = [], []
    for number in range(400):
        label = number % 2
        own = rng.normal(0, 1, 50)
        if label == 0:
            own[:25] += 1.5
        calibration.add(np.stack([own, own], 1), [label])
        if label == 0:
            seen.append(own)
            shown.append(np.arange(50) < 25)
    seen, shown = np.concatenate(seen), np.concatenate(shown)
    found = calibration.probability(seen, 0)
    assert np.all(np.diff(found[np.argsort(seen)]) >= 0)
    for threshold in (0.5, 1.5, 2.5):
        at = np.argmin(abs(seen - threshold))
        # of the null regions, twice as many are counted as there are: half of the regions show it
        least = 1 - 2 * (1 - shown[seen >= seen[at]].mean())
        assert found[at] == pytest.approx(least, abs=0.05)


def test_a_class_without_images_to_compare_with_shows_nowhere():
    calibration = Calibration(2)
    calibration.add(np.ones((3, 2)), [0])
    assert calibration.probability(np.ones(3), 0).tolist() == [0, 0, 0]


def test_large_images_are_sampled_and_scores_are_kept_as_they_were():
    calibration = Calibration(1)
    calibration.add(np.zeros((10 * SAMPLED, 1)), [0])
    assert len(calibration._present[0][0]) == SAMPLED
    lines = []
    given = RegionScores(np.array([[0, 0, 8, 8]]), np.array([[0.5, -1.25]]))
    assert kept_scores(None, lambda: given, lines.append) is given
    again = kept_scores(lines[0], lambda: None, lines.append)
    assert again.region.tolist() == [[0, 0, 8, 8]]
    assert again.score.tolist() == [[0.5, -1.25]]


def test_of_several_labels_each_gets_its_regions():
    rng = np.random.default_rng(3)
    region = np.array([[row, 0, 8, 8] for row in range(200)])
    seen = {}
    for number in range(80):
        labels = tuple(name for name, bit in (("a", 1), ("b", 2)) if number & bit)
        score = rng.normal(0, 1, (200, 2))
        score[:5, 0] += 8 * ("a" in labels)
        score[5:9, 1] += 8 * ("b" in labels)
        seen[number] = Example(f"{number}.tif", labels), RegionScores(region, score)
    found, wanted = set(), set()
    for number, example in calibrated_boxes(seen, ["a", "b"]):
        boxes = zip(example.boxes or (), example.box_labels or (), example.box_confidence or (), strict=True)
        found |= {(number, box[0], name) for box, name, confidence in boxes if confidence > 0.9}
        wanted |= {(number, row, "a") for row in range(5) if number & 1}
        wanted |= {(number, row, "b") for row in range(5, 9) if number & 2}
        assert (example.boxes == ()) == (not number & 3)
    assert found >= wanted
    assert len(found) < 1.1 * len(wanted)
