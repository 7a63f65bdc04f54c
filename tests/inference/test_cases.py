"""Several images that share one answer: one search, one budget, one record."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from hiresattn.card import Domain
from hiresattn.checkpoint import Model
from hiresattn.config import InputConfig, ModelConfig
from hiresattn.datasets.cases import Case
from hiresattn.datasets.example import Example
from hiresattn.errors import ConfigError, HiresattnError
from hiresattn.evaluation.run import evaluate
from hiresattn.geometry import frames_of
from hiresattn.inference.classify import classify, classify_all
from hiresattn.inference.records_file import write_records
from hiresattn.model.build import build_model
from hiresattn.reading.canvas import Canvas

ONE = {"device": "cpu", "stop": None, "threads": 1}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    rule = InputConfig(bands=(0,), low=(0.0,), high=(255.0,), dtype="uint8")
    config = ModelConfig(classes=("dark", "light"), input=rule)
    return Model(build_model(config).eval(), config, "test", "abc", Domain())


def _image(seed=0, height=500, width=700):
    return np.random.default_rng(seed).integers(0, 255, (height, width, 1)).astype(np.uint8)


@pytest.fixture
def files(tmp_path):
    paths = []
    for number, shape in enumerate([(500, 700), (300, 300), (260, 900)]):
        paths.append(str(tmp_path / f"{number}.tif"))
        tifffile.imwrite(paths[-1], _image(number, *shape)[..., 0], tile=(64, 64), photometric="minisblack")
    return paths


def _facts(record):
    """All of a record but its times and its case."""
    found = record.to_json() | {"case": None}
    found["cost"] = found["cost"] | {"seconds": None}
    return found


def test_a_canvas_gives_back_where_regions_come_from():
    rng = np.random.default_rng(0)
    frames = np.array([[5, 7, 100, 90], [0, 0, 30, 40], [1000, 2000, 300, 300]])
    canvas = Canvas(frames)
    assert canvas.frames[0].tolist() == frames[0].tolist()
    assert (np.diff(canvas.frames[:, 1]) > 0).all()
    for number, frame in enumerate(frames):
        at = frame[:2] + (rng.random((50, 2)) * frame[2:] * 0.9).astype(int)
        regions = np.concatenate([at, np.full((50, 2), 3)], axis=1)
        placed = canvas.placed(number, regions)
        source, stored = canvas.stored(placed)
        assert (source == number).all()
        assert np.array_equal(stored, regions)
        assert (frames_of(placed, canvas.frames) == canvas.frames[number]).all()


def test_a_case_of_one_image_is_searched_as_that_image(model):
    alone = classify(_image(), model, budget=20, **ONE)
    of_case = classify(Case("P1", [_image()]), model, budget=20, **ONE)
    assert of_case.case == "P1"
    assert _facts(alone) == _facts(of_case)


def test_images_of_a_case_share_one_search_and_one_budget(model, files):
    found = classify(Case("P1", files), model, budget=30, **ONE)
    assert (found.case, found.source, found.region, found.cost.glimpses) == ("P1", "P1", None, 30)
    assert sum(r.attention for r in found.regions) == pytest.approx(1, abs=1e-5)
    assert [one.source for one in found.sources] == files
    assert sum(one.glimpses for one in found.sources) == 30
    sizes = [(one.height, one.width) for one in found.sources]
    assert sizes == [(500, 700), (300, 300), (260, 900)]
    roots = [(region.source, region.depth) for region in found.regions].count
    assert roots((0, 0)) >= 1
    assert roots((1, 0)) >= 1
    assert roots((2, 0)) >= 2
    for region in found.regions:
        height, width = sizes[region.source]
        assert 0 <= region.y <= height - region.height
        assert 0 <= region.x <= width - region.width
        if region.parent is not None:
            assert found.regions[region.parent].source == region.source
    json.dumps(found.to_json())


def test_the_answer_of_a_case_is_pooled_over_its_images(model, files):
    options = {"policy": "lowres", **ONE}
    alone = [classify(path, model, **options) for path in files]
    found = classify(Case("P1", files), model, **options)
    counts = np.array([one.cost.glimpses for one in alone])
    assert [one.glimpses for one in found.sources] == counts.tolist()
    by_source = [sum(r.attention for r in found.regions if r.source == n) for n in range(3)]
    logits = [np.log(list(one.scores.values())) for one in alone]  # pooled logits, up to a constant each
    gap = np.array([one[1] - one[0] for one in logits])
    pooled = np.log(list(found.scores.values()))
    assert pooled[1] - pooled[0] == pytest.approx((gap * by_source).sum(), abs=1e-5)


@pytest.mark.parametrize("policy", ["lowres", "top-k", "exhaustive"])
def test_the_evidence_of_a_case_is_the_mean_over_its_images(files, policy):
    torch.manual_seed(1)
    rule = InputConfig(bands=(0,), low=(0.0,), high=(255.0,), dtype="uint8")
    config = ModelConfig(classes=("none", "a", "b"), background="none", input=rule)
    model = Model(build_model(config).eval(), config, "test", "abc", Domain())
    options = {"policy": policy, **ONE}
    ratios = []
    for record in [
        *(classify(path, model, **options) for path in files),
        classify(Case("P1", files), model, **options),
    ]:
        none, *others = record.scores.values()
        ratios.append(np.array(others) / none)
    assert np.allclose(ratios[-1], np.mean(ratios[:-1], axis=0), rtol=1e-4)


@pytest.mark.parametrize("policy", ["best-first", "random", "top-k", "exhaustive"])
def test_every_policy_looks_at_all_images_of_a_case(model, files, policy):
    found = classify(Case("P1", files), model, policy=policy, budget=12, **ONE)
    assert found.status == "ok"
    assert {region.source for region in found.regions} == {0, 1, 2}


def test_a_budget_smaller_than_the_root_regions_is_spread_over_the_images(model, files):
    found = classify(Case("P1", files), model, budget=3, **ONE)
    assert found.cost.glimpses == 3
    assert {region.source for region in found.regions} == {0, 1, 2}
    assert "spread out" in found.warnings[-1]


def test_windows_of_one_image_may_be_a_case(model):
    image = _image(0, 900, 900)
    windows = [Example(image, region=(y, 100, 300, 300)) for y in (0, 500)]
    found = classify(Case("place", windows), model, budget=20, **ONE)
    tops = {region.source: set() for region in found.regions}
    for region in found.regions:
        tops[region.source].add(region.y)
    assert max(tops[0]) < 300
    assert min(tops[1]) >= 500
    assert [one.region for one in found.sources] == [(0, 100, 300, 300), (500, 100, 300, 300)]


def test_squashed_images_may_be_a_case(model, files):
    rule = replace(model.config.input, squash=128)
    squashed = replace(model, config=replace(model.config, input=rule))
    found = classify(Case("P1", files), squashed, budget=9, **ONE)
    assert {region.source for region in found.regions} == {0, 1, 2}
    roots = {r.source: (r.height, r.width) for r in found.regions if r.depth == 0}
    assert roots == {0: (500, 700), 1: (300, 300), 2: (260, 900)}


@pytest.mark.parametrize("batch_images", [1, 3])
def test_an_image_that_can_not_be_read_is_left_out_of_its_case(model, files, tmp_path, batch_images):
    absent = str(tmp_path / "absent.tif")
    cut = str(tmp_path / "cut.tif")
    data = Path(files[2]).read_bytes()
    (tmp_path / "cut.tif").write_bytes(data)
    with tifffile.TiffFile(cut) as file:
        offset = file.pages[0].dataoffsets[-1]
    (tmp_path / "cut.tif").write_bytes(data[:offset])
    options = {"budget": 40, "on_error": "record", "batch_images": batch_images, **ONE}
    cases = [Case("P1", [files[0], absent, cut, files[1]]), Case("P2", [absent, cut]), Case("P3", files[:2])]
    first, second, third = classify_all(cases, model, **options)
    assert (first.status, first.class_name) == ("ok", third.class_name)
    assert first.scores == pytest.approx(third.scores, abs=1e-6)
    assert [one.error is None for one in first.sources] == [True, False, False, True]
    assert {region.source for region in first.regions} == {0, 3}
    assert "absent.tif" in str(first.warnings)
    assert "cut.tif" in str(first.warnings)
    assert second.status == "error"
    assert "none of its 2 images" in second.error
    assert [one.source for one in second.sources] == [absent, cut]
    with pytest.raises(HiresattnError, match="absent"):
        list(classify_all(cases, model, **(options | {"on_error": "raise"})))


def test_a_manifest_names_cases(model, files, tmp_path):
    manifest = tmp_path / "slides.csv"
    rows = [f"{files[0]},light,007", f"{files[1]},dark,", f"{files[2]},,007"]
    manifest.write_text("path,label,patient\n" + "\n".join(rows) + "\n")
    found = list(classify_all(manifest, model, budget=9, **ONE))
    assert [(one.case, len(one.sources), one.label) for one in found] == [
        ("007", 2, "light"),
        (None, 1, "dark"),
    ]
    alone = list(classify_all(manifest, model, budget=9, per_source=True, **ONE))
    assert [(one.case, one.source) for one in alone] == [
        ("007", files[0]),
        (None, files[1]),
        ("007", files[2]),
    ]
    manifest.write_text("path,label,patient\n" + "\n".join(rows[:2]) + f"\n{files[2]},dark,007\n")
    with pytest.raises(ConfigError, match=r"case '007' has label 'light' and label 'dark'.*per_source"):
        list(classify_all(manifest, model, **ONE))
    assert len(list(classify_all(manifest, model, budget=3, per_source=True, **ONE))) == 3


def test_a_run_goes_on_with_the_cases_that_are_missing(model, files, tmp_path):
    output = tmp_path / "records.jsonl"
    cases = [Example(files[0], case="a"), Example(files[1], case="b"), Example(files[2], case="a")]
    first = list(write_records(output, cases[1:2], model, budget=9, **ONE))
    rest = list(write_records(output, cases, model, budget=9, resume=True, **ONE))
    assert [one.case for one in first + rest] == ["b", "a"]
    assert list(write_records(output, cases, model, budget=9, resume=True, **ONE)) == []
    more = list(
        write_records(output, [*cases, Example(files[1], case="a")], model, budget=9, resume=True, **ONE)
    )
    assert [(one.case, len(one.sources)) for one in more] == [("a", 3)]


def test_an_evaluation_counts_cases(model, files):
    examples = [Example(path, "dark", "test", case=name) for path, name in zip(files, "aab", strict=True)]
    found = evaluate(model, examples, budget=9, device="cpu", threads=1)
    assert (found.images, found.cases) == (2, 2)
    alone = evaluate(model, examples, budget=9, device="cpu", threads=1, per_source=True)
    assert (alone.images, alone.cases) == (3, 2)


def test_a_record_can_be_seen_image_by_image(model, files):
    found = classify(Case("P1", files), model, budget=30, **ONE)
    parts = found.by_source()
    assert [one.source for one in parts] == files
    assert sum(len(one.regions) for one in parts) == 30
    for part in parts:
        assert [region.id for region in part.regions] == list(range(len(part.regions)))
        for region in part.regions:
            if region.parent is not None:
                above = part.regions[region.parent]
                assert above.depth == region.depth - 1
                assert above.y <= region.y <= above.y + above.height
                assert above.x <= region.x <= above.x + above.width


@pytest.mark.parametrize("sources", [[], "a.tif", ()])
def test_a_case_needs_a_list_of_images(sources):
    with pytest.raises(ConfigError, match="list of one or more"):
        Case("P1", sources)


def test_cases_of_several_images_come_as_a_list(model, files):
    cases = [Case("P1", files)]
    with pytest.raises(ConfigError, match=r"case 'P1' has 3 images; give cases as a list"):
        list(classify_all(iter(cases), model, **ONE))
    (found,) = classify_all(tuple(cases), model, budget=9, **ONE)
    assert len(found.sources) == 3
