"""The windows that can be classified: the whole image, a box, or a box with context."""

#: The frame; the box; the box with context, each margin by its own axis; the same as the challenge's baseline
#: computes it, which divides a box's width by the image's height and the other way round.
WINDOWS = ("frame", "box", "context", "jhu-baseline")

#: Boxes with a side of at most this are no targets, px.
TINY = 2

#: Context on both sides together over the box's side, by the least share of the image that the side has.
_MARGINS = ((0.5, 0.15), (0.4, 0.2), (0.3, 0.3), (0.2, 0.5), (0.1, 1.0), (0.0, 2.0))


def context_window(
    y: int, x: int, height: int, width: int, image_height: int, image_width: int, *, swapped: bool = False
) -> tuple[int, int, int, int] | None:
    """A box with the context that the challenge's baseline adds, clipped to the image.

    Small boxes get more: 2 x the side below a tenth of the image, falling to 0.15 x from a half on; half of it,
    rounded down, on either side.

    Args:
        y: First row of the box, px.
        x: First column.
        height: Its rows.
        width: Its columns.
        image_height: Rows of the image.
        image_width: Columns of the image.
        swapped: Compare the box's height with the image's width and its width with the image's height, as the
            baseline does by mistake; the published crops are made so.

    Returns:
        ``(y, x, height, width)``, px; None if the box lies outside of the image.
    """
    rows, columns = (image_width, image_height) if swapped else (image_height, image_width)
    above, beside = _margin(height, rows), _margin(width, columns)
    return clipped(y - above, x - beside, height + 2 * above, width + 2 * beside, image_height, image_width)


def clipped(
    y: int, x: int, height: int, width: int, image_height: int, image_width: int
) -> tuple[int, int, int, int] | None:
    """The part of a window that is in the image; None if nothing is."""
    top, left = max(y, 0), max(x, 0)
    bottom, right = min(y + height, image_height), min(x + width, image_width)
    return (top, left, bottom - top, right - left) if bottom > top and right > left else None


def _margin(side: int, image_side: int) -> int:
    share = side / image_side
    return int(side * next(margin for least, margin in _MARGINS if share >= least) / 2)
