"""What a search tells of its way: the probabilities after each look, and how far it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hiresattn.checkpoint import Model
from hiresattn.config import InputConfig, ModelConfig
from hiresattn.datasets.cases import Case
from hiresattn.inference.classify import classify, classify_all
from hiresattn.inference.record import MOST_FOLLOWED
from hiresattn.model.build import build_model

CLASSES = ("a", "b", "c")
ONE = {"device": "cpu", "stop": None, "threads": 1}


def model(classes=CLASSES, **changes):
    torch.manual_seed(3)
    rule = InputConfig(size=32, bands=(0,), low=(0.0,), high=(255.0,), dtype="uint8")
    config = ModelConfig(classes=classes, input=rule, **changes)
    net = build_model(config).eval()
    with torch.no_grad():
        net.classifier.weight.mul_(8)
    return Model(net, config, "test", "abc", temperature=1.5)


def image(seed=0, side=300):
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 255, (side, side, 1)) * rng.random((side // 50, 1, 1)).repeat(50, 0)).astype(
        np.uint8
    )


@pytest.mark.parametrize(
    "changes",
    [{}, {"background": "c"}, {"multi_label": True}, {"pool_finest": True, "coarse_encoder": True},
     {"scorer": "saol", "head": "scorer"}],
)  # fmt: skip
def test_they_are_the_scores_of_a_search_of_that_budget(changes):
    net = model(**changes)
    found = classify(image(), net, budget=12, **ONE)
    assert list(found.scores_after)[:1] == (
        [found.class_name] if found.class_name else list(found.labels[:1])
    )
    assert set(found.scores_after) == set(CLASSES)
    moved = 0.0
    for count in (1, 4, 8, 12):
        shorter = classify(image(), net, budget=count, **ONE)
        assert [one.id for one in shorter.regions] == list(range(count))
        for name, shares in found.scores_after.items():
            assert shares[count - 1] == pytest.approx(shorter.scores[name], abs=6e-5)
            moved = max(moved, abs(shares[count - 1] - shares[-1]))
    assert moved > 0.01


@pytest.mark.parametrize("policy", ["top-k", "lowres", "random", "exhaustive"])
def test_every_policy_gives_one_per_region_and_ends_with_the_answer(policy):
    found = classify(image(), model(), budget=9, policy=policy, **ONE)
    for name, shares in found.scores_after.items():
        assert len(shares) == len(found.regions)
        assert shares[-1] == pytest.approx(found.scores[name], abs=6e-5)


def test_of_many_classes_the_answer_and_the_likeliest_are_kept():
    names = tuple(f"c{number}" for number in range(12))
    found = classify(image(), model(names), budget=9, **ONE)
    kept = list(found.scores_after)
    assert len(kept) == MOST_FOLLOWED
    assert kept[0] == found.class_name
    left_out = [found.scores[name] for name in names if name not in kept]
    assert max(left_out) <= min(max(found.scores_after[name]) for name in kept) + 6e-5


def test_each_image_of_a_case_has_those_after_its_own_regions():
    found = classify(Case("P1", [image(0), image(1)]), model(), budget=14, **ONE)
    for number, part in enumerate(found.by_source()):
        own = [region.id for region in found.regions if region.source == number]
        assert own
        for name, shares in found.scores_after.items():
            assert part.scores_after[name] == tuple(shares[at] for at in own)


def test_an_image_of_nodata_has_none():
    found = classify(np.zeros((100, 100, 1), np.uint8), model(), **ONE, nodata=0)
    assert (found.status, found.scores_after) == ("no_valid_pixels", {})


@pytest.mark.parametrize("policy", ["best-first", "exhaustive"])
def test_who_asks_is_told_how_far_each_search_is(monkeypatch, policy):
    monkeypatch.setattr("hiresattn.inference.progress._PAUSE", 0.0)
    told = []
    pixels = [image(0, 800), image(1, 800)]
    how = ONE | {"budget": 12, "policy": policy, "batch_images": 1}
    records = list(classify_all(pixels, model(), progress=told.append, **how))
    for number, one in enumerate(records):
        own = told[: len(told) // 2] if number == 0 else told[len(told) // 2 :]
        assert len(own) > 1
        assert own[-1].looks == one.cost.glimpses
        assert [step.looks for step in own] == sorted(step.looks for step in own)
        assert own[-1].budget == (12 if policy == "best-first" else None)
        assert own[-1].fraction_read == pytest.approx(one.cost.fraction_read)
    assert records == [
        replace(one, cost=records[at].cost) for at, one in enumerate(classify_all(pixels, model(), **how))
    ]
