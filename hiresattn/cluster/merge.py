"""The outputs of all shards of a run as one: what one process would have written."""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

from hiresattn.cluster.shards import read_facts, shard_file
from hiresattn.errors import ConfigError, NotFoundError, WriteError, counted
from hiresattn.files import atomic_write, make_folder
from hiresattn.inference.lines import refuse_filled
from hiresattn.inference.read_records import RECORDS, records_file
from hiresattn.inference.records_file import check_suffix
from hiresattn.report.results import is_results_folder
from hiresattn.report.run_file import RUN, write_run
from hiresattn.report.tables import write_tables

#: Shards that a folder holds.
SHARDS = "shard-*-of-*"


@dataclass(frozen=True)
class Part:
    """The output of one shard, or of a run without shards."""

    records: Path
    facts: Mapping[str, Any]
    """Of ``shard.json``, else of ``run.json``; empty = there is none."""

    @property
    def number(self) -> int:
        """Which shard it is of."""
        return int(self.facts["shard"][0])

    @property
    def of(self) -> int:
        """How many there are."""
        return int(self.facts["shard"][1])


@dataclass(frozen=True)
class Merged:
    """What ``merge`` wrote, and what it had not."""

    cases: int
    """Records written."""
    failed: int
    """Those of errors."""
    missing: tuple[str, ...]
    """Cases without a record, of shards that are there."""
    missing_shards: tuple[str, ...]
    """Shards of which nothing is there, such as ``3/16``."""
    notes: tuple[str, ...]
    """What was left out."""


def merge(
    parts: Iterable[str | os.PathLike[str]], output: str | os.PathLike[str], *, overwrite: bool = False
) -> Merged:
    """Put the outputs of the shards of a run together: records in the order of the sources, and their tables.

    Args:
        parts: What ``classify --shard`` wrote: folders, files of records, or folders that hold ``shard-…`` folders.
        output: A file of records (``.jsonl``), or a results folder.
        overwrite: Replace what is there.

    Returns:
        What was written, and what is missing in it. Of several records of a case one is kept, rather not an error.

    Raises:
        ConfigError: If the parts are of different runs, none, or ``output`` holds something.
        NotFoundError: If one isn't there.
        WriteError: If ``output`` can't be written.
    """
    found = [_with_shard(part) for path in parts for part in parts_of(path)]
    if not found:
        raise ConfigError(
            "no shards to merge; give the folders or files that `hiresattn classify --shard` wrote"
        )
    first = found[0]
    for part in found[1:]:
        _refuse_other(first, part)
    by_number = {part.number: part for part in found}
    starts = {number: [0, *accumulate(part.facts["images"])] for number, part in by_number.items()}
    lines = _Lines(found)
    chosen: list[tuple[int, int]] = []
    order: dict[str | None, int] = {}
    inputs: list[Any] = []
    missing: list[str] = []
    for case in range(first.facts["all"]):
        number, at = case % first.of + 1, case // first.of
        if number not in by_number:
            continue
        part = by_number[number]
        own = part.facts["inputs"][slice(*starts[part.number][at : at + 2])]
        inputs += own
        key = part.facts["keys"][at]
        again = order.setdefault(key, case) < case
        line = lines.take(key)
        if line is None and again:
            continue
        if line is None:
            missing.append(_name(own))
        else:
            chosen.append(line)
    with ExitStack() as stack:
        files = [stack.enter_context(part.records.open("rb")) for part in found]
        _write(output, _raw(files, chosen), first, inputs, order, overwrite=overwrite,
               started=min(part.facts["started"] for part in found))  # fmt: skip
    absent = [f"{number}/{first.of}" for number in range(1, first.of + 1) if number not in by_number]
    return Merged(
        len(chosen), lines.failed, tuple(missing), tuple(absent), tuple(_notes(found, lines, order))
    )


def parts_of(path: str | os.PathLike[str]) -> Iterator[Part]:
    """The outputs that a path names: itself, or those of the shards in a folder.

    Raises:
        NotFoundError: If there are none.
    """
    path = Path(path)
    below = sorted(path.glob(SHARDS)) if path.is_dir() and not (path / RECORDS).exists() else []
    for one in below or [path]:
        records = records_file(one)
        facts = next((file for file in (shard_file(records), records.with_name(RUN)) if file.is_file()), None)
        if facts is not None and facts.name == RUN and records.name != RECORDS:
            facts = None  # of a folder that the file happens to lie in
        yield Part(records, {} if facts is None else read_facts(facts))


def _with_shard(part: Part) -> Part:
    """Refuse what is no shard, and what isn't whole."""
    beside = shard_file(part.records)
    if "shard" not in part.facts:
        raise NotFoundError(
            f"{part.records}: {beside.name} isn't beside it, so that nobody knows which part of which run it is; give "
            "what `hiresattn classify --shard` wrote, with both files"
        )
    lists = [part.facts.get(name) for name in ("shard", "keys", "images", "inputs")]
    wanted = ("all", "list", "started", "model", "options", "classes")
    if not all(isinstance(one, list) for one in lists) or any(name not in part.facts for name in wanted):
        raise ConfigError(f"{beside}: not what `hiresattn classify --shard` writes; start that shard again")
    return part


def _refuse_other(first: Part, part: Part) -> None:
    """Refuse a part of another run, by what differs."""
    one, other = first.facts, part.facts
    differ = []
    if one["model"] != other["model"]:
        differ.append(f"model {_model(other['model'])}, not {_model(one['model'])}")
    both = [(name, one["options"].get(name), other["options"].get(name)) for name in one["options"]]
    differ += [f"{name} {_words(his)}, not {_words(ours)}" for name, ours, his in both if ours != his]
    if first.of != part.of:
        differ.append(f"one of {part.of} shards, not of {first.of}")
    if one["all"] != other["all"]:
        differ.append(f"a list of {counted(other['all'], 'case')}, not of {one['all']}")
    elif one["list"] != other["list"]:
        differ.append("another list of cases")
    if differ:
        raise ConfigError(
            f"{part.records}: of another run than {first.records} ({'; '.join(sorted(differ))}); merge the shards of "
            "one run, made with the same model, options and sources"
        )


class _Lines:
    """The lines of all parts, by key; those without an error first."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._by_key: dict[str | None, list[tuple[bool, int, int]]] = defaultdict(list)
        self.failed = 0
        for number, part in enumerate(parts):
            for start, line in whole_lines(part.records):
                bad = line.get("status") == "error"
                self._by_key[line.get("key")].append((bad, number, start))
        for some in self._by_key.values():
            some.sort(reverse=True)

    def take(self, key: str | None) -> tuple[int, int] | None:
        """Part and place of a line that wasn't taken; None = there is none."""
        some = self._by_key.get(key)
        if not some:
            return None
        bad, number, start = some.pop()
        self.failed += bad
        return number, start

    def left(self) -> Iterator[tuple[str | None, int]]:
        """Keys of which lines are left, and how many."""
        return ((key, len(some)) for key, some in self._by_key.items() if some)


def whole_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines of a file of records with where each begins; the last one, where it isn't whole, is left out.

    Raises:
        ConfigError: If a line is no record.
    """
    start = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                value = json.loads(line)
                if not isinstance(value, dict):
                    raise ValueError("no JSON object")  # noqa: TRY004, TRY301 - said below
            except ValueError as error:
                raise ConfigError(f"{path}, line {number}: not a record ({error})") from error
            yield start, value
            start += len(line)


def _raw(files: Sequence[BinaryIO], chosen: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    for number, start in chosen:
        files[number].seek(start)
        yield files[number].readline()


def _write(
    output: str | os.PathLike[str],
    lines: Iterator[bytes],
    first: Part,
    inputs: list[Any],
    order: Mapping[str | None, int],
    *,
    overwrite: bool,
    started: str,
) -> None:
    """Write the records, and what else a results folder has."""
    name = os.fspath(output)
    if not is_results_folder(name):
        check_suffix(name)
        refuse_filled(name, resume=False, overwrite=overwrite)
        _write_lines(Path(name), lines)
        return
    folder = make_folder(name)
    held = [path.name for path in folder.iterdir() if not path.name.startswith((".", "shard-"))]
    if held and not (overwrite and RUN in held):
        what = "is there already; overwrite replaces it" if RUN in held else "holds other things than results"
        raise ConfigError(f"{folder}: {what}, or give another folder")
    _write_lines(folder / RECORDS, lines)
    kept = ("hiresattn", "model", "options", "versions")
    facts = {key: first.facts[key] for key in kept if key in first.facts}
    write_run(
        folder / RUN,
        {**facts, "started": started, "cases": first.facts["all"], "there": 0, "inputs": inputs},
    )
    write_tables(folder, first.facts["classes"], order)


def _write_lines(path: Path, lines: Iterator[bytes]) -> None:
    try:
        with atomic_write(path) as part, part.open("wb") as file:
            file.writelines(lines)
    except OSError as error:
        raise WriteError(f"{path}: can't be written ({error.strerror or error}); check its folder") from error


def _notes(parts: Sequence[Part], lines: _Lines, order: Mapping[str | None, int]) -> Iterator[str]:
    """What was left out or differs, and doesn't keep the parts from being merged."""
    doubles = others = 0
    for key, count in lines.left():
        doubles += count if key in order else 0
        others += 0 if key in order else count
    if doubles:
        yield f"{counted(doubles, 'record')} of cases that have another were left out"
    if others:
        yield f"{counted(others, 'record')} of other sources, or of files that have changed since, were left out"
    first = parts[0].facts.get("versions")
    if any(part.facts.get("versions") != first for part in parts):
        yield "the shards were made with different versions of packages: see versions in their shard.json"


def _name(inputs: Sequence[Mapping[str, Any]]) -> str:
    first = inputs[0]
    window = first.get("region")
    return str(first.get("case") or first["source"]) + (f" {window}" if window else "")


def _model(model: Mapping[str, Any]) -> str:
    return f"{model.get('name')!r} ({str(model.get('sha256'))[:8]}, temperature {model.get('temperature')})"


def _words(value: Any) -> str:
    return "not given" if value is None else json.dumps(value)
