"""Every public name is on a page of the API reference."""

import importlib
import re

import hiresattn
from tests.docs.blocks import ROOT


def documented():
    text = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "api").glob("*.md"))
    return set(re.findall(r"^::: (\S+)", text, flags=re.MULTILINE))


def test_every_public_name_is_documented():
    names = {name.rpartition(".")[2] for name in documented()}
    assert {*hiresattn.__all__} - names - {"HiresattnError"} == set()


def test_what_is_documented_exists():
    for name in documented():
        module, _, last = name.rpartition(".")
        assert hasattr(importlib.import_module(module), last), name
