"""What a run was made with, as a report says it."""

import json
import os
from pathlib import Path
from typing import Any

from hiresattn.inference.read_records import RECORDS
from hiresattn.report.run_file import RUN
from hiresattn.report.units import human_bytes


def provenance(results: str | os.PathLike[str]) -> dict[str, Any]:
    """When a run began, and the options that decide about its results, as its folder says.

    Args:
        results: A results folder, its file of records, or another file of records.

    Returns:
        JSON types by name, as far as they are known: ``folder`` (its name, or the file's), ``started`` (ISO 8601),
        ``budget`` and ``stop`` (in words), ``seed``, ``policy``, ``names`` (``hidden``).
    """
    path = Path(results)
    folder = path.parent if path.name == RECORDS else path
    found: dict[str, Any] = {"folder": folder.resolve().name}
    try:
        run = json.loads((folder / RUN).read_text(encoding="utf-8"))
        options = run["options"]
        found |= {"started": run.get("started"), "names": run.get("names", "shown")}
        found |= {"budget": _budget(options["budget"]), "stop": options["stop"]}
        found |= {"seed": options["seed"], "policy": options["policy"]}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        pass  # records alone, or of another version: what is known is said
    return found


def _budget(given: dict[str, Any]) -> str:
    words = {"glimpses": "{} looks", "seconds": "{:g} s"}
    parts = [
        human_bytes(value) if name == "bytes" else words[name].format(value)
        for name, value in given.items()
        if value is not None
    ]
    return " and ".join(parts)
