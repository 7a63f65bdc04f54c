"""The public names: lazy, documented, few parameters, and each of them works on small made inputs."""

import ast
import inspect
import typing
from pathlib import Path

import pytest

import hiresattn

FUNCTIONS = [
    name for name in hiresattn.__all__ if name != "classify" and inspect.isfunction(getattr(hiresattn, name))
]


def test_all_dir_the_table_and_what_type_checkers_see_agree():
    tree = ast.parse(Path(hiresattn.__file__).read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If)).body
    seen = {alias.asname: node.module for node in guarded for alias in node.names}
    assert seen == hiresattn._HOME
    assert sorted(hiresattn.__all__) == sorted([*seen, "errors", "HiresattnError"])
    assert dir(hiresattn) == sorted([*hiresattn.__all__, "__version__"])
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = hiresattn.nonsense


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_is_typed_has_an_example_and_at_most_8_parameters(name):
    function = getattr(hiresattn, name)
    parameters = inspect.signature(function).parameters
    assert len(parameters) <= 8
    assert set(typing.get_type_hints(function)) == {*parameters, "return"}
    text = inspect.getdoc(function)
    assert f"{name}(" in text
    for section in ("Args:", "Raises:"):
        assert section in text
