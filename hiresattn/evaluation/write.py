"""The files of an evaluation: metrics, a page, tables and plots."""

import json
from collections.abc import Sequence
from pathlib import Path

from hiresattn.errors import WriteError
from hiresattn.evaluation.outcomes import Outcome, Pass
from hiresattn.evaluation.page import PAGE, evaluation_page
from hiresattn.evaluation.plots import PLOTS, plots
from hiresattn.evaluation.summary import Evaluation
from hiresattn.evaluation.tables import TABLES, tables
from hiresattn.files import atomic_write
from hiresattn.inference.lines import json_line

METRICS = "metrics.json"


def remove_report(folder: Path) -> None:
    """Remove the report of an earlier evaluation: beside new predictions it would pass for theirs."""
    for name in (METRICS, PAGE, *TABLES, *PLOTS):
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise WriteError(
                f"{folder / name}: can't be replaced ({error.strerror}); check its permissions"
            ) from error


def write_report(folder: Path, found: Evaluation, done: Sequence[tuple[Pass, list[Outcome]]]) -> None:
    """The report as JSON, a page, tables and plots, each whole or not at all."""
    path = folder / METRICS
    given, curve = done[0][1], done[1 : 1 + len(found.curve)]
    try:
        with atomic_write(path) as part:
            part.write_text(
                json.dumps(json.loads(json_line(found.to_json())), indent=2) + "\n", encoding="utf-8"
            )
        page = {PAGE: evaluation_page(found, given, curve)}
        for name, text in (tables(given, found.classes) | page).items():
            path = folder / name
            with atomic_write(path) as part:
                part.write_text(text, encoding="utf-8")
        for name, picture in plots(found).items():
            path = folder / name
            with atomic_write(path) as part:
                picture.save(part, format="PNG")
    except OSError as error:
        raise WriteError(f"{path}: can't be written ({error.strerror}); check its folder") from error
