"""Draws regions on an image: outlines coloured by depth, numbers where there is room."""

from collections.abc import Sequence
from itertools import product

from PIL import Image, ImageDraw, ImageFont

from hiresattn.inference.record import VisitedRegion
from hiresattn.report.view import Region

Box = tuple[float, float, float, float]  # left, top, right, bottom; px of the image

#: Colours by depth that colour-blind readers can tell apart (after Okabe and Ito 2008).
COLOURS = ("#ffffff", "#56b4e9", "#f0e442", "#ff6a2b", "#ff7fd4", "#9d8cff")
TRUTH = "#00ff55"
DARK = "#16181d"
#: Widths of outlines by depth, px; the last holds for all deeper ones.
_WIDTHS = (1, 3, 2)
#: Smallest outline, px.
_MIN_SIDE = 9
#: Smallest side of an outline that gets a number, px.
_NUMBERED_FROM = 20
#: Width from which the number fits inside, px.
_INSIDE_FROM = 60
_TEXT_HEIGHT = 14
_MIN_TARGET_RADIUS = 16


def depth_colour(depth: int) -> str:
    """The colour of a depth; from the seventh on, colours repeat."""
    return COLOURS[depth] if depth < len(COLOURS) else COLOURS[1 + (depth - 1) % (len(COLOURS) - 1)]


class Marks:
    """Draws regions on an image.

    Args:
        image: The image to draw on.
        frame: The region that it shows, ``(y, x, height, width)`` in level-0 px.
    """

    def __init__(self, image: Image.Image, frame: Region) -> None:
        self._draw = ImageDraw.Draw(image)
        self._size = image.size
        self._frame = frame
        self._font = ImageFont.load_default(size=12)
        self._labels: list[Box] = []
        self._small: list[Box] = []

    def draw(
        self, regions: Sequence[VisitedRegion], truth: Sequence[Region], best: VisitedRegion | None
    ) -> None:
        """Outline all regions, the deeper on top, and number those that are large enough, by falling attention.

        Args:
            regions: The visited regions; those outside the frame are left out.
            truth: Known targets, ``(y, x, height, width)`` in level-0 px.
            best: The region to outline twice.
        """
        inside = [region for region in regions if self._shows(region)]
        for region in sorted(inside, key=lambda region: region.depth):
            box = self.box(region)
            self._outline(box, depth_colour(region.depth), _WIDTHS[min(region.depth, len(_WIDTHS) - 1)])
            if box[2] - box[0] < _INSIDE_FROM:
                self._small.append(box)
        if best is not None and best in inside:
            box = self.box(best)
            self._outline((box[0] - 3, box[1] - 3, box[2] + 3, box[3] + 3), depth_colour(best.depth), 2)
        for target in truth:
            if self._meets(target):
                self._truth(target)
        for region in sorted(inside, key=lambda region: -region.attention):
            if region.depth > 0 and (region is best or min(self._sides(region)) >= _NUMBERED_FROM):
                self._number(region)

    def box(self, region: VisitedRegion) -> Box:
        """Where a region lies on the image, px; a tiny one is enlarged about its centre."""
        return self._scaled((region.y, region.x, region.height, region.width), _MIN_SIDE)

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

    def _scaled(self, region: Region, min_side: float) -> Box:
        """Level-0 px to px of the image, cut at its edges."""
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

    def _outline(self, box: Box, line_colour: str, width: int) -> None:
        self._draw.rectangle((box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1), outline=DARK, width=width + 2)
        self._draw.rectangle(box, outline=line_colour, width=width)

    def _truth(self, region: Region) -> None:
        left, top, right, bottom = self._scaled(region, 1)
        x, y = (left + right) / 2, (top + bottom) / 2
        radius = max(0.75 * max(right - left, bottom - top), _MIN_TARGET_RADIUS)
        for shrink, line_colour, width in ((0, DARK, 5), (1, TRUTH, 3)):
            reach = radius - shrink
            self._draw.ellipse((x - reach, y - reach, x + reach, y + reach), outline=line_colour, width=width)
        self._small.append((x - radius, y - radius, x + radius, y + radius))

    def _number(self, region: VisitedRegion) -> None:
        """Write a region's ``id`` where it covers no other number and, if possible, no small outline."""
        box, text = self.box(region), str(region.id)
        width = self._font.getlength(text) + 4
        candidates = _positions(box, width, inside=box[2] - box[0] >= _INSIDE_FROM)
        for avoided in ([*self._labels, *self._small], self._labels):
            for at in candidates:
                if self._is_inside(at) and not any(_overlap(at, other) for other in avoided):
                    self._labels.append(at)
                    self._draw.rectangle(at, fill=DARK)
                    self._draw.text(
                        (at[0] + 2, at[1]), text, fill=depth_colour(region.depth), font=self._font
                    )
                    return

    def _is_inside(self, box: Box) -> bool:
        return box[0] >= 0 and box[1] >= 0 and box[2] < self._size[0] and box[3] < self._size[1]


def _positions(box: Box, width: float, *, inside: bool) -> list[Box]:
    """Where a number could go, the best first: in a corner if there is room, else around the outline."""
    left, top, right, bottom = box
    if inside:
        columns = [left + 3, right - width - 3]
        rows = [top + 3, bottom - _TEXT_HEIGHT - 3]
        corners = [(x, y) for y, x in product(rows, columns)]
    else:
        columns = [right + 1, left - width - 1, (left + right - width) / 2]
        rows = [top - _TEXT_HEIGHT - 1, bottom + 1, (top + bottom - _TEXT_HEIGHT) / 2]
        corners = list(product(columns, rows))[:-1]  # the last one lies on the outline
    return [(x, y, x + width, y + _TEXT_HEIGHT) for x, y in corners]


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
