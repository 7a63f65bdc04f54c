"""The attention memory: a maximum, whatever the order, the process, the turn or the interruption."""

import io
import multiprocessing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiresattn.attention_maps.memory import (
    AttentionMemory,
    Key,
    load_attention,
    save_attention,
    share_attention,
)
from hiresattn.errors import CheckpointError
from hiresattn.training.augment import ORIENTATIONS

KEYS = st.builds(
    Key,
    st.sampled_from(["a.tif", "b.tif", "ü/c.png"]),
    st.integers(0, 2),
    st.tuples(st.integers(0, 2), st.just(0), st.just(8), st.sampled_from([8, 16])),
)
MAPS = st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4).map(
    lambda v: np.array(v, np.float32).reshape(2, 2)
)
ENTRIES = st.lists(st.tuples(KEYS, MAPS), max_size=12)


def memory_of(entries, most=1000):
    memory = AttentionMemory(most)
    for key, values in entries:
        memory.merge(key, values)
    return memory


def content(memory):
    return {key: values.tolist() for key, values in memory}


@given(ENTRIES, st.randoms(), st.sampled_from([2, 5, 1000]))
@settings(max_examples=80)
def test_order_and_repetition_do_not_matter(entries, random, most):
    shuffled = entries + entries[: len(entries) // 2]
    random.shuffle(shuffled)
    assert content(memory_of(entries, most)) == content(memory_of(shuffled, most))


@given(ENTRIES, ENTRIES, ENTRIES, st.sampled_from([2, 5, 1000]))
@settings(max_examples=80)
def test_absorbing_is_idempotent_commutative_and_associative(one, two, three, most):
    def joined(*parts):
        out = AttentionMemory(most)
        for part in parts:
            out.absorb(part)
        return out

    a, b, c = (memory_of(entries, most) for entries in (one, two, three))
    whole = content(memory_of(one + two + three, most))
    assert content(joined(a, a)) == content(a)
    assert content(joined(a, b)) == content(joined(b, a))
    assert content(joined(joined(a, b), c)) == content(joined(a, joined(b, c))) == whole


@given(MAPS, MAPS)
@settings(max_examples=60)
def test_what_is_recalled_is_the_maximum_but_for_rounding(first, second):
    key = Key("a", 0, (0, 0, 8, 8))
    found = memory_of([(key, first), (key, second)]).recall(key)
    assert np.abs(found - np.maximum(first, second)).max() <= 1 / 510 + 1e-7
    assert found.dtype == np.float32


def test_what_was_never_accepted_is_not_there():
    memory = memory_of([(Key("a", 0, (0, 0, 8, 8)), np.ones((2, 2)))])
    for other in (Key("b", 0, (0, 0, 8, 8)), Key("a", 1, (0, 0, 8, 8)), Key("a", 0, (0, 1, 8, 8))):
        assert memory.recall(other) is None


def test_the_largest_regions_are_kept_and_memory_stays_bounded():
    memory = AttentionMemory(100)
    rng = np.random.default_rng(0)
    for step in range(5000):
        key = Key(f"{step % 50}", 0, (step, 0, *[8 if step % 50 else 64] * 2))
        memory.merge(key, rng.random((5, 5)))
        assert len(memory._maps) <= 2 * 113
    assert len(memory) == 100
    assert all(key.region[2] == 64 for key, _ in memory)


def test_a_map_of_another_shape_is_refused():
    memory = memory_of([(Key("a", 0, (0, 0, 8, 8)), np.ones((2, 2)))])
    for key in (Key("a", 0, (0, 0, 8, 8)), Key("b", 0, (0, 0, 8, 8))):
        with pytest.raises(ValueError, match="those kept are"):
            memory.merge(key, np.ones((3, 2)))


@given(ENTRIES)
@settings(max_examples=30)
def test_a_file_holds_what_was_written_and_goes_on_alike(entries):
    stream = io.BytesIO()
    memory = memory_of(entries)
    memory.write(stream)
    stream.seek(0)
    again = AttentionMemory.read(stream)
    assert content(again) == content(memory)
    for key, values in entries[:3]:
        again.merge(key, 1 - values)
        memory.merge(key, 1 - values)
    again.merge(Key("new", 0, (0, 0, 1, 1)), np.ones((2, 2)))
    assert {k: v for k, v in content(again).items() if k.image != "new"} == content(memory)


def test_a_damaged_or_foreign_file_is_named_and_nothing_is_unpickled(tmp_path):
    path = tmp_path / "attention.npz"
    with pytest.raises(CheckpointError, match=r"attention\.npz"):
        load_attention(path)
    save_attention(memory_of([(Key("a", 0, (0, 0, 8, 8)), np.ones((2, 2)))]), path)
    assert content(load_attention(path)) == {Key("a", 0, (0, 0, 8, 8)): [[255, 255], [255, 255]]}
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"no zip at all"):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"attention\.npz"):
            load_attention(path)
    np.savez(path, names=np.array([{"a": 1}], object), image=[0], label=[0], region=[[0] * 4], maps=[[[0]]])
    with pytest.raises(CheckpointError, match="allow_pickle"):
        load_attention(path)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "attention.npz"
    old = memory_of([(Key("a", 0, (0, 0, 8, 8)), np.ones((2, 2)))])
    save_attention(old, path)

    def full(stream, **_):
        stream.write(b"PK")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="No space"):
        save_attention(memory_of([]), path)
    monkeypatch.undo()
    assert content(load_attention(path)) == content(old)
    assert [file.name for file in tmp_path.iterdir()] == ["attention.npz"]


@pytest.mark.parametrize("turn", ORIENTATIONS["turns"])
def test_every_turn_is_undone(turn):
    whole = (0, 0, 60, 96)
    y, x = np.mgrid[:60, :96]
    picture = np.stack([y, x])  # each px says where it is
    seen = turn.apply(picture)
    assert np.array_equal(turn.invert(seen), picture)
    top, left, height, width = region = (6, 20, 10, 24)
    shown = seen[:, top : top + height, left : left + width]
    sy, sx, sh, sw = turn.stored(region, whole)
    assert np.array_equal(turn.invert(shown), picture[:, sy : sy + sh, sx : sx + sw])


def _process(rank, port, answers):
    from torch import distributed

    address = f"tcp://127.0.0.1:{port}"
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    memory = memory_of(
        [
            (Key(f"only {rank}" * (rank + 1), 0, (0, 0, 8, 8)), np.full((2, 2), 0.4)),
            (Key("both", 0, (0, 0, 8, 8)), np.eye(2)[:: 1 - 2 * rank]),
        ]
    )
    share_attention(memory)
    answers.put(content(memory))
    distributed.destroy_process_group()


@pytest.mark.slow
def test_processes_end_with_what_all_have_seen():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.Queue()
    processes = [spawn.Process(target=_process, args=(rank, port, answers)) for rank in range(2)]
    for process in processes:
        process.start()
    first, second = (answers.get(timeout=240) for _ in processes)
    for process in processes:
        process.join(60)
    assert first == second
    assert first[Key("both", 0, (0, 0, 8, 8))] == [[255, 255], [255, 255]]
    assert {key.image for key in first} == {"only 0", "only 1only 1", "both"}
