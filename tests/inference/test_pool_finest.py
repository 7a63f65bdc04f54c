"""Pooling of finest glimpses only: torch and NumPy agree, and coarse glimpses count until there is a finest one."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hiresattn.config import InputConfig, ModelConfig
from hiresattn.geometry import Grid, expandable
from hiresattn.inference.engine import Outputs
from hiresattn.inference.pooling import pool_for
from hiresattn.inference.table import GlimpseTable
from hiresattn.inference.torch_engine import TorchEngine
from hiresattn.model.build import build_model
from hiresattn.model.select import TopK


@pytest.mark.parametrize("k", [0, 2])
def test_torch_and_numpy_pool_alike(k):
    torch.manual_seed(0)
    rule = InputConfig(size=16, bands=(0,), low=(0.0,), high=(1.0,))
    config = ModelConfig(
        classes=("a", "b", "c"),
        input=rule,
        coarse_encoder=True,
        pool_finest=True,
        grid=Grid(3, 0.5),
        finest=32,
    )
    net = build_model(config).eval()
    rng = np.random.default_rng(0)

    def fetch(image, regions):
        pixels = rng.normal(size=(len(regions), 1, 16, 16)).astype(np.float32)
        return SimpleNamespace(pixels=pixels, coverage=np.ones((len(regions), 16, 16), np.float32))

    frame = np.array([[0, 0, 64, 64]])
    with torch.no_grad():
        found = net(fetch, [frame], frame, select=TopK(), k=(k,))
    finest = ~expandable(found.region, net.finest)
    assert finest.any() == (k > 0)
    pool, table = pool_for(TorchEngine(net).facts, 1), GlimpseTable()
    weight_logits = net.aggregator.weight_logits(found.features.detach()).detach().numpy()
    logits = found.glimpse_logits.numpy()
    nothing = np.zeros((len(finest), 1), np.float32)
    outputs = Outputs(nothing, nothing, nothing[:, 0], logits, weight_logits)
    for row in range(len(finest)):
        pool.add(outputs, row, log_prior=0.0, finest=bool(finest[row]))
    table.append({"weight_logit": weight_logits, "finest": finest})
    assert pool.logits() == pytest.approx(found.logits[0].numpy(), abs=1e-5)
    assert pool.weights(table) == pytest.approx(found.weight.numpy(), abs=1e-5)
    if k:
        assert (found.weight.numpy()[~finest] == 0).all()
