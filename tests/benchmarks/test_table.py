"""The README's tables are those of the stored results."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import table  # noqa: E402 - benchmarks are no package


def test_the_readme_is_what_the_stored_results_give():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"<!-- table: {block} -->" in readme for block in table.BLOCKS)
    assert table.fill(readme) == readme
