"""Plain charts, drawn with Pillow: lines with intervals, bars, a matrix of counts."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hiresattn.report.marks import DARK
from hiresattn.report.panel import PAPER

#: Told apart by colour-blind readers too (after Okabe and Ito 2008), on a light ground.
INKS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
FAINT = "#c9ccd3"
_WIDTH, _HEIGHT = 720, 480
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 190, 64, 56
_DARKEST = np.array([0, 62, 107])
_CELLS = 480
_LABEL = 150


class Chart:
    """Axes with what is drawn into them.

    Args:
        title: Above.
        x: What the horizontal axis says, with its ticks as ``(value, words)``; its ends are the first and last.
        y: The same for the vertical axis.
    """

    def __init__(
        self,
        title: str,
        x: tuple[str, Sequence[tuple[float, str]]],
        y: tuple[str, Sequence[tuple[float, str]]],
    ) -> None:
        self._image = Image.new("RGB", (_WIDTH, _HEIGHT), PAPER)
        self._draw = ImageDraw.Draw(self._image)
        self._x, self._y = (tuple(at for at, _ in ticks) for _, ticks in (x, y))
        self._named = 0
        self._text((_LEFT, 14), title, 16)
        for at, words in x[1]:
            across, down = self._at(at, self._y[0])
            self._draw.line((across, _TOP, across, down), fill=FAINT)
            self._text((across, down + 6), words, 12, "ma")
        for at, words in y[1]:
            across, down = self._at(self._x[0], at)
            self._draw.line((across, down, _WIDTH - _RIGHT, down), fill=FAINT)
            self._text((across - 8, down), words, 12, "rm")
        self._text(((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 10), x[0], 13, "md")
        self._text((_LEFT, _TOP - 4), y[0], 12, "ld")

    def line(
        self,
        name: str,
        points: Sequence[tuple[float, float]],
        ink: str,
        spans: Sequence[tuple[float, float] | None] = (),
        *,
        dots: bool = True,
    ) -> None:
        """A line through points, with the interval of each where it has one, and its name in the legend."""
        places = [self._at(*point) for point in points]
        if len(places) > 1:
            self._draw.line([value for place in places for value in place], fill=ink, width=2)
        for (across, down), (at, _), span in zip(places, points, spans or [None] * len(points), strict=True):
            if dots:
                self._draw.ellipse((across - 4, down - 4, across + 4, down + 4), fill=ink)
            if span:
                low, high = (self._at(at, value)[1] for value in span)
                self._draw.line((across, low, across, high), fill=ink, width=1)
        self.key(name, ink)

    def bar(self, low: float, high: float, value: float, ink: str) -> None:
        """A bar from the axis up to a value."""
        left, top = self._at(low, value)
        right, bottom = self._at(high, self._y[0])
        self._draw.rectangle((left + 1, min(top, bottom), right - 1, bottom), fill=ink)

    def mark(self, value: float) -> None:
        """A thin line up at one value."""
        across, down = self._at(value, self._y[0])
        self._draw.line((across, _TOP, across, down), fill=DARK)

    def level(self, name: str, value: float, ink: str) -> None:
        """A line across at one value."""
        self._draw.line((*self._at(self._x[0], value), *self._at(self._x[-1], value)), fill=ink, width=2)
        self.key(name, ink)

    def finished(self) -> Image.Image:
        """The picture."""
        return self._image

    def _at(self, x: float, y: float) -> tuple[float, float]:
        """Px of a point; what lies outside is drawn at the edge."""
        shares = (
            min(max((value - axis[0]) / ((axis[-1] - axis[0]) or 1), 0), 1)
            for value, axis in ((x, self._x), (y, self._y))
        )
        across, up = shares
        return (
            _LEFT + across * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM),
        )

    def key(self, name: str, ink: str) -> None:
        """A colour and what it stands for, in the legend."""
        top = _TOP + 22 * self._named
        self._draw.rectangle((_WIDTH - _RIGHT + 16, top + 3, _WIDTH - _RIGHT + 28, top + 11), fill=ink)
        self._text((_WIDTH - _RIGHT + 36, top + 7), name, 13, "lm")
        self._named += 1

    def _text(self, at: tuple[float, float], words: str, size: int, anchor: str = "la") -> None:
        self._draw.text(at, plain(words), fill=DARK, font=ImageFont.load_default(size=size), anchor=anchor)


def matrix(title: str, rows: str, columns: str, names: Sequence[str], counts: np.ndarray) -> Image.Image:
    """Counts in a square, shaded by their share of the row.

    Args:
        title: Above.
        rows: What the rows are.
        columns: What the columns are.
        names: Of rows and columns.
        counts: ``[c c]``.

    Returns:
        The picture. With many classes their names and counts are left out.
    """
    image = Image.new("RGB", (_LABEL + _CELLS + 20, _TOP + _CELLS + 60), PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((_LABEL, 10), plain(title), fill=DARK, font=ImageFont.load_default(size=16))
    side = _CELLS / len(names)
    small = ImageFont.load_default(size=int(min(max(side / 3.5, 9), 14)))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    for row, column in np.ndindex(*counts.shape):
        share = float(shares[row, column])
        ink = tuple(int(value) for value in 255 - share * (255 - _DARKEST))
        left, top = _LABEL + column * side, _TOP + row * side
        draw.rectangle((left, top, left + side - 1, top + side - 1), fill=ink)
        if side >= 24:
            at = (left + side / 2, top + side / 2)
            paint = "white" if share > 0.5 else DARK
            draw.text(at, str(counts[row, column]), fill=paint, font=small, anchor="mm")
    if side >= 12:
        for number, name in enumerate(names):
            at = (_LABEL - 8, _TOP + (number + 0.5) * side)
            draw.text(at, _fitting(name, small), fill=DARK, font=small, anchor="rm")
    below = plain(f"across: {columns}; down: {rows}, in the same order")
    draw.text((_LABEL, _TOP + _CELLS + 12), below, fill=DARK, font=ImageFont.load_default(size=13))
    return image


def plain(words: str) -> str:
    """What the built-in font can draw."""
    return words.encode("ascii", "replace").decode()


def _fitting(name: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """A name, shortened to its place."""
    name = plain(name)
    shown = name
    while font.getlength(shown) > _LABEL - 14 and name:
        name = name[:-1]
        shown = f"{name}.."
    return shown
