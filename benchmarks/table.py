"""Write the tables of README.md and docs/ from the stored results.

python benchmarks/table.py

A page asks for a table by the lines ``<!-- table: NAME -->`` and ``<!-- end -->``; what stands between them is
written anew.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from store import load
from tables import clusters, learning, needle, scenes, speed

ROOT = Path(__file__).parents[1]

#: Name of a table → (stored result, how it is written).
TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "demo": ("gigapixel", needle.demo),
    "needle": ("needle", needle.needle),
    "needle-files": ("needle-files", needle.needle_files),
    "hints": ("hints", needle.hints),
    "islands": ("islands", scenes.islands),
    "foreground": ("foreground", scenes.foreground),
    "oddcell": ("oddcell", scenes.oddcell),
    "scale": ("scale", scenes.scale),
    "by_case": ("by_case", scenes.by_case),
    "cohort": ("cohort", scenes.cohort),
    "features": ("features", speed.features),
    "labels_only": ("labels_only", scenes.labels_only),
    "confidence": ("confidence", scenes.confidence),
    "megamnist": ("megamnist", scenes.megamnist),
    "fmow": ("fmow-synthetic", scenes.fmow),
    "localisation": ("localisation", learning.localisation),
    "estimators": ("estimators", learning.estimators),
    "scorers": ("scorers", learning.scorers),
    "scorer_cost": ("scorer_cost", learning.scorer_cost),
    "memory": ("memory", speed.memory),
    "reading": ("reading", speed.reading),
    "layouts": ("layouts", speed.layouts),
    "slide_profile": ("slide_profile", speed.slide_profile),
    "engines": ("engines", speed.engines),
    "precision": ("precision", speed.precision),
    "end_to_end": ("end_to_end", speed.end_to_end),
    "cold": ("end_to_end", speed.cold),
    "search": ("search", speed.search),
    "viewer": ("viewer", speed.viewer),
    "report": ("report", speed.report),
    "remote": ("remote", speed.remote),
    "conversion": ("conversion", speed.conversion),
    "tnet_speed": ("tnet_speed", speed.tnet_speed),
    "cluster": ("cluster", clusters.cluster),
    "cluster_model": ("cluster_model", clusters.cluster_model),
    "soak": ("soak", clusters.soak),
}


def pages() -> Iterator[Path]:
    """The README and every page of the docs."""
    yield ROOT / "README.md"
    yield from sorted((ROOT / "docs").rglob("*.md"))


def fill(text: str) -> str:
    """A page with every table in it written anew."""
    return re.sub(r"(<!-- table: (.+?) -->\n).*?(<!-- end -->)", _written, text, flags=re.DOTALL)


def _written(found: re.Match[str]) -> str:
    name, write = TABLES[found[2]]
    result = load(name)
    return found[0] if result is None else f"{found[1]}\n{write(result)}\n\n{found[3]}"


if __name__ == "__main__":
    for page in pages():
        page.write_text(fill(page.read_text(encoding="utf-8")), encoding="utf-8")
