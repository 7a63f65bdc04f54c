"""Where a prediction looked, as one picture: visited regions on a coarse view, close-ups beside it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from hiresattn.inference.record import Prediction, VisitedRegion
from hiresattn.pyramid.base import Pyramid
from hiresattn.report.marks import DARK, Marks, colour
from hiresattn.report.panel import INSET, PAPER, WIDTH, Panel
from hiresattn.report.view import Region, display_range, picture, read_view

_MARGIN = 16
_NARROWEST = 200


def draw_overlay(
    pyramid: Pyramid,
    prediction: Prediction,
    path: str | Path,
    *,
    side: int = 1024,
    values: tuple[float, float] | None = None,
    truth_boxes: Sequence[Region] = (),
) -> None:
    """Write a PNG that shows where a prediction looked.

    Left the classified region, with an outline per glimpse coloured by depth and numbered in the order of
    looking (the record's ``id``; where there is room). Right the class, the pixels of
    the most attended glimpse and, where that is tiny, its surroundings; what the colours mean; the cost.

    Args:
        pyramid: The image; its coarse view and one or two regions are read.
        prediction: The record.
        path: PNG to write.
        side: Longer side of the view, px; up to twice that for a narrow region.
        values: Values to show as black and white; by default 0 to 255 for uint8 (less for a dark image),
            else the 2nd to 98th percentile of the view. For display only.
        truth_boxes: Regions ``(y, x, height, width)`` to mark as the truth.

    Raises:
        ReadError: If a tile can't be decoded.
        OSError: If the file can't be written.
    """
    frame = prediction.region or (0, 0, pyramid.height, pyramid.width)
    longer, shorter = max(frame[2:]), min(frame[2:])
    side = max(side, min(round(_NARROWEST * longer / shorter), 2 * side))
    view = read_view(pyramid, frame, side)
    low, high = display_range(view, pyramid.dtype)
    if values is not None:
        low, high = np.full_like(low, values[0]), np.full_like(high, values[1])

    best = max(prediction.regions, key=lambda region: (region.attention, region.depth), default=None)
    around = _surroundings(prediction.regions, best)
    left = picture(view, low, high)
    marks = Marks(left, frame)
    marks.draw(prediction.regions, truth_boxes, around or best)

    panel = Panel()
    panel.heading(prediction)
    pointed_at = panel.y
    for region in (around, best):
        if region is None:
            continue
        box = (region.y, region.x, region.height, region.width)
        seen = picture(read_view(pyramid, box, INSET), low, high).resize((INSET, INSET))
        if region is best:
            share = f"{100 * region.attention:.0f} % of the weight"
            panel.close_up(seen, region, f"Look {region.id}, the most attended: {share}")
        else:
            Marks(seen, box).draw(prediction.regions, truth_boxes, best)
            panel.close_up(seen, region, f"Look {region.id}, which led to the most attended")
    panel.legend(prediction.regions, holes=not view.measured.all(), truth=bool(truth_boxes))
    panel.costs(prediction)

    whole = _beside(left, panel.finished())
    shown = around or best
    if shown is not None and shown.depth > 0:
        mark = marks.box(shown)
        start = (_MARGIN + mark[2], _MARGIN + (mark[1] + mark[3]) / 2)
        end = (left.width + 2 * _MARGIN, _MARGIN + pointed_at + INSET / 2)
        _pointer(ImageDraw.Draw(whole), start, end, colour(shown.depth))
    whole.save(path, format="PNG")


def _surroundings(regions: tuple[VisitedRegion, ...], best: VisitedRegion | None) -> VisitedRegion | None:
    """The look two depths above the best one, unless that is the whole."""
    by_id = {region.id: region for region in regions}
    above = best
    for _ in range(2):
        above = by_id.get(above.parent) if above is not None and above.parent is not None else None
    return above if above is not None and above.depth > 0 else None


def _beside(left: Image.Image, right: Image.Image) -> Image.Image:
    height = max(left.height, right.height) + 2 * _MARGIN
    whole = Image.new("RGB", (left.width + WIDTH + 3 * _MARGIN, height), PAPER)
    whole.paste(left, (_MARGIN, _MARGIN))
    whole.paste(right, (left.width + 2 * _MARGIN, _MARGIN))
    return whole


def _pointer(
    draw: ImageDraw.ImageDraw, start: tuple[float, float], end: tuple[float, float], ink: str
) -> None:
    """A line from a mark to its close-up."""
    draw.line((*start, *end), fill=DARK, width=4)
    draw.line((*start, *end), fill=ink, width=2)
