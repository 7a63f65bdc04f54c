"""Boxes with context: the baseline's rule, with and without its mistake."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiresattn.fmow.windows import clipped, context_window


def by_words(y, x, height, width, rows, columns, swapped):
    """The rule as the facts tell it, one axis at a time, by marking px."""

    def reach(side, whole):
        r = side / whole
        if r >= 0.5:
            mult = 0.15
        elif 0.4 <= r < 0.5:
            mult = 0.2
        elif 0.3 <= r < 0.4:
            mult = 0.3
        elif 0.2 <= r < 0.3:
            mult = 0.5
        elif 0.1 <= r < 0.2:
            mult = 1
        else:
            mult = 2
        return int((side * mult) / 2)

    dy, dx = reach(height, columns if swapped else rows), reach(width, rows if swapped else columns)
    in_y = [i for i in range(rows) if y - dy <= i < y + height + dy]
    in_x = [i for i in range(columns) if x - dx <= i < x + width + dx]
    return in_y[0], in_x[0], len(in_y), len(in_x)


@given(
    st.integers(20, 300),
    st.integers(20, 300),
    st.integers(1, 300),
    st.integers(1, 300),
    st.data(),
    st.booleans(),
)
def test_margins_are_the_facts(rows, columns, height, width, data, swapped):
    height, width = min(height, rows), min(width, columns)
    y, x = data.draw(st.integers(0, rows - height)), data.draw(st.integers(0, columns - width))
    found = context_window(y, x, height, width, rows, columns, swapped=swapped)
    assert found == by_words(y, x, height, width, rows, columns, swapped)


def test_the_sample_of_the_facts_by_hand():
    # fountain_514_1: box [466, 299, 72, 60] of an image of 977 x 663: both sides are below a tenth.
    assert context_window(299, 466, 60, 72, 663, 977) == (239, 394, 180, 216)
    # By the baseline: 72 / 663 = 0.109 is above a tenth, so that the width gets half the margin.
    assert context_window(299, 466, 60, 72, 663, 977, swapped=True) == (239, 430, 180, 144)


def test_the_mistake_shows_only_where_the_image_is_oblong():
    assert context_window(50, 60, 25, 70, 200, 200) == context_window(50, 60, 25, 70, 200, 200, swapped=True)


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ((-5, 2, 10, 4), (0, 2, 5, 4)),
        ((8, 8, 9, 9), (8, 8, 2, 2)),
        ((10, 0, 3, 3), None),
        ((-3, 0, 3, 3), None),
    ],
)
def test_a_window_is_clipped_to_its_image(window, expected):
    assert clipped(*window, 10, 10) == expected
    y, x, h, w = window
    mask = np.zeros((40, 40), bool)
    mask[y + 10 : y + 10 + h, x + 10 : x + 10 + w] = True
    assert mask[10:20, 10:20].sum() == (0 if expected is None else expected[2] * expected[3])
