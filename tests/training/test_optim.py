"""Schedules, class weights, accumulated gradients, half precision."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hiresattn.checkpoint import load_model
from hiresattn.datasets.example import Example
from hiresattn.errors import ConfigError
from hiresattn.training.fit import fit
from hiresattn.training.losses import classification_loss
from hiresattn.training.optim import check_amp, class_weights, learning_rate, optimizer_of
from hiresattn.training.options import TrainOptions

QUICK = TrainOptions(
    epochs=1,
    batch_size=4,
    threads=0,
    device="cpu",
    crop_size=16,
    k=(1,),
    vary_k=False,
    select="best",
    grid=3,
    fraction=0.5,
    value_range=(0, 255),
)


def _images(count=8, names=("a", "b")):
    rng = np.random.default_rng(0)
    return [
        Example(rng.integers(60, 160, (32, 32, 1)).astype(np.uint8), names[i % len(names)])
        for i in range(count)
    ]


def _rates(**more):
    options = TrainOptions(lr=1.0, **more)
    return [learning_rate(at, options) for at in (0, 0.015, 0.03, 0.3, 0.5, 0.79, 0.8, 1)]


def test_schedules_are_what_their_names_say():
    assert _rates() == pytest.approx([0.1, 0.55, 1, 1, 1, 0.525, 0.5, 0])
    cosine = [(1 + math.cos(math.pi * at)) / 2 for at in (0, 0.015, 0.03, 0.3, 0.5, 0.79, 0.8, 1)]
    assert _rates(schedule="cosine", warm_up=0) == pytest.approx(cosine)
    assert _rates(schedule="step", warm_up=0) == pytest.approx([1] * 6 + [0.1] * 2)
    assert _rates(schedule="step", warm_up=0.5) == pytest.approx([0.1, 0.127, 0.154, 0.64, 1, 1, 0.1, 0.1])


def test_the_default_rate_is_bit_for_bit_that_of_stored_results():
    for at in np.linspace(0, 1, 997).tolist():
        before = 2e-3 * min(1.0, (1 - at) / 0.4) * min(1.0, 0.1 + at * 30)
        assert learning_rate(at, TrainOptions()) == before


def test_adamw_shrinks_every_weight_and_the_papers_adam_takes_decay_as_loss_and_spares_norms():
    net = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.BatchNorm1d(4), torch.nn.GroupNorm(2, 4))
    assert type(optimizer_of(net, TrainOptions())) is torch.optim.AdamW
    adam = optimizer_of(net, TrainOptions(optimizer="adam", weight_decay=0.5))
    assert type(adam) is torch.optim.Adam
    before = {name: value.clone() for name, value in net.named_parameters()}
    for value in net.parameters():
        value.grad = torch.zeros_like(value)
    adam.step()
    changed = {name for name, value in net.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {"0.weight", "0.bias"}
    # the first step of Adam is the rate times gradient / (|gradient| + epsilon), the gradient 0.5 times the weight
    gradient = 0.5 * before["0.weight"]
    expected = before["0.weight"] - 2e-3 * gradient / (gradient.abs() + 1e-7)
    assert torch.allclose(net[0].weight, expected, atol=1e-7)


def test_balanced_weights_count_every_class_alike_and_are_1_on_average():
    samples = [SimpleNamespace(label=label) for label in (0, 0, 0, 1, 2, 2)]
    weights = class_weights(samples, 3, TrainOptions(class_weights="balanced"))
    assert torch.allclose(weights * torch.tensor([3.0, 1, 2]), torch.tensor([2.0, 2, 2]))
    assert weights[torch.tensor([item.label for item in samples])].mean().item() == pytest.approx(1)
    assert class_weights(samples, 3, TrainOptions()) is None
    nameless = [SimpleNamespace(label=-1)] * 5
    assert torch.equal(
        class_weights([*samples, *nameless], 3, TrainOptions(class_weights="balanced")), weights
    )
    assert class_weights(nameless, 3, TrainOptions(class_weights="balanced")) is None


def test_weights_multiply_an_images_and_its_glimpses_cross_entropy():
    traversal = SimpleNamespace(
        logits=torch.tensor([[2.0, 0.0], [0.0, 1.0]]),
        glimpse_logits=torch.tensor([[1.0, 0.0], [0.0, 3.0]]),
        image=np.array([0, 1]),
    )
    labels, weights = torch.tensor([0, 1]), torch.tensor([0.5, 3.0])
    found = classification_loss(traversal, labels, labels, glimpse_weight=0.5, class_weights=weights).item()
    first = np.log1p(np.exp(-2)) + 0.5 * np.log1p(np.exp(-1))
    second = np.log1p(np.exp(-1)) + 0.5 * np.log1p(np.exp(-3))
    assert found == pytest.approx((0.5 * first + 3 * second) / 2, abs=1e-6)
    nameless = torch.tensor([-1, 1])  # whose boxes say what a glimpse shows
    found = classification_loss(traversal, nameless, labels, glimpse_weight=0.5, class_weights=weights).item()
    assert found == pytest.approx((0.5 * np.log1p(np.exp(-1)) + 3 * second) / 2, abs=1e-6)


@pytest.mark.parametrize("estimator", ["straight-through", "reinforce", "reinforce-loo"])
def test_balanced_training_runs_with_every_estimator_and_differs(tmp_path, estimator):
    images = _images(8, ("a", "b", "b", "b"))
    options = replace(QUICK, estimator=estimator)
    (plain,) = fit(images, tmp_path / "a", options)
    (balanced,) = fit(images, tmp_path / "b", replace(options, class_weights="balanced"))
    assert plain.loss != balanced.loss


def test_two_half_batches_move_the_weights_as_one_whole(tmp_path):
    images = _images(2)
    moved = {}
    for name, size, accumulate in (("whole", 2, 1), ("halves", 1, 2)):
        steps = []
        original = torch.optim.AdamW.step

        def step(self, *args, steps=steps, original=original, **kw):
            steps.append(
                [p.grad.clone() for g in self.param_groups for p in g["params"] if p.grad is not None]
            )
            return original(self, *args, **kw)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.optim.AdamW, "step", step)
            list(
                fit(
                    images, tmp_path / name, replace(QUICK, batch_size=size, accumulate=accumulate, clip=None)
                )
            )
        moved[name] = steps
    assert len(moved["whole"]) == len(moved["halves"]) == 1
    assert any(bool(part.abs().max() > 1e-3) for part in moved["whole"][0])
    for whole, halves in zip(moved["whole"][0], moved["halves"][0], strict=True):
        assert torch.allclose(whole, halves, atol=1e-6, rtol=1e-4)


def test_an_epoch_ends_with_a_whole_step(tmp_path):
    (record,) = fit(_images(8), tmp_path / "model", replace(QUICK, batch_size=4, accumulate=3))
    assert record.images == 12


def test_bfloat16_trains_and_the_weights_stay_whole(tmp_path):
    for estimator in ("straight-through", "reinforce", "reinforce-loo"):
        (record,) = fit(_images(), tmp_path / estimator, replace(QUICK, amp=True, estimator=estimator))
        assert math.isfinite(record.loss)
        weights = load_model(tmp_path / estimator).net.state_dict()
        assert {w.dtype for w in weights.values() if w.is_floating_point()} == {torch.float32}
    with pytest.raises(ConfigError, match="not on mps"):
        check_amp(torch.device("mps"), TrainOptions(amp=True))


@pytest.mark.gpu
def test_on_cuda_bfloat16_trains_the_loss_of_full_precision_and_resumes(tmp_path):
    losses = {}
    for amp in (False, True):
        options = replace(QUICK, device="cuda", amp=amp, epochs=3)
        first = next(fit(_images(), tmp_path / f"amp {amp}", options))
        rest = list(fit(_images(), tmp_path / f"amp {amp}", options, resume=True))
        losses[amp] = [record.loss for record in (first, *rest)]
    assert losses[True] != losses[False]
    assert losses[True] == pytest.approx(losses[False], rel=0.05)
    weights = load_model(tmp_path / "amp True").net.state_dict()
    assert {w.dtype for w in weights.values() if w.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize(
    ("option", "near"),
    [
        ({"optimizer": "adamv"}, "'adam'"),
        ({"schedule": "cos"}, "'cosine'"),
        ({"class_weights": "balance"}, "'balanced'"),
        ({"on_error": "skipp"}, "'skip'"),
    ],
)
def test_an_unknown_name_names_its_neighbour(option, near):
    with pytest.raises(ConfigError, match=near):
        TrainOptions(**option)
