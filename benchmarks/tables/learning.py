"""Tables of what learns where to look: gradient estimators, scorers, attention maps."""

from itertools import product
from statistics import fmean, stdev
from typing import Any

from store import load
from tables.markdown import mean, percent, source, span, table


def localisation(result: dict[str, Any]) -> str:
    """How well maps of classes point at boxes, over seeds."""
    names = {
        "cam": "activation maps (CAM)",
        "accumulated": "accumulated (OAA)",
        "integral": "integral (OAA+)",
    }
    body = []
    for encoder, split in sorted({(r["encoder"], r["split"]) for r in result["rows"]}, reverse=True):
        for kind, name in names.items():
            mine = [
                r for r in result["rows"] if (r["encoder"], r["split"], r["maps"]) == (encoder, split, kind)
            ]
            if mine:
                iou = [r["iou"] for r in mine]
                body.append(
                    [f"`{encoder}`, {split}", name, span(mine, "pointed"), span(mine, "covered"),
                     f"{sum(iou) / len(iou):.3f} ({min(iou):.3f} to {max(iou):.3f})"]
                )  # fmt: skip
    seeds = len({r["seed"] for r in result["rows"]})
    words = (
        f"\n\n{seeds} seeds (mean, lowest to highest), trained on labels only, one look of 128 px at 1,024. Windows "
        "with islands, half of whose boxes have 25 px or less. Pointed: the largest value lies within "
        f"{result['tolerance']} px of a box; covered: share of the boxes' px among the {100 * result['top']:.0f} % of "
        "px with the largest values; IoU: at the best common threshold."
    )
    head = ["encoder, windows", "maps of the islands", "pointed", "covered", "IoU"]
    return table(head, body) + words + source(result, "localisation.py")


def estimators(result: dict[str, Any]) -> str:
    """Gradient estimators for the discrete cell choice, over seeds."""
    names = {
        "exhaustive": "every region, gated attention (441 looks)",
        "straight-through": "**straight-through Gumbel top-k** (default)",
        "straight-through-stopped": "same, its gradient stopped at the encoder",
        "reinforce-loo": "REINFORCE of sampled sets, the siblings as baseline",
        "published": "the published rule: best cells, normalised scores, running mean",
        "published-helped": "same, cells sampled, learned temperature, weight 1",
        "published-helped-longer": "same, 1 to k cells per batch, half as many epochs again",
        "random": "no estimator: random cells",
    }
    body = []
    for recipe, name in names.items():
        rows = [row for row in result["rows"] if row["recipe"] == recipe]
        if rows:
            first = [row["policies"].get("top-k") or row["policies"]["every place"] for row in rows]
            search = [row["policies"]["search"] for row in rows if "search" in row["policies"]]
            hit = "" if recipe == "exhaustive" else f"{mean(first, 'hit'):.2f}"
            found = [span(search, "accuracy"), f"{mean(search, 'glimpses'):.0f}"] if search else ["", ""]
            seconds = f"{mean(rows, 'training_cpu_seconds'):.0f}"
            body.append([name, str(len(rows)), seconds, span(first, "accuracy"), hit, *found])
    head = [
        *("what trains the scorer", "seeds", "CPU-s of training", "accuracy (13 looks)", "needle seen"),
        *("with the search", "looks"),
    ]
    words = (
        f"\n\n{result['scenes']} scenes of 1,024 px, mean (lowest to highest seed); chance is .10. Same network, "
        "scenes and curriculum from 64 over 256 to 1,024 px. 13 looks: the best 4, then 2 cells; needle seen: at full "
        "resolution."
    )
    return table(head, body) + words + source(result, "estimators.py")


def scorers(result: dict[str, Any]) -> str:
    """Accuracy and hits of every scorer and task, mean and standard deviation over training seeds."""
    rows = [row for row in result["rows"] if row["estimator"] == "default"]
    tasks = {"needle": "needle, 256 px", "needle-1024": "needle, 1,024 px", "oddcell": "odd cell, 5,760 px"}
    body = []
    for task, scorer in product(tasks, dict.fromkeys(row["scorer"] for row in rows)):
        same = [row for row in rows if (row["task"], row["scorer"]) == (task, scorer)]
        if not same:
            continue
        both = [_plus_minus([row[key] for row in same]) for key in ("accuracy", "hit")]
        body.append(
            [tasks[task], f"`{scorer}`", *both, f"{mean(same, 'glimpses'):.1f}",
             percent(mean(same, "fraction_read")), f"{mean(same, 'training_cpu_seconds'):.0f} s", str(len(same))]
        )  # fmt: skip
    head = ["task", "scorer", "accuracy", "hit", "looks", "pixels read", "training, CPU", "seeds"]
    words = (
        "\n\nMean ± standard deviation over training seeds; equal epochs, and at most 5, 20 and 20 looks without a "
        "stop rule, 200 test scenes (150 of 256 px). The needle is learnt from labels alone, for the odd cell training "
        "is given boxes. Needles of 256 px are easy: they show that all learn. Settings of `mask`, `ltpa` and `oaa` "
        "were changed after they failed in short trainings at 1,024 px. `random` and `oracle` use the `location` model."
    )
    return table(head, body) + words + source(result, "scorers.py") + _scorers_of_digits(load("megamnist"))


def _scorers_of_digits(result: dict[str, Any] | None) -> str:
    """The same on Megapixel-MNIST, where there is a result."""
    if result is None:
        return ""
    rows = [row for row in result["rows"] if row["side"] == 768]
    kinds = [(name, "best-first") for name in dict.fromkeys(row["recipe"] for row in rows)]
    body = []
    for name, policy in [*kinds, ("location", "random"), ("location", "oracle")]:
        same = [row for row in rows if (row["recipe"], row["policy"]) == (name, policy)]
        if len(same) > 1:
            both = [_plus_minus([row[key] for row in same]) for key in ("accuracy", "hit", "seen")]
            body.append(
                [f"`{name if policy == 'best-first' else policy}`", *both, f"{mean(same, 'glimpses'):.0f}",
                 "" if policy == "oracle" else percent(mean(same, "fraction_read")),
                 f"{mean(same, 'train_cpu_seconds'):.0f} s", str(len(same))]
            )  # fmt: skip
    head = [
        "Megapixel-MNIST, 768 px",
        "accuracy",
        "hit",
        "digits seen",
        "looks",
        "pixels read",
        "training, CPU",
        "seeds",
    ]
    words = (
        "\n\nMean ± standard deviation over training seeds, equal epochs and looks; the recipe was chosen with "
        "`location`. `random` and `oracle` (shown every digit) use the `location` model."
    )
    return "\n\n" + table(head, body) + words + source(result, "megamnist.py")


def _plus_minus(values: list[float]) -> str:
    """Mean and standard deviation; the one value where there is no more."""
    return f"{fmean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def scorer_cost(result: dict[str, Any]) -> str:
    """What scoring costs beside encoding."""
    counts = sorted({row["classes"] for row in result["rows"]})
    by = {(row["scorer"], row["classes"]): row for row in result["rows"]}
    body = [
        [f"`{name}`", *(f"{100 * by[name, count]['share']:.1f} %" for count in counts)]
        for name in dict.fromkeys(row["scorer"] for row in result["rows"])
    ]
    head = ["CPU time per glimpse, share of the encoder's", *(f"{count} classes" for count in counts)]
    words = f"\n\n{result['encoder']}, crops of {result['side']} px, one thread, taking turns in one run."
    return table(head, body) + words + source(result, "scorer_cost.py")
