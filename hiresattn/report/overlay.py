"""The overlay of a prediction: the visited regions on a coarse view of the image, close-ups beside it."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from hiresattn.errors import WriteError
from hiresattn.files import make_folder
from hiresattn.inference.record import Record, VisitedRegion
from hiresattn.pyramid import Pyramid, open_pyramid
from hiresattn.report.marks import DARK, Marks, depth_colour
from hiresattn.report.panel import BACKGROUND, INSET, WIDTH, Panel
from hiresattn.report.view import Region, display_range, read_view, to_image

_MARGIN = 16
_MIN_SHORTER_SIDE = 200


def draw_overlay(
    source: Any,
    prediction: Record,
    path: str | Path,
    *,
    side: int = 1024,
    values: tuple[float, float] | None = None,
    truth_boxes: Sequence[Region] = (),
) -> None:
    """Write a PNG that shows which regions of an image a prediction visited.

    On the left is the classified region: each visited region is outlined in the colour of its depth and, where there
    is room, numbered in the order of the visits (``id`` in the record). On the right are the predicted class, the
    pixels of the region with the largest attention weight, the region two depths above it, a legend, and the cost.

    Args:
        source: The image, as ``open_pyramid`` takes it. Read are a coarse view of it and one or two regions.
        prediction: The record of the image, as ``classify`` returns it.
        path: PNG file to write; its folder is made if it is missing.
        side: Longer side of the left part, px; up to twice that for a narrow region.
        values: Pixel values to show as black and as white. Default: 0 and 255 for uint8 (less for a dark image),
            else the 2nd and 98th percentile of the view. For display only.
        truth_boxes: Known targets to mark, each ``(y, x, height, width)`` in level-0 px.

    Raises:
        OpenError: If the image can't be opened.
        ReadError: If a tile can't be decoded.
        WriteError: If the file can't be written.

    Examples:
        >>> record = hiresattn.classify("slide.svs", model)
        >>> hiresattn.draw_overlay("slide.svs", record, "slide.png")
    """
    with nullcontext(source) if isinstance(source, Pyramid) else open_pyramid(source) as pyramid:
        whole = _drawn(pyramid, prediction, side, values, truth_boxes)
    path = Path(path)
    make_folder(path.parent)
    try:
        whole.save(path, format="PNG")
    except OSError as error:
        raise WriteError(f"{path}: can't be written ({error.strerror or error}); check its folder") from error


def _drawn(
    pyramid: Pyramid,
    prediction: Record,
    side: int,
    values: tuple[float, float] | None,
    truth_boxes: Sequence[Region],
) -> Image.Image:
    """The picture."""
    frame = prediction.region or (0, 0, pyramid.height, pyramid.width)
    longer, shorter = max(frame[2:]), min(frame[2:])
    side = max(side, min(round(_MIN_SHORTER_SIDE * longer / shorter), 2 * side))
    view = read_view(pyramid, frame, side)
    low, high = display_range(view, pyramid.dtype)
    if values is not None:
        low, high = np.full_like(low, values[0]), np.full_like(high, values[1])

    best = max(prediction.regions, key=lambda region: (region.attention, region.depth), default=None)
    above = _surroundings(prediction.regions, best)
    left = to_image(view, low, high)
    marks = Marks(left, frame)
    marks.draw(prediction.regions, truth_boxes, above or best)

    panel = Panel()
    panel.heading(prediction)
    close_up_top = panel.y
    for region in (above, best):
        if region is None:
            continue
        box = (region.y, region.x, region.height, region.width)
        seen = to_image(read_view(pyramid, box, INSET), low, high).resize((INSET, INSET))
        if region is best:
            share = f"{100 * region.attention:.0f} % of the weight"
            panel.close_up(seen, region, f"Look {region.id}, the most attended: {share}")
        else:
            Marks(seen, box).draw(prediction.regions, truth_boxes, best)
            panel.close_up(seen, region, f"Look {region.id}, which led to the most attended")
    panel.legend(prediction.regions, invalid=not view.valid.all(), truth=bool(truth_boxes))
    panel.costs(prediction)

    whole = _beside(left, panel.image())
    shown = above or best
    if shown is not None and shown.depth > 0:
        mark = marks.box(shown)
        start = (_MARGIN + mark[2], _MARGIN + (mark[1] + mark[3]) / 2)
        end = (left.width + 2 * _MARGIN, _MARGIN + close_up_top + INSET / 2)
        _pointer(ImageDraw.Draw(whole), start, end, depth_colour(shown.depth))
    return whole


def _surroundings(regions: tuple[VisitedRegion, ...], best: VisitedRegion | None) -> VisitedRegion | None:
    """The region two depths above the best one; None if that is a root region."""
    by_id = {region.id: region for region in regions}
    found = best
    for _ in range(2):
        found = by_id.get(found.parent) if found is not None and found.parent is not None else None
    return found if found is not None and found.depth > 0 else None


def _beside(left: Image.Image, right: Image.Image) -> Image.Image:
    height = max(left.height, right.height) + 2 * _MARGIN
    whole = Image.new("RGB", (left.width + WIDTH + 3 * _MARGIN, height), BACKGROUND)
    whole.paste(left, (_MARGIN, _MARGIN))
    whole.paste(right, (left.width + 2 * _MARGIN, _MARGIN))
    return whole


def _pointer(
    draw: ImageDraw.ImageDraw, start: tuple[float, float], end: tuple[float, float], line_colour: str
) -> None:
    """Draw a line from a region's outline to its close-up."""
    draw.line((*start, *end), fill=DARK, width=4)
    draw.line((*start, *end), fill=line_colour, width=2)
