"""The GPU benchmark: its CPU half here, all of it where there is a GPU."""

import time

import pytest
import torch

from gpu import APART, apart, measure


def test_the_half_that_needs_no_gpu_runs_and_agrees():
    rows = measure(("small", 64), "cpu", (1, 2), glimpses=6, deadline=time.perf_counter() + 60)
    assert [row["side_by_side"] for row in rows] == [1, 2]
    for row in rows:
        assert row["apart"] <= APART
        assert 0 < row["network_share"] <= 1
        assert row["crops_per_second"] == pytest.approx(6 * row["images_per_second"])


def test_other_regions_and_other_scores_are_seen(prediction_pair):
    one, other = prediction_pair
    assert apart([one], [one]) == 0
    assert apart([one], [other]) == float("inf")


@pytest.fixture
def prediction_pair():
    from types import SimpleNamespace

    def made(y):
        return SimpleNamespace(regions=[SimpleNamespace(y=y, x=0, height=64)], scores={"a": 0.5})

    return made(0), made(64)


@pytest.mark.gpu
def test_a_gpu_agrees_with_the_cpu_whatever_runs_side_by_side():
    device = "cuda" if torch.cuda.is_available() else pytest.skip("no GPU")
    rows = measure(("small", 64), device, (1, 16, 64), glimpses=16, deadline=time.perf_counter() + 120)
    assert all(row["apart"] <= APART for row in rows)
