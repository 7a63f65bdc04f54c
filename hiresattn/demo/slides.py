"""The demo on slides: draw a small cohort, and go the way of a lab with it, from a spreadsheet to a report."""

import csv
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hiresattn.datasets.cohort import CohortOptions, make_manifest
from hiresattn.datasets.manifest import read_manifest
from hiresattn.datasets.write import write_manifest
from hiresattn.errors import ConfigError, OpenError
from hiresattn.files import make_folder
from hiresattn.inference.classify import classify_all
from hiresattn.inference.options import ClassifyOptions
from hiresattn.report.page import write_report
from hiresattn.report.provenance import provenance
from hiresattn.report.results import ResultsFolder
from hiresattn.training.run import train

#: Side of a slide, px; µm a px; side of its tiles, and of its coarsest level at least.
SIDE, MPP, TILE, COARSEST = 1024, 0.5, 256, 128
CLASSES = ("normal", "tumour")
PATIENTS = 40
#: Side of the box around a tumour, px.
BOX = 128
#: How the model is trained: few slides, in about a minute.
TRAINING: dict[str, Any] = {"epochs": 5, "lr": 2e-3, "seed": 0, "device": "cpu"}


@dataclass
class SlidesReport:
    """What the demo made, and how good the answers are."""

    folder: str
    slides: int
    patients: int
    right: int = 0
    """Patients of the test split that were classified correctly."""
    tested: int = 0
    looks: float = 0.0
    """Mean of a patient."""
    fraction_read: float = 0.0
    """Mean share of the px that was read."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time by step."""
    files: dict[str, str] = field(default_factory=dict)
    note: str = "The slides are drawn, and easier than real ones: what the model scores here says nothing about yours."

    def to_json(self) -> dict[str, Any]:
        """The report as JSON types."""
        return asdict(self)


def draw_slide(rng: np.random.Generator, *, tumour: bool) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """The px of a slide, uint8 ``[side side 3]``, and the box of its dense patch of nuclei.

    Tissue on glass, small nuclei all over it. From afar the patches look alike; from near those of a tumour have large
    nuclei.
    """
    rows, columns = np.mgrid[:SIDE, :SIDE]
    middle, reach = rng.uniform(420, 600, 2), rng.uniform(280, 400, 2)
    tissue = ((rows - middle[0]) / reach[0]) ** 2 + ((columns - middle[1]) / reach[1]) ** 2 < 1
    image = np.where(tissue[..., None], (226.0, 190.0, 212.0), 243.0)
    image += rng.normal(0, 3, (SIDE // 8, SIDE // 8, 1)).repeat(8, 0).repeat(8, 1)
    centre = middle + rng.uniform(-0.5, 0.5, 2) * reach
    many, radius = (16, 9) if tumour else (140, 3)
    nuclei = [(place, radius) for place in rng.normal(centre, 28, (many, 2))]
    nuclei += [(middle + at * reach, 3) for at in rng.uniform(-0.65, 0.65, (120, 2))]
    for (y, x), size in nuclei:
        part = np.s_[max(0, int(y - size)) : int(y + size) + 2, max(0, int(x - size)) : int(x + size) + 2]
        inside = (rows[part] - y) ** 2 + (columns[part] - x) ** 2 < size**2
        image[part][inside] -= (150, 150, 20) if size > 3 else (110, 120, 60)
    y, x = (int(at) - BOX // 2 for at in centre)
    return image.clip(0, 255).astype(np.uint8), (y, x, BOX, BOX)


def write_slide(path: Path, image: np.ndarray) -> None:
    """Write a tiled TIFF with levels, each the 2 x 2 mean of the one before, and its µm/px."""
    from tifffile import TiffWriter

    scale: dict[str, Any] = {"resolution": (1e4 / MPP, 1e4 / MPP), "resolutionunit": "CENTIMETER"}
    with TiffWriter(path) as file:
        while len(image) >= COARSEST:
            file.write(
                image, tile=(TILE, TILE), photometric="rgb", compression="deflate", metadata=None,
                subfiletype=int(len(image) < SIDE), **scale,
            )  # fmt: skip
            image = image.reshape(len(image) // 2, 2, len(image) // 2, 2, 3).mean((1, 3)).astype(np.uint8)


Boxes = dict[str, tuple[tuple[int, int, int, int], ...]]


def write_cohort(folder: Path, patients: int = PATIENTS, seed: int = 0) -> tuple[Path, Boxes]:
    """Write a slide for each patient into ``folder/slides``, and the spreadsheet with their diagnoses.

    Returns:
        The spreadsheet, and where the tumours are, by name of the slide: what a pathologist may have outlined.
    """
    boxes: Boxes = {}
    rng = np.random.default_rng(seed)
    (folder / "slides").mkdir(parents=True, exist_ok=True)
    table = folder / "labels.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["patient", "diagnosis"])
        for number in range(patients):
            name, tumour = f"P{number:03}", bool(number % 2)
            writer.writerow([name, CLASSES[tumour]])
            image, box = draw_slide(rng, tumour=tumour)
            write_slide(folder / "slides" / f"{name}.tif", image)
            boxes[f"{name}.tif"] = (box,) if tumour else ()
    return table, boxes


def run(
    output: str | Path,
    *,
    seed: int = 0,
    patients: int = PATIENTS,
    progress: Callable[[str, float], None] = lambda _step, _share: None,
    **training: Any,
) -> SlidesReport:
    """Draw a cohort of slides, make its manifest, train a model, classify the patients it has not seen, report.

    Args:
        output: Folder of all of it; made if missing.
        seed: Of the slides.
        patients: How many, of whom a quarter validates and a quarter tests.
        progress: Called with the current step and the share of it that is done, 0 to 1.
        training: Fields of ``TrainOptions``, in place of ``TRAINING``.

    Returns:
        What was made, and how good the answers are.

    Raises:
        ConfigError: If the folder holds something already.
        OpenError: If it can't be written.
    """
    folder = make_folder(output)
    if any(folder.iterdir()):
        raise ConfigError(f"{folder}: holds something already; give a new folder")
    found = SlidesReport(folder=str(folder), slides=patients, patients=patients)

    @contextmanager
    def step(name: str) -> Iterator[Callable[..., None]]:
        started = time.perf_counter()
        progress(name, 0.0)
        yield lambda share, *_: progress(name, share)
        found.seconds[name] = round(time.perf_counter() - started, 1)

    with step("drawing slides"):
        try:
            table, boxes = write_cohort(folder, patients, seed)
        except OSError as error:
            raise OpenError(f"{folder}: the slides can't be written: {error}") from error
    manifest, model_folder, results = folder / "cohort.csv", folder / "model", folder / "results"
    with step("making the manifest"):
        options = CohortOptions(label_column="diagnosis", val=0.25, test=0.25)
        make_manifest(str(folder / "slides"), str(table), str(manifest), options)
    with step("training") as update:
        examples = read_manifest(manifest)
        outlined = [replace(one, boxes=boxes[Path(str(one.source)).name]) for one in examples]
        write_manifest(folder / "outlined.csv", outlined)
        how: dict[str, Any] = TRAINING | training
        model = train(outlined, model_folder, progress=update, **how)
    with step("classifying") as update:
        chosen = ClassifyOptions(device="cpu")
        cases = [example for example in examples if example.split == "test"]
        records = []
        with ResultsFolder(results, model, chosen) as kept:
            kept.missing(cases)
            for case, record in zip(cases, classify_all(cases, model, chosen), strict=True):
                kept.write(record, case)
                records.append(record)
                update(len(records) / len(cases))
    report = folder / "report.html"
    with step("reporting") as update:
        done = len(records)
        write_report(records, report, progress=lambda n, _: update(n / done), run=provenance(results))
    found.tested = len(records)
    found.right = sum(record.class_name == record.label for record in records)
    found.looks = float(np.mean([record.cost.glimpses for record in records]))
    found.fraction_read = float(np.mean([record.cost.fraction_read for record in records]))
    made = {"slides": folder / "slides", "table": table, "manifest": manifest, "model": model_folder}
    made |= {"outlined": folder / "outlined.csv"}
    made |= {"results": results, "report": report}
    found.files = {name: str(path) for name, path in made.items()}
    return found
