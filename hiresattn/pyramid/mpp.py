"""Which micrometres per pixel to believe."""

from hiresattn.errors import ConfigError

#: Micrometres per level-0 px that an image of tissue or cells can have.
MIN_MPP, MAX_MPP = 0.05, 20.0

#: Horizontal over vertical mpp above which pixels aren't square.
MAX_ASPECT = 1.05

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
