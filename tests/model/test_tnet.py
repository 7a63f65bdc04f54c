"""The paper's configurations: geometry, position, scores, sizes and costs, against published or derived values."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from hiresattn.config import InputConfig, LocationConfig, ModelConfig
from hiresattn.errors import ConfigError
from hiresattn.geometry import Grid, cell_regions, child_paths
from hiresattn.inference.budget import Budget
from hiresattn.inference.image_search import Policy
from hiresattn.inference.search import search
from hiresattn.inference.torch_engine import TorchEngine
from hiresattn.model.build import build_model
from hiresattn.model.describe import describe
from hiresattn.model.encoders import build_encoder
from hiresattn.model.encoders.bagnet import BagNet77
from hiresattn.model.position import path_code
from hiresattn.model.presets import PRESETS
from hiresattn.model.scorers import SCORERS, ScorerInput
from hiresattn.model.select import GumbelTopK, TopK


class Crops(NamedTuple):
    pixels: np.ndarray
    coverage: np.ndarray


def _whole(side: int) -> np.ndarray:
    return np.array([[0, 0, side, side]])


# ---------------------------------------------------------------- geometry


@pytest.mark.parametrize(
    ("side", "fraction", "grid", "cell", "offsets"),
    [
        (448, 0.5, 3, 224, [0, 112, 224]),
        (896, 0.5, 3, 448, [0, 224, 448]),
        (224, 77 / 224, 5, 77, [-1, 36, 73, 110, 147]),
        (448, 0.35, 5, 157, [-1, 72, 145, 218, 291]),
    ],
)
def test_cells_lie_where_the_paper_puts_them(side, fraction, grid, cell, offsets):
    cells = cell_regions(_whole(side), Grid(grid, fraction, "tnet"), 1)[0].reshape(grid, grid, 4)
    assert cells[:, 0, 0].tolist() == cells[0, :, 1].tolist() == offsets
    assert np.unique(cells[..., 2:]).tolist() == [cell]


@given(st.integers(8, 2000), st.floats(0.1, 0.9), st.integers(2, 9))
def test_the_papers_cells_cover_their_region_and_overhang_it_by_less_than_a_stride(side, fraction, grid):
    cells = cell_regions(_whole(side), Grid(grid, fraction, "tnet"), 1)[0].reshape(grid, grid, 4)
    starts, size = cells[0, :, 1], int(cells[0, 0, 3])
    before, after = -int(starts[0]), int(starts[-1]) + size - side
    assert len(set(np.diff(starts).tolist())) == 1
    assert 0 <= after <= before <= after + 1  # what is odd comes first
    assert before + after < grid - 1


def test_49_of_the_81_paths_to_the_third_depth_show_different_pixels():
    grid = Grid(3, 0.5, "tnet")
    middle = cell_regions(_whole(896), grid, 224)[0]
    leaves = cell_regions(middle, grid, 224).reshape(-1, 4)
    assert len(leaves) == 81
    assert len(np.unique(leaves, axis=0)) == 49


def test_a_layout_that_does_not_exist_is_a_config_error():
    with pytest.raises(ConfigError, match="'ladder' or 'tnet'"):
        Grid(3, 0.5, "even")


# ---------------------------------------------------------------- position


def test_paths_count_cells_as_if_they_did_not_overlap():
    grid = Grid(3, 0.5, "tnet")
    first = child_paths(np.zeros((9, 3), np.int64), np.arange(9), grid)
    assert first[:, :2].tolist() == [[r, c] for r in range(3) for c in range(3)]
    second = child_paths(np.repeat(first, 9, 0), np.tile(np.arange(9), 9), grid)
    assert sorted(map(tuple, second[:, :2].tolist())) == [(r, c) for r in range(9) for c in range(9)]
    assert set(second[:, 2].tolist()) == {2}


def test_the_code_of_a_path_is_the_published_vector():
    path = torch.tensor([[1.0, 2.0, 1.0]])
    code = path_code(path, 320)[0]
    assert code[:4].tolist() == pytest.approx([0.841471, 0.792713, 0.743091, 0.693750], abs=1e-5)
    assert code[53:55].tolist() == pytest.approx([0.540302, 0.609595], abs=1e-5)
    assert code[106:108].tolist() == pytest.approx([0.909297, 0.966467], abs=1e-5)
    assert code[318:].tolist() == [0, 0]
    assert code.sum().item() == pytest.approx(183.18331, abs=1e-3)
    assert path_code(path, 512).sum().item() == pytest.approx(293.99835, abs=1e-3)
    whole = path_code(torch.zeros(1, 3), 320)[0, :318].reshape(3, 2, 53)
    assert whole[:, 0].abs().max() == 0
    assert whole[:, 1].min() == 1


def _blobs(image: np.ndarray, regions: np.ndarray) -> Crops:
    """Crops of 64 px that are a function of their region only."""
    y, x = np.mgrid[0:64, 0:64] / 64
    plane = np.sin(regions[:, 0, None, None] / 50 + y) + np.cos(regions[:, 1, None, None] / 70 + x)
    return Crops(plane[:, None].astype(np.float32), np.ones((len(image), 64, 64), np.float32))


SMALL = ModelConfig(
    classes=("a", "b", "c"),
    input=InputConfig(bands=(0,), low=(0.0,), high=(255.0,)),
    grid=Grid(3, 0.5, "tnet"),
    aggregator="mean",
    position="path-sum",
    value=False,
    location=LocationConfig(detach=True, normalize=True, units=(1, 3, 6), hidden=None),
)


@pytest.mark.parametrize("position", ["path-sum", "path-concat"])
def test_a_search_encodes_the_same_paths_as_training(position):
    torch.manual_seed(0)
    net = build_model(replace(SMALL, position=position)).eval()
    roots, frames = [_whole(256)], _whole(256)
    with torch.no_grad():
        policy = Policy(stop=None, max_overlap=1.0)
        found, _ = search(TorchEngine(net), _blobs, roots, frames, budget=Budget(glimpses=30), policy=policy)
        everything = net(_blobs, roots, frames, select=TopK(), k=(9,))
    paths = [_path(everything, row) for row in range(len(everything.image))]
    assert set(found.depth.tolist()) == {0, 1, 2}
    for row in range(len(found.image)):
        same = paths.index(_path(found, row))
        assert torch.allclose(torch.from_numpy(found.features[row]), everything.features[same], atol=1e-5)


def _path(traversal, row):
    steps = []
    while row >= 0:
        steps.append(int(traversal.cell[row]))
        row = traversal.parent[row]
    return tuple(steps)


# ---------------------------------------------------------------- scores and selection


@pytest.mark.parametrize("name", ["location", "context"])
@pytest.mark.parametrize(("grid", "least", "most"), [(3, 0.0415, 0.2653), (5, 0.0148, 0.1036)])
def test_normalised_scores_keep_probabilities_within_the_derived_bounds(name, grid, least, most):
    torch.manual_seed(1)
    extra = {"context": 4} if name == "context" else {}
    scorer = SCORERS[name](channels=8, grid=grid, normalize=True, **extra)
    torch.nn.init.normal_(scorer.out.weight, std=30)
    view = ScorerInput((torch.randn(500, 8, 8, 8),), torch.randn(500, 4), torch.full((500,), 0.5))
    logits = scorer(view).logits.flatten(1)
    assert torch.allclose(logits.norm(dim=1), torch.ones(500), atol=1e-4)
    chances = logits.softmax(1)
    assert chances.min() >= least - 1e-4
    assert chances.max() <= most + 1e-4
    # the bounds are met by the vectors (c, -s, …, -s) and their negatives: the derivation, not a sample
    n = grid * grid
    peak = torch.full((n,), -1 / (n * (n - 1)) ** 0.5)
    peak[0] = ((n - 1) / n) ** 0.5
    assert peak.softmax(0)[0].item() == pytest.approx(most, abs=1e-4)
    assert (-peak).softmax(0)[0].item() == pytest.approx(least, abs=1e-4)
    assert (chances.amax(1) / chances.amin(1)).max() <= np.exp(2**0.5) + 1e-3


def test_units_of_the_map_represent_the_cells():
    scorer = SCORERS["location"](channels=1, grid=3, units=(2, 6, 10))
    stage = torch.arange(196.0).reshape(1, 1, 14, 14)
    cells = scorer.cell_features(ScorerInput((stage,), torch.zeros(1, 1), torch.full((1,), 0.5)))
    assert cells[0, 0].tolist() == [[14 * y + x for x in (2, 6, 10)] for y in (2, 6, 10)]


def test_a_unit_of_tensorflows_padding_lies_symmetric_around_the_image():
    """The gradient of the middle unit of the 14x14 map is centred where the middle candidate is, to a px or so."""
    torch.manual_seed(0)
    encoder = build_encoder("tf_efficientnet_b0", channels=1).eval()
    for module in encoder.modules():  # every path counts alike: a unit's field, not its taste
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.constant_(module.weight, 1 / module.weight[0].numel())
    crop = torch.ones(1, 1, 224, 224, requires_grad=True)
    encoder(crop).stages[4][0, 0, 6, 6].backward()
    weight = crop.grad[0, 0].abs()
    centre = (weight.sum(1) * torch.arange(224)).sum() / weight.sum()
    assert centre.item() == pytest.approx(111.5, abs=2)


@pytest.mark.parametrize("k", range(10))
def test_any_number_of_cells_can_be_visited_without_training_anew(k):
    net = build_model(SMALL).eval()
    with torch.no_grad():
        found = net(_blobs, [_whole(128)], _whole(128), select=TopK(), k=(k,))
    assert len(found.image) == 1 + k
    assert len(np.unique(found.region, axis=0)) == 1 + k
    assert found.logits.isfinite().all()


def test_without_straight_through_the_prediction_carries_no_gradient_of_the_choice():
    net = build_model(replace(SMALL, location=replace(SMALL.location, detach=False)))
    for gate in (True, False):
        net.zero_grad()
        select = GumbelTopK(torch.Generator().manual_seed(0))
        found = net(_blobs, [_whole(256)], _whole(256), select=select, k=(2,), straight_through=gate)
        found.logits[0, 0].backward()
        assert (net.scorer.out.weight.grad is not None) == gate


# ---------------------------------------------------------------- encoders


@pytest.mark.parametrize(("side", "sides"), [(77, [75, 38, 19, 9, 7, 7]), (224, [222, 111, 56, 27, 25, 25])])
def test_bagnet_has_the_published_maps(side, sides):
    with torch.device("meta"):
        encoder = BagNet77(channels=3)
        stages = encoder(torch.empty(1, 3, side, side)).stages
    assert [tuple(stage.shape[1:]) for stage in stages] == [
        (c, s, s) for c, s in zip(encoder.stage_channels, sides, strict=True)
    ]


def test_a_unit_of_bagnets_last_map_sees_77_px():
    torch.manual_seed(0)
    encoder = BagNet77(channels=1)
    crop = torch.randn(1, 1, 125, 125, requires_grad=True)
    last = encoder(crop).stages[-1]
    middle = last.shape[-1] // 2
    last[0, :, middle, middle].sum().backward()
    seen = crop.grad[0, 0].abs().sum(0).nonzero()[:, 0]
    assert int(seen.max() - seen.min()) + 1 == 77


def test_bagnet_drops_whole_channels_in_training_only():
    encoder = BagNet77(channels=1, drop=0.5)
    crop = torch.rand(1, 1, 77, 77)
    kept = encoder.eval()(crop).features
    dropped = encoder.train()(crop).features
    assert (dropped == 0).float().mean().item() == pytest.approx(0.5, abs=0.1)
    assert torch.allclose(dropped[dropped != 0], 2 * kept[dropped != 0], atol=1e-5)


def test_later_blocks_are_skipped_more_often():
    body = build_encoder("tf_efficientnet_b0", channels=3, drop=0.32).body
    blocks = [block for stage in body.blocks for block in stage]
    rates = {
        n: getattr(block.drop_path, "drop_prob", 0.0) for n, block in enumerate(blocks, 1) if block.has_skip
    }
    assert rates == {n: pytest.approx(0.32 * n / 16) for n in (3, 5, 7, 8, 10, 11, 13, 14, 15)}


@pytest.mark.parametrize(("init", "variance"), [("glorot", 2 / (194 + 128)), ("fan-out", 2 / 128)])
def test_fresh_weights_have_the_published_spread(init, variance):
    torch.manual_seed(0)
    net = build_model(replace(SMALL, init=init, scorer="context"))
    weight = net.scorer.mix.weight  # 1x1, from 64 + 128 + 2 channels to 128
    assert weight.var().item() == pytest.approx(variance, rel=0.05)


# ---------------------------------------------------------------- sizes and costs


@pytest.mark.parametrize(
    ("name", "trainable", "total"),
    [
        ("tnet-imagenet", 21_859_949, 21_859_949),
        ("bagnet77", 20_546_664, 20_546_664),
        ("tnet-fmow", 4_517_575, 4_559_591),
        ("efficientnet-b0", 4_086_970, 4_128_986),
    ],
)
def test_a_preset_has_the_published_number_of_parameters(name, trainable, total):
    preset = PRESETS[name]
    found = describe(preset.named(), preset.config.input.squash, preset.k)
    assert (found.params_trainable, found.params_total) == (trainable, total)
    with torch.device("meta"):
        net = build_model(preset.named())
    assert sum(p.numel() for p in net.parameters()) == trainable


@pytest.mark.parametrize(
    ("name", "side", "k", "giga"),
    [
        *(("tnet-imagenet", 224, (k,), g) for k, g in enumerate([1.804, 3.628, 5.432, 7.236, 9.039, 10.843])),
        ("bagnet77", 224, (), 18.4226),
        ("tnet-fmow", 224, (2, 1), 0.385),
        ("tnet-fmow", 448, (0,), 0.385),
        ("tnet-fmow", 448, (1,), 0.770),
        ("tnet-fmow", 448, (2,), 1.155),
        ("tnet-fmow", 896, (2, 1), 1.925),
        ("tnet-fmow", 896, (3, 1), 2.695),
        ("tnet-fmow", 896, (2, 2), 2.695),
        ("efficientnet-b0", 224, (), 0.3846),
        ("efficientnet-b0", 448, (), 1.536),
        ("efficientnet-b0", 896, (), 6.143),
    ],
)
def test_a_preset_costs_the_published_multiply_accumulates(name, side, k, giga):
    preset = PRESETS[name]
    config = replace(preset.at(side), classes=preset.named().classes)
    found = describe(config, side, k)
    assert found.macs / 1e9 == pytest.approx(giga, rel=0.005)
    assert sum(part.macs for part in found.parts) == found.macs


def test_the_parts_of_the_papers_models_have_the_published_sizes():
    found = {part.name: part for part in describe(PRESETS["tnet-imagenet"].named(), 224, (1,)).parts}
    assert found["scorer"].params_trainable == 788_485
    assert found["scorer"].macs == pytest.approx(19.7e6, rel=0.001)
    assert found["position"].params_trainable == 524_800
    found = {part.name: part for part in describe(PRESETS["tnet-fmow"].named(), 896, (2, 1)).parts}
    assert found["scorer"].params_trainable == 19_725
    assert found["scorer"].calls == 3
    assert found["position"].params_trainable == 410_880
    assert found["classifier"].params_trainable == 79_422


def test_what_is_described_is_what_a_forward_pass_computes():
    config = ModelConfig(classes=("a", "b"), input=SMALL.input)
    net = build_model(config).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        found = net(_blobs, [_whole(1024)], _whole(1024), select=TopK(), k=(4, 2))
    described = describe(config, 1024, (4, 2))
    parts = {part.name: part for part in described.parts}
    leaves = int((found.depth == 2).sum())
    also = parts["scorer"].macs // parts["scorer"].calls * leaves  # leaves are scored, for the record
    also += parts["classifier"].macs * len(found.image)  # and every glimpse is classified on its own
    assert described.glimpses == (1, 4, 8)
    assert counter.get_total_flops() // 2 == described.macs + also


@pytest.mark.parametrize(
    "name", ["small", "efficientnet_b0", "resnet18", "convnext_atto", "vit_tiny_patch16_224"]
)
def test_parts_of_any_encoder_add_up_to_its_parameters(name):
    config = ModelConfig(classes=("a", "b"), encoder=name, input=InputConfig(size=224))
    found = describe(config, 224, ())
    with torch.device("meta"):
        net = build_model(config)
    assert found.params_trainable == sum(p.numel() for p in net.parameters())


def test_no_more_cells_are_described_than_a_region_has():
    found = describe(ModelConfig(classes=("a", "b"), grid=Grid(3, 0.25)), 1024, (100, 2))
    assert (found.locations, found.glimpses) == ((9, 2), (1, 9, 18))


def test_a_coarse_encoder_and_evidence_are_parts_too():
    config = ModelConfig(classes=("none", "a"), input=SMALL.input, background="none", coarse_encoder=True)
    found = describe(config, 1024, (4, 2))
    calls = {part.name: part.calls for part in found.parts}
    assert (calls["coarse_encoder.layers.0"], calls["encoder.layers.0"]) == (5, 8)
    assert (calls["pooling"], calls["classifier"]) == (0, 13)
    assert found.params_trainable == sum(p.numel() for p in build_model(config).parameters())
    whole = {part.name: part.calls for part in describe(config, 1024, (0,)).parts}
    assert (whole["coarse_encoder.layers.0"], whole["encoder.layers.0"]) == (1, 0)


def test_an_encoder_that_cannot_take_the_crop_is_a_config_error():
    config = replace(PRESETS["bagnet77"].at(24), classes=("a", "b"))
    with pytest.raises(ConfigError, match="crops of 24 px"):
        describe(config, 24, ())


# ---------------------------------------------------------------- options that don't fit


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"location": LocationConfig(units=(1, 2))}, "2 rows; the grid has 3"),
        ({"location": LocationConfig(stage=9)}, "4 maps"),
        ({"position": "path-sums"}, "did you mean 'path-sum'"),
        ({"init": "fanout"}, "did you mean 'fan-out'"),
        ({"encoder_drop": 0.2}, "encoder_drop"),
    ],
)
def test_options_that_do_not_fit_are_config_errors(change, words):
    with pytest.raises(ConfigError, match=words):
        build_model(replace(SMALL, **change))


def test_the_papers_filter_needs_the_papers_squash():
    with pytest.raises(ConfigError, match="squash"):
        InputConfig(filter="bilinear")
    with pytest.raises(ConfigError, match="dropout is a share"):
        ModelConfig(dropout=1.0)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_survives_json(name):
    config = PRESETS[name].named()
    assert ModelConfig.from_json(config.to_json(), "here") == config
