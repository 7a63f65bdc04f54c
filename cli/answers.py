"""Answers in words: a line for each case, on a terminal."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hiresattn.errors import counted
from hiresattn.report.units import human_share
from hiresattn_cli.output import one_line
from hiresattn_cli.progress import Update
from hiresattn_cli.records import Counts, is_correct

if TYPE_CHECKING:
    from hiresattn.inference.progress import SoFar
    from hiresattn.inference.record import Record

#: Widest column of names and of answers, characters.
_NAME, _ANSWER = 44, 32
_LOOKS = len("1000 looks")
_SHARE = len("0.0012 % read")


class Answers:
    """Lines whose columns lie below each other.

    Args:
        sources: All that will be answered for.
        classes: Names of the classes.
    """

    def __init__(self, sources: Sequence[Any], classes: Sequence[str]) -> None:
        names = [_name_of(source) for source in sources]
        self._by_case = any(hasattr(source, "examples") for source in sources)
        self._name = min(max(map(len, names), default=0), _NAME)
        self._answer = min(max(map(len, classes), default=0) + len(" 0.00"), _ANSWER)

    def line(self, record: "Record") -> str:
        """One record: name, answer and probability, looks, share read, and what is to be minded."""
        cost = record.cost
        columns = [
            _shortened(_name(record, by_case=self._by_case), self._name).ljust(self._name),
            one_line(answer(record)).ljust(self._answer),
        ]
        if record.status != "error":
            columns += [counted(cost.glimpses, "look").rjust(_LOOKS)]
            columns += [f"{human_share(cost.fraction_read)} read".rjust(_SHARE)]
        return "  ".join([*columns, *flags(record)]).rstrip()


def telling(update: Update, counts: Counts, total: int) -> "Callable[[SoFar], None] | None":
    """What shows on a bar how far the case is that comes next; None where nobody sees it."""

    def tell(so_far: "SoFar") -> None:
        known = so_far.budget is not None
        looks = f"{so_far.looks} of {so_far.budget} looks" if known else counted(so_far.looks, "look")
        share = min(so_far.looks / so_far.budget, 1.0) if so_far.budget else 0.0
        name = _shortened(one_line(so_far.case), _NAME)
        done = f"{counts.done} of {total}; " if total > 1 else ""
        update(counts.done + share, f"{done}{name}: {looks}, {human_share(so_far.fraction_read)} read")

    return tell if update.shown else None


def answer(record: "Record") -> str:
    """Class and probability; all likely labels with theirs; what kept it from having one."""
    if record.labels is not None:
        return ", ".join(f"{name} {record.scores[name]:.2f}" for name in record.labels) or "no label"
    if record.class_name is None:
        return "failed" if record.status == "error" else record.status.replace("_", " ")
    return f"{record.class_name} {record.score or 0:.2f}"


def flags(record: "Record") -> list[str]:
    """What is to be minded of an answer; empty = nothing."""
    found: list[str] = []
    if record.status == "error":
        return found
    if record.needs_review:
        found.append(f"needs review: {one_line('; '.join(record.review_reasons))}")
    if record.label is not None and not is_correct(record):
        given = record.label if isinstance(record.label, str) else ", ".join(record.label) or "none"
        found.append(f"(label given: {one_line(given)})")
    return found


def _name(record: "Record", *, by_case: bool = False) -> str:
    """A record's source; its case where ``by_case``, as each case has one record then."""
    if record.case is not None and by_case:
        return one_line(record.case) + (f" ({len(record.sources)} images)" if len(record.sources) > 1 else "")
    window = "" if record.region is None else f" {','.join(map(str, record.region))}"
    images = f" ({len(record.sources)} images)" if len(record.sources) > 1 else ""
    return one_line(record.source) + window + images


def _name_of(source: Any) -> str:
    """The name that the record of a source will have."""
    from hiresattn.inference.record import CaseSource, Record

    if (examples := getattr(source, "examples", None)) is not None:
        images = tuple(CaseSource("") for _ in examples)
        return _name(Record(source.name, "ok", case=source.name, sources=images), by_case=True)
    return _name(Record(str(getattr(source, "source", source)), "ok", region=getattr(source, "region", None)))


def _shortened(name: str, width: int) -> str:
    """The end of a long name, which tells files apart better than the beginning."""
    return name if len(name) <= width else f"…{name[len(name) - width + 1 :]}"
