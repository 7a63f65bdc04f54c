"""Passes over labelled images, and their summaries, on arrays and a small model."""

import csv
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from hiresattn.checkpoint import Model
from hiresattn.config import InputConfig, ModelConfig
from hiresattn.datasets.example import Example
from hiresattn.errors import ConfigError, NotFoundError
from hiresattn.evaluation.outcomes import Outcome, Pass, _hit, checked, outcomes, passes
from hiresattn.evaluation.summary import summarize
from hiresattn.evaluation.tables import tables
from hiresattn.geometry import root_regions
from hiresattn.inference.classify import classify
from hiresattn.inference.cover import finest_count
from hiresattn.inference.record import CaseSource, Record, VisitedRegion
from hiresattn.model.build import build_model


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


def test_a_summary_counts_every_image_and_says_why_something_is_not_known(model, tmp_path):
    examples = [Example(image(n), ("dark", "light")[n % 2], "test", group=str(n // 2)) for n in range(4)]
    examples += [
        Example(tmp_path / "absent.tif", "dark", "test"),
        Example(np.zeros((80, 80, 1), np.uint16), "dark", "test"),
    ]
    main = passed(model, examples, Pass("best-first", "4"))
    found = summarize(main, [], model, "test", resamples=50)
    assert (found.images, found.classified, found.failed, found.empty, found.cases) == (
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
    assert odd["auroc"].reason == "no cases of this class"
    assert found.metrics["auroc"].reason == "without the classes that the split has no cases of: odd"
    assert found.metrics["accuracy"] == found.main.accuracy
    assert found.metrics["accuracy"].reason == "no interval: 2 groups, and it takes 20"
    assert found.main.hit.reason == "no boxes are known"
    with pytest.raises(NotFoundError):
        passed(model, examples, Pass("best-first", "4"), on_error="raise")


def test_tables_name_the_case_of_a_single_image_too_and_the_group_apart(model):
    pixels = image(1)
    examples = [Example(image(0), "dark", "test", case="F", group="site"), Example(pixels, "dark", "test")]
    examples += [Example(pixels, "dark", "test", (0, 0, 90, 90)), Example(pixels.copy(), "dark", "test")]
    _, found = passed(model, examples, Pass("lowres", None))
    rows = list(csv.DictReader(tables(found, model.classes)["predictions.csv"].splitlines()))
    assert [(row["case"], row["group"]) for row in rows[:2]] == [("F", "site"), ("<array>", found[1].group)]
    assert found[1].group == found[2].group != found[3].group  # of the same image, and of another


def test_a_summary_of_one_case_or_of_none_has_no_intervals_and_no_nan(model, tmp_path):
    one = [Example(image(n), "dark", "test", group="7") for n in range(2)]
    found = summarize(passed(model, one, Pass("lowres", None)), [], model, "test", resamples=10)
    assert found.metrics["accuracy"].low is None
    assert found.metrics["accuracy"].reason == "no interval: 1 group, and it takes 20"
    assert found.metrics["auroc"].reason == "all cases are of class dark"
    lost = [Example(tmp_path / "absent.tif", "dark", "test")]
    found = summarize(passed(model, lost, Pass("lowres", None)), [], model, "test")
    assert {m.value for m in found.metrics.values()} == {None}
    assert found.accuracy_of_all == 0
    assert found.main.glimpses is None


def test_a_policy_visits_as_many_regions_as_its_budget_says(model):
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


def test_exhaustive_visits_every_finest_region_and_gives_the_same_prediction_in_one_batch_or_many(
    model, monkeypatch
):
    pixels = image(3, 500, 330)
    found = classify(pixels, model, device="cpu", policy="exhaustive", threads=1)
    seen = {(r.y, r.x, r.height, r.width) for r in found.regions}
    assert seen == {tuple(region) for region in root_regions(500, 330, root_size=64).tolist()}
    covered = np.zeros((500, 330), bool)
    for y, x, h, w in seen:
        covered[y : y + h, x : x + w] = True
    assert covered.all()
    monkeypatch.setattr("hiresattn.inference.exhaustive.MOST_AT_ONCE", 7)
    again = classify(pixels, model, device="cpu", policy="exhaustive", threads=1)
    assert again.scores == pytest.approx(found.scores, abs=1e-6)
    # one region is all of it: the prediction is that of the root regions
    small = image(4, 64, 64)
    whole, lowres = (
        classify(small, model, device="cpu", policy=p, threads=1) for p in ("exhaustive", "lowres")
    )
    assert whole.scores == pytest.approx(lowres.scores)


def test_exhaustive_refuses_an_image_of_too_many_regions(model, monkeypatch):
    monkeypatch.setattr("hiresattn.inference.exhaustive.MOST_FINEST", 20)
    monkeypatch.setattr("hiresattn.evaluation.outcomes.MOST_FINEST", 20)
    with pytest.raises(ConfigError, match=r"25 regions of 64 px .* at most 20"):
        classify(image(), model, device="cpu", policy="exhaustive")
    planned, left_out = passes([Example(image(), "dark", "test")], model, [2])
    assert [run.policy for run in planned] == ["best-first", "random", "lowres"]
    assert "25 finest regions" in left_out["exhaustive"]
    planned, _ = passes([Example(image(), "dark", "test")], model, [2], ["best-first"])
    assert [run.policy for run in planned] == ["best-first"]


@pytest.mark.parametrize("height", [1, 63, 64, 65, 128, 200, 1001])
@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5])
def test_regions_are_counted_as_they_are_laid_out(height, overlap):
    for width in (1, 64, 90, 129, 640):
        laid = root_regions(height, width, root_size=64, overlap=overlap)
        assert finest_count(height, width, 64, overlap) == len(laid)
    assert finest_count(10**9, 10**9, 64) > 10**14


def visited(*regions):
    rows = tuple(VisitedRegion(i, None, 0, *region, 0.0, 0.0) for i, region in enumerate(regions))
    return Record("x", "ok", regions=rows, sources=(CaseSource("x"),))


def test_a_hit_is_the_centre_of_a_box_in_a_finest_region(model):
    example = Example("x", boxes=((100, 200, 10, 30),))  # centre: row 105, column 215
    for region, hit in {
        (64, 192, 64, 64): True,
        (105, 215, 64, 64): True,
        (41, 192, 64, 64): False,  # ends above row 105
        (64, 151, 64, 64): False,  # ends left of column 215
        (0, 0, 512, 512): False,  # not the finest
        (64, 192, 95, 95): True,  # not divided further
    }.items():
        assert _hit([example], visited((0, 0, 1000, 1000), region), model) is hit, region
    assert _hit([Example("x")], visited(), model) is None
    assert _hit([Example("x", boxes=())], visited(), model) is None
    assert _hit([example], visited(), model) is False
    hollow = replace(model, config=replace(model.config, background="none", classes=("none", "ship")))
    for kind, hit in (("none", None), ("ship", True)):
        assert _hit([replace(example, box_labels=(kind,))], visited((64, 192, 64, 64)), hollow) is hit


def test_a_calibrated_model_predicts_with_its_temperature_and_stops_by_it(model):
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


@pytest.fixture(scope="module")
def several():
    torch.manual_seed(0)
    rule = InputConfig(bands=(0,), low=(0.0,), high=(255.0,), dtype="uint8")
    config = ModelConfig(classes=("a", "b", "c"), input=rule, multi_label=True)
    return Model(build_model(config).eval(), config, "several", "abc")


def test_a_summary_of_labels_counts_them_and_says_which_can_not_be_ranked(several, tmp_path):
    labels = [("a",), ("a", "b"), ("a",), ("b", "a")]
    examples = [Example(image(n), label, "test", group=str(n)) for n, label in enumerate(labels)]
    examples.append(Example(tmp_path / "absent.tif", (), "test"))
    found = summarize(
        passed(several, checked(examples, several, "test"), Pass("best-first", "3")), [], several, "test"
    )
    assert (found.multi_label, found.classified, found.failed, found.confusion) == (True, 4, 1, ())
    assert {name: facts["images"] for name, facts in found.per_class.items()} == {"a": 4, "b": 2, "c": 0}
    assert found.per_class["a"]["auroc"].reason == "no cases without it"
    assert found.per_class["c"]["recall"].reason == "no cases of this class"
    assert found.per_class["c"]["brier"].value is not None
    assert (
        found.metrics["auroc"].reason == "without the labels that all cases of the split or none have: a, c"
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
        "aurc",
    }


def test_labels_that_a_model_does_not_know_or_can_not_predict_are_refused(several, model):
    with pytest.raises(ConfigError, match="label 'd' is none of the model's classes"):
        checked([Example("x.tif", ("a", "d"), "test")], several, "test")
    with pytest.raises(
        ConfigError, match=r"several labels \(dark, light\), and model 'test' answers with one"
    ):
        checked([Example("x.tif", ("dark", "light"), "test")], model, "test")
    with pytest.raises(ConfigError, match="no label"):
        checked([Example("x.tif", None, "test")], several, "test")


def test_a_search_for_several_labels_ends_when_the_least_certain_label_is_certain(several):
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
