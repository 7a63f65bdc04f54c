"""How far runs are: read from what they write, while they write it."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hiresattn.cluster.merge import Part, parts_of, whole_lines
from hiresattn.cluster.store import counted_rows, run_facts, runs_of
from hiresattn.inference.read_records import RECORDS

#: A run whose last record is older is taken to have ended when it was written, s: its rate falls no further.
_STILL = 600.0


@dataclass(frozen=True)
class Progress:
    """How far a run, or a shard of it, is."""

    name: str
    """Folder or file of its records."""
    shard: str | None
    """Such as ``2/16``; None = it is none."""
    done: int
    """Cases with a record."""
    cases: int | None
    """All of them; None = not known: a file of records that is no shard."""
    errors: int
    """Records of errors."""
    rate: float | None
    """Cases a second since it was last started; None = not known."""
    seconds_left: float | None
    """Until it is done, at that rate; None = not known."""
    last: str | None
    """When its last record was written; None = none was."""

    def to_json(self) -> dict[str, Any]:
        """The same as JSON types."""
        return asdict(self)


def status(
    path: str | os.PathLike[str], *, now: datetime | None = None
) -> tuple[Progress, tuple[Progress, ...]]:
    """How far a run is; a last line that is being written doesn't count.

    Args:
        path: A results folder, a folder with one for each shard, a file of records, or a Parquet data set of them.
        now: The time; None = the clock's.

    Returns:
        The whole; and each of its shards, or runs, that is there.

    Raises:
        NotFoundError: If there are no records.
        ConfigError: If what is there can't be read.
    """
    now = now or datetime.now(UTC)
    if runs := runs_of(path):
        return _stored(path, runs, now)
    parts = list(parts_of(path))
    found = [_progress(part, now) for part in parts]
    if len(found) == 1 and found[0].shard is None:
        return found[0], ()
    running = [one for one in found if one.done != one.cases]
    rates = [one.rate for one in running if one.rate]
    left = [one.seconds_left for one in running]
    known = [seconds for seconds in left if seconds is not None]
    whole = Progress(
        name=os.fspath(path),
        shard=None,
        done=sum(one.done for one in found),
        cases=next((part.facts["all"] for part in parts if "all" in part.facts), None),
        errors=sum(one.errors for one in found),
        rate=sum(rates) if rates else None,
        seconds_left=max(known, default=0.0)
        if len(known) == len(left) and len(found) == parts[0].of
        else None,
        last=max((one.last for one in found if one.last), default=None),
    )
    return whole, tuple(found)


def _stored(
    path: str | os.PathLike[str], runs: list[Path], now: datetime
) -> tuple[Progress, tuple[Progress, ...]]:
    """How far the runs of a Parquet data set are."""
    found = []
    for run in runs:
        facts, (done, errors, last) = run_facts(run), counted_rows(run)
        rate = _rate(facts, done, last, now)
        found.append(
            Progress(
                name=run.name,
                shard=None,
                done=done,
                cases=facts["cases"],
                errors=errors,
                rate=rate,
                seconds_left=_left(facts["cases"], done, rate),
                last=None if last is None else last.isoformat(timespec="seconds"),
            )
        )
    whole = Progress(
        name=os.fspath(path),
        shard=None,
        done=sum(one.done for one in found),
        cases=sum(one.cases or 0 for one in found),
        errors=sum(one.errors for one in found),
        rate=None,
        seconds_left=None,
        last=max((one.last for one in found if one.last), default=None),
    )
    return whole, tuple(found)


def _progress(part: Part, now: datetime) -> Progress:
    """How far one file of records is."""
    keys = set(part.facts["keys"]) if "keys" in part.facts else None
    cases, done, errors = part.facts.get("cases"), 0, 0
    for _, line in whole_lines(part.records):
        if keys is None or line.get("key") in keys:
            done += 1
            errors += line.get("status") == "error"
    last = datetime.fromtimestamp(part.records.stat().st_mtime, UTC) if done else None
    rate = _rate(part.facts, done, last, now)
    return Progress(
        name=str(part.records.parent if part.records.name == RECORDS else part.records),
        shard=f"{part.number}/{part.of}" if "shard" in part.facts else None,
        done=done,
        cases=cases,
        errors=errors,
        rate=rate,
        seconds_left=_left(cases, done, rate),
        last=None if last is None else last.isoformat(timespec="seconds"),
    )


def _left(cases: int | None, done: int, rate: float | None) -> float | None:
    """Seconds until all cases are done; None = it isn't known."""
    if done == cases:
        return 0.0
    return (cases - done) / rate if cases is not None and rate else None


def _rate(facts: Mapping[str, Any], done: int, last: datetime | None, now: datetime) -> float | None:
    """Cases a second since the run was last started."""
    if last is None or "started" not in facts:
        return None
    started = datetime.fromisoformat(facts["started"])
    new = done - facts.get("there", 0)
    ended = done == facts.get("cases") or (now - last).total_seconds() > _STILL
    seconds = ((last if ended else now) - started).total_seconds()
    return new / seconds if new > 0 and seconds > 0 else None
