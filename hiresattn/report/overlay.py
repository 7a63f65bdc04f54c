"""The overlay of a prediction: attention and the finest looks on a coarse view, the looks of most weight beside it."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hiresattn.errors import WriteError
from hiresattn.files import make_folder
from hiresattn.inference.record import Record, VisitedRegion
from hiresattn.pyramid import Pyramid, open_pyramid
from hiresattn.pyramid.mpp import ground_mpp
from hiresattn.report.looks import decisive
from hiresattn.report.marks import Marks
from hiresattn.report.panel import BACKGROUND, INSET, WIDTH, Panel
from hiresattn.report.view import Region, display_range, read_view, to_image

_MARGIN = 16
_MIN_SHORTER_SIDE = 200
#: Looks that are shown px by px.
_LOOKS = 6


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

    On the left is the classified region: the attention as a layer of colour, thin outlines of the looks at the finest
    scale, dashed frames of the root regions, a scale bar. On the right are the predicted class, what to mind about it,
    the probabilities beside a view without marks, the six looks that carry the answer px by px (numbered on both
    sides), a legend, and the cost.

    Args:
        source: The image, as ``open_pyramid`` takes it. Read are a coarse view of it and up to six regions.
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

    shown = decisive(prediction, _LOOKS)
    left = to_image(view, low, high)
    panel = Panel()
    panel.heading(prediction)
    panel.warnings(prediction)
    panel.probabilities(prediction, left)
    marks = Marks(left, frame)
    marks.draw(prediction.regions, shown, truth_boxes)
    marks.scale_bar(prediction.mpp or px_size(pyramid))
    panel.looks([(region, _look(pyramid, region, low, high)) for region in shown])
    panel.legend(prediction, invalid=not view.valid.all(), truth=bool(truth_boxes))
    panel.costs(prediction)
    return _beside(left, panel.image())


def _look(pyramid: Pyramid, region: VisitedRegion, low: np.ndarray, high: np.ndarray) -> Image.Image:
    """A look px by px, or reduced where it is larger than ``INSET``."""
    side = min(max(region.height, region.width), INSET)
    return to_image(read_view(pyramid, (region.y, region.x, region.height, region.width), side), low, high)


def px_size(pyramid: Pyramid) -> float | None:
    """Micrometres per level-0 px: as the file says, of a scene by its CRS; None = not known."""
    if pyramid.mpp is not None or pyramid.crs is None or pyramid.transform is None:
        return pyramid.mpp
    return ground_mpp(pyramid.crs, pyramid.transform, pyramid.height, pyramid.width)


def _beside(left: Image.Image, right: Image.Image) -> Image.Image:
    height = max(left.height, right.height) + 2 * _MARGIN
    whole = Image.new("RGB", (left.width + WIDTH + 3 * _MARGIN, height), BACKGROUND)
    whole.paste(left, (_MARGIN, _MARGIN))
    whole.paste(right, (left.width + 2 * _MARGIN, _MARGIN))
    return whole
