"""Every slide, GeoTIFF and photograph of the shared data is classified, or refused with a clear error."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hiresattn.checkpoint import Model
from hiresattn.config import InputConfig, ModelConfig
from hiresattn.inference.classify import classify
from hiresattn.model.build import build_model
from hiresattn.pyramid import open_pyramid

DATA = Path(__file__).parents[2] / "shared" / "data"
FOLDERS = ("slides", "geotiff", "aerial", "earth")
FILES = sorted(
    path
    for folder in FOLDERS
    for path in (DATA / folder).rglob("*")
    if path.suffix in {".svs", ".ndpi", ".dcm", ".tif", ".jp2", ".jpg", ".jpeg"}
)
RANGES = {"uint8": (0.0, 255.0), "uint16": (0.0, 10000.0), "float32": (-1.0, 1.0)}

pytestmark = pytest.mark.skipif(not FILES, reason="the shared data is not here")


def _model_for(pyramid):
    """An untrained model of matching bands and values."""
    torch.manual_seed(0)
    bands = 3 if pyramid.palette is not None else pyramid.channels
    dtype = "uint8" if pyramid.palette is not None else str(pyramid.dtype)
    low, high = RANGES[dtype]
    rule = InputConfig(
        bands=tuple(range(bands)), low=(low,) * bands, high=(high,) * bands, dtype=dtype, channels=bands
    )
    config = ModelConfig(classes=("a", "b"), input=rule)
    return Model(build_model(config).eval(), config, "untrained", "")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name[-40:])
def test_a_real_file_is_classified_or_refused_with_a_clear_error(path):
    if "dicom_series_jpeg" in path.parts:
        found = classify(
            str(path), _model_for(open_pyramid(np.zeros((64, 64, 3), np.uint8))), on_error="record"
        )
        assert found.status == "error"
        assert path.name in found.error
        assert "YBR_FULL" in found.error
        return
    with open_pyramid(path) as pyramid:
        model = _model_for(pyramid)
        found = classify(str(path), model, budget=12, stop=None, device="cpu", threads=1)
        height, width = pyramid.height, pyramid.width
    assert found.status == "ok"
    assert found.cost.tiles > 0
    assert sum(r.attention for r in found.regions) == pytest.approx(1, abs=1e-4)
    assert all(0 <= r.y <= height - r.height and 0 <= r.x <= width - r.width for r in found.regions)
    assert len({(r.depth, r.y, r.x) for r in found.regions}) == len(found.regions)
    alike = classify(str(path), model, budget=12, stop=None, device="cpu", threads=4)
    assert alike.regions == found.regions
