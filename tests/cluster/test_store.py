"""A Parquet data set of records: whole files, many writers, read while it grows."""

import pandas as pd
import pyarrow.dataset
import pytest

from hiresattn.cluster import store as store_module
from hiresattn.cluster.status import status
from hiresattn.cluster.store import Store
from hiresattn.errors import ConfigError
from hiresattn.inference.record import Record


def record(name, state="ok"):
    return Record(
        name, state, scores={"a": 0.25, "b": 0.75} if state == "ok" else {}, class_name="b", score=0.75
    )


def test_two_writers_and_a_reader_at_any_time(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "ROWS", 2)
    folder = tmp_path / "store"
    with Store(folder, {"model": "m"}, 5) as one, Store(folder, {"model": "m"}, 5) as two:
        assert one.run == two.run
        for number, each in enumerate((one, two, one, two, one)):
            each.add(record(f"{number}.png", "error" if number == 1 else "ok"), f"k{number}")
        seen = pd.read_parquet(folder)  # while it is written
        assert sorted(seen["key"]) == ["k0", "k1", "k2", "k3"]
        assert status(folder)[0].done == 4
        (one.folder / ".half.parquet.part").write_bytes(b"PAR1")  # another's file, not yet whole
    two.add(record("1.png"), "k1")  # tried again
    two.flush()
    with Store(folder, {"model": "other"}, 1) as other:
        other.add(record("0.png"), "k0")
    found = pyarrow.dataset.dataset(folder, partitioning="hive").to_table().to_pandas()
    assert len(found) == 7
    assert set(found["run"]) == {one.run, other.run}
    latest = found[found["run"] == one.run].sort_values("written").drop_duplicates("key", keep="last")
    assert sorted(latest["source"]) == [f"{n}.png" for n in range(5)]
    assert set(latest["status"]) == {"ok"}
    assert dict(latest["scores"].iloc[0]) == {"a": 0.25, "b": 0.75}
    whole, runs = status(folder)
    assert (whole.done, whole.cases, whole.errors) == (6, 6, 0)
    assert [(run.name, run.done, run.seconds_left) for run in runs] == [
        (f"run={one.run}", 5, 0.0), (f"run={other.run}", 1, 0.0)
    ]  # fmt: skip
    assert one.keys() == {f"k{n}" for n in range(5)}


def test_a_folder_of_other_things_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds notes\.txt"):
        Store(tmp_path, {}, 1)
