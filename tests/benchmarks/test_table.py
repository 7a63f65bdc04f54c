"""The README's tables are those of the stored results."""

from pathlib import Path

import table

ROOT = Path(__file__).parents[2]


def test_the_readme_is_what_the_stored_results_give():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"<!-- table: {block} -->" in readme for block in table.BLOCKS)
    assert table.fill(readme) == readme
