"""Files beside an image: what GDAL sees is what is read."""

import numpy as np
import pytest

from hiresattn.pyramid import open_pyramid
from tests.images import CRS, TRANSFORM, coded

WHOLE = (0, 0, 0, 512, 512)
AUX = (
    f"<PAMDataset><SRS>{CRS}</SRS><GeoTransform>500000,10,0,5000000,0,-10</GeoTransform>"
    + "".join(
        f'<PAMRasterBand band="{band}"><NoDataValue>0</NoDataValue></PAMRasterBand>' for band in (1, 2, 3)
    )
    + "</PAMDataset>"
)


def image_file(tmp_path, suffix):
    image = np.maximum(coded()[:512, :512], 1)
    image[:100] = 0
    path = tmp_path / f"image.{suffix}"
    if suffix == "tif":
        import tifffile

        tifffile.imwrite(path, image, photometric="rgb", tile=(128, 128))
    else:
        from PIL import Image

        Image.fromarray(image).save(path)
    return path, image


@pytest.mark.parametrize(
    ("suffix", "world"), [("tif", "tfw"), ("png", "pgw"), ("jpg", "jgw"), ("jpg", "wld")]
)
def test_a_world_file_says_where_an_image_lies(tmp_path, suffix, world):
    path, _ = image_file(tmp_path, suffix)
    path.with_suffix(f".{world}").write_text("10\n0\n0\n-10\n500005\n4999995\n")
    with open_pyramid(path) as pyramid:
        assert pyramid.transform == (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0)


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_an_aux_xml_file_says_where_an_image_lies_and_what_its_nodata_is(tmp_path, suffix):
    path, image = image_file(tmp_path, suffix)
    path.with_name(f"{path.name}.aux.xml").write_text("<PAMDataset><Metadata /></PAMDataset>")
    with open_pyramid(path) as pyramid:
        backend = pyramid.backend
    path.with_name(f"{path.name}.aux.xml").write_text(AUX)
    with open_pyramid(path) as pyramid:
        assert backend != "rasterio"
        assert pyramid.nodata == 0
        assert pyramid.transform[2] == 500000
        assert pyramid.crs == CRS
        found = pyramid.read_masked(*WHOLE)
    assert np.array_equal(found.data, image)
    assert np.array_equal(found.valid, image.any(axis=2))


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_a_mask_beside_an_image_says_what_is_valid(tmp_path, suffix):
    import rasterio

    path, _ = image_file(tmp_path, suffix)
    mask = np.full((512, 512), 255, np.uint8)
    mask[:, :200] = 0
    profile = {"driver": "GTiff", "height": 512, "width": 512, "count": 1, "dtype": "uint8"}
    with rasterio.open(
        path.with_name(f"{path.name}.msk"), "w", transform=rasterio.Affine(*TRANSFORM), **profile
    ) as file:
        file.write(mask, 1)
        file.update_tags(INTERNAL_MASK_FLAGS_1="2")
    with open_pyramid(path) as pyramid:
        assert np.array_equal(pyramid.read_masked(*WHOLE).valid, mask > 0)


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_overviews_beside_a_tiled_tiff_are_levels_and_a_mask_without_any_holds_for_them(tmp_path):
    import rasterio
    from rasterio.enums import Resampling

    path, _ = image_file(tmp_path, "tif")
    with rasterio.Env(TIFF_USE_OVR="YES"), rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], Resampling.average)
    mask = np.full((512, 512), 255, np.uint8)
    mask[:, :200] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as file:
        file.write_mask(mask)
    assert path.with_name("image.tif.ovr").exists()
    with open_pyramid(path) as pyramid:
        assert [level.downsample for level in pyramid.levels] == [1, 2, 4]
        for level, side in enumerate((512, 256, 128)):
            valid = pyramid.read_masked(level, 0, 0, side, side).valid
            assert np.array_equal(valid, mask[:: 2**level, :: 2**level] > 0)
