"""Which of the regions that were looked at are shown."""

from collections.abc import Sequence

from hiresattn.inference.record import Record, VisitedRegion


def decisive(record: Record, most: int) -> list[VisitedRegion]:
    """The looks that carry the answer, then those of most weight: at most so many."""
    first = set(record.sufficient or ())
    return sorted(record.regions, key=lambda r: (r.id not in first, -r.attention, r.id))[:most]


def finest(regions: Sequence[VisitedRegion]) -> list[VisitedRegion]:
    """The looks of the greatest depth, in their order; none where there are root regions only."""
    deepest = max((region.depth for region in regions), default=0)
    return [region for region in regions if region.depth == deepest > 0]
