"""The command line in-process, with the library's slow end replaced where a test says so."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from hiresattn.inference.record import Cost, Record, VisitedRegion
from hiresattn_cli.main import cli


@pytest.fixture
def run(monkeypatch):
    """``run("info", path)`` gives exit_code, stdout, stderr."""

    def run(*words, stdin=None):
        result = CliRunner().invoke(cli, [str(word) for word in words], input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def image(tmp_path):
    """A PNG of 96 rows and 128 columns."""
    path = tmp_path / "image.png"
    pixels = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def prediction(source, **changes):
    regions = (
        VisitedRegion(0, None, 0, 0, 0, 96, 96, 0.25, 0.0),
        VisitedRegion(1, 0, 1, 16, 32, 64, 64, 0.75, -1.5),
    )
    values = {
        "source": str(source),
        "status": "ok",
        "class_name": "sea",
        "score": 0.9,
        "scores": {"sea": 0.9, "land": 0.1},
        "regions": regions,
        "cost": Cost(glimpses=2, tiles=3, fraction_read=0.5, stop_reason="confidence"),
    }
    return Record(**{**values, **changes})


@pytest.fixture
def classified(monkeypatch):
    """Replaces the model and ``inference.classify.classify_all``: sources named ``bad*`` fail. Records the call."""
    calls = SimpleNamespace(sources=None, model=None, options=None, record=prediction)

    def read_card(name, **_):
        config = SimpleNamespace(
            scorer="location", multi_label=False, classes=("sea", "land"), input=SimpleNamespace(mpp=None)
        )
        return SimpleNamespace(
            name=name, sha256="0" * 64, config=config, k=(4, 2), temperature=1.0, conformal=None
        )

    def classify_all(sources, model, *, progress=None, **options):
        calls.sources, calls.model, calls.options = list(sources), model.name, options
        return answers(calls.sources)

    def answers(sources):
        for source in sources:
            name = str(getattr(source, "source", source))
            if "bad" in name:
                yield prediction(name, status="error", error=f"{name}: broken\nin two lines", class_name=None)
            else:
                region, label = getattr(source, "region", None), getattr(source, "label", None)
                yield prediction(name, region=region, label=label)

    module = ModuleType("hiresattn.inference.classify")
    module.classify_all = classify_all
    monkeypatch.setitem(sys.modules, "hiresattn.inference.classify", module)
    monkeypatch.setattr("hiresattn.checkpoint.load_model", read_card)  # imports it, unchanged
    monkeypatch.setattr("hiresattn.card.read_card", read_card)
    return calls


@pytest.fixture
def computing_threads(monkeypatch):
    """Replaces ``torch.set_num_threads``; what it was called with."""
    asked = []
    monkeypatch.setattr("torch.set_num_threads", asked.append)
    return asked
