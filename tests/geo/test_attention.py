"""Attention as a COG that lies on the scene, px on px."""

import errno
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rio_cogeo import cog_validate

from hiresattn.errors import ConfigError, WriteError
from hiresattn.geo import write_attention
from hiresattn.geo.attention import attention_raster
from hiresattn.inference.record import CaseSource, VisitedRegion
from tests.geo.scenes import DATA, MADE, at, record_of, source_of, write_scene


def looked_at(source, window):
    """A record with regions of three depths in a window, some of them overlapping."""
    y, x, height, width = window
    boxes = [
        (0, y, x, height, width, 0.05),
        (1, y, x, height // 2, width // 2, 0.1),
        (1, y + height // 4, x + width // 4, height // 2, width // 2, 0.3),
        (2, y + height // 4 + 3, x + width // 4 + 5, 16, 16, 0.2),
        (2, y + height - 17, x + width - 19, 17, 19, 0.35),
    ]
    regions = tuple(
        VisitedRegion(at, None, depth, *box, weight, 0.0) for at, (depth, *box, weight) in enumerate(boxes)
    )
    return record_of(source, regions=regions)


def attention_at(record, y, x):
    """The attention of the deepest region that covers a place, the largest of these; NaN where there is none."""
    over = [
        (one.depth, one.attention)
        for one in record.regions
        if one.y <= y < one.y + one.height and one.x <= x < one.x + one.width
    ]
    return max(over, default=(0, np.nan))[1]


@pytest.mark.parametrize("region", [None, (101, 203, 333, 444)])
@pytest.mark.parametrize("name", MADE)
def test_every_px_lies_on_the_scene_and_has_its_deepest_regions_attention(tmp_path, name, region):
    scene = write_scene(tmp_path / "scene.tif", *MADE[name])
    source = source_of(scene, region)
    record = looked_at(source, region or (0, 0, source.height, source.width))
    write_attention(record, tmp_path / "attention.tif")
    valid, errors, warnings = cog_validate(tmp_path / "attention.tif", quiet=True)
    assert (valid, errors, warnings) == (True, [], [])
    with rasterio.open(tmp_path / "attention.tif") as file, rasterio.open(scene) as image:
        assert file.crs == image.crs
        assert (file.dtypes, file.descriptions, np.isnan(file.nodata)) == (("float32",), ("attention",), True)
        assert file.tags()["HIRESATTN_SOURCE"] == str(scene)
        values, place, to_px = file.read(1), file.transform, ~image.transform
    assert min(values.shape) >= 100
    rng = np.random.default_rng(0)
    for row, column in rng.integers(0, values.shape, (300, 2)):
        x, y = at(to_px, *at(place, column + 0.5, row + 0.5))
        expected = attention_at(record, y, x)
        assert values[row, column] == pytest.approx(expected, rel=1e-6, nan_ok=True)
    corner = at(to_px, *at(place, 0, 0))
    assert corner == pytest.approx((region[1], region[0]) if region else (0, 0), abs=1e-6)


def test_what_was_not_looked_at_has_no_value():
    source = CaseSource(source="a.tif", height=64, width=64)
    record = record_of(source, regions=(VisitedRegion(0, None, 0, 0, 0, 32, 64, 1.0, 0.0),))
    values, step = attention_raster(record)
    assert step == 4
    assert (values[:8] == 1).all()
    assert np.isnan(values[8:]).all()


def test_a_raster_is_never_large():
    source = CaseSource(source="a.tif", height=100_000, width=50_000)
    record = record_of(source, regions=(VisitedRegion(0, None, 0, 99_999, 49_999, 1, 1, 1.0, 0.0),))
    values, step = attention_raster(record)
    assert (values.shape, step) == ((3125, 1563), 32)
    assert values[-1, -1] == 1
    assert np.isfinite(values).sum() == 1


def test_a_slide_has_no_crs_there_either(tmp_path):
    write_attention(
        looked_at(CaseSource(source="a.svs", height=300, width=200), (0, 0, 300, 200)), tmp_path / "a.tif"
    )
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(tmp_path / "a.tif") as file:
        assert file.crs is None


def test_a_case_and_what_was_not_opened_are_refused():
    one = CaseSource(source="a.tif", height=64, width=64)
    unopened = CaseSource(source="a.tif", error="a.tif: broken")
    for record in (record_of(one, replace(one, source="b.tif")), record_of(unopened)):
        with pytest.raises(ConfigError, match="of one image"):
            attention_raster(record)


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("rasterio.shutil.copy", full)
    with pytest.raises(WriteError, match="No space left"):
        write_attention(
            looked_at(CaseSource(source="a", height=64, width=64), (0, 0, 64, 64)), tmp_path / "a.tif"
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not DATA.exists(), reason="needs the shared data")
def test_on_a_real_rotated_scene(tmp_path):
    source = source_of(DATA / "umbra_sar_rotated.tif")
    record = looked_at(source, (0, 0, source.height, source.width))
    write_attention(record, tmp_path / "a.tif")
    assert cog_validate(tmp_path / "a.tif", quiet=True)[0]
    with rasterio.open(tmp_path / "a.tif") as file:
        x, y = at(~rasterio.Affine(*source.transform), *at(file.transform, 10.5, 20.5))
        assert file.read(1)[20, 10] == pytest.approx(attention_at(record, y, x))
