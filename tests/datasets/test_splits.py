"""Drawn splits: by case, class by class, and the same ones again."""

from collections import Counter
from dataclasses import replace

import pytest

from hiresattn.datasets.example import Example
from hiresattn.datasets.splits import drawn_folds, drawn_splits, with_validation
from hiresattn.errors import ConfigError


@pytest.mark.parametrize(
    ("count", "val", "test", "expected"),
    [
        (100, 0.15, 0.2, {"train": 65, "val": 15, "test": 20}),
        (7, 0.15, 0.15, {"train": 5, "val": 1, "test": 1}),
        (3, 0.15, 0.15, {"train": 1, "val": 1, "test": 1}),
        (2, 0.15, 0.15, {"train": 1, "val": 1}),
        (2, 0.0, 0.15, {"train": 1, "test": 1}),
        (1, 0.15, 0.15, {"train": 1}),
        (4, 0.49, 0.49, {"train": 1, "val": 2, "test": 1}),
        (4, 1.0, 0.0, {"train": 1, "val": 3}),
        (10, 0.0, 0.0, {"train": 10}),
    ],
)
def test_each_class_has_its_share_and_one_to_train_on(count, val, test, expected):
    cases = [(f"{label}{number}", label) for number in range(count) for label in "ab"]
    splits = drawn_splits(cases, val, test, seed=0)
    for label in "ab":
        assert Counter(s for s, (_, own) in zip(splits, cases, strict=True) if own == label) == expected


def test_a_draw_depends_on_names_and_seed_and_not_on_the_order():
    cases = [(f"p{number}", "x") for number in range(40)]
    drawn = dict(zip(cases, drawn_splits(cases, 0.25, 0.25, seed=1), strict=True))
    assert dict(zip(cases[::-1], drawn_splits(cases[::-1], 0.25, 0.25, seed=1), strict=True)) == drawn
    assert drawn_splits(cases, 0.25, 0.25, seed=2) != list(drawn.values())


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_folds_have_the_same_number_of_cases_of_each_class_and_do_not_depend_on_the_order(folds):
    cases = [
        (f"{label}{number}", label)
        for label, count in (("a", 7), ("b", 12), ("c", 1))
        for number in range(count)
    ]
    drawn = drawn_folds(cases, folds, seed=3)
    for label in "abc":
        count = Counter(fold for fold, (_, own) in zip(drawn, cases, strict=True) if own == label)
        assert max(count[n] for n in range(folds)) - min(count[n] for n in range(folds)) <= 1
    sizes = [drawn.count(n) for n in range(folds)]
    assert max(sizes) - min(sizes) <= 1
    assert drawn_folds(cases[::-1], folds, seed=3) == drawn[::-1]


def test_groups_and_images_stay_whole_where_a_share_validates():
    examples = [Example(f"s{n}.tif", "ab"[n // 2 % 2], group=f"p{n // 2}") for n in range(40)]
    examples += [Example(f"w{n}.tif", "ab"[n % 2], region=(0, at, 8, 8)) for n in range(20) for at in (0, 8)]
    examples.append(Example("t.tif", "a", "test"))
    found = with_validation(examples, 0.2, seed=0)
    assert [replace(e, split="train") for e in found[:-1]] == examples[:-1]
    assert found[-1] == examples[-1]
    parts = [{e.group or e.source for e in found if e.split == split} for split in ("train", "val")]
    assert not parts[0] & parts[1]
    assert len(parts[1]) == 8  # of 40 groups and images
    assert Counter(e.label for e in found if e.split == "val") == {"a": 8, "b": 8}
    assert with_validation(examples, 0.0, seed=0) == examples
    assert with_validation(found, 0.5, seed=1) == found  # there are some


def test_the_folder_that_images_lie_in_does_not_change_the_draw():
    def drawn(folder):
        examples = [Example(f"{folder}/{n}.tif", "x") for n in range(20)]
        return [e.split for e in with_validation(examples, 0.3, seed=0)]

    assert drawn("here") == drawn("/data/there")


def test_one_case_can_not_be_split():
    rows = [Example(f"{label}.tif", label, case="p", region=(0, 0, 8, 8)) for label in "xy"]
    with pytest.raises(ConfigError, match="the rows to train on are all of one; give a column split"):
        with_validation(rows, 0.2, seed=0)


def test_what_a_case_a_group_or_an_image_joins_is_not_parted():
    chain = [
        Example("1.tif", "x", case="p1"),
        Example("2.tif", "x", case="p1", group="h1"),
        Example("3.tif", "x", group="h1"),
        Example("3.tif", "x", region=(0, 0, 8, 8)),
        Example("4.tif", "x", case="p4"),
        Example("5.tif", "x"),
    ]
    seen = set()
    for seed in range(20):
        found = [e.split for e in with_validation(chain, 0.3, seed)]
        assert len(set(found[:4])) == 1
        assert found.count("val") in (1, 4)
        seen.add(tuple(found))
    assert len(seen) == 3
