"""The tables of README and docs are those of the stored results."""

import re

import pytest

import table


@pytest.mark.parametrize("page", [*table.pages()], ids=lambda page: page.stem)
def test_a_page_has_what_the_stored_results_give(page):
    text = page.read_text(encoding="utf-8")
    assert table.fill(text) == text


def test_every_table_is_on_a_page():
    text = "\n".join(page.read_text(encoding="utf-8") for page in table.pages())
    assert set(re.findall("<!-- table: (.+?) -->", text)) == set(table.TABLES)
