"""Searches that look only where there is foreground."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from hiresattn.checkpoint import Model
from hiresattn.config import InputConfig, ModelConfig
from hiresattn.datasets.cases import Case
from hiresattn.datasets.example import Example
from hiresattn.errors import ConfigError
from hiresattn.geometry import Grid
from hiresattn.inference.classify import classify
from hiresattn.inference.engine import NetFacts
from hiresattn.inference.open_cells import divided_cells
from hiresattn.model.build import build_model
from hiresattn.pyramid.array import ArrayPyramid

TISSUE = (120, 200, 100, 110)
BLUE = (30, 50, 160)


def _slide(*tissue, height=480, width=640):
    """Glass with rectangles of tissue, crossed by ink, beside black."""
    image = np.random.default_rng(0).normal(244, 1, (height, width, 3))
    for y, x, rows, columns in tissue:
        image[y : y + rows, x : x + columns] = np.random.default_rng(1).normal(
            (215, 150, 190), 12, (rows, columns, 3)
        )
    image[400:430] = BLUE
    image[:, -60:] = 0
    return image.clip(0, 255).astype(np.uint8)


def _model(**config):
    torch.manual_seed(0)
    rule = InputConfig(size=32, foreground="tissue")
    made = ModelConfig(classes=("a", "b"), input=rule, **config)
    return Model(build_model(made).eval(), made, "test", "abc")


def _one(source, model=None, **options):
    return classify(source, model or _model(), device="cpu", **({"stop": None} | options))


def _off_tissue(record, *tissue, beside=16):
    """Regions below the root regions that are farther from tissue than a px of the root regions' crops."""
    regions = [r for r in record.regions if r.parent is not None]
    assert regions
    return [
        r
        for r in regions
        if not any(
            r.y < y + h + beside
            and y - beside < r.y + r.height
            and r.x < x + w + beside
            and x - beside < r.x + r.width
            for y, x, h, w in tissue
        )
    ]


@pytest.mark.parametrize(
    ("policy", "scorer"),
    [("best-first", "location"), ("random", "location"), ("top-k", "mask"), ("best-first", "mask")],
)
def test_no_policy_looks_at_glass_ink_or_black(policy, scorer):
    image = _slide(TISSUE)
    found = _one(image, _model(scorer=scorer), policy=policy, budget=50)
    assert not _off_tissue(found, TISSUE)
    assert found.foreground == pytest.approx(100 * 110 / 480 / 640, rel=0.4)  # to a px of the crops
    assert 0 < found.cost.foreground_seen <= 1
    everywhere = _one(image, _model(scorer=scorer), policy=policy, budget=50, foreground="none")
    assert _off_tissue(everywhere, TISSUE)
    assert everywhere.foreground is None
    assert everywhere.cost.foreground_seen is None


def test_an_exhaustive_look_is_at_the_tissue_alone_and_sees_all_of_it():
    found = _one(_slide(TISSUE), policy="exhaustive")
    assert found.cost.stop_reason == "depth"
    below = replace(found, regions=tuple(replace(region, parent=0) for region in found.regions))
    assert not _off_tissue(below, TISSUE)
    assert found.cost.foreground_seen > 0.97
    assert len(found.regions) < 0.1 * len(
        _one(_slide(TISSUE), policy="exhaustive", foreground="none").regions
    )


def test_where_root_regions_are_finest_ones_only_those_with_tissue_are_looked_at():
    model, slide = _model(root_size=32, finest=32), _slide(TISSUE)
    found, everywhere = (_one(slide, model, budget=10_000, foreground=asked) for asked in (None, "none"))
    seen, every = ({(r.y, r.x) for r in one.regions} for one in (found, everywhere))
    exhaustive = {(r.y, r.x) for r in _one(slide, model, policy="exhaustive").regions}
    assert seen == exhaustive
    assert len(every) == 15 * 20
    assert 8 <= len(seen) < 40
    assert found.cost.foreground_seen > 0.97
    assert found.cost.pixels_decoded > len(seen) * 32**2  # the coarse view costs, too
    empty = _one(_slide(), model, budget=10_000)
    assert (empty.status, empty.cost.glimpses) == ("no_foreground", 1)


def test_a_search_without_limit_ends_when_the_tissue_was_seen():
    found = _one(_slide(TISSUE), budget=10_000)
    assert found.cost.stop_reason == "exhausted"
    assert found.cost.foreground_seen > 0.98
    assert any("no region with foreground was left" in words for words in found.warnings)


@pytest.mark.parametrize("policy", ["best-first", "random", "top-k", "lowres", "exhaustive"])
def test_an_empty_slide_is_no_class(policy):
    found = _one(_slide(), policy=policy)
    assert (found.status, found.class_name, found.scores) == ("no_foreground", None, {})
    assert found.cost.stop_reason == "no_foreground"
    assert found.foreground == found.cost.foreground_seen == 0
    assert all(r.parent is None for r in found.regions)
    assert _one(_slide(), policy=policy, foreground="none").status == "ok"


def test_nothing_is_read_for_it():
    class Counting(ArrayPyramid):
        reads: list = []  # noqa: RUF012 - one test

        def read_tile(self, level, row, column, buffer=None, bands=None):
            self.reads.append((level, row, column))
            return super().read_tile(level, row, column, buffer, bands)

    image = _slide()
    levels = [image, image[::8, ::8]]
    assert _one(Counting(levels)).status == "no_foreground"
    first = list(Counting.reads)
    Counting.reads.clear()
    _one(Counting(levels), policy="lowres", foreground="none")
    assert first == Counting.reads
    assert first


def test_where_all_is_tissue_nothing_changes():
    rng = np.random.default_rng(0)
    image = rng.normal((215, 150, 190), 20, (300, 400, 3)).clip(0, 255).astype(np.uint8)
    for policy in ("best-first", "random", "top-k"):
        some, everywhere = (
            _one(image, policy=policy, budget=20, foreground=name) for name in ("tissue", "none")
        )
        assert some.scores == everywhere.scores
        assert some.regions == everywhere.regions
        assert some.foreground == 1


def test_root_regions_that_come_one_after_the_other_make_one_map():
    image = _slide(TISSUE, (250, 900, 40, 60), width=1300)
    model = _model(root_size=160)
    found = _one(image, model, budget="1000s")
    assert not _off_tissue(found, TISSUE, (250, 900, 40, 60))
    assert found.cost.foreground_seen > 0.98


def test_a_window_is_searched_as_if_it_were_the_image():
    image = _slide(TISSUE)
    window = _one(Example(image, region=(90, 150, 200, 300)), budget=20)
    part = _one(image[90:290, 150:450], budget=20)
    assert window.scores == part.scores
    assert window.foreground == part.foreground


def test_squashed_images_have_foreground_too():
    torch.manual_seed(0)
    rule = InputConfig(size=32, foreground="tissue", squash=128)
    config = ModelConfig(classes=("a", "b"), input=rule)
    found = _one(_slide(TISSUE), Model(build_model(config).eval(), config, "test", "abc"), budget=40)
    assert not _off_tissue(found, TISSUE)


def test_a_mask_in_place_of_what_the_model_would_find(tmp_path):
    mask = np.zeros((48, 64), np.uint8)
    mask[4:12, 8:24] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    for changes in ({}, {"foreground": None}):  # what the model was trained with doesn't matter
        model = _model()
        config = replace(model.config, input=replace(model.config.input, **changes))
        found = _one(
            _slide(TISSUE), replace(model, config=config), foreground=str(tmp_path / "mask.png"), budget=60
        )
        assert not _off_tissue(found, (40, 80, 80, 160))
        assert found.foreground == pytest.approx(mask.mean())
    with pytest.raises(ConfigError, match="'tissue', 'none', or a mask's path, and there is no file 'tisue'"):
        _one(_slide(TISSUE), foreground="tisue")
    with pytest.raises(ConfigError, match="other proportions"):
        _one(_slide(TISSUE, height=470), foreground=str(tmp_path / "mask.png"))


@pytest.mark.parametrize("gate", [None, 0.3])
@pytest.mark.parametrize("scored", [True, False])
def test_leaving_cells_out_is_as_if_they_had_not_been_measured(gate, scored):
    """As training does it: the logits of such cells are minus infinity."""
    rng = np.random.default_rng(0)
    facts = NetFacts(Grid(), 32, gate=gate)
    regions = np.tile([[0, 0, 512, 512]], (50, 1))
    logits = rng.normal(size=(50, 49)).astype(np.float32)
    logits[rng.random((50, 49)) < 0.2] = -np.inf
    kept = rng.random((50, 49)) < rng.random((50, 1))
    kept[0] = False
    noise = None if scored else rng.exponential(size=(50, 49))
    rows = np.arange(50)
    wanted = divided_cells(rows, regions, np.where(kept, logits, -np.inf), facts, noise)
    found = divided_cells(rows, regions, logits, facts, noise)
    for row in rows.tolist():
        found[row].keep(kept[row], scored=scored)
        assert found[row].order == wanted[row].order
        cells = wanted[row].order
        for name in ("log_prob", "base", "costs"):
            np.testing.assert_allclose(getattr(found[row], name)[cells], getattr(wanted[row], name)[cells])


def test_the_cells_of_a_forward_pass_are_those_of_a_search():
    image = _slide(TISSUE)
    model = _model()
    passed = _one(image, model, policy="top-k")
    searched = _one(image, model, budget=10_000)
    one, other = (
        {(r.y, r.x, r.height, r.width): r.select_logp for r in found.regions if r.depth == 1}
        for found in (passed, searched)
    )
    both = one.keys() & other.keys()
    assert len(both) >= 2
    for place in both:
        assert one[place] == pytest.approx(other[place], abs=1e-5)


@pytest.mark.parametrize("policy", ["best-first", "top-k", "exhaustive"])
def test_an_empty_slide_of_a_case_is_no_part_of_the_answer(policy):
    empty, slide = _slide(), _slide(TISSUE)
    found = _one(Case("p", [empty, slide, empty]), policy=policy, budget=12)
    alone = _one(Case("p", [slide]), policy=policy, budget=12)
    assert found.status == "ok"
    assert found.scores == pytest.approx(alone.scores)
    assert {region.source for region in found.regions} == {1}
    assert [one.empty for one in found.sources] == [True, False, True]
    assert [one.glimpses for one in found.sources] == [0, len(alone.regions), 0]
    assert sum("no foreground" in words for words in found.warnings) == 2
    assert "seen in part only" not in found.review_reasons
    assert found.cost.bytes_read > alone.cost.bytes_read  # the looks at the empty ones cost, too
    assert len(found.by_source()) == 1
    assert found.cost.stop_reason != "empty_image"
    none = _one(Case("p", [empty, empty]), policy=policy)
    assert none.status == "no_foreground"


def test_images_whose_root_regions_the_budget_left_out_are_not_called_empty():
    model = _model(root_size=160)
    slides = [_slide(TISSUE), _slide((20, 500, 60, 60)), _slide((300, 20, 60, 60))]
    found = _one(Case("p", slides), model, budget=5)
    assert found.cost.stop_reason == "budget"
    assert not any(one.empty for one in found.sources)
    assert not any("no foreground" in words for words in found.warnings)
    assert "seen in part only" in found.review_reasons
