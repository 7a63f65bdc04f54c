"""Which px of a slide's coarse views show tissue: neither glass, ink nor black."""

from collections.abc import Callable

import numpy as np

from hiresattn.shapes import Bool, Float, UInt8

#: Px that thresholds are taken from.
_SAMPLE = 1 << 18
#: Grey levels between the bands of a picture without colour.
_GREY = 4
#: Difference of optical density between bands from which on glass is stained; beside such px, the lower one.
_STAINED, _NEARLY = 0.03, 0.015
#: Px around ink that JPEG may have coloured: twice as much is needed there, and px count only where they go on
#: further away, or where so many of 3 x 3 px do that are not this close to the ink.
_HALO, _CROWD, _CLOSE = 8, 7, 2
#: How bright red, green and blue are, and the share of a stain's difference by which it darkens, at least: colour that
#: JPEG spread from beside, which it stores in blocks of two px, darkens nothing.
_BRIGHTNESS = np.array((0.299, 0.587, 0.114), np.float32)
_DARKENS = 0.25
#: Grey levels above a dark background that are signal, at least; and noise of the background, as many times.
_SIGNAL, _NOISE = 6.0, 6.0
#: Brightest value of a band that is black, as around a scanned area.
_BLACK = 35

#: ``find(values [h w c])`` → mask ``[h w]``.
_Find = Callable[[np.ndarray], np.ndarray]


def tissue_mask(
    pixels: UInt8[np.ndarray, "n h w c"], valid: Bool[np.ndarray, "n h w"]
) -> Bool[np.ndarray, "n h w"]:
    """Which px of coarse views of one slide show tissue.

    Bright field (red, green and blue): px that absorb one colour more than another, compared with the slide's glass, so
    pale tissue is kept and shadows are not. Left out is black, and what is as dense as a pen's ink seen from afar and
    of a hue that haematoxylin, eosin and DAB don't have: blue, green, red or black; and its edges. A slide without
    colour: px that absorb light. Dark field: px that are brighter than the background.

    Args:
        pixels: Values from 0 to 255; all views of the slide, so that thresholds are those of the whole.
        valid: Whether a px was measured.

    Returns:
        The mask; none of an empty slide.

    Source:
        Optical density: Ruifrok and Johnston 2001, "Quantification of histochemical staining by color deconvolution".
        Colour apart from density: van der Laak et al. 2000, "Hue-saturation-density (HSD) model for stain recognition
        in digital images from transmitted light microscopy".
    """
    found = np.zeros(valid.shape, bool)
    some = pixels[valid]
    some = some[:: len(some) // _SAMPLE + 1].astype(np.float32)
    if not len(some):
        return found
    grey = pixels.shape[-1] != len("RGB") or np.quantile(np.ptp(some, axis=1), 0.99) <= _GREY
    if grey:
        some = some.max(axis=1, keepdims=True)
    find = _dark_field(some) if _is_dark(some, grey=grey) else _bright_field(some)
    for number, view in enumerate(pixels):
        values = view.astype(np.float32)
        found[number] = valid[number] & find(values.max(axis=-1, keepdims=True) if grey else values)
    return found


def _is_dark(some: Float[np.ndarray, "n c"], *, grey: bool) -> bool:
    """Whether the slide's background is dark, by a sample of its px."""
    if grey:
        return bool(np.median(some) < 96)
    lit = some[some.max(axis=1) >= _BLACK]
    return not len(lit) or bool((lit.min(axis=1) >= 80).mean() < 0.1)


def _dark_field(some: Float[np.ndarray, "n c"]) -> _Find:
    """What finds px that are brighter than the background, by the darkest px of a sample."""
    darkest, level = np.quantile(some.max(axis=1), (0.005, 0.05)).tolist()
    least = max(_SIGNAL, _NOISE * (level - darkest))

    def find(values: Float[np.ndarray, "h w c"]) -> Bool[np.ndarray, "h w"]:
        signal = values.max(axis=-1) - level
        return _joined(signal >= least, signal >= 0.75 * least)

    return find


def _bright_field(some: Float[np.ndarray, "n c"]) -> _Find:
    """What finds px that absorb light; of a picture with colour, with a stain."""
    white = _white(some)
    if len(white) == len("RGB"):
        return lambda values: _stained(values, white)

    def find(values: Float[np.ndarray, "h w 1"]) -> Bool[np.ndarray, "h w"]:
        density = np.log((white + 1) / (values + 1))[..., 0]
        return np.asarray((density >= 2 * _STAINED) & (values[..., 0] >= _BLACK))

    return find


def _white(some: Float[np.ndarray, "n c"]) -> Float[np.ndarray, " c"]:
    """The colour of the slide's glass: the commonest that is bright and nearly white.

    Where that is as white as what wasn't scanned, the next one, if it is common. A colour that isn't common, or is
    pink, may be that of pale tissue: its green, which stains absorb most, is raised.
    """
    least = some.min(axis=1)
    glass = some[(least >= 190) & (np.ptp(some, axis=1) <= 32)]
    if len(glass) < len(some) / 100:
        glass = some[least >= np.quantile(least, 0.98)].clip(200)
    kind = (glass // 8).astype(np.int64) @ 32 ** np.arange(some.shape[1])
    counts = np.bincount(kind)
    best = int(counts.argmax())
    if glass[kind == best].min() >= 248:
        counts[best] = 0
        best = int(counts.argmax()) if counts.max() >= len(some) / 20 else best
    white = glass[kind == best].mean(axis=0)
    if len(white) == len("RGB"):
        others = min(white[0], white[2])
        if others - white[1] > 6 or (kind == best).sum() < 0.15 * len(some):
            white = np.maximum(white, white.max() - 24)
            white[1] = max(white[1], others)
    return white


def _stained(values: Float[np.ndarray, "h w 3"], white: Float[np.ndarray, " 3"]) -> Bool[np.ndarray, "h w"]:
    """Px of a bright field that are stained, and not with a pen."""
    density = np.maximum(np.log((white + 1) / (values + 1)), 0)
    most, least = density.max(axis=-1), density.min(axis=-1)
    red, green, blue = np.moveaxis(density, -1, 0)
    ink = (red > 1.02 * green) & (red > 1.1)  # blue
    ink |= (green < 0.75 * np.minimum(red, blue)) & (np.minimum(red, blue) > 0.5)  # green
    ink |= (blue > 0.75 * green) & (red < 0.22 * green) & (green > 1.4)  # red
    ink |= (least > 1.3) & (red > 0.9 * green) & (blue > 0.7 * green) & (blue < 1.12 * green)  # black
    edge = (red > 1.03 * green) | (green < 0.9 * np.minimum(red, blue)) | (least > 0.75 * most)
    edge |= (blue > 0.7 * green) & (red < 0.4 * green)
    ink |= _near(ink, 2) & edge
    grey = most - least < 0.12 * most  # a pen's end, dust
    colour = np.where(ink | grey | (values.max(axis=-1) < _BLACK), 0, most - least)
    darker = np.log((white @ _BRIGHTNESS + 1) / (values @ _BRIGHTNESS + 1))
    colour[darker < _DARKENS * colour] = 0
    halo = _near(ink, _HALO)
    strong = colour >= np.where(halo, 2 * _STAINED, _STAINED)
    strong &= ~halo | (_crowd(strong) > 4)
    sure = strong & (~halo | ((_crowd(strong) >= _CROWD) & ~_near(ink, _CLOSE)))
    strong = _reached(sure, strong)
    return _joined(strong, (colour >= _NEARLY) & ~halo)


def _joined(strong: Bool[np.ndarray, "h w"], weak: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Strong px, and weak ones beside them."""
    return strong | (weak & _near(strong))


def _crowd(mask: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """How many px of a mask are in the 3 x 3 around each px."""
    height, width = mask.shape
    padded = np.pad(mask, 1).astype(np.uint8)
    shifts = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.asarray(np.sum(shifts, axis=0, dtype=np.uint8))


def _reached(start: Bool[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Px of a mask that hang together with some of them."""
    found = start & mask
    while True:
        more = _near(found) & mask
        if np.array_equal(more, found):
            return found
        found = more


def _near(mask: Bool[np.ndarray, "h w"], px: int = 1) -> Bool[np.ndarray, "h w"]:
    """Px of a mask, and those at most so many from one, along or across."""
    out = mask.copy()
    for _ in range(px):
        down = out.copy()
        down[1:] |= out[:-1]
        down[:-1] |= out[1:]
        out = down.copy()
        out[:, 1:] |= down[:, :-1]
        out[:, :-1] |= down[:, 1:]
    return out
