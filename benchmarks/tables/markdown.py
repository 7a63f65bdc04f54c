"""Markdown tables, and how numbers are written in them."""

from typing import Any


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table of text."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def source(result: dict[str, Any], script: str) -> str:
    """What ends a table: the script, and when and where it ran."""
    return f"\n\n`benchmarks/{script}`, commit {result['commit']}, {result['date']}, {result['machine']}."


def mean(rows: list[dict[str, Any]], key: str) -> float:
    """Mean of a number over rows."""
    return float(sum(row[key] for row in rows) / len(rows))


def percent(share: float) -> str:
    """A share in percent, to two digits where it is small."""
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def span(rows: list[dict[str, Any]], key: str) -> str:
    """Mean, and lowest to highest."""
    values = [row[key] for row in rows]
    ends = f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""
    return f"{sum(values) / len(values):.2f}{ends}"
