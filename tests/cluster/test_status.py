"""How far a run is, from what it has written so far."""

import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from hiresattn.cluster.status import status
from hiresattn.errors import NotFoundError

START = datetime(2026, 1, 1, tzinfo=UTC)


def shard(folder, number, states, *, there=0, of=2, count=10, at=100):
    """A shard of ``of``, with a record for each of ``states``, the last ``at`` s after its start."""
    own = folder / f"shard-{number:02}-of-{of}"
    own.mkdir(parents=True)
    lines = [json.dumps({"status": state, "key": str(key)}) + "\n" for key, state in enumerate(states)]
    (own / "records.jsonl").write_text("".join(lines))
    os.utime(own / "records.jsonl", times=((START + timedelta(seconds=at)).timestamp(),) * 2)
    facts = {
        "started": START.isoformat(),
        "there": there,
        "cases": count,
        "all": count * of,
        "shard": [number, of],
    }
    (own / "shard.json").write_text(json.dumps(facts | {"keys": [str(key) for key in range(count)]}))
    return own


def test_a_job_array_is_the_sum_of_its_shards(tmp_path):
    shard(tmp_path, 1, ["ok"] * 5 + ["error"], there=1)
    shard(tmp_path, 2, ["ok"] * 10, at=50)
    whole, (first, second) = status(tmp_path, now=START + timedelta(seconds=125))
    assert (first.done, first.cases, first.errors, first.shard) == (6, 10, 1, "1/2")
    assert (first.rate, first.seconds_left) == (5 / 125, 4 * 125 / 5)
    assert (second.done, second.rate, second.seconds_left) == (10, 10 / 50, 0)
    assert (whole.done, whole.cases, whole.errors) == (16, 20, 1)
    assert (whole.rate, whole.seconds_left) == (first.rate, first.seconds_left)
    assert datetime.fromisoformat(whole.last) == START + timedelta(seconds=100)


def test_a_shard_that_has_not_begun_leaves_the_time_open(tmp_path):
    shard(tmp_path, 1, ["ok"] * 5, of=3)
    whole, shards = status(tmp_path, now=START + timedelta(seconds=125))
    assert (whole.done, whole.cases, whole.seconds_left, len(shards)) == (5, 30, None, 1)


def test_a_line_that_is_being_written_does_not_count(tmp_path):
    own = shard(tmp_path, 1, ["ok"])
    with (own / "records.jsonl").open("a") as file:
        file.write('{"status": "ok", "ke')
    assert status(own)[1][0].done == 1


def test_a_run_that_stands_still_keeps_its_rate(tmp_path):
    own = shard(tmp_path, 1, ["ok"] * 5)
    assert status(own, now=START + timedelta(days=3))[1][0].rate == 5 / 100


def test_a_file_of_records_says_what_it_holds(tmp_path, run_line):
    file = tmp_path / "r.jsonl"
    file.write_text('{"status": "error"}\n{"status": "ok"}\n')
    whole, parts = status(file)
    assert (whole.done, whole.errors, whole.cases, whole.rate, parts) == (2, 1, None, None, ())
    assert run_line("status", file).startswith(f"{file}: 2 done, 1 failed, last ")
    assert json.loads(run_line("status", file, "--json"))["done"] == 2
    with pytest.raises(NotFoundError):
        status(tmp_path / "absent")


@pytest.fixture
def run_line():
    from click.testing import CliRunner

    from hiresattn_cli.main import cli

    return lambda *words: CliRunner().invoke(cli, [str(word) for word in words]).stdout
