"""Which image directories of a TIFF file are levels of its image, and what colours they hold."""

import numpy as np
import pytest
import tifffile

from hiresattn.errors import OpenError
from hiresattn.pyramid import open_pyramid
from tests.images import SHAPES, TILE, coded, coded_levels, write_pyramid_tiff, write_svs
from tests.pyramid.damage import set_tag

OPTIONS = {"tile": (TILE, TILE), "photometric": "rgb", "compression": "deflate", "metadata": None}


def write_pages(path, pages, **options):
    """A TIFF file of pages, each with options of its own."""
    with tifffile.TiffWriter(path) as tif:
        for page, extra in pages:
            tif.write(page, **{**OPTIONS, **options, **extra})
    return path


def is_read_from(path, level0):
    with open_pyramid(path) as image:
        sizes = [(level.height, level.width) for level in image.levels]
        np.testing.assert_array_equal(image.read(0, 0, 0, image.height, image.width), level0)
    return sizes


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_a_pyramid_without_marks_has_all_its_levels_in_any_order(tmp_path, order, dtype):
    path = write_pages(tmp_path / "a.tif", [(coded(k, dtype), {}) for k in order])
    assert is_read_from(path, coded(0, dtype)) == SHAPES


def test_a_marked_thumbnail_of_another_aspect_is_no_level(tmp_path):
    pages = [(coded(0), {}), (coded(1)[:, :258], {"subfiletype": 1}), (coded(2), {"subfiletype": 1})]
    assert is_read_from(write_pages(tmp_path / "a.tif", pages), coded()) == [SHAPES[0], SHAPES[2]]


def test_levels_in_sub_directories_are_levels_without_ome_xml_too(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        tif.write(coded(0), subifds=2, **OPTIONS)
        for level in coded_levels()[1:]:
            tif.write(level, subfiletype=1, **OPTIONS)
    assert is_read_from(path, coded()) == SHAPES


@pytest.mark.parametrize("tile", [{}, {"tile": None}], ids=["tiles", "strips"])
def test_a_label_that_comes_first_is_not_the_image(tmp_path, tile):
    label = (coded()[:100, :100], {"tile": None})
    assert is_read_from(write_pages(tmp_path / "a.tif", [label, (coded(), tile)]), coded()) == SHAPES[:1]


def test_a_geotiff_whose_levels_come_smallest_first_is_refused(tmp_path):
    place = [(33550, "d", 3, (10.0, 10.0, 0.0), True), (33922, "d", 6, (0.0, 0, 0, 5e5, 5e6, 0), True)]
    pages = [(coded(1), {"subfiletype": 1}), (coded(0), {"extratags": place})]
    with pytest.raises(OpenError, match="write it again with the finest level first"):
        open_pyramid(write_pages(tmp_path / "a.tif", pages))


@pytest.mark.parametrize("marked", [True, False])
def test_levels_of_another_stack_are_no_levels_and_two_stacks_are_refused(tmp_path, marked):
    reduced = {"subfiletype": 1} if marked else {}
    pages = [(coded(0), {}), (coded(1), reduced), (255 - coded(0), {}), (255 - coded(1), reduced)]
    with pytest.raises(OpenError, match="one flat image is needed"):
        open_pyramid(write_pages(tmp_path / "a.tif", pages))


def test_a_broken_associated_image_does_not_condemn_the_slide(tmp_path):
    path = write_svs(tmp_path / "slide.svs")
    with tifffile.TiffFile(path) as tif:
        page = next(index for index, page in enumerate(tif.pages) if not page.is_tiled)
        offsets = tif.pages[page].tags[273]
    with path.open("r+b") as file:
        file.seek(offsets.valueoffset)
        file.write((2**31).to_bytes(4, "little") * offsets.count)
    with open_pyramid(path) as slide:
        assert [(level.height, level.width) for level in slide.levels] == SHAPES
        assert slide.read(0, 0, 0, 50, 50).any()


def test_a_broken_level_is_an_error(tmp_path):
    path = write_pyramid_tiff(tmp_path / "slide.tif")
    set_tag(path, 259, 12345, page=1)
    with pytest.raises(OpenError, match="compression 12345"):
        open_pyramid(path)


def test_tiles_of_a_turned_image_lie_as_they_are_stored(tmp_path):
    path = write_pages(tmp_path / "a.tif", [(coded(), {"extratags": [(274, 3, 1, 6, True)]})])
    assert is_read_from(path, coded()) == SHAPES[:1]


@pytest.mark.parametrize("tile", [{}, {"tile": None, "rowsperstrip": 32}], ids=["tiles", "strips"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_where_0_is_white_values_are_inverted(tmp_path, tile, dtype):
    grey = coded(0, dtype)[:, :, 0]
    stored = np.iinfo(dtype).max - grey
    path = write_pages(tmp_path / "a.tif", [(stored, {})], photometric="miniswhite", **tile)
    is_read_from(path, grey[:, :, None])


@pytest.mark.parametrize("tile", [{}, {"tile": None, "rowsperstrip": 32}], ids=["tiles", "strips"])
def test_where_0_is_white_alpha_stays_as_it_is(tmp_path, tile):
    grey = coded()[:, :, 0]
    alpha = np.where(np.indices(grey.shape)[1] < 100, 0, 255).astype(np.uint8)
    options = {"photometric": "miniswhite", "extrasamples": ["unassalpha"], "planarconfig": "contig", **tile}
    path = write_pages(tmp_path / "a.tif", [(np.dstack([255 - grey, alpha]), options)])
    with open_pyramid(path) as image:
        pixels = image.read_masked(0, 0, 0, image.height, image.width)
    np.testing.assert_array_equal(pixels.valid, alpha > 0)
    np.testing.assert_array_equal(pixels.data[alpha > 0][:, 0], grey[alpha > 0])


def test_inks_are_refused_or_converted(tmp_path):
    inks = np.concatenate([255 - coded(), np.zeros((*SHAPES[0], 1), np.uint8)], axis=2)
    path = write_pages(tmp_path / "tiles.tif", [(inks, {})], photometric="separated")
    with pytest.raises(OpenError, match="convert the file to RGB"):
        open_pyramid(path)
    path = write_pages(
        tmp_path / "strips.tif", [(inks, {})], photometric="separated", tile=None, rowsperstrip=32
    )
    is_read_from(path, coded())  # GDAL converts them


def test_a_file_without_byte_counts_names_the_missing_tag(tmp_path):
    path = write_pages(tmp_path / "a.tif", [(coded(), {"tile": None})])
    with tifffile.TiffFile(path) as tif:
        tag = tif.pages[0].tags[279]
    with path.open("r+b") as file:
        file.seek(tag.offset)
        file.write((65000).to_bytes(2, "little"))
    with pytest.raises(OpenError, match=r"no StripByteCounts \(tag 279\)"):
        open_pyramid(path)
