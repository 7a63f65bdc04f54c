"""xarray's arrays, data sets and trees as images, as rioxarray, odc-stac and stackstac make them."""

import datetime as dt
import pickle

import numpy as np
import pytest
import rasterio

from hiresattn.errors import OpenError
from hiresattn.pyramid import open_pyramid
from tests.geo.scenes import MADE, at
from tests.images import coded

xarray = pytest.importorskip("xarray")
ROWS, COLUMNS, BANDS = 70, 90, 3
CRS, TRANSFORM = MADE["north-up"]
NODATA = (240, 60)  # values that both bands of `coded` have


def scene(folder, name="scene.tif", transform=TRANSFORM, crs=CRS, bands=(0, 1, 2), dtype="uint16"):
    """A scene whose px say where they are, 0 = nodata in one corner."""
    path = folder / name
    pixels = coded(0, dtype)[:ROWS, :COLUMNS, list(bands)].copy()
    pixels += 1
    pixels[:9, :13] = 0
    how = {"height": ROWS, "width": COLUMNS, "count": len(bands), "dtype": dtype, "nodata": 0}
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=transform, **how) as file:
        file.write(np.moveaxis(pixels, 2, 0))
    return path, pixels


def same(found, path):
    """An image is that of a file: px, what is valid, where it lies."""
    with open_pyramid(path) as file:
        assert (found.height, found.width, found.channels) == (file.height, file.width, file.channels)
        assert found.crs == file.crs
        for place in ((0, 0), (0, file.width), (file.height, 0), (file.height, file.width)):
            assert found.rowcol(*file.xy(*place)) == pytest.approx(place, abs=1e-6)
        window = (0, 3, 4, 50, 60)
        one, other = found.read_masked(*window), file.read_masked(*window)
        assert np.array_equal(one.valid, other.valid)
        assert np.array_equal(np.nan_to_num(one.data), other.data)


def plain(pixels, dims=("y", "x", "band"), **how):
    return xarray.DataArray(pixels, dims=dims, **how)


@pytest.mark.parametrize("y", ["y", "Y", "lat", "latitude", "northing"])
def test_axes_are_known_by_their_names_in_any_order(y):
    x = {"y": "x", "Y": "X", "lat": "lon", "latitude": "longitude", "northing": "easting"}[y]
    image = coded()[:ROWS, :COLUMNS]
    array = plain(image, (y, x, "band")).expand_dims(("time", "platform"))
    for order in ((..., y, "band", x), ("band", x, ..., y), (..., "band", y, x)):
        assert np.array_equal(open_pyramid(array.transpose(*order)).read(0, 2, 3, 40, 50), image[2:42, 3:53])
    named = plain(image, ("a", "b", "c"))
    with pytest.raises(OpenError, match="rename"):
        open_pyramid(named)
    standard = {"standard_name": "projection_y_coordinate"}, {"standard_name": "projection_x_coordinate"}
    named = named.assign_coords(a=("a", range(ROWS), standard[0]), b=("b", range(COLUMNS), standard[1]))
    assert open_pyramid(named).height == ROWS


def test_steps_of_time_are_chosen_or_a_case():
    array = plain(np.stack([coded()[:ROWS, :COLUMNS]] * 4), ("time", "y", "x", "band"))
    with pytest.raises(OpenError, match=r"4 steps of time.*isel\(time=0\)"):
        open_pyramid(array)
    with pytest.raises(OpenError, match="4 steps of time"):
        open_pyramid(array.isel(band=0))
    assert open_pyramid(array.isel(time=1)).channels == BANDS
    assert open_pyramid(array.isel(time=[1], band=[2])).channels == 1


def test_variables_of_a_data_set_are_bands():
    image = coded()[:ROWS, :COLUMNS]
    data = xarray.Dataset({name: (("y", "x"), image[:, :, n]) for n, name in enumerate("rgb")})
    found = open_pyramid(data.assign(other=5))
    assert found.channel_names == ("r", "g", "b")
    assert np.array_equal(found.read(0, 1, 2, 30, 40), image[1:31, 2:42])
    assert np.array_equal(
        open_pyramid(data.expand_dims("time").chunk(16)).read(0, 1, 2, 30, 40), image[1:31, 2:42]
    )
    one = xarray.Dataset({"scene": (("band", "y", "x"), np.moveaxis(image, 2, 0))})
    assert np.array_equal(open_pyramid(one).read(0, 1, 2, 30, 40), image[1:31, 2:42])
    with pytest.raises(OpenError, match=r"r \(uint8\).*mask \(uint16\).*ds\[\['r'\]\]"):
        open_pyramid(data.assign(mask=data.r.astype("u2")))
    with pytest.raises(OpenError, match="without a variable"):
        open_pyramid(xarray.Dataset({"a": 5}))


def test_each_variable_has_its_own_nodata_value():
    image = coded()[:ROWS, :COLUMNS, :2]
    data = xarray.Dataset(
        {name: (("y", "x"), image[:, :, n], {"nodata": NODATA[n]}) for n, name in enumerate("rg")}
    )
    found = open_pyramid(data)
    assert found.nodata is None
    assert np.array_equal(
        found.read_masked(0, 0, 0, ROWS, COLUMNS).valid,
        (image[..., 0] != NODATA[0]) & (image[..., 1] != NODATA[1]),
    )
    assert np.array_equal(found.read_masked(0, 0, 0, ROWS, COLUMNS, (1,)).valid, image[..., 1] != NODATA[1])
    assert open_pyramid(data, nodata=9).nodata == 9


@pytest.mark.parametrize("shape", ["tree", "list of arrays", "list of data sets"])
def test_trees_and_lists_are_levels(shape):
    fine, coarse = coded()[:64, :96], coded()[:32, :48]
    if shape == "tree":
        data = {f"/{n}": plain(one).to_dataset(name="image") for n, one in enumerate((coarse, fine))}
        levels = xarray.DataTree.from_dict(data)
    else:
        levels = [plain(fine), plain(coarse)]
        levels = [one.to_dataset("band") for one in levels] if "sets" in shape else levels
    found = open_pyramid(levels)
    assert [level.downsample for level in found.levels] == [1, 2]
    assert np.array_equal(found.read(1, 1, 2, 30, 40), coarse[1:31, 2:42])


def test_the_crs_is_found_without_rioxarray():
    wkt = rasterio.CRS.from_epsg(32618).to_wkt()
    image = plain(
        np.zeros((4, 5), "u1"), ("y", "x"), coords={"y": [40.0, 30, 20, 10], "x": range(500, 550, 10)}
    )
    for stated in (
        image.assign_coords(spatial_ref=((), 0, {"crs_wkt": wkt})),
        image.assign_coords(grid=((), 0, {"spatial_ref": wkt})).assign_attrs(grid_mapping="grid"),
        image.assign_attrs(crs="+init=epsg:32618"),
        image.assign_attrs({"proj:code": "EPSG:32618"}),
        image.assign_coords({"epsg": np.int64(32618)}),
        image.assign_coords({"proj:code": "EPSG:32618"}),
    ):
        found = open_pyramid(stated)
        assert (found.crs, found.transform) == ("EPSG:32618", (10, 0, 495, 0, -10, 45))
    assert open_pyramid(image).crs is None
    degrees = image.rename(y="lat", x="lon").assign_coords(lon=[1.0, 2, 3, 4, 5])
    assert open_pyramid(degrees).crs == "EPSG:4326"
    with pytest.raises(OpenError, match="can't be understood"):
        open_pyramid(image.assign_attrs(crs="here"))


def test_uneven_coordinates_place_nothing():
    image = plain(np.zeros((4, 5), "u1"), ("y", "x"), coords={"y": [40.0, 30, 20, 5], "x": range(5)})
    assert open_pyramid(image).transform is None


@pytest.mark.parametrize("name", ["north-up", "rotated", "south-up"])
def test_rioxarray_shows_what_the_file_does(tmp_path, name):
    rioxarray = pytest.importorskip("rioxarray")
    crs, transform = MADE[name]
    path, pixels = scene(tmp_path, crs=crs, transform=transform)
    array = rioxarray.open_rasterio(path)
    same(open_pyramid(array), path)
    same(open_pyramid(rioxarray.open_rasterio(path, chunks={"x": 32, "y": 32})), path)
    same(open_pyramid(rioxarray.open_rasterio(path, masked=True)), path)
    if name != "rotated":
        part = open_pyramid(array.isel(y=slice(11, 51), x=slice(7, 60)))
        assert part.xy(0, 0) == pytest.approx(at(transform, 7, 11), rel=1e-12)
        assert np.array_equal(part.read(0, 0, 0, 40, 53), pixels[11:51, 7:60])


def test_a_lazy_array_is_read_by_windows_only(tmp_path):
    rioxarray = pytest.importorskip("rioxarray")
    path, pixels = scene(tmp_path)
    array = rioxarray.open_rasterio(path, cache=False)
    found = open_pyramid(array)
    assert np.array_equal(found.read(0, 5, 6, 7, 8), pixels[5:12, 6:14])
    assert not array.variable._in_memory
    again = pickle.loads(pickle.dumps(found))  # noqa: S301 - our own
    assert np.array_equal(again.read(0, 5, 6, 7, 8), pixels[5:12, 6:14])


def stac_item(folder):
    """A STAC item of a file per band."""
    pystac = pytest.importorskip("pystac")
    item = pystac.Item("s", None, None, dt.datetime(2020, 1, 1, tzinfo=dt.UTC), {"proj:epsg": 32618})
    for band, name in enumerate(("red", "green", "blue")):
        path, _ = scene(folder, f"{name}.tif", bands=(band,))
        extra = {"proj:shape": [ROWS, COLUMNS], "proj:transform": list(TRANSFORM)[:6]}
        extra["raster:bands"] = [{"data_type": "uint16", "nodata": 0}]
        item.add_asset(
            name, pystac.Asset(str(path), media_type="image/tiff; application=geotiff", extra_fields=extra)
        )
    with rasterio.open(path) as file:
        box = rasterio.warp.transform_bounds(file.crs, "EPSG:4326", *file.bounds)
    item.bbox, (west, south, east, north) = list(box), box
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    item.geometry = {"type": "Polygon", "coordinates": [ring]}
    return item


@pytest.mark.filterwarnings("ignore")
def test_a_cube_of_odc_stac_shows_what_the_file_does(tmp_path):
    odc_stac = pytest.importorskip("odc.stac")
    from odc.geo.geobox import GeoBox

    path, _ = scene(tmp_path)
    for chunks in (None, {"x": 32, "y": 32}):
        how = {"bands": ["red", "green", "blue"], "geobox": GeoBox((ROWS, COLUMNS), TRANSFORM, CRS)}
        data = odc_stac.load([stac_item(tmp_path)], chunks=chunks, **how)
        found = open_pyramid(data)
        same(found, path)
        assert found.channel_names == ("red", "green", "blue")


@pytest.mark.filterwarnings("ignore")
def test_a_cube_of_stackstac_shows_what_the_file_does(tmp_path):
    stackstac = pytest.importorskip("stackstac")
    path, _ = scene(tmp_path)
    with rasterio.open(path) as file:
        grid = {"epsg": 32618, "resolution": file.res, "bounds": tuple(file.bounds), "snap_bounds": False}
    for where in ("topleft", "center"):
        cube = stackstac.stack(
            [stac_item(tmp_path)],
            dtype="uint16",
            fill_value=np.uint16(0),
            rescale=False,
            xy_coords=where,
            **grid,
        )
        same(open_pyramid(cube), path)
        part = open_pyramid(cube.isel(time=0, y=slice(11, None), x=slice(7, None)))
        assert part.xy(0, 0) == pytest.approx(at(TRANSFORM, 7, 11), rel=1e-12)


def test_levels_go_back_to_xarray(tmp_path):
    path, pixels = scene(tmp_path)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2])
    with open_pyramid(path) as image:
        fine, coarse = image.to_xarray(0), image.to_xarray(1)
        assert np.array_equal(fine.transpose("y", "x", "band").values, pixels)
        assert (fine.attrs["_FillValue"], fine.dims) == (0, ("band", "y", "x"))
        same(open_pyramid(fine), path)
        x, y = float(coarse.x[3]), float(coarse.y[5])
        assert (x, y) == pytest.approx(at(TRANSFORM, 2 * 3.5, 2 * 5.5))
        assert open_pyramid([fine, coarse]).levels[1].downsample == 2
    rioxarray = pytest.importorskip("rioxarray")
    assert rioxarray.raster_array
    assert (fine.rio.crs.to_epsg(), fine.rio.nodata, tuple(fine.rio.transform())[:6]) == (
        32618,
        0,
        tuple(TRANSFORM)[:6],
    )


def test_the_accessor_reads_the_file_where_nothing_was_changed(tmp_path):
    rioxarray = pytest.importorskip("rioxarray")
    import hiresattn.xarray

    path, _ = scene(tmp_path)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2])
    for chunks in (None, {"x": 32, "y": 32}):
        array = rioxarray.open_rasterio(path, chunks=chunks)
        assert array.hiresattn.source() == hiresattn.Example(str(path))
        part = array.isel(y=slice(5, 45), x=slice(6, 56))
        assert part.hiresattn.source().region == (5, 6, 40, 50)
        for changed in (
            array + 1,
            array.copy(data=array.data + 1),
            array.sel(band=[3, 2, 1]),
            array.sel(band=[1]),
            array.isel(y=slice(None, None, -1)),
            array.isel(y=slice(None, None, 2)),
            array.astype("f4"),
            array.assign_coords(x=array.x + 7),
            array.assign_attrs(_FillValue=7),
            rioxarray.open_rasterio(path, masked=True),
            array.rio.write_crs("EPSG:3857"),
            array.load(),
        ):
            assert changed.hiresattn.source() is changed


def test_the_accessor_answers_as_the_file_does(tmp_path):
    rioxarray = pytest.importorskip("rioxarray")
    import hiresattn.xarray

    path, _ = scene(tmp_path, bands=(0,), dtype="uint8")
    model = hiresattn.__path__[0] + "/demo/model"
    array = rioxarray.open_rasterio(path).load()
    records = [
        one(model, policy="lowres")
        for one in (array.hiresattn.classify, array.to_dataset(name="a").hiresattn.classify)
    ]
    whole = hiresattn.classify(path, model, policy="lowres")
    for record in records:
        assert dict(record.scores) == pytest.approx(dict(whole.scores), abs=1e-6)
        assert (record.sources[0].crs, record.sources[0].transform) == (
            whole.sources[0].crs,
            whole.sources[0].transform,
        )
