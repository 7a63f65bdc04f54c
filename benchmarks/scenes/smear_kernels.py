"""Composing a window of a smear from its cells: loops over px, compiled. Plain arrays in, px out."""

from hiresattn.pyramid.compiled import compiled


@compiled
def paste(out, y0, x0, cells, turns, mips):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Fill a window of a level at which a cell has a whole number of px."""
    height, width, bands = out.shape
    side = mips.shape[1]
    for row in range(y0 // side, (y0 + height - 1) // side + 1):
        for column in range(x0 // side, (x0 + width - 1) // side + 1):
            image, turn = mips[cells[row, column]], turns[row, column]
            top, left = row * side - y0, column * side - x0
            for i in range(max(top, 0), min(top + side, height)):
                for j in range(max(left, 0), min(left + side, width)):
                    u, v = i - top, j - left
                    if turn & 4:
                        u, v = v, u
                    if turn & 1:
                        u = side - 1 - u
                    if turn & 2:
                        v = side - 1 - v
                    for c in range(bands):
                        out[i, j, c] = image[u, v, c]


@compiled
def average(out, y0, x0, step, cells, turns, sums):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Fill a window of a coarser level: a px is the mean of ``step * step`` px of the last mip, cut at the edge.

    A px may lie on several cells; of each it covers a rectangle, whose sum takes four numbers to know.
    """
    height, width, _ = out.shape
    side = sums.shape[1] - 1
    end = len(cells) * side
    for i in range(height):
        top, bottom = (y0 + i) * step, min((y0 + i + 1) * step, end)
        for j in range(width):
            left, right = (x0 + j) * step, min((x0 + j + 1) * step, end)
            red, green, blue = 0, 0, 0
            for row in range(top // side, (bottom - 1) // side + 1):
                for column in range(left // side, (right - 1) // side + 1):
                    a, b = max(top - row * side, 0), min(bottom - row * side, side)
                    e, f = max(left - column * side, 0), min(right - column * side, side)
                    turn = turns[row, column]
                    if turn & 4:
                        a, b, e, f = e, f, a, b
                    if turn & 1:
                        a, b = side - b, side - a
                    if turn & 2:
                        e, f = side - f, side - e
                    s = sums[cells[row, column]]
                    red += s[b, f, 0] - s[a, f, 0] - s[b, e, 0] + s[a, e, 0]
                    green += s[b, f, 1] - s[a, f, 1] - s[b, e, 1] + s[a, e, 1]
                    blue += s[b, f, 2] - s[a, f, 2] - s[b, e, 2] + s[a, e, 2]
            area = (bottom - top) * (right - left) * 64
            out[i, j, 0] = (red + area // 2) // area
            out[i, j, 1] = (green + area // 2) // area
            out[i, j, 2] = (blue + area // 2) // area
