"""Draws on a picture of an image: attention, frames and outlines of regions, known targets, a scale bar."""

import unicodedata
from collections.abc import Sequence
from itertools import product

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hiresattn.inference.record import VisitedRegion
from hiresattn.report.looks import finest
from hiresattn.report.view import Region

Box = tuple[float, float, float, float]  # left, top, right, bottom; px of the picture

#: Attention from weak to strong, and its greatest opacity.
WEAK, STRONG = (255, 214, 10), (214, 40, 20)
_OPAQUE = 0.55
#: The outline of a look, of one that is shown at native resolution beside, and of a known target.
LOOK, SHOWN, TRUTH = "#56b4e9", "#ffffff", "#00ff55"
DARK = "#16181d"
#: Colours of the marks that must survive where a picture is kept in few colours.
COLOURS = ("#ffffff", DARK, LOOK, "#ffd60a", "#d62814")
#: Smallest outline, px.
_MIN_SIDE = 7
_TEXT_HEIGHT = 16
_MIN_TARGET_RADIUS = 16
_DASH = 10
#: Longest scale bar, as a share of the picture's width, and px per mm, m and km in micrometres.
_BAR = 0.3
_UNITS = ((1e9, "km"), (1e6, "m"), (1e3, "mm"), (1.0, "um"))


def heat_colour(strength: float) -> tuple[int, int, int]:
    """The colour of attention, from 0 (weak) to 1 (the strongest)."""
    red, green, blue = (round(a + strength * (b - a)) for a, b in zip(WEAK, STRONG, strict=True))
    return red, green, blue


class Marks:
    """Draws regions on a picture.

    Args:
        image: The picture to draw on.
        frame: The region that it shows, ``(y, x, height, width)`` in level-0 px.
    """

    def __init__(self, image: Image.Image, frame: Region) -> None:
        self._image = image
        self._draw = ImageDraw.Draw(image)
        self._size = image.size
        self._frame = frame
        self._font = ImageFont.load_default(size=13)
        self._labels: list[Box] = []

    def draw(
        self, regions: Sequence[VisitedRegion], shown: Sequence[VisitedRegion], truth: Sequence[Region]
    ) -> None:
        """Draw the attention, the frames of the root regions, the finest looks, known targets, and numbers.

        Args:
            regions: The visited regions; those outside the frame are left out.
            shown: Those that are shown beside, which get their numbers there, from 1.
            truth: Known targets, ``(y, x, height, width)`` in level-0 px.
        """
        inside = [region for region in regions if self._shows(region)]
        self.heat(inside)
        for region in inside:
            if region.depth == 0:
                self._dashed(self.box(region))
        for region in finest(inside):
            self._outline(self.box(region), LOOK, 1)
        for target in truth:
            if self._meets(target):
                self._truth(target)
        numbered = [(at, region) for at, region in enumerate(shown, 1) if self._shows(region)]
        numbered = [(at, region) for at, region in numbered if region.depth > 0]
        for _, region in numbered:
            self._outline(self.box(region), SHOWN, 2)
        for at, region in numbered:
            self._number(self.box(region), str(at))

    def heat(self, regions: Sequence[VisitedRegion]) -> None:
        """Shade the looks by their attention per px, the deeper over the coarser; root regions are left clear."""
        looks = sorted((one for one in regions if one.depth > 0), key=lambda one: (one.depth, one.attention))
        most = max(map(_density, looks), default=0.0)
        if most <= 0:
            return
        opacity = np.zeros(self._size[::-1], np.float32)
        colour = np.zeros((*self._size[::-1], 3), np.float32)
        for one in looks:
            left, top, right, bottom = (round(edge) for edge in self.box(one))
            strength = max(_density(one) / most, 0.0)
            where = (slice(top, bottom + 1), slice(left, right + 1))
            opacity[where], colour[where] = _OPAQUE * strength**0.5, heat_colour(strength)
        pixels = np.asarray(self._image, np.float32)
        mixed = pixels + opacity[..., None] * (colour - pixels)
        self._image.paste(Image.fromarray(mixed.round().astype(np.uint8)))

    def scale_bar(self, mpp: float | None) -> None:
        """Draw a bar of a round length at the lower left: in um, mm, m or km, in px where the scale isn't known.

        Args:
            mpp: Micrometres per level-0 px.
        """
        width = self._size[0]
        longest = _BAR * self._frame[3] * (mpp or 1.0)  # in um, or px
        length = _round_length(longest)
        across = length / (mpp or 1.0) / self._frame[3] * width
        unit, name = next(((u, n) for u, n in _UNITS if length >= u), _UNITS[-1]) if mpp else (1.0, "px")
        text = f"{length / unit:g} {name}"
        font = ImageFont.load_default(size=14)
        wide = max(across, font.getlength(text)) + 16
        top, left = self._size[1] - 44, 8
        self._draw.rectangle((left, top, left + wide, top + 36), fill="#ffffff", outline=DARK)
        self._draw.rectangle((left + 8, top + 7, left + 8 + across, top + 11), fill=DARK)
        draw_text(self._draw, (left + 8, top + 15), text, font)

    def box(self, region: VisitedRegion) -> Box:
        """Where a region lies on the picture, px; a tiny one is enlarged about its centre."""
        return self._scaled((region.y, region.x, region.height, region.width), _MIN_SIDE)

    def _shows(self, region: VisitedRegion) -> bool:
        """Whether a region lies in the frame."""
        y, x, height, width = self._frame
        start = region.y >= y and region.x >= x
        return start and region.y + region.height <= y + height and region.x + region.width <= x + width

    def _meets(self, region: Region) -> bool:
        """Whether a part of a region lies in the frame."""
        starts = [max(region[axis], self._frame[axis]) for axis in (0, 1)]
        stops = [min(r[axis] + r[axis + 2] for r in (region, self._frame)) for axis in (0, 1)]
        return all(start < stop for start, stop in zip(starts, stops, strict=True))

    def _scaled(self, region: Region, min_side: float) -> Box:
        """Level-0 px to px of the picture, cut at its edges."""
        y, x, height, width = region
        scale_x, scale_y = self._size[0] / self._frame[3], self._size[1] / self._frame[2]
        middle_x = (x - self._frame[1] + width / 2) * scale_x
        middle_y = (y - self._frame[0] + height / 2) * scale_y
        half_x, half_y = max(width * scale_x, min_side) / 2, max(height * scale_y, min_side) / 2
        right, bottom = self._size[0] - 1, self._size[1] - 1
        return (
            max(middle_x - half_x, 0),
            max(middle_y - half_y, 0),
            min(middle_x + half_x, right),
            min(middle_y + half_y, bottom),
        )

    def _outline(self, box: Box, colour: str, width: int) -> None:
        """A thin line, with a dark one around it, so that it is seen on any ground."""
        left, top, right, bottom = box
        self._draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=DARK, width=width + 1)
        self._draw.rectangle(box, outline=colour, width=width)

    def _dashed(self, box: Box) -> None:
        """A frame of dark and white dashes, seen on glass and on tissue."""
        left, top, right, bottom = box
        for start, stop in (((left, top), (right, top)), ((left, bottom), (right, bottom)),
                            ((left, top), (left, bottom)), ((right, top), (right, bottom))):  # fmt: skip
            length = max(abs(stop[0] - start[0]), abs(stop[1] - start[1]))
            self._draw.line((*start, *stop), fill="#ffffff", width=3)
            for at in np.arange(0, length, 2 * _DASH):
                ends = [min(at + step, length) / max(length, 1) for step in (0, _DASH)]
                points = [start[axis] + end * (stop[axis] - start[axis]) for end in ends for axis in (0, 1)]
                self._draw.line(points, fill=DARK, width=3)

    def _truth(self, region: Region) -> None:
        left, top, right, bottom = self._scaled(region, 1)
        x, y = (left + right) / 2, (top + bottom) / 2
        radius = max(0.75 * max(right - left, bottom - top), _MIN_TARGET_RADIUS)
        for shrink, colour, width in ((0, DARK, 5), (1, TRUTH, 3)):
            reach = radius - shrink
            self._draw.ellipse((x - reach, y - reach, x + reach, y + reach), outline=colour, width=width)

    def _number(self, box: Box, text: str) -> None:
        """Write a number beside an outline, where it covers no other."""
        width = self._font.getlength(text) + 6
        for at in _positions(box, width):
            if self._is_inside(at) and not any(_overlap(at, other) for other in self._labels):
                self._labels.append(at)
                self._draw.rectangle(at, fill=DARK)
                self._draw.text((at[0] + 3, at[1]), text, fill="#ffffff", font=self._font)
                return

    def _is_inside(self, box: Box) -> bool:
        return box[0] >= 0 and box[1] >= 0 and box[2] < self._size[0] and box[3] < self._size[1]


def ascii_text(text: str) -> str:
    """A text in what Pillow's built-in font has: letters without their accents, ``u`` for micro, ``?`` for the rest."""
    plain = text.replace("\u00b5", "u").replace("\u03bc", "u").replace("\u00df", "ss")
    plain = "".join(one for one in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(one))
    return plain.encode("ascii", "replace").decode()


def draw_text(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    colour: str = DARK,
) -> None:
    """Write text in what Pillow's built-in font has; a ``um`` gets the tail that makes a micrometre of it."""
    text = ascii_text(text)
    draw.text(at, text, fill=colour, font=font)
    start = (" " + text + " ").find(" um ")
    if start >= 0:
        box = draw.textbbox((at[0] + font.getlength(text[:start]), at[1]), "u", font=font)
        draw.line((box[0] + 0.5, box[1], box[0] + 0.5, box[3] + 3), fill=colour, width=1)


def _density(region: VisitedRegion) -> float:
    """A look's weight per px."""
    return region.attention / (region.height * region.width)


def _round_length(most: float) -> float:
    """The greatest of 1, 2 and 5 times a power of ten that isn't greater."""
    power = 10.0 ** np.floor(np.log10(most))
    return float(next((step * power for step in (5, 2, 1) if step * power <= most), power))


def _positions(box: Box, width: float) -> list[Box]:
    """Where a number could go, the best first: around the outline, then further and further off."""
    left, top, right, bottom = box
    found = []
    for off in (1, 6, 14, 24):
        columns = [right + off, left - width - off, (left + right - width) / 2]
        rows = [top - _TEXT_HEIGHT - off, bottom + off, (top + bottom - _TEXT_HEIGHT) / 2]
        found += list(product(columns, rows))[:-1]  # the last one lies on the outline
    return [(x, y, x + width, y + _TEXT_HEIGHT) for x, y in found]


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
