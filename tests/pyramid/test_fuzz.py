"""Damage at random, in every format: never a crash, a hang, or pixels that are wrong where that can be told.

What can't be told: JPEG, JPEG 2000, WebP, LZW, PackBits, BMP, GIF and uncompressed pixels have no checksum, nor have
zstd and Blosc as most programs write them; a change in a tile that still decodes to the right number of px shows in
that tile, and in no other. A header has none either: a number in it that makes sense is believed. What has one
(deflate, gzip, LZMA, PNG, and every chunk that ``hiresattn convert`` writes as OME-Zarr) never gives other pixels.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.pyramid.fuzz import CHECKED, FORMATS, PLACES, REAL, WHOLE

ROOT = Path(__file__).parents[2]

#: Nothing wrong went unnoticed.
TELLS = {"error", "same"}


def fuzzed(folder, seed, cases, names=()):
    """The outcomes, by format and place, of a process of its own, which must end well."""
    done = subprocess.run(  # noqa: S603 - this interpreter
        [
            sys.executable,
            str(ROOT / "tests" / "pyramid" / "fuzz.py"),
            str(folder),
            str(seed),
            str(cases),
            *names,
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"{done.returncode} in {lines[-1:]}: {done.stderr[-2000:]}"
    found = Counter()
    for case in map(json.loads, lines):
        if "outcome" in case:
            found[case["format"], case["place"], case["outcome"]] += 1
    return found


def check(found, names, cases):
    """What holds for any seed."""
    assert found.total() == cases * len(names)
    for (name, place, outcome), count in found.items():
        if place == "cut":
            assert outcome in TELLS, (name, place, outcome, count)
        if place == "pixels":
            allowed = (
                TELLS
                if name in CHECKED
                else {*TELLS, "here"}
                if name not in WHOLE
                else {*TELLS, "here", "other"}
            )
            assert outcome in allowed, (name, place, outcome, count)


def test_a_few_cases_of_every_format(tmp_path):
    cases = 7 * len(PLACES)  # of all formats about 500
    found = fuzzed(tmp_path, 0, cases)
    check(found, FORMATS, cases)
    for name in FORMATS:  # the damage does damage
        assert found[name, "cut", "error"] >= 3
        assert sum(found[name, "pixels", outcome] for outcome in ("error", "here", "other")) >= 2


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(1, 6))
def test_many_cases_of_every_format(tmp_path, seed):
    cases = 28 * len(PLACES)  # of all formats and seeds 10,080
    assert 5 * cases * len(FORMATS) >= 10_000
    check(fuzzed(tmp_path, seed, cases), FORMATS, cases)


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="no real files beside this checkout")
def test_formats_that_only_openslide_reads(tmp_path):
    check(fuzzed(tmp_path, 1, 60, REAL), REAL, 60)
