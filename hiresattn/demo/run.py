"""The demo: write a gigapixel scene with one small target, and classify it from a fraction of its pixels."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np

from hiresattn.checkpoint import load_model
from hiresattn.demo.needle import NeedlePyramid, NeedleScene
from hiresattn.errors import OpenError
from hiresattn.files import atomic_write
from hiresattn.inference.classify import classify
from hiresattn.inference.record import Record
from hiresattn.pyramid import open_pyramid
from hiresattn.report.overlay import draw_overlay

#: Side of the demo's scene, px: 1.07 gigapixels.
SIDE = 32768
TILE = 256
QUALITY = 85


@dataclass(frozen=True)
class DemoReport:
    """The demo's prediction, the truth, and the cost."""

    scene: str
    """The image written, a pyramidal JPEG TIFF."""
    overlay: str
    """The picture of the visited regions."""
    width: int
    height: int
    bytes: int
    """Size of the image on disk."""
    class_name: str | None
    truth: str
    correct: bool
    score: float | None
    glimpses: int
    tiles: int
    fraction_read: float
    """Share of the scene's pixels that was decoded."""
    bytes_read: int
    seconds: float
    """Time to classify, from opening the file."""
    write_seconds: float
    """Time to write the scene."""
    stop_reason: str
    budget: str
    lowres: str | None
    """The class predicted from the root regions alone."""
    random: str | None
    """The class predicted from regions chosen at random, with the same budget."""
    random_glimpses: int
    note: str = "The scene is synthetic, and so are its hints: faint rings around the digit, visible in coarse levels."

    def to_json(self) -> dict[str, Any]:
        """The report as JSON types."""
        return asdict(self)


def run(
    output: str | Path,
    *,
    seed: int = 0,
    budget: str | int = 80,
    side: int = SIDE,
    progress: Callable[[str, float], None] = lambda _what, _share: None,
) -> DemoReport:
    """Write a scene, classify it with the model that ships with the package, and draw the regions visited.

    Args:
        output: Directory for the scene and the overlay; made if missing.
        seed: Seed of the scene, a test scene that the model wasn't trained on.
        budget: As for ``classify``.
        side: Side of the scene, px.
        progress: Called with the current step and the share of it that is done, 0 to 1.

    Returns:
        The prediction and its cost.

    Raises:
        OpenError: If the directory can't be written.
    """
    output = Path(output)
    scene = NeedleScene(seed, side, split="test")
    path = output / f"needle-{side}-{seed}.tif"
    started = time.perf_counter()
    try:
        output.mkdir(parents=True, exist_ok=True)
        write_scene(scene, path, progress=lambda share: progress("writing the scene", share))
    except OSError as error:
        raise OpenError(f"{path}: the scene can't be written: {error}") from error
    written = time.perf_counter() - started
    with as_file(files("hiresattn.demo") / "model") as directory:
        model = load_model(directory)
    answers: dict[str, Record] = {}
    for number, policy in enumerate(("best-first", "lowres", "random")):
        progress("classifying", number / 3)
        answers[policy] = classify(path, model, budget=budget, policy=policy, device="cpu", seed=seed)
    progress("classifying", 1.0)
    found = answers["best-first"]
    overlay = path.with_suffix(".png")
    with open_pyramid(path) as pyramid:
        draw_overlay(pyramid, found, overlay, truth_boxes=[scene.box])
    return DemoReport(
        scene=str(path),
        overlay=str(overlay),
        width=side,
        height=side,
        bytes=path.stat().st_size,
        class_name=found.class_name,
        truth=scene.label,
        correct=found.class_name == scene.label,
        score=found.score,
        glimpses=found.cost.glimpses,
        tiles=found.cost.tiles,
        fraction_read=found.cost.fraction_read,
        bytes_read=found.cost.bytes_read,
        seconds=found.cost.seconds.total,
        write_seconds=round(written, 2),
        stop_reason=found.cost.stop_reason,
        budget=str(budget),
        lowres=answers["lowres"].class_name,
        random=answers["random"].class_name,
        random_glimpses=answers["random"].cost.glimpses,
    )


def write_scene(
    scene: NeedleScene,
    path: Path,
    *,
    threads: int = 2,
    progress: Callable[[float], None] = lambda _share: None,
) -> None:
    """Write a scene as a tiled, pyramidal JPEG TIFF whose levels are 2 x 2 means of the level before.

    Level 0 is rendered strip by strip and never held whole.

    Args:
        scene: What to write; its side is a multiple of 256.
        path: The file; a half-written one is never left under this name.
        threads: Number of threads that render and encode.
        progress: Called with the share done, 0 to 1.
    """
    import tifffile

    with ThreadPoolExecutor(threads) as pool:
        levels = _Levels(scene, pool, progress)
        with atomic_write(path) as part, tifffile.TiffWriter(part, bigtiff=True) as writer:
            for level, side in enumerate(levels.sides):
                writer.write(
                    levels.finest() if level == 0 else iter(levels.encoded[level]),
                    shape=(side, side),
                    dtype=np.uint8,
                    tile=(TILE, TILE),
                    photometric="minisblack",
                    compression="jpeg",
                    subfiletype=0 if level == 0 else 1,
                    description=f"hiresattn needle scene: {scene}; label {scene.label}; box {scene.box}",
                    metadata=None,
                )


class _Levels:
    """Encoded tiles of every level, made in one pass over level 0."""

    def __init__(
        self, scene: NeedleScene, pool: ThreadPoolExecutor, progress: Callable[[float], None]
    ) -> None:
        self.pyramid = NeedlePyramid(scene)
        self.pool = pool
        self.progress = progress
        self.sides = [scene.side]
        while self.sides[-1] > TILE:
            self.sides.append(self.sides[-1] // 2)
        self.encoded: list[list[bytes]] = [[] for _ in self.sides]
        self._rows: list[list[np.ndarray]] = [[] for _ in self.sides]

    def finest(self) -> Iterator[bytes]:
        """Tiles of level 0, row by row; the other levels' are left in ``encoded``."""
        side = self.sides[0]
        for y in range(0, side, TILE):
            made = self.pool.map(lambda x, y=y: self._make(y, x), range(0, side, TILE))
            tiles, jpegs = zip(*made, strict=True)
            self._halve(
                0, np.hstack(tiles)
            )  # before the last tile is handed out: nobody asks for more after it
            self.progress((y + TILE) / side)
            yield from jpegs

    def _make(self, y: int, x: int) -> tuple[np.ndarray, bytes]:
        tile = self.pyramid.read(0, y, x, TILE, TILE)[:, :, 0]
        return tile, _encode(tile)

    def _halve(self, level: int, strip: np.ndarray) -> None:
        """Hand a strip's 2 x 2 means to the next level; encode that when it has a row of tiles."""
        if level + 1 == len(self.sides):
            return
        wide = strip.astype(np.uint16)
        rows = wide[::2] + wide[1::2]
        half = ((rows[:, ::2] + rows[:, 1::2] + 2) // 4).astype(np.uint8)
        waiting = self._rows[level + 1]
        waiting.append(half)
        if sum(len(part) for part in waiting) < TILE:
            return
        row = np.vstack(waiting)
        waiting.clear()
        tiles = [row[:, x : x + TILE] for x in range(0, row.shape[1], TILE)]
        self.encoded[level + 1] += self.pool.map(_encode, tiles)
        self._halve(level + 1, row)


def _encode(tile: np.ndarray) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(tile), level=QUALITY))
