"""Metrics against enumeration, figures done by hand, and scikit-learn."""

from itertools import product

import numpy as np
import pytest

from hiresattn.errors import ConfigError
from hiresattn.evaluation import metrics


def predictions(count=60, classes=4, seed=0):
    """Labels, and probabilities that know something of them."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, count)
    logits = rng.normal(size=(count, classes)) + 1.2 * np.eye(classes)[truth]
    scores = np.exp(logits)
    return truth, scores / scores.sum(1, keepdims=True)


def plain(truth, scores):
    return {
        name: found[0] for name, found in metrics.measure(truth, scores, np.ones((1, len(truth)))).items()
    }


def test_auroc_is_the_share_of_pairs_in_the_right_order_where_ties_count_half():
    truth, scores = predictions()
    scores = np.round(scores, 1)
    found = plain(truth, scores)["class_auroc"]
    for c in range(4):
        mine, rest = scores[truth == c, c], scores[truth != c, c]
        pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in product(mine, rest)]
        assert any(a == b for a, b in product(mine, rest))
        assert found[c] == pytest.approx(np.mean(pairs))


def test_average_precision_of_a_list_done_by_hand():
    # ranks of the right ones: 1, 3 and a tie of ranks 4 and 5; precision 1/1, 2/3, 3/5
    truth = np.array([1, 0, 1, 1, 0])
    score = np.array([0.9, 0.8, 0.7, 0.4, 0.4])
    found = plain(truth, np.stack([1 - score, score], axis=1))
    assert found["class_auprc"][1] == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)


def test_calibration_error_brier_and_likelihood_done_by_hand():
    # bins of 1/15: .62 and .65 lie in [9/15, 10/15), .98 in [14/15, 1]
    truth = np.array([0, 1, 0])
    scores = np.array([[0.62, 0.38], [0.65, 0.35], [0.98, 0.02]])
    found = plain(truth, scores)
    assert found["ece"] == pytest.approx((abs(1 - 0.62 - 0.65) + abs(1 - 0.98)) / 3)
    assert found["brier"] == pytest.approx((2 * 0.38**2 + 2 * 0.65**2 + 2 * 0.02**2) / 3)
    assert found["nll"] == pytest.approx(-np.log([0.62, 0.35, 0.98]).mean())
    bins = metrics.reliability(truth, scores)
    assert [(b["images"], round(b["low"] * 15)) for b in bins] == [(2, 9), (1, 14)]
    assert bins[0]["confidence"] == pytest.approx(0.635)
    assert bins[0]["accuracy"] == 0.5


def test_shares_of_a_confusion_matrix_done_by_hand():
    # rows are labels:   a: 3 right, 1 called b;   b: 1 right, 1 called a;   c: 2 called a
    truth = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    said = np.array([0, 0, 0, 1, 1, 0, 0, 0])
    scores = 0.8 * np.eye(3)[said] + 0.2 / 3
    found = plain(truth, scores)
    assert metrics.confusion(truth, scores).tolist() == [[3, 1, 0], [1, 1, 0], [2, 0, 0]]
    assert found["accuracy"] == 4 / 8
    assert found["balanced_accuracy"] == pytest.approx((3 / 4 + 1 / 2 + 0) / 3)
    assert found["macro_f1"] == pytest.approx((2 * 3 / (4 + 6) + 2 * 1 / (2 + 2) + 0) / 3)
    assert found["precision"][:2] == pytest.approx([3 / 6, 1 / 2])
    assert np.isnan(found["precision"][2])


def test_top_k_counts_the_five_best_and_ties_go_to_the_first_class_as_the_prediction_does():
    scores = np.full((2, 7), 1 / 7)
    assert plain(np.array([4, 5]), scores)["top_k"] == 0.5
    assert plain(np.array([0, 1]), scores)["accuracy"] == 0.5
    assert plain(np.array([0, 1]), np.array([[0.1, 0.9], [0.8, 0.2]]))["top_k"] == 1


def test_a_weight_of_two_is_the_prediction_twice_and_of_none_is_none():
    truth, scores = predictions(30)
    weights = np.random.default_rng(1).integers(0, 3, (1, 30))
    again = np.repeat(np.arange(30), weights[0])
    twice = plain(truth[again], scores[again])
    for name, found in metrics.measure(truth, scores, weights.astype(float)).items():
        np.testing.assert_allclose(found[0], twice[name], err_msg=name)


def test_metrics_agree_with_scikit_learns():
    reference = pytest.importorskip("sklearn.metrics")
    truth, scores = predictions(200, 5)
    found, said = plain(truth, scores), scores.argmax(1)
    assert found["macro_f1"] == pytest.approx(reference.f1_score(truth, said, average="macro"))
    assert found["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(truth, said))
    assert found["auroc"] == pytest.approx(reference.roc_auc_score(truth, scores, multi_class="ovr"))
    shown = np.eye(5)[truth]
    assert found["auprc"] == pytest.approx(reference.average_precision_score(shown, scores, average="macro"))
    assert found["nll"] == pytest.approx(reference.log_loss(truth, scores))


def test_an_absent_class_leaves_the_others_means():
    truth, scores = predictions(classes=3)
    kept = truth != 2
    found = plain(truth[kept], scores[kept])
    assert np.isnan([found["recall"][2], found["class_auroc"][2], found["class_auprc"][2]]).all()
    for macro, each in (("balanced_accuracy", "recall"), ("auroc", "class_auroc"), ("auprc", "class_auprc")):
        assert found[macro] == pytest.approx(found[each][:2].mean())


def test_resampled_cases_have_the_distribution_of_all_draws_enumerated():
    groups = np.array([0, 0, 1, 2, 2, 2])  # three cases, drawn whole
    right = np.array([1, 0, 1, 0, 0, 1.0])
    sizes, hits = np.array([2, 1, 3]), np.array([1, 1, 1])
    draws = [(hits[list(d)].sum() / sizes[list(d)].sum()) for d in product(range(3), repeat=3)]
    weights = np.concatenate(list(metrics.resampled(groups, 20_000, 0)))
    assert ((weights[:, 0] == weights[:, 1]) & (weights[:, 3] == weights[:, 5])).all()
    assert (weights[:, [0, 2, 3]].sum(1) == 3).all()
    values = weights @ right / weights.sum(1)
    for value in set(draws):
        share = np.isclose(values, value).mean()
        assert share == pytest.approx(np.isclose(draws, value).mean(), abs=0.02)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    holds = []
    for trial in range(200):  # cases of two images that share their fate
        right = np.repeat(rng.random(60) < 0.7, 2).astype(float)
        groups = np.repeat(np.arange(60), 2)
        values = [w @ right / w.sum(1) for w in metrics.resampled(groups, 200, trial)]
        low, high = metrics.interval(np.concatenate(values))
        holds.append(low <= 0.7 <= high)
    assert 0.89 <= np.mean(holds) <= 0.99


def test_images_of_a_case_are_not_independent():
    truth, scores = predictions(20)
    spans = []
    for cases in (np.arange(200), np.repeat(np.arange(20), 10)):
        t, s = np.repeat(truth, 10), np.repeat(scores, 10, axis=0)
        weights = next(metrics.resampled(cases, 300, 0))
        low, high = metrics.interval(metrics.measure(t, s, weights)["accuracy"])
        spans.append(high - low)
    assert spans[1] > 2 * spans[0]


def test_the_temperature_that_made_the_predictions_overconfident_is_found():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3)) * 2
    honest = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = (honest.cumsum(1) > rng.random((20_000, 1))).argmax(1)
    sure = honest**3 / (honest**3).sum(1, keepdims=True)
    temperature = metrics.fit_temperature(truth, sure)
    assert temperature == pytest.approx(3, rel=0.05)

    def nll(t):
        scores = sure ** (1 / t)
        return plain(truth, scores / scores.sum(1, keepdims=True))["nll"]

    assert nll(temperature) < min(nll(temperature * 1.05), nll(temperature / 1.05))


def test_a_temperature_that_has_no_best_is_an_error():
    right = np.array([[0.9, 0.1], [0.2, 0.8]])
    with pytest.raises(ConfigError, match="all 2 predictions are correct"):
        metrics.fit_temperature(np.array([0, 1]), right)
    with pytest.raises(ConfigError, match="no better than chance"):
        metrics.fit_temperature(np.array([1, 0]), right)


def labelled(count=80, labels=4, seed=0):
    """Which labels are there, and probabilities that know something of them."""
    rng = np.random.default_rng(seed)
    truth = rng.random((count, labels)) < 0.3
    logits = rng.normal(size=(count, labels)) + 2.0 * truth - 1
    return truth, 1 / (1 + np.exp(-logits))


def test_metrics_of_several_labels_agree_with_scikit_learns():
    reference = pytest.importorskip("sklearn.metrics")
    truth, scores = labelled()
    found, said = plain(truth, scores), scores >= 0.5
    assert found["exact_match"] == pytest.approx(reference.accuracy_score(truth, said))
    assert 0 < found["exact_match"] < 1
    for kind in ("micro", "macro"):
        assert found[f"{kind}_f1"] == pytest.approx(reference.f1_score(truth, said, average=kind))
    assert found["auroc"] == pytest.approx(reference.roc_auc_score(truth, scores, average="macro"))
    assert found["auprc"] == pytest.approx(reference.average_precision_score(truth, scores, average="macro"))
    for c in range(4):
        assert found["class_auroc"][c] == pytest.approx(reference.roc_auc_score(truth[:, c], scores[:, c]))
        assert found["precision"][c] == pytest.approx(reference.precision_score(truth[:, c], said[:, c]))
        assert found["recall"][c] == pytest.approx(reference.recall_score(truth[:, c], said[:, c]))
        assert found["class_brier"][c] == pytest.approx(reference.brier_score_loss(truth[:, c], scores[:, c]))
    losses = [reference.log_loss(truth[:, c], scores[:, c]) for c in range(4)]
    assert found["nll"] == pytest.approx(np.mean(losses))


def test_calibration_error_of_labels_done_by_hand():
    # bins of 1/15: .01 and .05 lie in the first, .62 in the tenth, .98 in the last
    truth = np.array([[False], [True], [True], [True]])
    scores = np.array([[0.01], [0.05], [0.62], [0.98]])
    found = plain(truth, scores)
    by_hand = (abs(0 - 0.01 + 1 - 0.05) + (1 - 0.62) + (1 - 0.98)) / 4
    assert found["class_ece"][0] == found["ece"] == pytest.approx(by_hand)
    bins = metrics.reliability(truth, scores)
    assert [(b["images"], b["accuracy"]) for b in bins] == [(2, 0.5), (1, 1.0), (1, 1.0)]
    assert bins[0]["confidence"] == pytest.approx(0.03)


def test_a_weight_of_two_is_the_prediction_twice_for_labels_too():
    truth, scores = labelled(40)
    weights = np.random.default_rng(1).integers(0, 3, (1, 40))
    again = np.repeat(np.arange(40), weights[0])
    twice = plain(truth[again], scores[again])
    for name, found in metrics.measure(truth, scores, weights.astype(float)).items():
        np.testing.assert_allclose(found[0], twice[name], err_msg=name)


def test_the_temperature_that_made_labels_overconfident_is_found():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3)) * 2
    truth = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
    assert metrics.fit_temperature(truth, 1 / (1 + np.exp(-3 * logits))) == pytest.approx(3, rel=0.05)
    with pytest.raises(ConfigError, match="all 2 predictions are correct"):
        metrics.fit_temperature(np.array([[True], [False]]), np.array([[0.9], [0.2]]))
    with pytest.raises(ConfigError, match="no better than chance"):
        metrics.fit_temperature(np.array([[True], [False]]), np.array([[0.1], [0.8]]))
