"""The model of a cluster: its limits are those of arithmetic, and what saturates is named."""

import pytest

from cluster_model import here, on_workers, throughput

COST = {"read_s": 0.05, "compute_s": 0.15, "schedule_s": 0.001, "write_s": 0.001, "bytes": 1e6}


def test_few_workers_are_as_fast_as_they_are_and_many_as_what_they_share():
    one, limit = on_workers(COST, 1)
    assert one == pytest.approx(1 / (0.2 + 0.002 + 1e6 / 2e9 + 1e6 / 1.25e9))
    assert limit == "workers"
    assert on_workers(COST, 4)[0] == pytest.approx(4 * one, rel=0.02)
    many, limit = on_workers(COST, 1000)
    assert many == pytest.approx(1 / 0.002, rel=0.01)
    assert limit == "scheduler and client"
    assert on_workers(COST | {"bytes": 1e8}, 1000)[1] == "network"


def test_a_queue_of_one_server_is_the_known_formula():
    # machine repair, with equal times of thinking and serving: 3 customers have P(busy) = 15/16
    found, _ = throughput(3, {"server": 1.0}, 1.0)
    assert found == pytest.approx(15 / 16)


def test_more_processes_than_cores_are_no_faster():
    need = 0.202
    assert here(COST, 1, 2) == pytest.approx(1 / need)
    assert here(COST, 4, 2) == here(COST, 2, 2) == pytest.approx(2 / need)
