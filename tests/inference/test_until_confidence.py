"""Searches that go on beyond their budget where they are not sure: as far as searches of larger budgets say."""

import numpy as np
import pytest
import torch

from hiresattn.checkpoint import Model
from hiresattn.config import InputConfig, ModelConfig
from hiresattn.errors import ConfigError
from hiresattn.inference.classify import classify, classify_all
from hiresattn.inference.options import ClassifyOptions
from hiresattn.inference.records_file import RecordsFile
from hiresattn.model.build import build_model

OPTIONS = {"device": "cpu", "threads": 1, "stop": None}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    rule = InputConfig(bands=(0,), low=(0.0,), high=(255.0,), dtype="uint8")
    config = ModelConfig(classes=("dark", "light", "odd"), input=rule)
    net = build_model(config).eval()
    with torch.no_grad():
        net.classifier.weight.mul_(5)
    return Model(net, config, "test", "abc")


def image(seed, height=400, width=400):
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 255, (height, width, 1)) * rng.random((height // 50, 1, 1)).repeat(50, 0)).astype(
        np.uint8
    )


def regions(record):
    return [(r.y, r.x, r.height, r.width) for r in record.regions]


def test_it_ends_where_a_search_of_that_budget_is_first_that_sure(model):
    ends = set()
    for seed in range(8):
        pixels = image(seed)
        ladder = {n: classify(pixels, model, budget=n, **OPTIONS) for n in range(3, 13)}
        scores = [one.score for one in ladder.values()]
        for until in [*np.quantile(scores, (0.0, 0.5, 0.9)).tolist(), min(max(scores) + 1e-3, 1)]:
            found = classify(pixels, model, budget=3, max_budget=12, until_confidence=until, **OPTIONS)
            sure = [n for n, one in ladder.items() if one.score >= until]
            last = min([*sure, 12])
            assert regions(found) == regions(ladder[last])
            assert found.scores == pytest.approx(ladder[last].scores, abs=1e-6)
            expected = "confidence" if last > 3 and sure else "budget"
            assert found.cost.stop_reason == expected
            ends.add((last == 3, last == 12, expected))
    assert len(ends) >= 3  # at once, underway, at the end


def test_root_regions_that_the_budget_left_out_come_first(model):
    pixels = image(0, 100, 1000)
    first = classify(pixels, model, budget=4, **OPTIONS)
    every = classify(pixels, model, budget=100, policy="lowres", **OPTIONS)
    roots = len(every.regions)
    assert roots > 6
    found = classify(pixels, model, budget=4, max_budget=roots + 2, until_confidence=1.0, **OPTIONS)
    assert regions(found)[:4] == regions(first)
    assert sorted(regions(found)[:roots]) == sorted(regions(every))
    assert [r.depth for r in found.regions[roots:]] == [1, 1]
    assert len(found.regions) == roots + 2
    assert "seen in part only" not in found.review_reasons


def test_a_stop_ends_it_before_the_budget_and_images_side_by_side_are_alike(model):
    sure = (
        float(np.median([classify(image(seed), model, budget=4, **OPTIONS).score for seed in range(5)]))
        + 1e-4
    )
    how = OPTIONS | {"stop": (1 + sure) / 2, "budget": 4, "max_budget": 9, "until_confidence": sure}
    alone = [classify(image(seed), model, **how) for seed in range(5)]
    together = list(classify_all([image(seed) for seed in range(5)], model, **how, batch_images=3))
    assert [regions(one) for one in alone] == [regions(one) for one in together]
    assert max(len(one.regions) for one in alone) > 4


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"until_confidence": 0.9}, "give both"),
        ({"max_budget": 512}, "give both"),
        ({"until_confidence": 0.97, "max_budget": 512}, "stop ends every search at 0.95"),
        ({"until_confidence": 1.5, "max_budget": 512}, "at most 1"),
        ({"until_confidence": 0.9, "max_budget": 64}, "must be more than budget, 64 glimpses"),
        ({"until_confidence": 0.9, "max_budget": "lots"}, "glimpses"),
    ],
)
def test_what_can_not_be_meant_is_refused(wrong, words):
    with pytest.raises(ConfigError, match=words):
        ClassifyOptions(**wrong)
    assert ClassifyOptions(until_confidence=0.9, max_budget="50MB").max_budget.bytes == 50_000_000


def test_a_file_of_records_knows_how_far_they_went(model, tmp_path):
    from PIL import Image

    Image.fromarray(image(0)[:, :, 0]).save(tmp_path / "a.png")
    keys = set()
    for more in (
        {},
        {"until_confidence": 0.9, "max_budget": 99},
        {"until_confidence": 0.9, "max_budget": 100},
    ):
        with RecordsFile(tmp_path / "r.jsonl", model, ClassifyOptions(**more), overwrite=True) as file:
            keys.add(file.key(tmp_path / "a.png"))
    assert len(keys) == 3
