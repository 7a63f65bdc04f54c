"""The architecture's contracts, read from the source: arrows go down only."""

import ast
import subprocess
import sys
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
#: Import cycles that are still there; may only get shorter.
CYCLES: list[set[str]] = []
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


def imports(path):
    """Every module that a file imports, also inside functions; not what only the type checker sees."""
    tree = ast.parse(path.read_text())
    checked = [
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.walk(node)
    ]
    for node in ast.walk(tree):
        if node in checked:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides the layer"
            yield from (_origin(node.module, alias.name) for alias in node.names)


def _origin(module, name):
    """The module that ``from module import name`` is about: a submodule, or the home of a public name."""
    if module == "hiresattn" and name in hiresattn._HOME:
        return hiresattn._HOME[name]
    submodule = ROOT / module.replace(".", "/") / name
    return f"{module}.{name}" if submodule.with_suffix(".py").exists() or submodule.is_dir() else module


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_imports_go_down_only(path):
    here = layer(dotted(path))
    if here == "hiresattn":
        return
    for name in imports(path):
        if not name.startswith("hiresattn") or name == "hiresattn":
            continue
        there = layer(name)
        assert there != "hiresattn", f"{dotted(path)} imports {name}: name its layer in tests/test_layers.py"
        fine = LAYERS[there] < LAYERS[here] or there == here or (here, there) in ALLOWED
        assert fine, f"{dotted(path)} imports {name}, which is not below it"


def imported_modules(path, known):
    """The modules that a file imports anywhere in it, also what only the type checker sees."""
    for node in ast.walk(ast.parse(path.read_text())):
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
    for _ in range(len(known).bit_length()):  # transitive closure: paths double in length
        below = {name: direct.union(*(below[one] for one in direct)) for name, direct in below.items()}
    cycles = {frozenset(other for other in below[name] if name in below[other]) for name in known}
    found = sorted(map(sorted, cycles - {frozenset()}))
    assert found == sorted(map(sorted, CYCLES))


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_every_module_has_a_layer(path):
    name = dotted(path)
    assert name == "hiresattn" or layer(name) != "hiresattn", f"name the layer of {name} in LAYERS"


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_reading_datasets_and_the_network_do_not_know_each_other(path):
    pillars = {"hiresattn.datasets", "hiresattn.reading", "hiresattn.model"}
    here = layer(dotted(path))
    if here in pillars:
        others = pillars - {here}
        met = [name for name in imports(path) if name.startswith("hiresattn.") and layer(name) in others]
        assert met == []


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_pyramids_datasets_and_reading_import_no_torch(path):
    if layer(dotted(path)) in NO_TORCH:
        assert [name for name in imports(path) if name.split(".")[0] in ("torch", "timm")] == []


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_the_library_knows_no_command_line_and_prints_nothing(path):
    assert [name for name in imports(path) if name.split(".")[0] in ("click", "rich", "hiresattn_cli")] == []
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert [call.lineno for call in calls if isinstance(call, ast.Name) and call.id == "print"] == []


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_no_module_is_named_after_nothing(path):
    assert path.stem not in ("utils", "helpers", "common", "misc")


#: What of ``inference`` needs torch: the engine, and what loads or runs models in other ways than by a search.
WITH_TORCH = {"torch_engine", "onnx_export"}


@pytest.mark.parametrize("path", sorted((ROOT / "hiresattn/inference").glob("*.py")), ids=dotted)
def test_a_search_imports_no_torch(path):
    if path.stem not in WITH_TORCH:
        assert [name for name in imports(path) if name.split(".")[0] == "torch"] == []


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


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_no_file_is_longer_than_350_lines(path):
    assert len(path.read_text().splitlines()) <= 350
