"""An evaluation as pictures."""

import numpy as np
from PIL import Image

from hiresattn.errors import counted
from hiresattn.evaluation.summary import Evaluation
from hiresattn.report.curves import GRID_COLOUR, LINE_COLOURS, Chart, confusion_matrix

#: Names of the pictures.
PLOTS = ("reliability.png", "confusion.png", "risk-coverage.png", "budget.png")
_SHARES = [(value / 5, f"{value / 5:.1f}") for value in range(6)]


def plots(found: Evaluation) -> dict[str, Image.Image]:
    """Pictures by file name, of ``PLOTS``: ``confusion.png`` of single labels only, ``budget.png`` of a curve."""
    if not found.classified:
        return {}
    title = f"{found.model['name']}, {found.split}: {found.classified} cases"
    pictures = {"reliability.png": _reliability(found), "risk-coverage.png": _risk_coverage(found)}
    if found.confusion:
        counts = np.array(found.confusion)
        pictures["confusion.png"] = confusion_matrix(title, "label", "prediction", found.classes, counts)
    if found.curve:
        pictures["budget.png"] = _budget(found)
    return pictures


def _reliability(found: Evaluation) -> Image.Image:
    """Accuracy by predicted probability; bars: the share of the cases in each bin."""
    error = found.metrics["ece"].value
    title = f"Reliability; ECE {error:.3f}, temperature {found.model['temperature']:.3g}"
    words = ("probability of the class", "accuracy", "share of the cases")
    if found.multi_label:
        words = ("probability of a label", "share that has it", "share of all labels")
    chart = Chart(title, (words[0], _SHARES), (words[1], _SHARES))
    count = sum(part["images"] for part in found.reliability)
    for part in found.reliability:
        chart.bar(part["low"], part["high"], part["images"] / count, GRID_COLOUR)
    chart.legend_entry(words[2], GRID_COLOUR)
    chart.line("perfect calibration", [(0, 0), (1, 1)], "#8a8f9c")
    chart.line("this model", [(p["confidence"], p["accuracy"]) for p in found.reliability], LINE_COLOURS[0])
    return chart.image()


def _risk_coverage(found: Evaluation) -> Image.Image:
    """Share of wrong answers among the surest, by how many of the cases these are."""
    points = [(point["coverage"], point["risk"]) for point in found.belief.risk_coverage]
    top = max([risk for _, risk in points] + [0.05])
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2) if top <= 5 * step or step == 0.2)
    ticks = [(number * step, f"{number * step:.2f}") for number in range(6)]
    area = found.metrics["aurc"].value
    chart = Chart(
        f"Risk by coverage; area {area:.4f}, {found.classified} cases",
        ("share of the cases answered, the surest first", _SHARES),
        ("share of wrong answers among them", ticks),
    )
    chart.line("this model", points, LINE_COLOURS[0], dots=len(points) <= 20)
    return chart.image()


def _budget(found: Evaluation) -> Image.Image:
    """Accuracy by glimpses spent; policies without a budget as lines across."""
    budgets = sorted({int(point.budget) for point in found.curve if point.budget is not None}) or [1]
    ticks = [(float(np.log2(budget)), str(budget)) for budget in budgets]
    chart = Chart(
        f"Accuracy by budget, {found.classified} cases; lines: {100 * found.level:.0f} %",
        ("looks at a case, at most", ticks),
        ("accuracy", _SHARES),
    )
    for number, policy in enumerate(dict.fromkeys(point.policy for point in found.curve)):
        colour = LINE_COLOURS[number % len(LINE_COLOURS)]
        mine = [p for p in found.curve if p.policy == policy and p.accuracy.value is not None]
        flat = [p for p in mine if p.budget is None]
        if flat:
            looks = counted(round(flat[0].glimpses or 0), "look")
            chart.horizontal_line(f"{policy} ({looks})", flat[0].accuracy.value or 0.0, colour)
            continue
        points = [(float(np.log2(int(p.budget or 1))), p.accuracy.value or 0.0) for p in mine]
        spans = [
            None if p.accuracy.low is None or p.accuracy.high is None else (p.accuracy.low, p.accuracy.high)
            for p in mine
        ]
        chart.line(policy, points, colour, spans)
    return chart.image()
