"""Prediction sets, risk-coverage and intervals: against simulation, enumeration and figures done by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from hiresattn.card import Conformal
from hiresattn.errors import ConfigError
from hiresattn.evaluation.calibration import conformal_sets
from hiresattn.evaluation.conformal import least_probability
from hiresattn.evaluation.intervals import mean_of, wilson
from hiresattn.evaluation.outcomes import Outcome
from hiresattn.evaluation.selective import area, certainty, risk_coverage


def cases(rng, count, classes=5, sharp=1.0):
    """Labels, and probabilities of a model that is as sure as ``sharp`` says, whatever it knows."""
    truth = rng.integers(0, classes, count)
    logits = sharp * (rng.normal(size=(count, classes)) + 1.5 * np.eye(classes)[truth])
    shares = np.exp(logits)
    return truth, shares / shares.sum(1, keepdims=True)


@pytest.mark.parametrize("risk", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("sharp", [0.2, 1.0, 6.0])
def test_sets_hold_the_class_of_new_cases_as_often_as_they_say_whatever_the_model(risk, sharp):
    rng = np.random.default_rng(0)
    count, held = 50, []
    for _ in range(400):
        least = least_probability(*cases(rng, count, sharp=sharp), risk)
        truth, scores = cases(rng, 50, sharp=sharp)
        held.append((scores[np.arange(50), truth] >= least).mean())
    # over draws of the calibration cases: at least 1 - risk, at most 1 / (n + 1) more
    error = 4 * np.std(held) / len(held) ** 0.5
    assert 1 - risk - error <= np.mean(held) <= 1 - risk + 1 / (count + 1) + error


def test_the_quantile_is_that_of_one_case_more():
    scores = np.array([[p, 1 - p] for p in np.linspace(0.1, 0.9, 9)])
    truth = np.zeros(9, int)
    assert least_probability(truth, scores, 0.1) == pytest.approx(0.1)  # the 9th of 9 of ceil(10 x .9)
    assert least_probability(truth, scores, 0.2) == pytest.approx(0.2)
    assert least_probability(truth, scores, 0.15) == pytest.approx(0.1)
    with pytest.raises(ConfigError, match="need 9 cases or more; there are 8"):
        least_probability(truth[:8], scores[:8], 0.1)


@pytest.mark.parametrize(("count", "low", "high"), [(30, 0.80, 0.97), (100, 0.85, 0.95)])
def test_one_calibration_holds_as_often_as_the_documentation_says(count, low, high):
    rng = np.random.default_rng(0)
    truth, held = np.zeros(count, int), []
    for _ in range(2000):  # the probability of the class is uniform
        own = rng.random((count, 1))
        held.append(1 - least_probability(truth, own, 0.1))
    assert np.quantile(held, [0.05, 0.95]) == pytest.approx([low, high], abs=0.01)


def test_predictions_of_one_case_are_one_in_what_sets_rest_on():
    model = SimpleNamespace(config=SimpleNamespace(multi_label=False))
    assert conformal_sets(given(72, of_each=2), model, 0.1, {}).cases == 36
    assert conformal_sets(given(36), model, 0.1, {}).cases == 36


def test_a_set_may_be_empty_or_hold_several_classes():
    sets = Conformal(0.1, 0.4, 30, {})
    assert sets.classes({"a": 0.45, "b": 0.41, "c": 0.14}) == ("a", "b")
    assert sets.classes({"a": 0.35, "b": 0.33, "c": 0.32}) == ()


def test_the_area_under_risk_by_coverage_done_by_hand():
    confidence = np.array([0.9, 0.6, 0.8, 0.6])
    correct = np.array([True, False, False, True])
    # answered: 1 of 1 right, then 1 of 2, then both of .6 at once: 2 of 4
    assert area(confidence, correct, np.ones((1, 4)))[0] == pytest.approx((0 + 1 / 2 + 2 * 1 / 2) / 4)
    assert area(confidence, correct, np.array([[2.0, 0, 1, 1]]))[0] == pytest.approx(
        (2 * 0 + 1 / 3 + 1 / 4) / 4
    )
    points = risk_coverage(confidence, correct)
    assert [(p["confidence"], p["coverage"], p["risk"]) for p in points] == [
        (0.9, 0.25, 0), (0.8, 0.5, 0.5), (0.6, 1.0, 0.5),
    ]  # fmt: skip


def test_knowing_what_one_knows_makes_the_area_smaller_and_a_curve_stays_short():
    rng = np.random.default_rng(1)
    truth, scores = cases(rng, 2000)
    correct = scores.argmax(1) == truth
    own = area(certainty(scores, several=False), correct, np.ones((1, 2000)))[0]
    mixed = area(rng.permutation(scores.max(1)), correct, np.ones((1, 2000)))[0]
    best = area(correct.astype(float), correct, np.ones((1, 2000)))[0]
    assert best < own < mixed
    points = risk_coverage(scores.max(1), correct)
    assert len(points) == 200
    assert points[-1]["risk"] == pytest.approx(1 - correct.mean())
    assert certainty(np.array([[0.9, 0.3], [0.2, 0.1]]), several=True) == pytest.approx([0.7, 0.8])


def given(count, of_each=1):
    return [Outcome(str(n // of_each), 0, (1.0,), None, "x", None, 1, 0.0, 0.0, None) for n in range(count)]


def test_few_cases_have_no_interval_of_resamples_and_shares_have_wilsons():
    four = mean_of(given(4), [1.0] * 4, 100, 0, share=True)
    assert (four.value, four.low, four.high) == (1, pytest.approx(0.5101, abs=1e-4), 1)
    assert mean_of(given(4), [0.3, 0.4, 0.5, 0.6], 100, 0).reason == "no interval: 4 cases, and it takes 20"
    assert mean_of(given(40), [1.0] * 40, 100, 0, share=True).low == pytest.approx(
        0.9124, abs=1e-4
    )  # of 40, not 1 to 1
    alike = mean_of(given(40), [0.3] * 40, 100, 0)
    assert (alike.low, alike.reason) == (None, "no interval: all cases are alike")
    spread = mean_of(given(40), [0.0, 1.0] * 20, 500, 0, share=True)
    assert (spread.low, spread.high) == pytest.approx((0.35, 0.65), abs=0.06)
    assert mean_of(given(4), [1.0] * 4, 0, 0, share=True).low is None
    # two predictions a case are no independent ones
    assert mean_of(given(8, of_each=2), [1.0] * 7 + [0.0], 100, 0, share=True).low is None


def test_wilsons_interval_covers_the_share_95_times_in_100():
    rng = np.random.default_rng(2)
    for share in (0.5, 0.9, 0.97):
        spans = [wilson(n / 30, 30) for n in rng.binomial(30, share, 4000).tolist()]
        assert 0.92 <= np.mean([low <= share <= high for low, high in spans]) <= 0.98
    low, high = wilson(0.25, 20)  # by hand, z = 1.959964
    assert (low, high) == (pytest.approx(0.1119, abs=1e-4), pytest.approx(0.4687, abs=1e-4))
