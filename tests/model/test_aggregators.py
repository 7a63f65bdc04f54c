"""Pooling ragged bags of glimpses."""

import pytest
import torch

from hiresattn.model.aggregators import AGGREGATORS, GatedAttention, pool_evidence


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


def test_evidence_is_the_sum_of_the_likelihood_ratios_of_the_glimpses_that_count():
    logits = torch.tensor(
        [[0.0, 1.0, -1.0], [5.0, 5.0, 5.0], [2.0, 0.0, 1.0], [0.5, 0.0, 0.0], [1.0, 3.0, 0.0]]
    )
    image = torch.tensor([0, 0, 0, 1, 2])
    counts = torch.tensor([True, False, True, False, True])
    chance = torch.tensor([0.5, 1.0, 0.25, 1.0, 1.0])
    pooled, weight = pool_evidence(logits, image, counts, 3, background=2, log_prior=chance.log())
    ratio = chance[:, None] * (logits - logits[:, 2:]).exp()
    assert torch.allclose(pooled[0, :2], (ratio[0] + ratio[2]).log()[:2])
    assert torch.allclose(pooled[1, :2], ratio[3].log()[:2])  # none counts, so all do
    assert torch.allclose(pooled[2].softmax(0), logits[4].softmax(0))  # one glimpse: its own prediction
    assert (pooled[:, 2] == 0).all()
    both = ratio[0, 1] + ratio[2, 1]  # class 1 is the likelier one
    assert torch.allclose(
        weight, torch.stack([ratio[0, 1] / both, both * 0, ratio[2, 1] / both, both / both, both / both])
    )


def test_a_choice_gets_the_responsibility_for_the_label_less_that_for_the_prediction():
    logits = torch.randn((5, 3), generator=torch.Generator().manual_seed(4))
    image = torch.zeros(5, dtype=torch.long)
    chance = torch.log(torch.tensor([0.1, 0.2, 0.3, 0.1, 0.3])).requires_grad_()
    rows = torch.tensor([True, True, True, True, False])
    pooled, _ = pool_evidence(logits, image, rows, 1, background=0, log_prior=chance)
    (gradient,) = torch.autograd.grad(-torch.nn.functional.cross_entropy(pooled, torch.tensor([2])), chance)
    share = (logits[:4] - logits[:4, :1] + chance[:4, None]).softmax(0)
    predicted = pooled.softmax(1)[0]
    expected = share[:, 2] - predicted[1] * share[:, 1] - predicted[2] * share[:, 2]
    assert torch.allclose(gradient[:4], expected, atol=1e-6)
    assert gradient[4] == 0
