"""The next batch: drawn without replacement, pass by pass, at a cost that doesn't grow with the data set."""

import numpy as np
import pytest

from hiresattn.geometry import Grid
from hiresattn.training import curriculum as module
from hiresattn.training.curriculum import Curriculum
from hiresattn.training.options import TrainOptions
from hiresattn.training.samples import Sample


class Counting(list):
    """A list that counts how many elements were asked for."""

    asked = 0

    def __getitem__(self, at):
        self.asked += 1
        return super().__getitem__(at)

    def __iter__(self):
        self.asked += len(self)
        return super().__iter__()


def _curriculum(counts, **options):
    samples = [
        Sample(None, number % 2, (0, 0, 64, 64), depths, 1, name=f"{depths} {number}")
        for depths, count in enumerate(counts, start=2)
        for number in range(count)
    ]
    return Curriculum(samples, Grid(), TrainOptions(**options))


def _expected(stage, number, size, seed, drawn):
    """The rule in the simplest words: permutations of ``[seed, stage, pass]`` one after the other."""
    passes = drawn // len(stage) + 2
    orders = [np.random.default_rng([seed, number, n]).permutation(len(stage)) for n in range(passes + 1)]
    return [stage[i].name for i in np.concatenate(orders)[drawn : drawn + min(size, len(stage))]]


@pytest.mark.parametrize("size", [1, 4, 7, 100])
def test_batches_are_those_of_one_shuffle_per_pass(size):
    curriculum = _curriculum([10, 21], batch_size=size, seed=5)
    rng, drawn = np.random.default_rng(0), [0, 0]
    for _ in range(40):
        stage = int(rng.integers(2))
        expected = _expected(curriculum.stages[stage], stage, size, 5, drawn[stage])
        before = list(drawn)
        assert [sample.name for sample in curriculum.upcoming(stage, drawn)] == expected
        assert drawn == before
        assert [sample.name for sample in curriculum.draw(stage, drawn)] == expected
    assert len(curriculum._orders) <= 4


def test_a_resumed_run_draws_what_a_whole_one_does():
    first, second = _curriculum([9], batch_size=4), _curriculum([9], batch_size=4)
    drawn = [0]
    for _ in range(7):
        first.draw(0, drawn)
    again = list(drawn)
    assert [s.name for s in first.draw(0, drawn)] == [s.name for s in second.draw(0, again)]


def test_the_cost_of_a_batch_does_not_grow_with_the_data_set(monkeypatch):
    permutations = []
    make = np.random.default_rng

    def counted(seed):
        permutations.append(seed)
        return make(seed)

    curriculum = _curriculum([4000], batch_size=32)
    monkeypatch.setattr(module.np.random, "default_rng", counted)
    stage = curriculum.stages[0] = Counting(curriculum.stages[0])
    drawn = [0]
    for _ in range(100):
        curriculum.draw(0, drawn)
        curriculum.upcoming(0, drawn)
    assert stage.asked == 2 * 100 * 32
    assert len(permutations) == 1  # 3,200 of 4,000 images: one pass
