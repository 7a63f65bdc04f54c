"""Products in bfloat16: the same answers but for their last digits, whatever the scorer."""

import numpy as np
import pytest
import torch

from hiresattn import ClassifyOptions, classify
from hiresattn.checkpoint import Model
from hiresattn.config import InputConfig, ModelConfig
from hiresattn.errors import ConfigError
from hiresattn.inference.session import start_session
from hiresattn.inference.torch_engine import TorchEngine
from hiresattn.model.build import build_model

SIZE = 32
SCORERS = ("saol", "ltpa", "oaa", "evidence", "mask", "context")


def model(scorer="context"):
    torch.manual_seed(0)
    rule = InputConfig(size=SIZE, bands=(0,), low=(0.0,), high=(255.0,))
    more = {"background": "b"} if scorer == "evidence" else {}
    config = ModelConfig(classes=("a", "b"), input=rule, scorer=scorer, **more)
    return Model(build_model(config).eval(), config, "test", "")


@pytest.mark.parametrize("scorer", SCORERS)
def test_outputs_differ_in_their_last_digits_only(scorer):
    made = model(scorer)
    rng = np.random.default_rng(1)
    coverage = np.ones((4, SIZE, SIZE), np.float32)
    coverage[1, :20] = 0
    frames = np.array([[0, 0, 128, 128]] * 4, np.int64)
    regions = np.array([[0, 0, 128, 128]] * 2 + [[32, 0, 32, 32]] * 2, np.int64)
    pixels = rng.uniform(-1, 1, (4, 1, SIZE, SIZE)).astype(np.float32)
    given = pixels, coverage, regions, frames, np.zeros((4, 3), np.int64)
    exact = TorchEngine(made.net).look(*given)
    session = start_session(made, ClassifyOptions(precision="bfloat16", device="cpu"))
    rough = session.engine.look(*given)
    weights = [w for w in session.engine.net.encoder.parameters() if w.ndim == 4 and w.shape[1] > 1]
    assert weights
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
    assert session.engine.net is not made.net
    for name, wanted in vars(exact).items():
        found = getattr(rough, name)
        assert (wanted is None) == (found is None), name
        if wanted is not None:
            known = np.isfinite(wanted)
            assert found.dtype == np.float32
            assert np.array_equal(known, np.isfinite(found))
            assert np.allclose(found[known], wanted[known], rtol=0.05, atol=0.05), name
    assert not np.array_equal(exact.features, rough.features)


def test_a_whole_classification_gives_nearly_the_same_scores():
    image = np.random.default_rng(0).integers(0, 256, (200, 300, 1), np.uint8)
    exact, rough = (
        classify(image, model(), device="cpu", precision=precision, budget=8, stop=None)
        for precision in ("float32", "bfloat16")
    )
    assert exact.scores["a"] == pytest.approx(rough.scores["a"], abs=0.02)
    assert len(exact.regions) == len(rough.regions)


def test_what_no_engine_can_do_is_refused():
    with pytest.raises(ConfigError, match="did you mean 'bfloat16'"):
        ClassifyOptions(precision="bfloat")
    for changes in ({"engine": "onnx"}, {"provider": "cpu"}):
        with pytest.raises(ConfigError, match="precision bfloat16 is PyTorch's"):
            ClassifyOptions(precision="bfloat16", **changes)
