"""Byte ranges of a file that are fetched together."""

from collections.abc import Iterable

#: Ranges with at most this many unwanted bytes between them are one request.
GAP = 16 << 10
#: Most bytes of one merged request.
MOST = 4 << 20


def merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans ``(start, stop)`` that hold ranges ``(offset, count)``; ranges that lie close together share one."""
    spans: list[tuple[int, int]] = []
    for offset, count in sorted(set(ranges)):
        stop = offset + count
        if not count:
            continue
        if spans and offset - spans[-1][1] <= GAP and stop - spans[-1][0] <= MOST:
            spans[-1] = spans[-1][0], max(spans[-1][1], stop)
        else:
            spans.append((offset, stop))
    return spans
