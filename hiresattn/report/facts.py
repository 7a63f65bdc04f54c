"""What pages show of a record, but for its pictures."""

from dataclasses import replace
from typing import Any

from hiresattn.inference.record import Record, VisitedRegion
from hiresattn.report.colours import class_colours
from hiresattn.report.evidence import evidence, is_spread
from hiresattn.report.scale import scale_origin


def answer_of(record: Record) -> str:
    """The answer in words: class, labels, or why there is none."""
    if record.labels is not None:
        return ", ".join(record.labels) or "no label"
    return record.class_name or ("failed" if record.status == "error" else record.status.replace("_", " "))


def case_facts(record: Record) -> dict[str, Any]:
    """All that a page shows of a case but its pictures: the record, with its regions as lists."""
    facts = record.to_json() | {"answer": answer_of(record), "colours": class_colours(record.scores)}
    facts |= {"evidence": evidence(record), "spread": is_spread(record)}
    facts["regions"] = [_looked_at(region) for region in record.regions]
    for source, one in zip(facts["sources"], record.sources, strict=True):
        source["scale"] = scale_origin(one)
    return facts


def _looked_at(r: VisitedRegion) -> list[Any]:
    close = None if r.finest is None else int(r.finest)
    return [r.id, r.parent, r.depth, r.y, r.x, r.height, r.width, round(r.attention, 6), r.source, close]


def with_most_weight(record: Record, most: int) -> Record:
    """The record with the looks of most weight, those that they were chosen from, and the last one: about so many.

    Args:
        record: The record.
        most: Looks that are kept at most, but for some that a kept one was chosen from.
    """
    if len(record.regions) <= most:
        return record
    by_id = {region.id: region for region in record.regions}
    kept = {record.regions[-1].id}
    for region in sorted(record.regions, key=lambda r: (-r.attention, r.id)):
        above: VisitedRegion | None = region
        while above is not None and above.id not in kept:
            kept.add(above.id)
            above = None if above.parent is None else by_id.get(above.parent)
        if len(kept) >= most:
            break
    places = [at for at, region in enumerate(record.regions) if region.id in kept]
    return replace(
        record,
        regions=tuple(record.regions[at] for at in places),
        scores_after={n: tuple(shares[at] for at in places) for n, shares in record.scores_after.items()},
    )
