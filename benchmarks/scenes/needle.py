"""Labelled needle scenes to train on, rendered when read."""

from collections.abc import Mapping

from hiresattn.datasets.example import Example
from hiresattn.demo.needle import NeedlePyramid, NeedleScene

#: Training scenes per side.
SCENES = {64: 6000, 128: 1000, 256: 4000, 512: 4000, 1024: 12000}


def examples(
    seed: int, hint: float, sides: Mapping[int, int] = SCENES, *, boxes: bool = False
) -> list[Example]:
    """Scenes of every side for training, and 60 of 1024 px for validation; with the needle's place if asked."""
    scenes = [
        NeedleScene(seed * 1_000_000 + number, side, hint)
        for side, count in sides.items()
        for number in range(count)
    ]
    scenes += [NeedleScene(number, 1024, hint, "val") for number in range(60)]
    return [
        Example(NeedlePyramid(scene), scene.label, scene.split, boxes=(scene.box,) if boxes else None)
        for scene in scenes
    ]
