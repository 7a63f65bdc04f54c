"""The scorer alone learns where to look: the first look can't see the class, only where it would pay to look."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from hiresattn.geometry import Grid
from hiresattn.model.aggregators import MeanPooling
from hiresattn.model.encoders import Encoded
from hiresattn.model.net import GlimpseNet, Parts
from hiresattn.model.scorers import LocationScorer
from hiresattn.model.select import GumbelTopK, TopK
from hiresattn.reading.fetch import Crops
from hiresattn.training.estimators import leave_one_out_loss, reinforce_baseline, reinforce_loss

pytestmark = pytest.mark.slow

IMAGES = 32
WHOLE = np.array([[0, 0, 128, 128]])
#: Of 16 cells, 2 are visited.
RANDOM_HIT = 2 / 16


class _Eyes(nn.Module):
    """Nothing to learn: the map is the first band, the vector the second one's mean."""

    def forward(self, crops):
        return Encoded((crops[:, :1],), crops[:, 1].mean((1, 2))[:, None])


def _net(*, normalize):
    classifier = nn.Linear(1, 2)
    with torch.no_grad():
        classifier.weight.copy_(torch.tensor([[20.0], [-20.0]]))
        classifier.bias.zero_()
    parts = Parts(
        encoder=_Eyes(),
        scorer=LocationScorer(channels=1, grid=4, hidden=16, detach=True, normalize=normalize),
        aggregator=MeanPooling(width=1),
        classifier=classifier,
    )
    return GlimpseNet(
        parts,
        grid=Grid(4, 0.25, "tnet"),
        finest=32,
    )


def _images(rng):
    """A fetch, the cell of each image's target, and its class; noise all over the first band."""
    spot, label = rng.integers(0, 4, (IMAGES, 2)), rng.integers(0, 2, IMAGES)

    def fetch(image, regions):
        pixels = np.zeros((len(image), 2, 8, 8), np.float32)
        pixels[:, 0] = rng.normal(0, 0.3, (len(image), 8, 8))
        for row, (index, (top, left, side, _)) in enumerate(
            zip(image.tolist(), regions.tolist(), strict=True)
        ):
            y, x = spot[index]
            if side == 128:
                pixels[row, 0, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2] += 1
            elif (top // 32, left // 32) == (y, x):
                pixels[row, 1] = 1 - 2 * label[index]
        return Crops(pixels, np.ones((len(image), 8, 8), np.float32))

    return fetch, 4 * spot[:, 0] + spot[:, 1], torch.from_numpy(label)


def _look(net, fetch, select, *, gate=False):
    return net(fetch, [WHOLE] * IMAGES, WHOLE.repeat(IMAGES, 0), select=select, k=(2,), straight_through=gate)


def _hit(net, rng, batches=4):
    found = []
    for _ in range(batches):
        fetch, target, _ = _images(rng)
        with torch.no_grad():
            seen = _look(net, fetch, TopK())
        cells = seen.cell[seen.depth == 1].reshape(IMAGES, 2)
        found.append((cells == target[:, None]).any(1).mean())
    return float(np.mean(found))


@pytest.mark.parametrize(
    ("estimator", "sampled", "normalize"),
    [
        ("straight-through", True, False),
        ("reinforce", True, False),
        ("reinforce", False, True),  # the published rule: the best cells, normalised scores
        ("reinforce-loo", True, False),
    ],
)
def test_a_scorer_trained_by_the_answer_alone_finds_the_target(estimator, sampled, normalize):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    net = _net(normalize=normalize)
    assert _hit(net, rng) < 3 * RANDOM_HIT
    select = GumbelTopK(torch.Generator().manual_seed(0)) if sampled else TopK()
    optimizer = torch.optim.Adam(net.scorer.parameters(), lr=0.01)
    baseline = 0.5
    for _ in range(150):
        fetch, _, labels = _images(rng)
        seen = _look(net, fetch, select, gate=estimator == "straight-through")
        if estimator == "straight-through":
            loss = functional.cross_entropy(seen.logits, labels)
        elif estimator == "reinforce":
            published = reinforce_loss(seen, labels, baseline)
            loss, baseline = published.alone(), reinforce_baseline(published.sums, baseline, 0.3)
        else:
            loss = leave_one_out_loss(seen, labels).alone()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert _hit(net, rng) > 0.9
