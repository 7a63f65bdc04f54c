"""``run.json``: what a run was made with, and of what."""

import json
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import hiresattn
from hiresattn.card import Card
from hiresattn.datasets.cases import examples_of
from hiresattn.errors import WriteError
from hiresattn.files import atomic_write, file_state
from hiresattn.inference.options import ClassifyOptions
from hiresattn.inference.records_file import options_facts

#: The name of the file.
RUN = "run.json"
#: Packages that decide about pixels and numbers.
_PACKAGES = ("numpy", "torch", "timm", "openslide-python", "rasterio", "tifffile", "zarr", "imagecodecs")


def run_facts(model: Card, options: ClassifyOptions) -> dict[str, Any]:
    """What a run is made with, as JSON types: model, options that decide about results, versions."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "hiresattn": hiresattn.__version__,
        "model": {"name": model.name, "sha256": model.sha256, "temperature": model.temperature},
        "options": options_facts(options),
        "versions": versions,
    }


def start_facts(
    sources: Sequence[Any], there: int, others: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """What a run starts with, as JSON types.

    Args:
        sources: Its sources and cases.
        there: Records of them that an earlier run left.
        others: Lines of records that lie beside its own, of other sources.
    """
    inputs = [_line_facts(line, one) for line in others for one in line.get("sources") or [line]]
    inputs += [source_facts(example) for source in sources for example in examples_of(source)]
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "started": started,
        "cases": len(others) + len(sources),
        "there": len(others) + there,
        "inputs": inputs,
    }


def source_facts(source: Any) -> dict[str, Any]:
    """What tells a source from others, and from itself after a change."""
    name = str(getattr(source, "source", source))
    region = getattr(source, "region", None)
    facts = {
        "source": name,
        "region": None if region is None else list(region),
        "case": getattr(source, "case", None),
    }
    state = file_state(name)
    return facts if state is None else facts | dict(zip(("bytes", "modified"), state, strict=True))


def _line_facts(line: Mapping[str, Any], image: Mapping[str, Any]) -> dict[str, Any]:
    """The same of an image in a line of records."""
    facts = {"source": image.get("source"), "region": image.get("region"), "case": line.get("case")}
    return facts | {name: image[name] for name in ("bytes", "modified") if image.get(name) is not None}


def write_run(path: Path, facts: Mapping[str, Any]) -> None:
    """Write the facts of a run, whole or not at all.

    Raises:
        WriteError: If they can't be written.
    """
    text = json.dumps(facts, indent=1, default=str) + "\n"
    try:
        with atomic_write(path) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise WriteError(f"{path}: can't be written ({error.strerror or error}); check its folder") from error
