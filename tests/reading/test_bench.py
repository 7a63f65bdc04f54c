import json
import math

import numpy as np
import pytest

from hiresattn import open_pyramid
from hiresattn.errors import ConfigError, RegionError
from hiresattn.reading.bench import PATTERNS, bench_reading, crop_corners
from tests.images import write_geotiff, write_image, write_ome_tiff, write_ome_zarr, write_svs


@pytest.mark.parametrize("pattern", PATTERNS)
def test_places_lie_inside_and_are_the_same_each_time(pattern):
    places = crop_corners(pattern, 5000, 9000, 300, 224)
    assert places.shape == (300, 2)
    assert places.dtype == np.int64
    assert (places >= 0).all()
    assert (places <= [5000 - 224, 9000 - 224]).all()
    assert np.array_equal(places, crop_corners(pattern, 5000, 9000, 300, 224))


def test_the_grid_is_contiguous_and_shuffled():
    places = crop_corners("grid", 4000, 4000, 100, 50)
    assert len(np.unique(places, axis=0)) == 100
    offsets = places - places.min(axis=0)
    assert sorted(map(tuple, (offsets // 50).tolist())) == [(y, x) for y in range(10) for x in range(10)]
    assert not np.array_equal(offsets, np.sort(offsets, axis=0))


def test_clusters_are_as_wide_as_said():
    places = crop_corners("clustered", 100_000, 100_000, 5000, 224)
    groups = [places[k::10] for k in range(10)]
    assert np.mean([group.std(axis=0) for group in groups]) == pytest.approx(400, rel=0.05)
    assert places.std(axis=0).min() > 4000


def test_places_that_do_not_exist_are_errors():
    with pytest.raises(ConfigError, match=r"unknown pattern 'girt'.*grid"):
        crop_corners("girt", 500, 500, 5, 50)
    with pytest.raises(RegionError, match="500 x 40 px"):
        crop_corners("random", 500, 40, 5, 50)
    with pytest.raises(RegionError, match="4 crops of 50 px lie side by side"):
        crop_corners("grid", 100, 120, 5, 50)


@pytest.mark.parametrize(
    ("write", "name", "decoder", "difference"),
    [
        (write_ome_tiff, "tifffile + zarr", "imagecodecs", 0),
        (write_geotiff, "rasterio windows", "imagecodecs", 0),
        (write_svs, "openslide read_region", "simplejpeg", 2),
        (write_ome_zarr, "zarr z[y:y+h, x:x+w]", None, 0),
        (write_image, "Pillow crop", None, 0),
    ],
)
def test_every_format_is_timed_beside_its_usual_loop_and_the_floor(
    tmp_path, write, name, decoder, difference
):
    folder = tmp_path / "image.png"
    with open_pyramid(write(folder)) as pyramid:
        found = bench_reading(pyramid, crops=20, size=40)
    assert found.loop.name == name
    assert found.ours.tiles == found.ours.unique_tiles > 0
    assert found.max_abs_difference <= difference
    assert found.fused.max_abs_difference < 0.01
    assert found.speedup_over_loop == found.loop.cpu_ms / found.ours.cpu_ms
    times = [found.ours.cpu_ms, found.ours.wall_ms, found.loop.cpu_ms, found.loop.wall_ms]
    times += [found.fused.cpu_ms, found.fused.wall_ms, found.speedup_over_loop]
    assert all(0 < value < math.inf for value in times)
    if decoder is None:
        assert found.floor is found.ratio_to_floor is None or found.floor.decoder
    else:
        assert found.floor.decoder.startswith(decoder)
        assert found.ratio_to_floor == found.ours.cpu_ms / found.floor.cpu_ms
    assert json.loads(json.dumps(found.to_json()))["pattern"] == "clustered"


def test_an_array_has_no_loop_to_be_compared_with():
    with pytest.raises(ConfigError, match="give a file"):
        bench_reading(open_pyramid(np.zeros((64, 64, 3), np.uint8)), crops=1, size=8)
