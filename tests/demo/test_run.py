"""The demo, on a scene small enough for a test; the real size is a slow test."""

import json

import numpy as np
import pytest
from PIL import Image

from hiresattn.demo.needle import NeedlePyramid, NeedleScene
from hiresattn.demo.run import run, write_scene
from hiresattn.errors import OpenError
from hiresattn.pyramid import open_pyramid


def test_a_scene_on_disk_is_the_scene_and_its_levels_are_means(tmp_path):
    scene = NeedleScene(2, 1024, split="test")
    write_scene(scene, tmp_path / "scene.tif")
    rendered = NeedlePyramid(scene).read(0, 0, 0, 1024, 1024).astype(float)
    with open_pyramid(tmp_path / "scene.tif") as pyramid:
        assert [(level.width, level.downsample) for level in pyramid.levels] == [
            (1024, 1),
            (512, 2),
            (256, 4),
        ]
        stored = [
            pyramid.read(i, 0, 0, x.height, x.width).astype(float) for i, x in enumerate(pyramid.levels)
        ]
    assert np.abs(stored[0] - rendered).mean() < 2
    for level in (1, 2):
        step = 2**level
        mean = rendered.reshape(1024 // step, step, 1024 // step, step).mean((1, 3))
        assert np.abs(stored[level][..., 0] - mean).mean() < 2.5
        assert abs((stored[level][..., 0] - mean).mean()) < 0.3


def test_the_demo_reports_what_it_did_and_draws_it(tmp_path):
    seen = []
    report = run(tmp_path / "out", seed=1, side=2048, progress=lambda what, share: seen.append((what, share)))
    words = json.loads(json.dumps(report.to_json()))
    assert {"class_name", "truth", "glimpses", "fraction_read", "seconds", "lowres", "random"} <= set(words)
    assert report.truth == NeedleScene(1, 2048, split="test").label
    assert report.correct == (report.class_name == report.truth)
    assert 0 < report.glimpses <= 80
    with Image.open(report.overlay) as picture:
        assert picture.size[0] > 500
    assert {what for what, _ in seen} == {"writing the scene", "classifying"}
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["needle-2048-1.png", "needle-2048-1.tif"]


def test_an_output_that_can_not_be_written_is_one_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OpenError, match="can't be written"):
        run(tmp_path / "file" / "out", side=1024)


def test_an_interrupted_scene_leaves_nothing_behind(tmp_path):
    def stop(share):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scene(NeedleScene(0, 1024), tmp_path / "scene.tif", progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_demo_finds_the_needle_in_a_gigapixel(tmp_path):
    report = run(tmp_path, seed=0)
    assert report.width * report.height >= 1_000_000_000
    assert report.correct
    assert report.fraction_read < 0.01
