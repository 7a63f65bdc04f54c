"""Compiled kernels that draw the needle scene: numbers in, pixels out; no state, no random generator."""

import numpy as np

from hiresattn.pyramid.compiled import compiled

#: Side of a glyph, px.
GLYPH = 28
#: Side of the square that holds at most one distractor, px.
SPACING = 128
_PRESENCE = 0.87
_BASE, _NOISE, _INK = 100.0, 9.0, 95.0
_RING, _RING_WIDTH, _DECOYS = 24.0, 0.12, 0.25
#: Different distractors of a split.
BANK = 256


@compiled
def ink(segments, pen):  # type: ignore[no-untyped-def]
    """Ink of strokes: ``segments [n 4]`` of (y, x) to (y, x) px, drawn with a round pen of this radius."""
    out = np.empty((GLYPH, GLYPH), np.float32)
    for i in range(GLYPH):
        for j in range(GLYPH):
            nearest = 1e9
            for s in range(segments.shape[0]):
                y0, x0, y1, x1 = segments[s, 0], segments[s, 1], segments[s, 2], segments[s, 3]
                dy, dx = y1 - y0, x1 - x0
                t = ((i + 0.5 - y0) * dy + (j + 0.5 - x0) * dx) / (dy * dy + dx * dx + 1e-9)
                t = min(max(t, 0.0), 1.0)
                nearest = min(nearest, (i + 0.5 - y0 - t * dy) ** 2 + (j + 0.5 - x0 - t * dx) ** 2)
            out[i, j] = min(max(pen + 0.5 - np.sqrt(nearest), 0.0), 1.0)
    return out


@compiled
def _hash(seed, a, b, c):  # type: ignore[no-untyped-def]
    """A pseudo-random number in [0, 1) that depends on its arguments only."""
    h = np.uint64(seed) ^ (np.uint64(a) * np.uint64(0x9E3779B97F4A7C15))
    h = (h ^ (h >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    h ^= np.uint64(b) * np.uint64(0xD6E8FEB86659FD93)
    h = (h ^ (h >> np.uint64(32))) * np.uint64(0x94D049BB133111EB)
    h ^= np.uint64(c) * np.uint64(0xA24BAED4963EE407)
    h = (h ^ (h >> np.uint64(31))) * np.uint64(0x9FB21C651E98DF25)
    return np.float32((h ^ (h >> np.uint64(28))) >> np.uint64(40)) * np.float32(1 / 16777216)


@compiled
def _noise(seed, wavelength, y, x):  # type: ignore[no-untyped-def]
    """Value noise of one wavelength at a level-0 position: random values on a lattice, linear between them."""
    v, u = y / wavelength, x / wavelength
    r, c = int(np.floor(v)), int(np.floor(u))
    fv, fu = np.float32(v - r), np.float32(u - c)
    upper = _hash(seed, wavelength, r, c) * (1 - fu) + _hash(seed, wavelength, r, c + 1) * fu
    lower = _hash(seed, wavelength, r + 1, c) * (1 - fu) + _hash(seed, wavelength, r + 1, c + 1) * fu
    return upper * (1 - fv) + lower * fv - np.float32(0.5)


@compiled
def _add_noise(canvas, y0, x0, d, side, seed, amplitude):  # type: ignore[no-untyped-def]
    """Add value noise of every wavelength from 2 d to the side.

    Each octave is linear between the nodes of its own lattice, hence between those of every finer one: the
    sum of all octaves is built from the coarsest lattice down, and only the finest is laid over the px.
    """
    height, width = canvas.shape
    for finest in (2, 4, 8):
        spacing = finest * d
        if spacing > side:
            break
        first_row, first = int((y0 + 0.5) * d / spacing), int((x0 + 0.5) * d / spacing)
        rows = int((y0 + height - 0.5) * d / spacing) - first_row + 2
        columns = int((x0 + width - 0.5) * d / spacing) - first + 2
        nodes = np.zeros((rows, columns), np.float32)
        for r in range(rows):
            for c in range(columns):
                value = _hash(seed, spacing, first_row + r, first + c) - np.float32(0.5)
                wavelength = spacing * 2
                while finest == 8 and wavelength <= side:
                    value += _noise(seed, wavelength, (first_row + r) * spacing, (first + c) * spacing)
                    wavelength *= 2
                nodes[r, c] = value * amplitude
        row = np.empty(columns, np.float32)
        step = np.float32(d / spacing)
        for i in range(height):
            v = (y0 + i + 0.5) * d / spacing - first_row
            r = int(v)
            f = np.float32(v - r)
            for c in range(columns):
                row[c] = nodes[r, c] + (nodes[r + 1, c] - nodes[r, c]) * f
            u = np.float32((x0 + 0.5) * d / spacing - first)
            for j in range(width):
                c = int(u)
                canvas[i, j] += row[c] + (row[c + 1] - row[c]) * (u - c)
                u += step


@compiled
def _add_ring(canvas, y0, x0, d, cy, cx, radius, strength):  # type: ignore[no-untyped-def]
    """A ring with a Gaussian profile, widened (and weakened) to what a level of downsample d can show."""
    height, width = canvas.shape
    sharp = radius * _RING_WIDTH
    soft = np.sqrt(sharp * sharp + 0.16 * d * d)
    peak = np.float32(strength * sharp / soft)
    reach = radius + 3 * soft
    first_row, last_row = max(int((cy - reach) / d - y0), 0), min(int((cy + reach) / d - y0) + 1, height)
    inner = max(radius - 3 * soft, 0.0)
    far_y = max(abs(y0 * d - cy), abs((y0 + height) * d - cy))
    far_x = max(abs(x0 * d - cx), abs((x0 + width) * d - cx))
    if far_y * far_y + far_x * far_x < inner * inner:
        return
    for i in range(first_row, last_row):
        dy = (y0 + i + 0.5) * d - cy
        if abs(dy) > reach:
            continue
        half = np.sqrt(reach * reach - dy * dy)
        left, right = max(int((cx - half) / d - x0), 0), min(int((cx + half) / d - x0) + 1, width)
        for j in range(left, right):
            dx = (x0 + j + 0.5) * d - cx
            square = dy * dy + dx * dx
            if square < inner * inner or square > reach * reach:
                continue
            t = (np.sqrt(square) - radius) / soft
            canvas[i, j] += peak * np.float32(np.exp(-t * t))


@compiled
def _add_glyph(canvas, y0, x0, d, gy, gx, glyph):  # type: ignore[no-untyped-def]
    """Ink spread over the px of a level; a level px holds the mean of its d * d level-0 px."""
    height, width = canvas.shape
    share = np.float32(_INK / (d * d))
    for a in range(GLYPH):
        i = (gy + a) // d - y0
        if i < 0 or i >= height:
            continue
        for b in range(GLYPH):
            j = (gx + b) // d - x0
            if 0 <= j < width:
                canvas[i, j] += share * glyph[a, b]


@compiled
def render(out, y0, x0, d, side, seed, ny, nx, needle, bank, strength):  # type: ignore[no-untyped-def]
    """Draw a window of a scene at downsample ``d`` into ``out`` (uint8 ``[h w]``); y0, x0 in px of that level."""
    height, width = out.shape
    canvas = np.full((height, width), np.float32(_BASE), np.float32)
    _add_noise(canvas, y0, x0, d, side, seed, np.float32(2 * _NOISE))
    cy, cx = ny + GLYPH / 2, nx + GLYPH / 2
    radius, tile, scale = _RING, 64, 1
    while radius <= 0.375 * side:
        if radius >= 1.2 * d:
            _add_ring(canvas, y0, x0, d, cy, cx, radius, strength)
            last_row, last = ((y0 + height) * d) // tile + 1, ((x0 + width) * d) // tile + 1
            for r in range(max(y0 * d // tile - 1, 0), min(last_row + 1, -(-side // tile))):
                for c in range(max(x0 * d // tile - 1, 0), min(last + 1, -(-side // tile))):
                    if _hash(seed, scale + 1000, r, c) < _DECOYS:
                        dy = (r + _hash(seed, scale + 2000, r, c)) * tile
                        dx = (c + _hash(seed, scale + 3000, r, c)) * tile
                        _add_ring(canvas, y0, x0, d, dy, dx, radius, strength)
        radius, tile, scale = radius * 4, tile * 4, scale + 1
    if d <= 16:
        for r in range(
            max(y0 * d // SPACING, 0), min(((y0 + height) * d) // SPACING + 1, -(-side // SPACING))
        ):
            for c in range(
                max(x0 * d // SPACING, 0), min(((x0 + width) * d) // SPACING + 1, -(-side // SPACING))
            ):
                if _hash(seed, 1, r, c) >= _PRESENCE:
                    continue
                gy = r * SPACING + int(_hash(seed, 2, r, c) * (SPACING - GLYPH))
                gx = c * SPACING + int(_hash(seed, 3, r, c) * (SPACING - GLYPH))
                if abs(gy - ny) < 40 and abs(gx - nx) < 40:
                    continue
                if gy + GLYPH > side or gx + GLYPH > side:
                    continue
                _add_glyph(canvas, y0, x0, d, gy, gx, bank[int(_hash(seed, 4, r, c) * BANK)])
        _add_glyph(canvas, y0, x0, d, ny, nx, needle)
    for i in range(height):
        for j in range(width):
            out[i, j] = np.uint8(min(max(canvas[i, j] + np.float32(0.5), np.float32(0)), np.float32(255)))
