"""The demo's gigapixel scene, twenty times over, as real files; each is written, classified and deleted.

python benchmarks/gigapixel.py [--scenes 20]
"""

import tempfile
from pathlib import Path

import click
import numpy as np

from hiresattn.demo.run import run
from store import store


@click.command()
@click.option("--scenes", default=20)
def main(scenes: int) -> None:
    """Measure and store."""
    rows = []
    for seed in range(scenes):
        with tempfile.TemporaryDirectory() as folder:
            report = run(Path(folder), seed=seed)
        row = {
            name: value
            for name, value in report.to_json().items()
            if name not in ("scene", "overlay", "note")
        }
        rows.append({"seed": seed, **row})
        print(rows[-1], flush=True)
    means = {
        "accuracy": float(np.mean([row["correct"] for row in rows])),
        "lowres_accuracy": float(np.mean([row["lowres"] == row["truth"] for row in rows])),
        "random_accuracy": float(np.mean([row["random"] == row["truth"] for row in rows])),
        "glimpses": float(np.mean([row["glimpses"] for row in rows])),
        "fraction_read": float(np.mean([row["fraction_read"] for row in rows])),
        "bytes_read": float(np.mean([row["bytes_read"] for row in rows])),
        "bytes": float(np.mean([row["bytes"] for row in rows])),
        "seconds": float(np.median([row["seconds"] for row in rows])),
    }
    print(store("gigapixel", **means, rows=rows))


if __name__ == "__main__":
    main()
