"""The recursion, with a fetch that reads nothing."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from hiresattn.config import InputConfig, ModelConfig
from hiresattn.errors import ConfigError
from hiresattn.geometry import cell_regions, root_regions
from hiresattn.model.build import build_model
from hiresattn.model.net import log_priors
from hiresattn.model.select import GumbelTopK, TopK


class Crops(NamedTuple):
    pixels: np.ndarray
    coverage: np.ndarray


def _fetch(image: np.ndarray, regions: np.ndarray) -> Crops:
    """Crops that are a function of their region only."""
    y, x = np.mgrid[0:64, 0:64] / 64
    plane = np.sin(regions[:, 0, None, None] / 50 + y) + np.cos(regions[:, 1, None, None] / 70 + x)
    return Crops(plane[:, None].astype(np.float32), np.ones((len(image), 64, 64), np.float32))


@pytest.fixture
def net():
    torch.manual_seed(0)
    rule = InputConfig(bands=(0,), low=(0.0,), high=(255.0,))
    return build_model(ModelConfig(classes=("a", "b", "c"), input=rule))


def _roots(*sides):
    return [root_regions(*side) for side in sides], np.array([[0, 0, *side] for side in sides])


def test_a_traversal_visits_k_cells_of_every_region_at_every_depth(net):
    roots, frames = _roots((1024, 1024))
    found = net(_fetch, roots, frames, select=TopK(), k=(4, 2))
    assert np.bincount(found.depth).tolist() == [1, 4, 8]
    assert sorted(set(found.region[found.depth == 2][:, 2])) == [64]


def test_every_glimpse_is_a_cell_of_its_parent(net):
    roots, frames = _roots((1024, 1024), (300, 900))
    found = net(_fetch, roots, frames, select=TopK(), k=(3, 2))
    for row in np.flatnonzero(found.parent >= 0):
        parent = found.parent[row]
        assert found.image[row] == found.image[parent]
        assert found.depth[row] == found.depth[parent] + 1
        cells = cell_regions(found.region[parent][None], net.grid, net.finest)[0]
        assert (cells[found.cell[row]] == found.region[row]).all()


def test_images_of_a_batch_may_have_different_depths(net):
    roots, frames = _roots((64, 64), (256, 256), (1024, 2500))
    found = net(_fetch, roots, frames, select=TopK(), k=(2,))
    deepest = [found.depth[found.image == i].max() for i in range(3)]
    assert deepest == [0, 1, 2]
    assert found.logits.shape == (3, 3)


def test_a_batch_gives_what_each_image_gives_alone(net):
    net.eval()
    roots, frames = _roots((1024, 1024), (256, 256))
    both = net(_fetch, roots, frames, select=TopK(), k=(4, 2))
    for i in range(2):
        alone = net(_fetch, roots[i : i + 1], frames[i : i + 1], select=TopK(), k=(4, 2))
        assert torch.allclose(both.logits[i], alone.logits[0], atol=1e-5)
        assert (both.region[both.image == i] == alone.region).all()


def test_cells_without_a_valid_px_are_never_visited(net):
    def half(image, regions):
        crops = _fetch(image, regions)
        columns = regions[:, 1, None] + (np.arange(64) + 0.5) * regions[:, 3, None] / 64
        return Crops(crops.pixels, np.repeat((columns < 512).astype(np.float32)[:, None], 64, 1))

    roots, frames = _roots((1024, 1024))
    found = net(half, roots, frames, select=GumbelTopK(torch.Generator().manual_seed(0)), k=(9, 9))
    assert (found.region[1:, 1] < 512).all()
    assert found.coverage[0] == pytest.approx(0.5)


def test_an_image_without_a_valid_px_has_one_glimpse(net):
    def nothing(image, _regions):
        return Crops(
            np.zeros((len(image), 1, 64, 64), np.float32), np.zeros((len(image), 64, 64), np.float32)
        )

    roots, frames = _roots((1024, 1024))
    found = net(nothing, roots, frames, select=TopK(), k=(4, 2))
    assert len(found.image) == 1


def test_the_loss_reaches_the_scorer_by_straight_through(net):
    roots, frames = _roots((1024, 1024))
    found = net(_fetch, roots, frames, select=TopK(), k=(4, 2))
    found.logits[0, 0].backward()
    gradients = [p.grad for p in net.scorer.parameters() if p.grad is not None]
    assert sum(float(g.abs().sum()) for g in gradients) > 0


def test_straight_through_does_not_change_the_features(net):
    net.eval()
    roots, frames = _roots((1024, 1024))
    found = net(_fetch, roots, frames, select=TopK(), k=(4, 2))
    alone = net.glimpse(_fetch(found.image, found.region), found.region, frames[found.image])
    assert torch.allclose(found.features, alone.features, atol=1e-5)


def test_weights_sum_to_one_and_position_starts_without_effect(net):
    roots, frames = _roots((1024, 1024), (256, 256))
    found = net(_fetch, roots, frames, select=TopK(), k=(4, 2))
    sums = torch.zeros(2).index_add(0, torch.from_numpy(found.image), found.weight)
    assert torch.allclose(sums, torch.ones(2))
    assert net.position(torch.zeros(5, 128), torch.rand(5, 3)).abs().max() == 0


def test_a_wrong_part_names_its_nearest_neighbour():
    with pytest.raises(ConfigError, match="did you mean 'location'"):
        build_model(ModelConfig(classes=("a", "b"), scorer="locations"))
    with pytest.raises(ConfigError, match="did you mean 'attention'"):
        build_model(ModelConfig(classes=("a", "b"), aggregator="atention"))
    with pytest.raises(ConfigError, match="two classes"):
        build_model(ModelConfig(classes=("a",)))


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("region", lambda values: values[:, :3]),
        ("depth", lambda values: values.astype(np.float32)),
        ("features", lambda values: values[1:]),
        ("logits", lambda values: values[:, :2]),
    ],
)
def test_the_shapes_and_types_of_a_traversal_are_checked_in_tests(net, field, change):
    roots, frames = _roots((256, 256))
    found = net(_fetch, roots, frames, select=TopK(), k=(2,))
    with pytest.raises(TypeCheckError):
        replace(found, **{field: change(getattr(found, field))})


@pytest.mark.gpu
def test_cpu_and_cuda_agree(net):
    net.eval()
    roots, frames = _roots((1024, 1024))
    here = net(_fetch, roots, frames, select=TopK(), k=(4, 2))
    there = net.cuda()(_fetch, roots, frames, select=TopK(), k=(4, 2))
    assert (here.region == there.region).all()
    assert torch.allclose(here.logits, there.logits.cpu(), atol=1e-3)


def test_a_coarse_encoder_encodes_the_regions_that_are_divided_and_no_others():
    torch.manual_seed(0)
    rule = InputConfig(bands=(0,), low=(0.0,), high=(255.0,))
    net = build_model(ModelConfig(classes=("a", "b"), input=rule, coarse_encoder=True)).eval()
    with torch.no_grad():
        for weight in net.encoder.parameters():
            weight.normal_()
    regions = np.array([[0, 0, 64, 64], [0, 0, 512, 512], [64, 0, 64, 64], [0, 9, 256, 256]])
    image, frames = np.zeros(4, np.int64), np.repeat([[0, 0, 512, 512]], 4, axis=0)
    pixels = torch.from_numpy(_fetch(image, regions).pixels)
    both = net.glimpse(_fetch(image, regions), regions, frames)
    for row, body in enumerate((net.encoder, net.coarse_encoder, net.encoder, net.coarse_encoder)):
        value = net.value(body(pixels).features)[row, 0] + both.cell_logits[row].logsumexp(0)
        assert torch.allclose(value, both.value[row], atol=1e-5)
        alone = net.glimpse(_fetch(image[:1], regions[row : row + 1]), regions[row : row + 1], frames[:1])
        assert torch.allclose(alone.features[0], both.features[row], atol=1e-5)
        assert torch.allclose(alone.cell_logits[0], both.cell_logits[row], atol=1e-5)


def test_with_a_background_the_finest_glimpses_give_the_prediction():
    torch.manual_seed(0)
    rule = InputConfig(bands=(0,), low=(0.0,), high=(255.0,))
    config = ModelConfig(classes=("a", "b", "c"), input=rule, background="b", position=None)
    net = build_model(config).eval()
    roots, frames = _roots((256, 256))
    found = net(_fetch, roots, frames, select=TopK(), k=(3,))
    ratio = found.glimpse_logits - found.glimpse_logits[:, 1:2]
    chance = found.log_prob + torch.nn.functional.logsigmoid(found.value[0])
    expected = (ratio + net.prior_weight * chance[:, None])[1:].logsumexp(0)
    assert torch.allclose(found.logits[0, ::2], expected[::2], atol=1e-5)
    assert found.logits[0, 1] == 0
    assert found.weight[0] == 0
    assert found.weight.sum().item() == pytest.approx(1)
    elsewhere = frames[0] + np.array([0, 10_000, 0, 0])
    of_two = net(_fetch, roots, [np.stack([frames[0], elsewhere])], select=TopK(), k=(3,))
    assert torch.allclose(of_two.logits[0, ::2], expected[::2] - np.log(2), atol=1e-5)
    with pytest.raises(ConfigError, match="none of the classes"):
        build_model(ModelConfig(classes=("a", "b"), input=rule, background="bb"))


def test_the_prior_of_a_region_is_that_of_all_choices_that_led_there(net):
    roots, frames = _roots((1024, 1024), (1024, 2500))
    found = net(_fetch, roots, frames, select=TopK(), k=(3, 2))
    chance = log_priors(found).tolist()
    for row, parent in enumerate(found.parent.tolist()):
        value = torch.nn.functional.logsigmoid(found.value[parent]).item()
        above = chance[parent] + value + found.log_prob[row].item() if parent >= 0 else 0.0
        assert chance[row] == pytest.approx(above, abs=1e-5)
