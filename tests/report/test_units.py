"""Numbers as people write them."""

import pytest

from hiresattn.errors import counted
from hiresattn.report.units import human_bytes, human_px, human_seconds, human_share


def test_one_thing_is_singular_and_none_is_plural():
    assert [counted(n, "tile") for n in (0, 1, 2)] == ["0 tiles", "1 tile", "2 tiles"]


def test_bytes_and_px_get_the_unit_that_fits():
    assert [human_bytes(n) for n in (0, 999, 33_200, 4_600_000, 7e12)] == [
        "0 B",
        "999 B",
        "33.2 kB",
        "4.6 MB",
        "7.0 TB",
    ]
    assert human_px(81_000_000) == "81.0 Mpx"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.0523, "0.052 s"), (1.25, "1.2 s"), (9.97, "10 s"), (23.4, "23 s"), (139.7, "140 s")],
)
def test_seconds_have_no_exponent(seconds, text):
    assert human_seconds(seconds) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (0.00123, "0.12 %"),
        (0.5, "50 %"),
        (1, "100 %"),
        (0.000012, "0.0012 %"),
        (1e-9, "< 0.0001 %"),
    ],
)
def test_a_share_has_two_digits(share, text):
    assert human_share(share) == text
