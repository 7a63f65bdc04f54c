"""What a record says of itself: sufficient glimpses, prediction sets, distance, and who should look at it."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from hiresattn.card import Conformal
from hiresattn.checkpoint import Model
from hiresattn.config import InputConfig, ModelConfig
from hiresattn.datasets.cases import Case
from hiresattn.geometry import Grid
from hiresattn.inference.classify import classify, classify_all
from hiresattn.inference.engine import NetFacts, Outputs
from hiresattn.inference.options import ClassifyOptions
from hiresattn.inference.pooling import EvidenceSum, WeightedMean
from hiresattn.inference.review import search_facts
from hiresattn.inference.sufficiency import sufficiency
from hiresattn.inference.table import GlimpseTable, traversal_of
from hiresattn.model.build import build_model
from hiresattn.model.reference import Reference

OPTIONS = {"device": "cpu", "threads": 1, "budget": 6, "stop": None}


def pooled(pool, found, rows, table):
    """The pool after some glimpses."""
    for row in rows:
        pool.add(found, row, log_prior=float(table["log_prior"][row]), finest=bool(table["finest"][row]))
    return pool


def share(logits, temperature):
    chance = np.exp(logits / temperature - (logits / temperature).max())
    return chance / chance.sum()


@pytest.mark.parametrize("background", [None, 1])
@pytest.mark.parametrize("finest_only", [False, True])
def test_sufficient_glimpses_are_those_that_pooling_subsets_one_by_one_finds(background, finest_only):
    defined = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        count, temperature = 9, 1.7
        found = Outputs(
            features=np.zeros((count, 2), np.float32), cell_logits=np.zeros((count, 4), np.float32),
            value=np.zeros(count, np.float32), class_logits=rng.normal(0, 2, (count, 3)).astype(np.float32),
            weight_logits=rng.normal(0, 2, count).astype(np.float32),
        )  # fmt: skip
        table = GlimpseTable()
        table.append({
            "depth": np.zeros(count, int), "parent": np.full(count, -1), "cell": np.full(count, -1),
            "region": np.zeros((count, 4), int), "coverage": np.ones(count), "log_prob": np.zeros(count),
            "value": found.value, "cell_logits": found.cell_logits, "features": found.features,
            "class_logits": found.class_logits, "weight_logit": found.weight_logits,
            "log_prior": rng.normal(size=count), "finest": rng.random(count) < (0.6 if finest_only else 0.0),
        })  # fmt: skip

        def fresh():
            if background is None:
                return WeightedMean(pool_finest=finest_only)
            return EvidenceSum(background, 0.5, 1)

        whole = pooled(fresh(), found, range(count), table)
        weights = whole.weights(table)
        facts = NetFacts(Grid(), 64, background=background, prior_weight=0.5, pool_finest=finest_only)
        given = sufficiency(traversal_of(table, weights, whole.logits(), whole.running()), facts, temperature)
        answer = int(whole.logits().argmax())
        if answer == background:
            assert given is None
            continue
        defined += 1
        order = [row for row in np.argsort(-weights, kind="stable").tolist() if weights[row] > 0]
        kept = [
            share(pooled(fresh(), found, order[:k], table).logits(), temperature)[answer]
            for k in range(1, len(order) + 1)
        ]
        needed = next(k for k, value in enumerate(kept, 1) if value >= 0.9 * kept[-1])
        assert given.glimpses == tuple(order[:needed])
        assert given.area == pytest.approx(np.mean([min(value / kept[-1], 1) for value in kept]), abs=1e-5)
        rest = order[needed:]
        if rest:
            expected = share(pooled(fresh(), found, rest, table).logits(), temperature)[answer]
            assert given.without == pytest.approx(expected, abs=1e-5)
        else:
            assert given.without is None
    assert defined > 5


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    rule = InputConfig(bands=(0,), low=(0.0,), high=(255.0,), dtype="uint8")
    config = ModelConfig(classes=("dark", "light", "odd"), input=rule)
    return Model(build_model(config).eval(), config, "test", "abc")


def image(seed=0, side=300):
    return np.random.default_rng(seed).integers(0, 255, (side, side, 1)).astype(np.uint8)


def calibrated(model, least, **options):
    return replace(
        model, conformal=Conformal(0.1, least, 40, search_facts(ClassifyOptions(**(OPTIONS | options))))
    )


def test_a_model_that_knows_nothing_of_itself_says_nothing(model):
    found = classify(image(), model, **OPTIONS)
    assert (found.prediction_set, found.needs_review, found.out_of_domain, found.domain_distance) == (
        None,
    ) * 4
    assert set(found.sufficient) <= {region.id for region in found.regions}
    weights = [next(r.attention for r in found.regions if r.id == row) for row in found.sufficient]
    assert all(a >= b for a, b in pairwise(weights))
    assert 0 < found.sufficiency <= 1


def test_a_set_of_one_class_needs_no_review_and_others_say_why(model):
    scores = sorted(classify(image(), model, **OPTIONS).scores.values())
    for least, size, reason in (
        ((scores[1] + scores[2]) / 2, 1, ()),
        ((scores[0] + scores[1]) / 2, 2, "may be "),
        ((scores[2] + 1) / 2, 0, "no class is probable enough"),
    ):
        found = classify(image(), calibrated(model, least), **OPTIONS)
        assert len(found.prediction_set) == size
        assert found.needs_review is bool(reason)
        assert " ".join(found.review_reasons).startswith(reason or "")


def test_sets_hold_for_the_searches_that_they_were_calibrated_with(model):
    ready = calibrated(model, 0.1)
    assert classify(image(), ready, **OPTIONS).prediction_set is not None
    for other in (
        {"budget": 5}, {"stop": 0.9}, {"policy": "lowres"}, {"nms": 0.2}, {"scorer": "random"},
        {"foreground": "tissue"}, {"value_range": (0, 128)}, {"precision": "bfloat16"},
    ):  # fmt: skip
        found = classify(image(), ready, **(OPTIONS | other))
        assert (found.prediction_set, found.needs_review) == (None, None), other
    sets = ready.conformal
    before = {name: value for name, value in sets.search.items() if name != "foreground"}
    older = replace(ready, conformal=replace(sets, search=before))  # of a card that doesn't say it
    assert classify(image(), older, **OPTIONS).prediction_set is not None


def test_an_answer_less_sure_than_was_asked_for_needs_review(model):
    sure = classify(image(), model, **OPTIONS).score
    for until, reasons in (
        (sure - 0.01, ()), (0.999, ("less sure than 0.999 after all its looks",)),
    ):  # fmt: skip
        found = classify(image(), model, **OPTIONS, until_confidence=until, max_budget=8)
        assert (found.needs_review, found.review_reasons) == (bool(reasons), reasons)


def test_the_images_of_a_case_are_compared_each_by_itself(model):
    seen = Collected()
    known = [image(n, 64) for n in range(60)]
    list(classify_all(known, replace(model, reference=seen), **OPTIONS))
    ready = replace(model, reference=Reference.of(np.array(seen[:40])).with_limit(np.array(seen[40:])))
    strange = np.full((64, 64, 1), 255, np.uint8)
    alone = classify(strange, ready, **OPTIONS)
    options = OPTIONS | {"budget": 16}
    for count in (1, 3, 11):
        found = classify(Case("c", [*known[:count], strange]), ready, **options)
        assert found.domain_distance == pytest.approx(alone.domain_distance, rel=1e-4)
        assert found.out_of_domain
        assert len(found.review_reasons) == 1
        assert found.review_reasons[0].startswith("unlike the training images: ")
        away = [one.domain_distance for one in found.sources]
        assert away[-1] == found.domain_distance
        assert max(away[:-1]) <= ready.reference.limit
        assert not classify(Case("c", known[: count + 1]), ready, **options).out_of_domain


class Collected(list):
    """A reference that keeps what it is asked about."""

    limit = None

    def distance(self, features):
        self.append(features)
        return 0.0


def test_an_image_far_off_the_training_images_is_out_of_domain(model):
    seen = Collected()
    asked = replace(model, reference=seen)
    assert {
        found.out_of_domain for found in classify_all([image(n, 64) for n in range(60)], asked, **OPTIONS)
    } == {None}
    ready = replace(model, reference=Reference.of(np.array(seen[:40])).with_limit(np.array(seen[40:])))
    found = classify(image(100, 64), ready, **OPTIONS)
    assert (found.out_of_domain, found.needs_review) == (False, None)
    found = classify(np.full((64, 64, 1), 255, np.uint8), ready, **OPTIONS)
    assert (found.out_of_domain, found.needs_review) == (True, True)
    assert found.review_reasons == ("unlike the training images",)
    assert found.domain_distance > ready.reference.limit
    no_limit = replace(model, reference=Reference.of(np.array(seen[:40])))
    assert classify(image(100, 64), no_limit, **OPTIONS).out_of_domain is None
    assert classify(np.full((64, 64, 1), 255, np.uint8), no_limit, **OPTIONS).out_of_domain


def test_what_was_not_seen_or_not_classified_needs_review(model, tmp_path):
    found = list(
        classify_all(
            [tmp_path / "absent.tif", np.zeros((80, 80, 1), np.uint16)], model, on_error="record", **OPTIONS
        )
    )
    assert [record.needs_review for record in found] == [True, True]
    assert found[0].review_reasons == ("it could not be classified",)
    long = classify(image(side=200).repeat(8, 1), model, **(OPTIONS | {"budget": 2}))
    assert long.review_reasons == ("seen in part only",)
