"""Pooling ragged bags of glimpses."""

import pytest
import torch

from hiresattn.model.aggregators import AGGREGATORS, GatedAttention


@pytest.mark.parametrize("name", sorted(AGGREGATORS))
def test_weights_sum_to_one_over_every_image(name):
    image = torch.tensor([2, 0, 0, 1, 2, 2])
    pooled, weights = AGGREGATORS[name](width=4)(torch.randn(6, 4), image, 3)
    assert pooled.shape == (3, 4)
    assert torch.allclose(torch.zeros(3).index_add(0, image, weights), torch.ones(3))


def test_attention_of_a_ragged_batch_is_that_of_each_image_alone():
    module = GatedAttention(width=4)
    features = torch.randn(5, 4)
    pooled, weights = module(features, torch.tensor([0, 1, 1, 0, 1]), 2)
    for number, rows in enumerate(([0, 3], [1, 2, 4])):
        score = module.score(
            torch.tanh(module.content(features[rows])) * module.gate(features[rows]).sigmoid()
        )[:, 0]
        expected = score.softmax(0)
        assert torch.allclose(weights[rows], expected)
        assert torch.allclose(pooled[number], expected @ features[rows], atol=1e-6)


def test_attention_survives_scores_that_overflow_an_exponential():
    module = GatedAttention(width=4)
    torch.nn.init.constant_(module.score.weight, 1e4)
    _, weights = module(torch.randn(3, 4) * 100, torch.zeros(3, dtype=torch.int64), 1)
    assert weights.isfinite().all()
