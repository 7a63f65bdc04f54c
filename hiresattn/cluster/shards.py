"""Shards: the part of a run that one job of a job array does, and what it is of."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from hiresattn.datasets.cases import examples_of
from hiresattn.errors import ConfigError
from hiresattn.files import make_folder
from hiresattn.inference.read_records import RECORDS
from hiresattn.inference.records_file import RecordsFile, hash_of
from hiresattn.report.run_file import start_facts, write_run

Source = TypeVar("Source")

#: Beside the records of a shard: what it is of, and what it was made with.
SHARD = "shard.json"


@dataclass(frozen=True)
class Shard:
    """One of several equal parts of a run: case k, counted from 0, belongs to shard k mod ``of`` + 1.

    Args:
        number: Which, from 1 to ``of``.
        of: How many there are.

    Raises:
        ConfigError: If there is no such shard.
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        if self.of < 1 or not 1 <= self.number <= self.of:
            array = (
                f"; start the job array at 1 (sbatch --array=1-{self.of})"
                if self.number == 0 < self.of
                else ""
            )
            raise ConfigError(
                f"shards are counted from 1, and {self.number}/{self.of} is none of 1/{max(self.of, 1)} to "
                f"{max(self.of, 1)}/{max(self.of, 1)}{array}"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """The shard that ``2/16`` names: the second of 16.

        Raises:
            ConfigError: If it names none.
        """
        match = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text)
        if match is None:
            raise ConfigError(f"a shard is its number and how many there are, such as 2/16; got {text!r}")
        return cls(int(match[1]), int(match[2]))

    def part(self, cases: Sequence[Source]) -> list[Source]:
        """The cases of this shard, in order."""
        return list(cases[self.number - 1 :: self.of])

    def folder(self, path: str | Path) -> Path:
        """The shard's own folder below one that all share, such as ``out/shard-02-of-16``."""
        width = max(2, len(str(self.of)))
        return Path(path) / f"shard-{self.number:0{width}}-of-{self.of}"


def write_shard(
    file: RecordsFile, shard: Shard, cases: Sequence[Any], there: int, facts: Mapping[str, Any]
) -> None:
    """Write beside a shard's records what ``merge`` and ``status`` need to know of it.

    Args:
        file: Where its records go.
        shard: Which it is.
        cases: All cases of the run, also those of other shards.
        there: Records of its cases that an earlier run left.
        facts: Model and options: ``run_facts``.

    Raises:
        WriteError: If it can't be written.
    """
    own = shard.part(cases)
    part = {
        "shard": [shard.number, shard.of],
        "all": len(cases),
        "list": hash_of(names_of(cases)),
        "keys": [file.key(case) for case in own],
        "images": [len(examples_of(case)) for case in own],
    }
    write_run(shard_file(file.path), {**facts, **part, **start_facts(own, there)})


def names_of(cases: Sequence[Any]) -> list[list[Any]]:
    """What a list of cases is told by: path or address, and window, of each image of each case."""
    return [
        [(str(getattr(one, "source", one)), getattr(one, "region", None)) for one in examples_of(case)]
        for case in cases
    ]


def shard_file(records: Path) -> Path:
    """Where a file of records has what its shard is of."""
    return records.with_name(SHARD) if records.name == RECORDS else records.with_suffix(f".{SHARD}")


def read_facts(path: Path) -> dict[str, Any]:
    """What ``write_shard`` or a results folder wrote.

    Raises:
        ConfigError: If it can't be read.
    """
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: can't be read ({error}); start that part of the run again") from error
    if not isinstance(facts, dict):
        raise ConfigError(f"{path}: not what a run writes; start that part of the run again")
    return facts


def own_output(output: str, shard: Shard, *, is_folder: bool) -> str:
    """Where a shard's records go: a folder gets one below it for each, a file stays."""
    if not is_folder:
        return output
    own = shard.folder(output)
    make_folder(own)
    return f"{own}/"
