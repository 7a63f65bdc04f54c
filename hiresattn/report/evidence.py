"""Which looks an answer rests on, as far as it rests on some rather than on all."""

from hiresattn.inference.record import Record

#: What the answer's probability loses at least where looks that carry it are left out.
_LOST = 0.1


def evidence(record: Record) -> tuple[int, ...]:
    """``id`` of the looks that carry the answer; none where they are not known, or where no single place decides."""
    return () if record.sufficient is None or is_spread(record) else record.sufficient


def is_spread(record: Record) -> bool:
    """Whether no single place decides: without the sufficient looks, too, the answer is as probable, but for 0.1."""
    score, without = record.score, record.score_without
    return score is not None and without is not None and without >= score - _LOST
