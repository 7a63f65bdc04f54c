"""Which micrometres per pixel to believe."""

import math

from hiresattn.errors import ConfigError

#: Micrometres per level-0 px that an image of tissue or cells can have.
MIN_MPP, MAX_MPP = 0.05, 20.0

#: Horizontal over vertical mpp above which pixels aren't square.
MAX_ASPECT = 1.05

#: Least micrometres per px of a picture of the ground: 1 mm.
MIN_GROUND = 1000.0

#: Metres: the semi-major axis of WGS 84; and the square of its eccentricity.
_AXIS, _SQUARED = 6378137.0, 0.00669437999014

_MICROMETRES = {
    "m": 1e6,
    "meter": 1e6,
    "cm": 1e4,
    "centimeter": 1e4,
    "mm": 1e3,
    "millimeter": 1e3,
    "µm": 1.0,
    "μm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometre": 1.0,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "in": 25400.0,
    "inch": 25400.0,
}


def choose_mpp(
    given: float | None, y: float | None, x: float | None, where: str
) -> tuple[float | None, str | None]:
    """The scale of an image, and where it is from or why it wasn't taken.

    A scanner that writes none leaves 72 dpi, that is 352 µm: a value out of range is not a scale.

    Args:
        given: What the caller says, µm per level-0 px; wins.
        y: What the file says along rows, µm per level-0 px.
        x: What the file says along columns.
        where: Where in the file, for messages.

    Returns:
        ``(mpp, mpp_source)``.

    Raises:
        ConfigError: If the given value isn't positive.
    """
    if given is not None:
        if not 0 < given < float("inf"):
            raise ConfigError(f"mpp={given}: micrometres per pixel must be positive")
        return float(given), "given"
    if y is None or x is None:
        return None, None
    if not (MIN_MPP <= x <= MAX_MPP and MIN_MPP <= y <= MAX_MPP):
        return None, f"not taken: {where} says {x:g} x {y:g} um, outside {MIN_MPP} to {MAX_MPP}; give mpp"
    if max(x / y, y / x) > MAX_ASPECT:
        return None, f"not taken: {where} says {x:g} x {y:g} um, pixels that aren't square; give mpp"
    return (x + y) / 2, where


def ground_mpp(
    crs: str, transform: tuple[float, float, float, float, float, float], height: int, width: int
) -> float | None:
    """Side of a px on the ground at an image's centre, in micrometres; None if its CRS can't be placed on the earth.

    Of a CRS in degrees, in feet, or with a scale of its own (Web Mercator) as well as in metres. Where px are oblong,
    as in degrees far from the equator, it is the geometric mean of their height and width.

    Args:
        crs: A code or WKT.
        transform: Affine transform (a, b, c, d, e, f) of px (column, row) to coordinates of the CRS.
        height: Rows.
        width: Columns.

    Source:
        Radii of curvature of an ellipsoid in the meridian and the prime vertical: Snyder 1987, "Map projections: a
        working manual", equations 4-18 to 4-20.
    """
    from rasterio.errors import RasterioError
    from rasterio.warp import transform as reproject

    a, b, c, d, e, f = transform
    x, y = a * width / 2 + b * height / 2 + c, d * width / 2 + e * height / 2 + f
    try:
        lon, lat = reproject(crs, "OGC:CRS84", [x, x + a, x + b], [y, y + d, y + e])
    except (RasterioError, ValueError):
        return None
    sine = math.sin(math.radians(lat[0]))
    east = _AXIS / math.sqrt(1 - _SQUARED * sine**2) * math.cos(math.radians(lat[0]))
    north = _AXIS * (1 - _SQUARED) / (1 - _SQUARED * sine**2) ** 1.5
    (right, right_up), (down, down_up) = (
        (math.radians(lon[n] - lon[0]) * east, math.radians(lat[n] - lat[0]) * north) for n in (1, 2)
    )
    side = 1e6 * math.sqrt(abs(right * down_up - down * right_up))
    return side if 0 < side < math.inf else None


def implausible(mpp: float, at: float | None = None) -> str | None:
    """Why a scale can't be meant; None if it can.

    Args:
        mpp: Micrometres per level-0 px.
        at: Micrometres per px that a model works at; None = none.
    """
    if MAX_MPP < mpp < MIN_GROUND or not MIN_MPP <= mpp < math.inf:
        return (
            f"{mpp:g} µm/px is neither a slide's ({MIN_MPP:g} to {MAX_MPP:g} µm) nor a scene's (1 mm or more)"
        )
    if at is not None and (mpp <= MAX_MPP) != (at <= MAX_MPP):
        kinds = ("a slide's", "a scene's")
        return f"{scale_words(mpp)} is {kinds[mpp > MAX_MPP]} scale, and the model's is {kinds[at > MAX_MPP]}"
    return None


def scale_words(mpp: float) -> str:
    """A scale in words, in µm or in m."""
    return f"{mpp:.4g} µm/px" if mpp < MIN_GROUND else f"{mpp / 1e6:.4g} m/px"


def resolution_unit(description: str, tag: int) -> str | None:
    """The unit that a TIFF file's resolutions count px in, for ``micrometres``; None = it has none.

    Args:
        description: Its description; ImageJ's, there, wins.
        tag: Its ResolutionUnit.
    """
    if description.startswith("ImageJ="):
        lines = [line.partition("=")[2] for line in description.splitlines() if line.startswith("unit=")]
        if lines:
            return lines[0].strip().replace("\\u00B5", "µ")
    return {2: "in", 3: "cm"}.get(tag)


def micrometres(value: str | float | None, unit: str | None) -> float | None:
    """A length in µm; None if the value or the unit is unusable. No unit means µm."""
    factor = _MICROMETRES.get((unit or "um").strip().lower())
    try:
        return None if value is None or factor is None else float(value) * factor
    except ValueError:
        return None
