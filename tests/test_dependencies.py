"""What is imported is declared: every third-party module belongs to a dependency of pyproject.toml."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN = {"hiresattn", "hiresattn_cli"}


def plain(name):
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", name)[0]).lower()


def imported():
    """Third-party module → a file that imports it."""
    found = {}
    for folder in ("hiresattn", "cli"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module]
                else:
                    continue
                tops = {name.split(".")[0] for name in names}
                found |= dict.fromkeys(tops - sys.stdlib_module_names - OWN, path.relative_to(ROOT))
    return found


@pytest.mark.parametrize(("module", "path"), sorted(imported().items()))
def test_every_imported_module_is_of_a_declared_dependency(module, path):
    extras = PROJECT["optional-dependencies"]
    for_users = [one for name, listed in extras.items() if name != "dev" for one in listed]
    declared = {plain(one) for one in [*PROJECT["dependencies"], *for_users]}
    known = packages_distributions()
    assert module in known, f"{path} imports {module}, which no installed package holds"
    assert {plain(name) for name in known[module]} & declared, f"{path}: declare {known[module]} in pyproject"


def test_every_declared_dependency_has_a_tested_version():
    pinned = {plain(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    extras = [one for listed in PROJECT["optional-dependencies"].values() for one in listed]
    assert {plain(one) for one in [*PROJECT["dependencies"], *extras]} <= pinned


def test_classifying_needs_all_but_torch_timm_and_the_hub():
    listed = (ROOT / "requirements-classify.txt").read_text().splitlines()
    without = [
        one for one in PROJECT["dependencies"] if plain(one) not in ("torch", "timm", "huggingface-hub")
    ]
    runtime = [one for one in PROJECT["optional-dependencies"]["onnx"] if plain(one) == "onnxruntime"]
    assert [one for one in listed if not one.startswith("#")] == sorted([*without, *runtime])
