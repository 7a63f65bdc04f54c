"""Charts drawn with Pillow: lines with confidence intervals, bars, confusion matrices."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hiresattn.report.marks import DARK, ascii_text
from hiresattn.report.panel import BACKGROUND

#: Line colours that colour-blind readers can tell apart (after Okabe and Ito 2008), on a light background.
LINE_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
GRID_COLOUR = "#c9ccd3"
_WIDTH, _HEIGHT = 720, 480
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 190, 64, 56
_DARKEST = np.array([0, 62, 107])
_CELLS = 480
_LABEL = 150


class Chart:
    """A chart of 720 x 480 px: axes, and the lines and bars that are drawn into them.

    Args:
        title: Title.
        x: Label of the horizontal axis and its ticks as ``(value, text)``; the axis ends at the first and last tick.
        y: The same for the vertical axis.
    """

    def __init__(
        self,
        title: str,
        x: tuple[str, Sequence[tuple[float, str]]],
        y: tuple[str, Sequence[tuple[float, str]]],
    ) -> None:
        self._image = Image.new("RGB", (_WIDTH, _HEIGHT), BACKGROUND)
        self._draw = ImageDraw.Draw(self._image)
        self._x, self._y = (tuple(at for at, _ in ticks) for _, ticks in (x, y))
        self._entries = 0
        self._text((_LEFT, 14), title, 16)
        for at, words in x[1]:
            across, down = self._at(at, self._y[0])
            self._draw.line((across, _TOP, across, down), fill=GRID_COLOUR)
            self._text((across, down + 6), words, 12, "ma")
        for at, words in y[1]:
            across, down = self._at(self._x[0], at)
            self._draw.line((across, down, _WIDTH - _RIGHT, down), fill=GRID_COLOUR)
            self._text((across - 8, down), words, 12, "rm")
        self._text(((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 10), x[0], 13, "md")
        self._text((_LEFT, _TOP - 4), y[0], 12, "ld")

    def line(
        self,
        name: str,
        points: Sequence[tuple[float, float]],
        colour: str,
        intervals: Sequence[tuple[float, float] | None] = (),
        *,
        dots: bool = True,
    ) -> None:
        """Draw a line through points, with the confidence interval of each if given, and add it to the legend."""
        pixels = [self._at(*point) for point in points]
        if len(pixels) > 1:
            self._draw.line([value for pixel in pixels for value in pixel], fill=colour, width=2)
        for (across, down), (at, _), interval in zip(
            pixels, points, intervals or [None] * len(points), strict=True
        ):
            if dots:
                self._draw.ellipse((across - 4, down - 4, across + 4, down + 4), fill=colour)
            if interval:
                low, high = (self._at(at, value)[1] for value in interval)
                self._draw.line((across, low, across, high), fill=colour, width=1)
        self.legend_entry(name, colour)

    def bar(self, low: float, high: float, value: float, colour: str) -> None:
        """Draw a bar from the axis up to a value, ``low`` to ``high`` wide."""
        left, top = self._at(low, value)
        right, bottom = self._at(high, self._y[0])
        self._draw.rectangle((left + 1, min(top, bottom), right - 1, bottom), fill=colour)

    def vertical_line(self, x: float, name: str | None = None) -> None:
        """Draw a thin line over the whole height at ``x``; a dashed one, with its name in the legend, if it has one."""
        across, down = self._at(x, self._y[0])
        if name is None:
            self._draw.line((across, _TOP, across, down), fill=DARK)
            return
        for top in range(_TOP, round(down), 10):
            self._draw.line((across, top, across, min(top + 5, down)), fill=DARK, width=2)
        self.legend_entry(name, DARK)

    def horizontal_line(self, name: str, y: float, colour: str) -> None:
        """Draw a line over the whole width at ``y`` and add it to the legend."""
        self._draw.line((*self._at(self._x[0], y), *self._at(self._x[-1], y)), fill=colour, width=2)
        self.legend_entry(name, colour)

    def image(self) -> Image.Image:
        """Return the chart as an image."""
        return self._image

    def _at(self, x: float, y: float) -> tuple[float, float]:
        """Px of a point; values outside the axes are drawn at their ends."""
        across, up = (
            min(max((value - axis[0]) / ((axis[-1] - axis[0]) or 1), 0), 1)
            for value, axis in ((x, self._x), (y, self._y))
        )
        return (
            _LEFT + across * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM),
        )

    def legend_entry(self, name: str, colour: str) -> None:
        """Add a colour and its name to the legend."""
        top = _TOP + 22 * self._entries
        self._draw.rectangle((_WIDTH - _RIGHT + 16, top + 3, _WIDTH - _RIGHT + 28, top + 11), fill=colour)
        self._text((_WIDTH - _RIGHT + 36, top + 7), name, 13, "lm")
        self._entries += 1

    def _text(self, at: tuple[float, float], text: str, size: int, anchor: str = "la") -> None:
        self._draw.text(
            at, ascii_text(text), fill=DARK, font=ImageFont.load_default(size=size), anchor=anchor
        )


def confusion_matrix(
    title: str, rows: str, columns: str, names: Sequence[str], counts: np.ndarray
) -> Image.Image:
    """Draw a matrix of counts, each cell shaded by its share of the row.

    Args:
        title: Title.
        rows: What the rows stand for.
        columns: What the columns stand for.
        names: Class names, the same for rows and columns.
        counts: ``[c c]``, whole numbers.

    Returns:
        The image. Above 20 classes the counts are left out, above 40 the names too.
    """
    small = ImageFont.load_default(size=int(min(max(_CELLS / len(names) / 3.5, 9), 14)))
    named = _CELLS / len(names) >= 12
    top = _TOP + (_LABEL if named else 24)
    image = Image.new("RGB", (_LABEL + _CELLS + 20, top + _CELLS + 44), BACKGROUND)
    draw = ImageDraw.Draw(image)
    draw.text((16, 10), ascii_text(title), fill=DARK, font=ImageFont.load_default(size=16))
    side = _CELLS / len(names)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    for row, column in np.ndindex(*counts.shape):
        share = float(shares[row, column])
        shade = tuple(int(value) for value in 255 - share * (255 - _DARKEST))
        left, above = _LABEL + column * side, top + row * side
        draw.rectangle((left, above, left + side - 1, above + side - 1), fill=shade)
        if side >= 24:
            at = (left + side / 2, above + side / 2)
            text_colour = "white" if share > 0.5 else DARK
            draw.text(at, str(counts[row, column]), fill=text_colour, font=small, anchor="mm")
    axis = ImageFont.load_default(size=13)
    draw.text((_LABEL + _CELLS / 2, _TOP - 12), ascii_text(columns), fill=DARK, font=axis, anchor="mm")
    _turned(image, (20, top + _CELLS / 2), ascii_text(rows), axis)
    for number, name in enumerate(names if named else ()):
        middle = (number + 0.5) * side
        draw.text((_LABEL - 8, top + middle), _shortened(name, small), fill=DARK, font=small, anchor="rm")
        _turned(image, (_LABEL + middle, top - 8), _shortened(name, small), small, anchor="rm")
    below = "numbers: images; shade: share of the row"
    draw.text((_LABEL, top + _CELLS + 14), below, fill=DARK, font=axis)
    return image


def _turned(
    image: Image.Image,
    at: tuple[float, float],
    text: str,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    anchor: str = "mm",
) -> None:
    """Write text upwards: its middle at a point, or with ``anchor`` "rm" its beginning."""
    size = (round(font.getlength(text)) + 2, 22)
    part = Image.new("RGB", size, BACKGROUND)
    ImageDraw.Draw(part).text((1, 11), text, fill=DARK, font=font, anchor="lm")
    part = part.rotate(90, expand=True)
    top = at[1] - part.height / 2 if anchor == "mm" else at[1] - part.height
    image.paste(part, (round(at[0] - part.width / 2), round(top)))


def _shortened(name: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """A name cut to the width of the margin."""
    name = ascii_text(name)
    shown = name
    while font.getlength(shown) > _LABEL - 50 and name:
        name = name[:-1]
        shown = f"{name}.."
    return shown
