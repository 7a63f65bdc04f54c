"""Metrics against enumeration and hand figures; evaluation end to end on arrays and a small model."""

from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
import torch

from hiresattn.checkpoint import Model
from hiresattn.config import InputConfig, ModelConfig
from hiresattn.datasets.example import Example
from hiresattn.errors import ConfigError, NotFoundError
from hiresattn.evaluation import metrics
from hiresattn.evaluation.outcomes import Outcome, Pass, _hit, checked, outcomes, passes
from hiresattn.evaluation.summary import summarize
from hiresattn.geometry import root_regions
from hiresattn.inference.classify import classify
from hiresattn.inference.cover import place_count
from hiresattn.inference.record import Record, VisitedRegion
from hiresattn.model.build import build_model


def answers(count=60, classes=4, seed=0):
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
    truth, scores = answers()
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


def test_top_k_counts_the_five_best_and_ties_go_to_the_first_class_as_the_answer_does():
    scores = np.full((2, 7), 1 / 7)
    assert plain(np.array([4, 5]), scores)["top_k"] == 0.5
    assert plain(np.array([0, 1]), scores)["accuracy"] == 0.5
    assert plain(np.array([0, 1]), np.array([[0.1, 0.9], [0.8, 0.2]]))["top_k"] == 1


def test_a_weight_of_two_is_the_answer_twice_and_of_none_is_none():
    truth, scores = answers(30)
    weights = np.random.default_rng(1).integers(0, 3, (1, 30))
    again = np.repeat(np.arange(30), weights[0])
    twice = plain(truth[again], scores[again])
    for name, found in metrics.measure(truth, scores, weights.astype(float)).items():
        np.testing.assert_allclose(found[0], twice[name], err_msg=name)


def test_metrics_agree_with_scikit_learns():
    reference = pytest.importorskip("sklearn.metrics")
    truth, scores = answers(200, 5)
    found, said = plain(truth, scores), scores.argmax(1)
    assert found["macro_f1"] == pytest.approx(reference.f1_score(truth, said, average="macro"))
    assert found["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(truth, said))
    assert found["auroc"] == pytest.approx(reference.roc_auc_score(truth, scores, multi_class="ovr"))
    shown = np.eye(5)[truth]
    assert found["auprc"] == pytest.approx(reference.average_precision_score(shown, scores, average="macro"))
    assert found["nll"] == pytest.approx(reference.log_loss(truth, scores))


def test_an_absent_class_leaves_the_others_means():
    truth, scores = answers(classes=3)
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
    truth, scores = answers(20)
    spans = []
    for cases in (np.arange(200), np.repeat(np.arange(20), 10)):
        t, s = np.repeat(truth, 10), np.repeat(scores, 10, axis=0)
        weights = next(metrics.resampled(cases, 300, 0))
        low, high = metrics.interval(metrics.measure(t, s, weights)["accuracy"])
        spans.append(high - low)
    assert spans[1] > 2 * spans[0]


def test_the_temperature_that_made_the_answers_too_sure_is_found():
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


# --- from images to the report


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    rule = InputConfig(bands=(0,), low=(0.0,), high=(255.0,), dtype="uint8")
    config = ModelConfig(classes=("dark", "light", "odd"), input=rule)
    return Model(build_model(config).eval(), config, "test", "abc")


def image(seed=0, height=300, width=300):
    return np.random.default_rng(seed).integers(0, 255, (height, width, 1)).astype(np.uint8)


def passed(model, examples, run, **settings):
    return run, [found for found, _ in outcomes(examples, model, run, device="cpu", threads=1, **settings)]


def test_a_report_counts_every_image_and_says_why_something_is_not_known(model, tmp_path):
    examples = [Example(image(n), ("dark", "light")[n % 2], "test", group=str(n // 2)) for n in range(4)]
    examples += [
        Example(tmp_path / "absent.tif", "dark", "test"),
        Example(np.zeros((80, 80, 1), np.uint16), "dark", "test"),
    ]
    main = passed(model, examples, Pass("best-first", "4"))
    found = summarize(main, [], model, "test", resamples=50)
    assert (found.images, found.classified, found.failed, found.no_valid_pixels, found.cases) == (
        6,
        4,
        2,
        0,
        2,
    )
    assert "absent.tif" in found.failures[0]["error"]
    assert found.accuracy_of_all == pytest.approx(found.metrics["accuracy"].value * 4 / 6)
    assert np.array(found.confusion).sum() == 4
    odd = found.per_class["odd"]
    assert (odd["images"], odd["auroc"].value) == (0, None)
    assert odd["auroc"].reason == "no images of this class"
    assert found.metrics["auroc"].reason == "without the classes that the split has no images of: odd"
    assert found.metrics["accuracy"].low <= found.metrics["accuracy"].value <= found.metrics["accuracy"].high
    assert found.main.hit.reason == "no boxes are known"
    with pytest.raises(NotFoundError):
        passed(model, examples, Pass("best-first", "4"), on_error="raise")


def test_a_report_of_one_case_or_of_none_has_no_intervals_and_no_nan(model, tmp_path):
    one = [Example(image(n), "dark", "test", group="7") for n in range(2)]
    found = summarize(passed(model, one, Pass("lowres", None)), [], model, "test", resamples=10)
    assert found.metrics["accuracy"].low is None
    assert "one case" in found.metrics["accuracy"].reason
    assert found.metrics["auroc"].reason == "all images are of class dark"
    lost = [Example(tmp_path / "absent.tif", "dark", "test")]
    found = summarize(passed(model, lost, Pass("lowres", None)), [], model, "test")
    assert {m.value for m in found.metrics.values()} == {None}
    assert found.accuracy_of_all == 0
    assert found.main.glimpses is None


def test_a_policy_looks_as_often_as_its_budget_says(model):
    examples = [Example(image(n, 400, 400), "dark", "test") for n in range(2)]
    planned, left_out = passes(examples, model, [3, 9])
    assert [(run.policy, run.budget) for run in planned] == [
        ("best-first", "3"),
        ("best-first", "9"),
        ("random", "3"),
        ("random", "9"),
        ("lowres", None),
        ("exhaustive", None),
    ]
    assert left_out == {}
    glimpses = [summarize(passed(model, examples, run), [], model, "test").main.glimpses for run in planned]
    assert glimpses == [3, 9, 3, 9, 1, 7 * 7]
    with pytest.raises(ConfigError, match=r"unknown policy 'randon'; did you mean 'random'"):
        passes(examples, model, [3], ["randon"])


def test_exhaustive_looks_at_every_place_and_gives_the_same_answer_in_one_batch_or_many(model, monkeypatch):
    pixels = image(3, 500, 330)
    found = classify(pixels, model, device="cpu", policy="exhaustive", threads=1)
    seen = {(r.y, r.x, r.height, r.width) for r in found.regions}
    assert seen == {tuple(place) for place in root_regions(500, 330, root_size=64).tolist()}
    covered = np.zeros((500, 330), bool)
    for y, x, h, w in seen:
        covered[y : y + h, x : x + w] = True
    assert covered.all()
    monkeypatch.setattr("hiresattn.inference.exhaustive.MOST_AT_ONCE", 7)
    again = classify(pixels, model, device="cpu", policy="exhaustive", threads=1)
    assert again.scores == pytest.approx(found.scores, abs=1e-6)
    # one place is one look: the answer is that of the first glance
    small = image(4, 64, 64)
    whole, glance = (
        classify(small, model, device="cpu", policy=p, threads=1) for p in ("exhaustive", "lowres")
    )
    assert whole.scores == pytest.approx(glance.scores)


def test_exhaustive_refuses_an_image_of_too_many_places(model, monkeypatch):
    monkeypatch.setattr("hiresattn.inference.exhaustive.MOST_PLACES", 20)
    monkeypatch.setattr("hiresattn.evaluation.outcomes.MOST_PLACES", 20)
    with pytest.raises(ConfigError, match=r"25 regions of 64 px .* at most 20"):
        classify(image(), model, device="cpu", policy="exhaustive")
    planned, left_out = passes([Example(image(), "dark", "test")], model, [2])
    assert [run.policy for run in planned] == ["best-first", "random", "lowres"]
    assert "25 finest regions" in left_out["exhaustive"]
    planned, _ = passes([Example(image(), "dark", "test")], model, [2], ["best-first"])
    assert [run.policy for run in planned] == ["best-first"]


@pytest.mark.parametrize("height", [1, 63, 64, 65, 128, 200, 1001])
@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5])
def test_places_are_counted_as_they_are_laid_out(height, overlap):
    for width in (1, 64, 90, 129, 640):
        laid = root_regions(height, width, root_size=64, overlap=overlap)
        assert place_count(height, width, 64, overlap) == len(laid)
    assert place_count(10**9, 10**9, 64) > 10**14


def visited(*regions):
    rows = tuple(VisitedRegion(i, None, 0, *region, 0.0, 0.0) for i, region in enumerate(regions))
    return Record("x", "ok", regions=rows)


def test_a_hit_is_the_centre_of_a_box_in_a_look_at_the_finest_scale(model):
    example = Example("x", boxes=((100, 200, 10, 30),))  # centre: row 105, column 215
    for region, hit in {
        (64, 192, 64, 64): True,
        (105, 215, 64, 64): True,
        (41, 192, 64, 64): False,  # ends above row 105
        (64, 151, 64, 64): False,  # ends left of column 215
        (0, 0, 512, 512): False,  # not the finest
        (64, 192, 95, 95): True,  # not divided further
    }.items():
        assert _hit(example, visited((0, 0, 1000, 1000), region), model) is hit, region
    assert _hit(Example("x"), visited(), model) is None
    assert _hit(Example("x", boxes=()), visited(), model) is None
    assert _hit(example, visited(), model) is False
    hollow = replace(model, config=replace(model.config, background="none", classes=("none", "ship")))
    for kind, hit in (("none", None), ("ship", True)):
        assert _hit(replace(example, box_labels=(kind,)), visited((64, 192, 64, 64)), hollow) is hit


def test_a_calibrated_model_answers_with_its_temperature_and_stops_by_it(model):
    warm = replace(model, temperature=4.0)
    cold_found, warm_found = (
        classify(image(), m, device="cpu", policy="lowres", threads=1) for m in (model, warm)
    )
    logits = np.log([list(found.scores.values()) for found in (cold_found, warm_found)])
    differences = [[row[a] - row[b] for a, b in combinations(range(3), 2)] for row in logits]
    assert differences[1] == pytest.approx(np.array(differences[0]) / 4, abs=1e-5)
    options = {"device": "cpu", "budget": 9, "threads": 1, "stop": (cold_found.score + warm_found.score) / 2}
    early, late = (classify(image(0, 700, 700), m, **options) for m in (model, warm))
    assert late.cost.glimpses > early.cost.glimpses or late.cost.stop_reason == early.cost.stop_reason


def test_rows_that_can_not_be_evaluated_are_refused_before_anything_is_read(model):
    rows = [Example("a", "dark", "test"), Example("b", "ligth", "test"), Example("c", None, "val")]
    with pytest.raises(ConfigError, match=r"'ligth' is none of .* did you mean 'light'"):
        checked(rows, model, "test")
    with pytest.raises(ConfigError, match="c: no label"):
        checked(rows, model, "val")
    with pytest.raises(ConfigError, match="no rows of split 'train'; there is test, val"):
        checked(rows, model, "train")
    assert [e.source for e in checked(rows[:1], model, "test")] == ["a"]


def test_a_pass_keeps_what_the_metrics_need(model):
    ((found, prediction),) = outcomes([Example(image(), "light", "test")], model, Pass("lowres", None))
    assert isinstance(found, Outcome)
    assert found.truth == 1
    assert found.scores == tuple(prediction.scores.values())


# --- several labels per image


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


def test_a_weight_of_two_is_the_answer_twice_for_labels_too():
    truth, scores = labelled(40)
    weights = np.random.default_rng(1).integers(0, 3, (1, 40))
    again = np.repeat(np.arange(40), weights[0])
    twice = plain(truth[again], scores[again])
    for name, found in metrics.measure(truth, scores, weights.astype(float)).items():
        np.testing.assert_allclose(found[0], twice[name], err_msg=name)


def test_the_temperature_that_made_labels_too_sure_is_found():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3)) * 2
    truth = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
    assert metrics.fit_temperature(truth, 1 / (1 + np.exp(-3 * logits))) == pytest.approx(3, rel=0.05)
    with pytest.raises(ConfigError, match="all 2 predictions are correct"):
        metrics.fit_temperature(np.array([[True], [False]]), np.array([[0.9], [0.2]]))
    with pytest.raises(ConfigError, match="no better than chance"):
        metrics.fit_temperature(np.array([[True], [False]]), np.array([[0.1], [0.8]]))


@pytest.fixture(scope="module")
def several():
    torch.manual_seed(0)
    rule = InputConfig(bands=(0,), low=(0.0,), high=(255.0,), dtype="uint8")
    config = ModelConfig(classes=("a", "b", "c"), input=rule, multi_label=True)
    return Model(build_model(config).eval(), config, "several", "abc")


def test_a_report_of_labels_counts_them_and_says_which_can_not_be_ranked(several, tmp_path):
    labels = [("a",), ("a", "b"), ("a",), ("b", "a")]
    examples = [Example(image(n), label, "test", group=str(n)) for n, label in enumerate(labels)]
    examples.append(Example(tmp_path / "absent.tif", (), "test"))
    found = summarize(
        passed(several, checked(examples, several, "test"), Pass("best-first", "3")), [], several, "test"
    )
    assert (found.multi_label, found.classified, found.failed, found.confusion) == (True, 4, 1, ())
    assert {name: facts["images"] for name, facts in found.per_class.items()} == {"a": 4, "b": 2, "c": 0}
    assert found.per_class["a"]["auroc"].reason == "no images without it"
    assert found.per_class["c"]["recall"].reason == "no images of this class"
    assert found.per_class["c"]["brier"].value is not None
    assert (
        found.metrics["auroc"].reason == "without the labels that all images of the split or none have: a, c"
    )
    assert found.main.accuracy.value == found.metrics["exact_match"].value
    assert set(found.metrics) == {
        "exact_match",
        "micro_f1",
        "macro_f1",
        "auroc",
        "auprc",
        "ece",
        "brier",
        "nll",
    }


def test_labels_that_a_model_does_not_know_or_can_not_answer_are_refused(several, model):
    with pytest.raises(ConfigError, match="label 'd' is none of the model's classes"):
        checked([Example("x.tif", ("a", "d"), "test")], several, "test")
    with pytest.raises(
        ConfigError, match=r"several labels \(dark, light\), and model 'test' answers with one"
    ):
        checked([Example("x.tif", ("dark", "light"), "test")], model, "test")
    with pytest.raises(ConfigError, match="no label"):
        checked([Example("x.tif", None, "test")], several, "test")


def test_a_search_for_several_labels_ends_when_the_least_sure_is_sure(several):
    logits = torch.tensor([[3.0, -4.0, 0.5]])
    for confidence, reason in ((0.6, "confidence"), (0.63, "budget")):  # sigmoid(.5) = .622
        with torch.no_grad():
            several.net.classifier.weight.zero_()
            several.net.classifier.bias.copy_(logits[0])
        found = classify(image(), several, device="cpu", budget=3, stop=confidence, threads=1)
        assert found.cost.stop_reason == reason
    assert found.labels == ("a", "c")
    assert (found.class_name, found.score) == (None, None)
    assert found.scores == pytest.approx({"a": 0.9526, "b": 0.0180, "c": 0.6225}, abs=1e-4)
    assert found.to_json()["labels"] == ("a", "c")
