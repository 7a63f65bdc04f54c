"""The architecture's contracts, read from the source: arrows go down only."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import hiresattn

ROOT = Path(__file__).parents[1]

#: A module may import from layers with a smaller number, and from its own folder.
LAYERS = {
    "hiresattn.errors": 0,
    "hiresattn.shapes": 0,
    "hiresattn.files": 1,
    "hiresattn.geometry": 1,
    "hiresattn.option_types": 1,
    "hiresattn.config": 2,
    "hiresattn.pyramid": 3,
    "hiresattn.datasets": 4,
    "hiresattn.model": 4,
    "hiresattn.reading": 4,
    "hiresattn.conversion": 5,
    "hiresattn.card": 5,
    "hiresattn.checkpoint": 5,
    "hiresattn.inference": 6,
    "hiresattn.report": 7,
    "hiresattn.attention_maps": 8,
    "hiresattn.training": 9,
    "hiresattn.evaluation": 8,
    "hiresattn.demo": 10,
    "hiresattn.geo": 10,
    "hiresattn.cluster": 10,
    "hiresattn.xarray": 10,
    "hiresattn.fmow": 10,
    "hiresattn": 11,
}
#: Layers with one number that may still know each other, in this direction.
ALLOWED: set[tuple[str, str]] = {("hiresattn.checkpoint", "hiresattn.card")}
NO_TORCH = (
    "hiresattn.files",
    "hiresattn.pyramid",
    "hiresattn.datasets",
    "hiresattn.reading",
    "hiresattn.geometry",
)


def modules():
    return sorted((ROOT / "hiresattn").rglob("*.py"))


def dotted(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer(name):
    known = [known for known in LAYERS if name == known or name.startswith(f"{known}.")]
    return max(known, key=len)


@cache
def parsed(path):
    return ast.parse(path.read_text())


@cache
def imports(path):
    """Every module that a file imports, also inside functions; not what only the type checker sees."""
    tree, found = parsed(path), []
    checked = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in checked:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides the layer"
            found += [_origin(node.module, alias.name) for alias in node.names]
    return found


def _origin(module, name):
    """The module that ``from module import name`` is about: a submodule, or the home of a public name."""
    if module == "hiresattn" and name in hiresattn._HOME:
        return hiresattn._HOME[name]
    submodule = ROOT / module.replace(".", "/") / name
    return f"{module}.{name}" if submodule.with_suffix(".py").exists() or submodule.is_dir() else module


def test_imports_go_down_only():
    for path in modules():
        here = layer(dotted(path))
        for name in imports(path) if here != "hiresattn" else ():
            if not name.startswith("hiresattn") or name == "hiresattn":
                continue
            there = layer(name)
            assert there != "hiresattn", f"{dotted(path)} imports {name}: name its layer in {__file__}"
            fine = LAYERS[there] < LAYERS[here] or there == here or (here, there) in ALLOWED
            assert fine, f"{dotted(path)} imports {name}, which is not below it"


def imported_modules(path, known):
    """The modules that a file imports anywhere in it, also what only the type checker sees."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in known else node.module


def test_no_modules_import_each_other():
    known = {dotted(path): path for path in modules()}
    del known["hiresattn"]  # the public names are loaded on first use
    below = {name: set(imported_modules(path, known)) & known.keys() for name, path in known.items()}
    TopologicalSorter(below).prepare()  # a CycleError names the modules


def test_every_module_has_a_layer():
    names = map(dotted, modules())
    without = [name for name in names if name != "hiresattn" and layer(name) == "hiresattn"]
    assert without == []  # name theirs in LAYERS


def importing(paths, packages):
    """The modules that import one of these packages, and what."""
    found = {
        dotted(path): [name for name in imports(path) if name.split(".")[0] in packages] for path in paths
    }
    return {name: met for name, met in found.items() if met}


def test_reading_datasets_and_the_network_do_not_know_each_other():
    pillars = {"hiresattn.datasets", "hiresattn.reading", "hiresattn.model"}
    for path in modules():
        if (here := layer(dotted(path))) in pillars:
            met = [name for name in imports(path) if name.startswith("hiresattn.")]
            assert [name for name in met if layer(name) in pillars - {here}] == [], path


def test_pyramids_datasets_and_reading_import_no_torch():
    paths = [path for path in modules() if layer(dotted(path)) in NO_TORCH]
    assert paths
    assert importing(paths, ("torch", "timm")) == {}


def test_the_library_knows_no_command_line_and_prints_nothing():
    assert importing(modules(), ("click", "rich", "hiresattn_cli")) == {}
    for path in modules():
        calls = [node.func for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]
        assert [call.lineno for call in calls if isinstance(call, ast.Name) and call.id == "print"] == [], (
            path
        )


def test_no_module_is_named_after_nothing():
    assert {path.stem for path in modules()} & {"utils", "helpers", "common", "misc"} == set()


#: What of ``inference`` needs torch: the engine, and what loads or runs models in other ways than by a search.
WITH_TORCH = {"torch_engine", "onnx_export"}


def test_a_search_imports_no_torch():
    paths = [path for path in (ROOT / "hiresattn/inference").glob("*.py") if path.stem not in WITH_TORCH]
    assert importing(paths, ("torch",)) == {}


def loaded_by(statement):
    code = f"import sys; {statement}; print(*sorted(name.split('.')[0] for name in sys.modules))"
    done = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_import_hiresattn_loads_neither_torch_nor_a_reader():
    heavy = {"torch", "timm", "numba", "rasterio", "openslide", "zarr", "dask", "PIL", "geopandas", "pandas"}
    heavy |= {"xarray", "rioxarray", "pystac", "shapely"}
    assert loaded_by("import hiresattn") & heavy == set()


def test_opening_a_pyramid_loads_no_torch():
    assert "torch" not in loaded_by("from hiresattn import open_pyramid")


def test_searching_and_pooling_load_no_torch():
    assert "torch" not in loaded_by("import hiresattn.inference.search, hiresattn.inference.exhaustive")


@pytest.mark.parametrize(
    "line",
    ["from hiresattn import train", "from hiresattn import training", "from hiresattn.training import fit"],
)
def test_a_name_that_comes_from_above_is_seen(tmp_path, line):
    file = tmp_path / "reader.py"
    file.write_text(line)
    assert all(layer(name) == "hiresattn.training" for name in imports(file))


def test_no_file_is_longer_than_350_lines():
    lines = {dotted(path): len(path.read_text().splitlines()) for path in modules()}
    assert {name: count for name, count in lines.items() if count > 350} == {}
