"""One image whose pixels encode their own place, in every format that is read.

Red rises and falls with the row, green with the column, blue with both; steep enough that a shift by one
pixel shows through JPEG. Each level is coded in its own pixels and marked by its blue, so that a read from
the wrong place or level can't pass. Sides are neither square nor multiples of a tile.
"""

import json
from pathlib import Path

import numpy as np

#: Rows and columns of the levels.
SHAPES = [(517, 701), (258, 350), (129, 175)]

#: Side of a tile, px.
TILE = 128

MPP = 0.5
CRS = "EPSG:32633"
TRANSFORM = (2.0, 0.0, 500000.0, 0.0, -2.0, 5000000.0)


def _wave(place, period):
    """A triangle from 0 to 240 and back."""
    return np.abs((place % period) / (period / 2) - 1) * 240


def coded(level=0, dtype="uint8"):
    """The pixels ``[h w 3]`` of a level."""
    height, width = SHAPES[level]
    y, x = np.mgrid[:height, :width]
    planes = [_wave(y, 64), _wave(x, 64), _wave(y + 2 * x + 40 * level, 128)]
    image = np.stack(planes, axis=-1)
    if np.dtype(dtype) == np.uint8:
        return image.astype(np.uint8)
    return (image * 16 + level).astype(dtype)


def coded_levels(dtype="uint8"):
    """The pixels of all levels, finest first."""
    return [coded(level, dtype) for level in range(len(SHAPES))]


def _jpeg(compression):
    if compression != "jpeg":
        return {"compression": compression}
    return {"compression": "jpeg", "compressionargs": {"level": 95}, "subsampling": (1, 1)}


def write_ome_tiff(path, dtype="uint8", compression="deflate", tile=TILE, **options):
    """OME-TIFF, its levels as sub-directories."""
    from tifffile import TiffWriter

    levels = coded_levels(dtype)
    planar = options.get("planarconfig") == "separate"
    axes = {"axes": "YXS", "PhysicalSizeX": MPP * 1000, "PhysicalSizeXUnit": "nm"}
    axes |= {"PhysicalSizeY": MPP * 1000, "PhysicalSizeYUnit": "nm"}
    if planar:
        levels = [np.moveaxis(level, 2, 0) for level in levels]
        axes["axes"] = "SYX"
    options = {"photometric": "rgb", "tile": (tile, tile), **_jpeg(compression), **options}
    with TiffWriter(path, ome=True) as tif:
        tif.write(levels[0], subifds=len(levels) - 1, metadata=axes, **options)
        for level in levels[1:]:
            tif.write(level, subfiletype=1, **options)
    return Path(path)


def write_channels_ome_tiff(path):
    """OME-TIFF of three grey images, one for each channel, and their reduced versions."""
    from tifffile import TiffWriter

    levels = [np.ascontiguousarray(np.moveaxis(level, 2, 0)) for level in coded_levels("uint16")]
    with TiffWriter(path, ome=True) as tif:
        options = {"photometric": "minisblack", "tile": (TILE, TILE), "compression": "zstd"}
        tif.write(levels[0], subifds=len(levels) - 1, metadata={"axes": "CYX"}, **options)
        for level in levels[1:]:
            tif.write(level, subfiletype=1, **options)
    return Path(path)


def write_pyramid_tiff(path, dtype="uint8", compression="deflate", **options):
    """A plain pyramidal TIFF: levels one after another."""
    from tifffile import TiffWriter

    options = {"photometric": "rgb", "tile": (TILE, TILE), "metadata": None, **_jpeg(compression), **options}
    with TiffWriter(path) as tif:
        for k, level in enumerate(coded_levels(dtype)):
            tif.write(level, subfiletype=int(k > 0), **options)
    return Path(path)


def write_svs(path, mpp=MPP):
    """Aperio's layout: first level, thumbnail, further levels, label, macro."""
    from tifffile import TiffWriter

    height, width = SHAPES[0]
    words = (
        f"Aperio Image Library v11.2.1\r\n{width}x{height} [0,0 {width}x{height}] ({TILE}x{TILE}) JPEG/RGB"
    )
    scale = f"|AppMag = 20|MPP = {mpp}"
    common = {"photometric": "rgb", "metadata": None, "software": False}
    tiled = {**common, **_jpeg("jpeg"), "tile": (TILE, TILE)}
    aside = np.full((60, 80, 3), 77, np.uint8)
    with TiffWriter(path) as tif:
        levels = coded_levels()
        tif.write(levels[0], description=words + scale, **tiled)
        tif.write(levels[2], description=words + " -> 175x129 - " + scale, rowsperstrip=16, **common)
        for level in levels[1:]:
            tif.write(level, description=words + f" -> {level.shape[1]}x{level.shape[0]}" + scale, **tiled)
        tif.write(aside, description=words + "\r\nlabel 80x60", subfiletype=1, rowsperstrip=60, **common)
        tif.write(aside, description=words + "\r\nmacro 80x60", subfiletype=9, rowsperstrip=60, **common)
    return Path(path)


def write_scn(path, corner=(400, 700), whole=(1536, 2048)):
    """Leica's layout: an overview, and the coded image at ``corner`` of a slide of ``whole`` px."""
    from tifffile import TiffWriter

    nm = round(MPP * 1000)
    (height, width), (rows, columns) = SHAPES[0], whole
    settings = (
        "<scanSettings><objectiveSettings><objective>{}</objective></objectiveSettings><illuminationSettings>"
        "<numericalAperture>0.4</numericalAperture><illuminationSource>brightfield</illuminationSource>"
        "</illuminationSettings></scanSettings>"
    )

    def image(name, size, view, ifd, objective):
        pixels = f'sizeX="{size[1]}" sizeY="{size[0]}"'
        return (
            f'<image name="{name}" uuid="{name}"><creationDate>2020-01-01T00:00:00Z</creationDate>'
            f'<device model="Leica" version="1"/><pixels {pixels}><dimension {pixels} r="0" ifd="{ifd}"/></pixels>'
            f'<view sizeX="{view[1] * nm}" sizeY="{view[0] * nm}" offsetX="{view[3] * nm}" offsetY="{view[2] * nm}"/>'
            f"{settings.format(objective)}</image>"
        )

    xml = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection name="x" uuid="u" sizeX="{columns * nm}" sizeY="{rows * nm}"><barcode/>'
        f"{image('macro', (96, 128), (rows, columns, 0, 0), 0, 1)}"
        f"{image('main', (height, width), (height, width, *corner), 1, 20)}</collection></scn>"
    )
    options = {
        "photometric": "rgb",
        "metadata": None,
        "software": False,
        **_jpeg("jpeg"),
        "tile": (TILE, TILE),
    }
    with TiffWriter(path, bigtiff=True) as tif:
        tif.write(np.full((96, 128, 3), 77, np.uint8), description=xml, **options)
        tif.write(coded(), **options)
    return Path(path)


def write_geotiff(path, dtype="uint8", compression="deflate", nodata=None, **options):
    """A tiled GeoTIFF with the coded levels as overviews."""
    a, _, c, _, e, f = TRANSFORM
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, int(CRS.removeprefix("EPSG:")))
    tags = [(33550, 12, 3, (a, -e, 0.0), True), (33922, 12, 6, (0.0, 0.0, 0.0, c, f, 0.0), True)]
    tags.append((34735, 3, len(keys), keys, True))
    if nodata is not None:
        tags.append((42113, 2, 0, str(nodata), True))
    from tifffile import TiffWriter

    options = {"photometric": "rgb", "tile": (TILE, TILE), "metadata": None, **_jpeg(compression), **options}
    with TiffWriter(path, byteorder=options.pop("byteorder", "<")) as tif:
        for k, level in enumerate(coded_levels(dtype)):
            tif.write(level, subfiletype=int(k > 0), extratags=() if k else tags, **options)
    return Path(path)


def write_jp2(path, **options):
    """Lossless JPEG 2000 with a place; GDAL makes the coarser levels of its wavelets."""
    import rasterio

    image = coded()
    height, width = image.shape[:2]
    options = {"REVERSIBLE": "YES", "QUALITY": 100, "BLOCKYSIZE": 256, **options}
    place = {"crs": CRS, "transform": rasterio.Affine(*TRANSFORM)}
    if options.get("CODEC") == "J2K":
        place = {"transform": rasterio.Affine(*TRANSFORM)}
    with rasterio.open(
        path,
        "w",
        driver="JP2OpenJPEG",
        width=width,
        height=height,
        count=3,
        dtype="uint8",
        **place,
        **options,
    ) as new:
        new.write(np.moveaxis(image, 2, 0))
    for aside in Path(path).parent.glob("*.aux.xml"):
        aside.unlink()
    return Path(path)


def write_ome_zarr(path, version="0.4", dtype="uint16", axes="yxc", shards=None, chunk=TILE):
    """OME-Zarr; dataset paths and axis order are the caller's."""
    import zarr

    zarr_format = 2 if version == "0.4" else 3
    units = {"y": {"type": "space", "unit": "micrometer"}, "x": {"type": "space", "unit": "micrometer"}}
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    datasets = []
    for k, pixels in enumerate(coded_levels(dtype)):
        image = pixels.transpose(["yxc".index(axis) for axis in axes if axis in "yxc"])
        for place, axis in enumerate(axes):
            image = image if axis in "yxc" else np.expand_dims(image, place)
        sides = {"y": chunk, "x": chunk, "c": 3}
        chunks = tuple(sides.get(axis, 1) for axis in axes)
        sharded = (
            {}
            if shards is None
            else {"shards": tuple(shards if a in "yx" else sides.get(a, 1) for a in axes)}
        )
        array = group.create_array(
            f"scale{k}", shape=image.shape, chunks=chunks, dtype=image.dtype, **sharded
        )
        array[:] = image
        scale = [MPP * 2**k if axis in "yx" else 1.0 for axis in axes]
        datasets.append(
            {"path": f"scale{k}", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        )
    names = {"c": {"type": "channel"}, "t": {"type": "time"}, "z": {"type": "space"}, **units}
    image = {"axes": [{"name": axis, **names[axis]} for axis in axes], "datasets": datasets}
    if version == "0.4":
        group.attrs["multiscales"] = [{"version": "0.4", **image}]
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [image]}
    return Path(path)


def write_image(path, **options):
    """A plain image by Pillow: JPEG, PNG."""
    from PIL import Image

    Image.fromarray(coded()).save(path, **options)
    return Path(path)


def edit_json(path, change):
    """Change a JSON file in place."""
    content = json.loads(Path(path).read_text())
    change(content)
    Path(path).write_text(json.dumps(content))
