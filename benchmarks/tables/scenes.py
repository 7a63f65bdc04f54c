"""Tables of the other scenes: islands, the odd cell, Megapixel-MNIST, fMoW."""

from typing import Any

from tables.markdown import mean, percent, source, span, table


def islands(result: dict[str, Any]) -> str:
    """Where models look, with and without boxes in training, and the plain alternatives; over seeds."""
    names = {
        ("boxes", "best-first"): "best-first, boxes in training",
        ("boxes", "top-k"): "top-k, boxes in training",
        ("boxes", "random"): "random, boxes in training",
        ("labels", "best-first"): "best-first",
        ("labels", "top-k"): "top-k",
        ("labels", "random"): "random",
        ("thumbnail", "lowres"): "thumbnail of 64 px, own training",
        ("exhaustive", "exhaustive"): "every region, gated attention, own training",
    }
    seeds = len({r["seed"] for r in result["rows"]})
    body = []
    for (model, policy), name in names.items():
        mine = [r for r in result["rows"] if (r["model"], r["policy"]) == (model, policy)]
        if not mine:
            continue
        deep = [sum(r["hits"][d] for r in mine) / len(mine) for d in range(1, len(mine[0]["hits"]))]
        few = f" ({len(mine)} seed{'s' if len(mine) > 1 else ''})" if len(mine) < seeds else ""
        body.append(
            [name + few, span(mine, "accuracy"), span(mine, "hit"), " / ".join(f"{hit:.2f}" for hit in deep),
             f"{mean(mine, 'glimpses'):.1f}",
             percent(mean(mine, "fraction_read")), f"{mean(mine, 'bytes_read') / 1e3:.0f} kB",
             f"{mean(mine, 'cpu_ms'):.0f}", f"{max(r['training_cpu_seconds'] for r in mine):.0f}"]
        )  # fmt: skip
    head = ["", "accuracy", "hit", "hit by depth", "glimpses", "pixels read", "bytes", "CPU ms",
            "training, CPU s"]  # fmt: skip
    words = (
        f"\n\n{result['test']} test windows, {seeds} seeds (mean, lowest to highest), trained on {result['train']} "
        "windows. Hit: of the windows with islands, in how many a visited region of at most 128 px holds the centre of "
        f"one, spending a budget of {result['budget']}; by depth: below the root regions. Accuracy and costs: with the "
        "stop rule (top-k has none). Pixels are many as finer levels are averaged (`oversample = 4`). Splits are by "
        "position within one mosaic."
    )
    return table(head, body) + words + source(result, "islands.py")


def oddcell(result: dict[str, Any]) -> str:
    """The odd cell: what training was given, against what was found."""
    given = {
        "boxes": "boxes",
        "boxes-jpeg": "boxes, last part with `--jpeg 0.5`",
        "distilled": "labels; boxes by `locate`",
        "unlabelled": "no labels; boxes and classes by `locate`",
        "single-cells": "single cells only; every window at test",
        "responsibilities": "labels (responsibilities)",
        "leave-one-out": "labels (leave-one-out rewards)",
        "glimpses": "labels, on every glimpse",
        "everywhere": "labels; every window, gated attention",
        **{f"thumbnail-{px}": f"labels; a thumbnail of {px} px" for px in (64, 128, 256, 1024)},
    }
    body = []
    for grid in sorted({row["grid"] for row in result["rows"]}):
        for recipe, words in given.items():
            mine = [row for row in result["rows"] if (row["grid"], row["recipe"]) == (grid, recipe)]
            for policy in dict.fromkeys(row["policy"] for row in mine):
                if recipe != "boxes" and policy in ("whole budget", "top-k"):
                    continue
                same = [row for row in mine if row["policy"] == policy]
                looks = policy != "first look"
                body.append(
                    [f"{grid} x {grid}", words, policy if looks else "", span(same, "accuracy"),
                     span(same, "hit") if looks else "", f"{mean(same, 'glimpses'):.0f}",
                     percent(mean(same, "fraction_read")), f"{mean(same, 'cpu_ms'):.0f}",
                     f"{mean(same, 'train_cpu_seconds'):.0f}", str(len(same))]
                )  # fmt: skip
    head = ["cells", "given in training", "policy", "accuracy", "hit", "glimpses", "pixels read", "CPU ms",
            "training, CPU-s", "seeds"]  # fmt: skip
    files = [
        [row["format"], f"{row['grid']} x {row['grid']}", str(row["scenes"]), given[row["recipe"]],
         *(f"{row[key]:.2f}" if row["scenes"] >= 20 else "" for key in ("accuracy", "hit")),
         f"{row['bytes_read'] / 1e6:.1f} of {row['bytes'] / 1e6:,.0f} MB", percent(row["fraction_read"]),
         f"{row['glimpses']:.0f}", f"{row['cpu_ms']:.0f}"]
        for row in result["files"]
    ]  # fmt: skip
    scenes = sorted({row["scenes"] for row in result["rows"]})
    budgets = ", ".join(map(str, result["budgets"].values()))
    words = (
        f"\n\n{scenes[0]} test scenes per size, budgets {budgets}, stop at {result['stop']}; mean (lowest to "
        "highest). Every scene has an odd cell: the answer is the likeliest of the seven classes that one can have. "
        "Hit: a finest window visited holds the whole odd cell. Chance is .14.\n\n"
    )
    in_files = table(
        ["file", "cells", "scenes", "given in training", "accuracy", "hit", "bytes read", "pixels decoded", "glimpses",
         "CPU ms"],
        files,
    )  # fmt: skip
    return table(head, body) + words + in_files + source(result, "oddcell.py") + _commits(result, given)


def labels_only(result: dict[str, Any]) -> str:
    """The odd cell from image labels alone: the teacher that looks everywhere, and the student that searches."""
    names = {
        "student": "student, best-first",
        "random": "student, random looks",
        "teacher": "teacher, every window",
    }
    body = []
    for frozen, smallest in sorted({(row.get("frozen", False), row["smallest"]) for row in result["rows"]}):
        mine = [
            row for row in result["rows"] if (row.get("frozen", False), row["smallest"]) == (frozen, smallest)
        ]
        words_of = f"{smallest} x {smallest}{', frozen encoder' * frozen}"
        for grid in sorted({row["grid"] for row in mine}):
            for policy, words in names.items():
                same = [row for row in mine if (row["grid"], row["policy"]) == (grid, policy)]
                if same:
                    body.append(
                        [words_of, f"{grid} x {grid}", words, span(same, "accuracy"),
                         span(same, "hit"), f"{mean(same, 'glimpses'):.1f}", percent(mean(same, "fraction_read")),
                         f"{mean(same, 'cpu_ms'):.0f}", f"{mean(same, 'train_cpu_seconds'):.0f}", str(len(same))]
                    )  # fmt: skip
    head = ["smallest images", "cells", "", "accuracy", "hit", "glimpses", "pixels read", "CPU ms", "training, CPU-s",
            "seeds"]  # fmt: skip
    return table(head, body) + source(result, "labels_only.py")


def _commits(result: dict[str, Any], given: dict[str, str]) -> str:
    """Which rows were measured at which commit, where there are several."""
    at: dict[str, set[str]] = {}
    for row in result["rows"]:
        at.setdefault(row.get("commit", result["commit"]), set()).add(row["recipe"])
    if len(at) == 1:
        return ""
    parts = [
        f"{commit}: {', '.join(given[name] for name in given if name in names)}"
        for commit, names in at.items()
    ]
    return f" Rows by commit: {'; '.join(parts)}."


def foreground(result: dict[str, Any]) -> str:
    """Looks at glass and ink, with the foreground and without."""
    rows = result["rows"]
    body = []
    for name, words in (("none", "anywhere"), ("tissue", "where there is tissue")):
        mine = [row[name] for row in rows]
        seen = percent(mean(mine, "seen")) if name == "tissue" else ""
        off = f"{100 * mean(mine, 'off'):.2g} % ({100 * max(one['off'] for one in mine):.2g} %)"
        body.append([words, off, percent(mean(mine, "thin")), span(mine, "hit"), seen])
    head = ["random regions", "without tissue (worst seed)", "with less than 10 %", "hit", "tissue seen"]
    words = (
        f"\n\n{result['slides']} slides of {result['side']:,} px for each of {len(rows)} seeds, of each "
        f"{percent(result['tissue'])} tissue; budget {result['budget']}; root regions don't count. Hit: a finest "
        "region holds the middle of the cell. Cells that lie where no foreground was found: "
        f"{percent(mean(rows, 'lost'))}. Tiles read for it beyond the first look: {max(r['tiles'] for r in rows):.0f}. "
        "Px of the map that are all glass, ink or black, and were taken for tissue: "
        f"{100 * mean(rows, 'wrong_px'):.2g} %. Slides without tissue that got the status `no_foreground`: "
        f"{percent(mean(rows, 'empty'))}."
    )
    return table(head, body) + words + source(result, "foreground.py")


def by_case(result: dict[str, Any]) -> str:
    """Cases of several slides, beside a search that is told which slide has the finding."""
    rows, body = result["rows"], []
    for kind in dict.fromkeys(row["slides_are"] for row in rows):
        alone = mean(
            [r for r in rows if (r["slides_are"], r["way"]) == (kind, "told which slide")], "glimpses"
        )
        for way in ("told which slide", "as a case", "per source"):
            mine = [row for row in rows if (row["slides_are"], row["way"]) == (kind, way)]
            found = [span(mine, key) for key in ("accuracy", "sensitivity", "specificity")]
            looks = mean(mine, "glimpses")
            body.append([f"{kind}, {way}", *found, f"{looks:.1f}", f"{looks / alone:.1f}", str(len(mine))])
    head = ["", "accuracy", "sensitivity", "specificity", "looks", "times those of one slide", "seeds"]
    cases = max(row["cases"] for row in rows)
    each = max(row["slides"] for row in rows) / cases
    words = (
        f"\n\n{cases} cases of 1 to 8 slides ({each:.1f} on average; per source: the first 40); of half of them one "
        "slide has the finding; mean (lowest to highest). Sensitivity: the right class, of cases with "
        "a finding. Looks: mean over these, one for each root region included."
    )
    return table(head, body) + words + source(result, "by_case.py")


def cohort(result: dict[str, Any]) -> str:
    """Few patients: what was learnt, and when, over seeds."""
    body = []
    for patients in dict.fromkeys(row["patients"] for row in result["rows"]):
        mine = [row for row in result["rows"] if row["patients"] == patients]
        when = [str(row["learnt"] or "never") for row in mine]
        found = [span(mine, key) for key in ("validation", "test")]
        body.append([str(patients), ", ".join(when), *found, f"{mean(mine, 'glimpses'):.0f}"])
    head = ["patients to train on", "learnt in epoch", "validation", "test", "looks at a patient"]
    tested = " or ".join(map(str, sorted({row["tested"] for row in result["rows"]})))
    words = (
        f"\n\n{result['epochs']} epochs, a seed each; learnt: {result['learnt']:.0%} of the training cases are "
        "answered rightly. Accuracies: mean (lowest to highest); validation: of the best epoch, which is the model; "
        f"36 cases validate, {tested} test."
    )
    return table(head, body) + words + source(result, "cohort.py")


def megamnist(result: dict[str, Any]) -> str:
    """Megapixel-MNIST: the search, beside all windows, random regions and every digit shown."""
    body = []
    rows = [row for row in result["rows"] if row["recipe"] in ("location", "everywhere")]
    kinds = dict.fromkeys((row["side"], row["recipe"], row["policy"]) for row in rows)
    for side, recipe, policy in sorted(kinds, key=lambda kind: kind[0]):
        same = [r for r in rows if (r["side"], r["recipe"], r["policy"]) == (side, recipe, policy)]
        looks = policy not in ("every window", "first look")
        words = {
            "every window": "all windows, gated attention",
            "oracle": f"{recipe}, shown every digit",
            "first look": f"{recipe}, root regions only",
        }
        cost = ["", ""]
        if policy != "oracle":
            cost = [percent(mean(same, "fraction_read")), f"{mean(same, 'cpu_ms'):.0f}"]
        body.append(
            [f"{side:,}", words.get(policy, f"{recipe}, {policy}"), span(same, "accuracy"),
             f"{mean(same, 'hit'):.2f}" if looks else "", f"{mean(same, 'seen'):.2f}" if looks else "",
             f"{mean(same, 'glimpses'):.0f}", *cost,
             f"{mean(same, 'train_cpu_seconds'):.0f}", str(len(same))]
        )  # fmt: skip
    head = ["side, px", "", "accuracy", "hit", "digits seen", "glimpses", "pixels read", "CPU ms",
            "training, CPU-s", "seeds"]  # fmt: skip
    counts = dict(sorted((row["side"], row["scenes"]) for row in rows))
    scenes = ", ".join(f"{count} test scenes of {side:,} px" for side, count in counts.items())
    words = (
        f"\n\n{scenes}; chance .10; mean (lowest to highest). Hit: a window visited at full resolution "
        "holds at least half of a digit; digits seen: share of the five of which one does. Searches spend their "
        "budget (no stop); the root regions count as glimpses. Trained on sides up to 768 px."
    )
    return table(head, body) + words + source(result, "megamnist.py")


def fmow(result: dict[str, Any]) -> str:
    """The fMoW protocols, by size of the image."""
    real = "fMoW" if not result["synthetic"] else "synthetic tree"
    body = [
        [name, bucket["name"], str(bucket["rows"]), f"{bucket['top1']:.3f}", f"{bucket['macro']:.3f}",
         f"{bucket['glimpses']:.0f}"]
        for name, found in result["reports"].items()
        for bucket in (*found["buckets"], found["overall"])
    ]  # fmt: skip
    head = [f"protocol, {real}", "long side", "rows", "top-1", "macro", "looks"]
    words = (
        "\n\nB: whole frames of the test split, from JPEGs and from COGs made of them; C: crops of the validation "
        "split's boxes."
    )
    if result["synthetic"]:
        words = (
            "\n\n**Synthetic.** Drawn scenes with every quirk of the release's files and none of its content: they "
            "show that index, conversion, training, evaluation and both protocols run from end to end, and say "
            "nothing of accuracy on fMoW."
        ) + words
    return table(head, body) + words + source(result, "fmow_protocols.py")


def confidence(result: dict[str, Any]) -> str:
    """What prediction sets hold and what is flagged, over seeds, by what the scenes are made of."""
    names = {"same images": "other scenes of the images that calibrated"}
    body = []
    for kind in dict.fromkeys(row["scenes"] for row in result["rows"]):
        mine = [row for row in result["rows"] if row["scenes"] == kind]
        shares = [span(mine, key) for key in ("coverage", "set_size", "accuracy")]
        others = [row["accuracy_unreviewed"] for row in mine if row["accuracy_unreviewed"] is not None]
        unreviewed = f"{sum(others) / len(others):.2f}" if others else "none left"
        more = [f"{100 * mean(mine, 'out_of_domain'):.1f} %", f"{100 * mean(mine, 'review'):.0f} %"]
        words = names.get(kind, kind if kind == "test images" else f"test images, {kind}")
        cases = sorted({row["cases"] for row in mine})
        body.append([words, " to ".join(f"{count:,}" for count in cases), *shares, *more, unreviewed])
    head = [
        *("scenes of", "cases", "coverage", "classes in a set", "accuracy", "out of domain", "for review"),
        "accuracy of the others",
    ]
    first = [row for row in result["rows"] if row["scenes"] == "same images"]
    calibrated = sorted({row["calibration"]["conformal"]["cases"] for row in first})
    words = (
        f"\n\n{len(first)} seeds, mean (lowest to highest). Scenes of 2 x 2 blood cells, three of them neutrophils, "
        f"the fourth of 7 classes, seen at 32 px a cell; budget {result['budget']}. Sets at risk {result['risk']:g}, "
        f"calibrated on {' or '.join(f'{count:,}' for count in calibrated)} scenes: they should cover "
        f"{1 - result['risk']:.0%}. ECE after calibration {mean(first, 'ece'):.3f}; the answer rests on "
        f"{mean(first, 'sufficient'):.1f} of {mean(first, 'glimpses'):.1f} glimpses, and "
        f"its probability loses {mean(first, 'comprehensiveness'):.2f} without them."
    )
    return table(head, body) + words + source(result, "confidence.py")


def scale(result: dict[str, Any]) -> str:
    """The same scenes at other resolutions: by a model that knows its scale, and by the same weights without."""
    names = {"scale": "at its scale", "px": "without it: px as they are"}
    seeds = len({row["seed"] for row in result["rows"]})
    body = []
    for model, name in names.items():
        for times in sorted({row["times"] for row in result["rows"] if row["model"] == model}):
            mine = [row for row in result["rows"] if (row["model"], row["times"]) == (model, times)]
            gaps = [row["gap"] for row in mine if "gap" in row]
            apart = f"{max(gaps):.2f} µm" if gaps else ""
            depths, looks = max(row["depths"] for row in mine), mean(mine, "glimpses")
            body.append(
                [name, f"{times:g} x", span(mine, "accuracy"), f"{mean(mine, 'same'):.3f}", apart, f"{depths}",
                 f"{looks:.1f}", f"{mean(mine, 'cpu_ms'):.0f}"]
            )  # fmt: skip
    head = [
        "model",
        "files at",
        "accuracy",
        "same answer",
        "regions differ by",
        "depths",
        "glimpses",
        "CPU ms",
    ]
    words = (
        f"\n\n{result['test']} test scenes of 256 µm, {seeds} seeds (mean, lowest to highest), trained on "
        f"{result['train']} scenes of {result['at']:g} µm/px with boxes; budget {result['budget']} and stop rule. "
        "Same answer: as of the 1 x file. Regions differ by: largest distance between edges of the root and all finest "
        f"regions in the file and in the 1 x one, of {result['measured']} scenes; a px of the 1 x file is "
        f"{result['at']:g} µm."
    )
    return table(head, body) + words + source(result, "scale.py")
