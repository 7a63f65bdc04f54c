"""Whether a file still is the one that a record was made of."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime

from hiresattn.errors import counted
from hiresattn.files import file_state
from hiresattn.inference.record import CaseSource, Record

#: Seconds within which two times are one: file systems keep no more of them, or less.
_SAME = 2.0


def why_changed(image: CaseSource) -> str | None:
    """Why what a record says of an image isn't of the file that is there; None = it is, or nobody knows."""
    if image.bytes is None or image.modified is None:
        return None
    state = file_state(image.source)
    if state is None:
        return None
    size, modified = state
    between = datetime.fromisoformat(modified) - datetime.fromisoformat(image.modified)
    if size == image.bytes and abs(between.total_seconds()) <= _SAME:
        return None
    then, now = (f"{counted(count, 'byte')}, of {time[:19]}" for count, time in (
        (image.bytes, image.modified), (size, modified)))  # fmt: skip
    return f"the file has changed since it was classified (then {then}; now {now}); classify it again"


def without_changed(records: Iterable[Record], tell: Callable[[str], None]) -> Iterator[Record]:
    """Records without the regions of images whose files have changed.

    Args:
        records: The records.
        tell: Called with a sentence for each of those images, which is a warning of the record, too.
    """
    for record in records:
        whys = {number: why_changed(one) for number, one in enumerate(record.sources) if one.error is None}
        notes = [
            f"{record.sources[number].source}: no regions of it: {why}" for number, why in whys.items() if why
        ]
        for note in notes:
            tell(note)
        kept = tuple(region for region in record.regions if not whys.get(region.source))
        yield replace(record, regions=kept, warnings=(*record.warnings, *notes)) if notes else record
