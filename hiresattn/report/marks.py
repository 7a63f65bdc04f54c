"""Regions drawn on a picture: outlines by depth, numbers where there is room."""

from collections.abc import Sequence
from itertools import product

from PIL import Image, ImageDraw, ImageFont

from hiresattn.inference.record import VisitedRegion
from hiresattn.report.view import Region

Box = tuple[float, float, float, float]  # left, top, right, bottom; px of the picture

#: Colours by depth; told apart by colour-blind readers too (after Okabe and Ito 2008).
COLOURS = ("#ffffff", "#56b4e9", "#f0e442", "#ff6a2b", "#ff7fd4", "#9d8cff")
TRUTH = "#00ff55"
DARK = "#16181d"
_WIDTHS = (1, 3, 2)
_LEAST = 9
_NUMBERED = 20
_ROOMY = 60
_TALL = 14
_TRUTH_RADIUS = 16


def colour(depth: int) -> str:
    """The colour of a depth; deep ones take turns."""
    return COLOURS[depth] if depth < len(COLOURS) else COLOURS[1 + (depth - 1) % (len(COLOURS) - 1)]


class Marks:
    """Draws regions on a picture.

    Args:
        picture: What to draw on.
        frame: The region that it shows, level-0 px.
    """

    def __init__(self, picture: Image.Image, frame: Region) -> None:
        self._draw = ImageDraw.Draw(picture)
        self._size = picture.size
        self._frame = frame
        self._font = ImageFont.load_default(size=12)
        self._labels: list[Box] = []
        self._small: list[Box] = []

    def draw(
        self, regions: Sequence[VisitedRegion], truth: Sequence[Region], best: VisitedRegion | None
    ) -> None:
        """Outline all regions, the deeper on top; number those large enough, the most attended first.

        Args:
            regions: What to draw; those that don't lie in the frame are left out.
            truth: Where the targets are.
            best: The region to stress.
        """
        inside = [region for region in regions if self._shows(region)]
        for region in sorted(inside, key=lambda region: region.depth):
            box = self.box(region)
            self._outline(box, colour(region.depth), _WIDTHS[min(region.depth, len(_WIDTHS) - 1)])
            if box[2] - box[0] < _ROOMY:
                self._small.append(box)
        if best is not None and best in inside:
            box = self.box(best)
            self._outline((box[0] - 3, box[1] - 3, box[2] + 3, box[3] + 3), colour(best.depth), 2)
        for target in truth:
            if self._meets(target):
                self._truth(target)
        for region in sorted(inside, key=lambda region: -region.attention):
            if region.depth > 0 and (region is best or min(self._sides(region)) >= _NUMBERED):
                self._number(region)

    def box(self, region: VisitedRegion) -> Box:
        """Where a region lies on the picture; a tiny one is enlarged about its centre."""
        return self._place((region.y, region.x, region.height, region.width), _LEAST)

    def _sides(self, region: VisitedRegion) -> tuple[float, float]:
        left, top, right, bottom = self.box(region)
        return right - left, bottom - top

    def _shows(self, region: VisitedRegion) -> bool:
        """Whether a region lies in the frame and is not all of it."""
        y, x, height, width = self._frame
        start = region.y >= y and region.x >= x
        stop = region.y + region.height <= y + height and region.x + region.width <= x + width
        return start and stop and (region.height, region.width) != (height, width)

    def _meets(self, region: Region) -> bool:
        """Whether a part of a region lies in the frame."""
        starts = [max(region[axis], self._frame[axis]) for axis in (0, 1)]
        stops = [min(r[axis] + r[axis + 2] for r in (region, self._frame)) for axis in (0, 1)]
        return all(start < stop for start, stop in zip(starts, stops, strict=True))

    def _place(self, region: Region, least: float) -> Box:
        y, x, height, width = region
        scale_x, scale_y = self._size[0] / self._frame[3], self._size[1] / self._frame[2]
        middle_x = (x - self._frame[1] + width / 2) * scale_x
        middle_y = (y - self._frame[0] + height / 2) * scale_y
        half_x, half_y = max(width * scale_x, least) / 2, max(height * scale_y, least) / 2
        right, bottom = self._size[0] - 1, self._size[1] - 1
        return (
            max(middle_x - half_x, 0),
            max(middle_y - half_y, 0),
            min(middle_x + half_x, right),
            min(middle_y + half_y, bottom),
        )

    def _outline(self, box: Box, ink: str, width: int) -> None:
        self._draw.rectangle((box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1), outline=DARK, width=width + 2)
        self._draw.rectangle(box, outline=ink, width=width)

    def _truth(self, region: Region) -> None:
        left, top, right, bottom = self._place(region, 1)
        x, y = (left + right) / 2, (top + bottom) / 2
        radius = max(0.75 * max(right - left, bottom - top), _TRUTH_RADIUS)
        for shrink, ink, width in ((0, DARK, 5), (1, TRUTH, 3)):
            reach = radius - shrink
            self._draw.ellipse((x - reach, y - reach, x + reach, y + reach), outline=ink, width=width)
        self._small.append((x - radius, y - radius, x + radius, y + radius))

    def _number(self, region: VisitedRegion) -> None:
        """Beside its mark, where it covers no other number and, if possible, no small mark."""
        box, text = self.box(region), str(region.id)
        width = self._font.getlength(text) + 4
        places = _places(box, width, inside=box[2] - box[0] >= _ROOMY)
        for avoided in ([*self._labels, *self._small], self._labels):
            for place in places:
                if self._holds(place) and not any(_touch(place, other) for other in avoided):
                    self._labels.append(place)
                    self._draw.rectangle(place, fill=DARK)
                    self._draw.text(
                        (place[0] + 2, place[1]), text, fill=colour(region.depth), font=self._font
                    )
                    return

    def _holds(self, place: Box) -> bool:
        return place[0] >= 0 and place[1] >= 0 and place[2] < self._size[0] and place[3] < self._size[1]


def _places(box: Box, width: float, *, inside: bool) -> list[Box]:
    """Where a number could go, the best first: in a corner if there is room, else around the mark."""
    left, top, right, bottom = box
    if inside:
        columns = [left + 3, right - width - 3]
        rows = [top + 3, bottom - _TALL - 3]
        corners = [(x, y) for y, x in product(rows, columns)]
    else:
        columns = [right + 1, left - width - 1, (left + right - width) / 2]
        rows = [top - _TALL - 1, bottom + 1, (top + bottom - _TALL) / 2]
        corners = list(product(columns, rows))[:-1]  # the last one lies on the mark
    return [(x, y, x + width, y + _TALL) for x, y in corners]


def _touch(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
