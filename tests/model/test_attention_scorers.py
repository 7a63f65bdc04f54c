"""SAOL, LTPA and OAA against the numbers of their specification, and what every label-trained scorer must keep."""

import itertools

import pytest
import torch
from torch.nn import functional

from hiresattn.config import InputConfig, ModelConfig, ScorerConfig
from hiresattn.errors import ConfigError
from hiresattn.geometry import Grid
from hiresattn.model.build import build_model
from hiresattn.model.describe import describe
from hiresattn.model.scorers import (
    SCORERS,
    LtpaScorer,
    OaaScorer,
    PastedPart,
    SaolScorer,
    ScorerInput,
    Target,
    pool_cells,
)
from hiresattn.model.scorers.base import box_mask, label_loss
from hiresattn.model.scorers.oaa import attention_of, hybrid_loss, right_classes
from hiresattn.model.scorers.saol import BETA, distillation, mixture

CLASSES = 3


def _view(rows=2, fraction=0.25, seed=0):
    generator = torch.Generator().manual_seed(seed)
    fine, last = (torch.randn((rows, c, side, side), generator=generator) for c, side in ((6, 16), (8, 8)))
    return ScorerInput(
        (fine, last), torch.randn((rows, 5), generator=generator), torch.full((rows,), fraction)
    )


def _target(labels=(0, 2), progress=1.0, **more):
    labels = torch.tensor(labels)
    rows = len(labels)
    return Target(labels, torch.ones(rows), torch.ones(rows, dtype=torch.bool), progress, **more)


def _scorer(name, **options):
    torch.manual_seed(1)
    if name == "oaa":
        return OaaScorer(channels=8, classes=CLASSES, grid=7, **options)
    given = {"channels": (6, 8), "classes": CLASSES, "grid": 7, "encoder_stages": (-2, -1), **options}
    return SaolScorer(**given) if name == "saol" else LtpaScorer(context=5, **given)


def number(value):
    return value.detach().item()


LABEL_TRAINED = ("saol", "ltpa", "oaa")


@pytest.mark.parametrize("name", LABEL_TRAINED)
def test_scorers_give_logits_of_cells_and_classes_without_labels(name):
    scored = _scorer(name)(_view())
    assert scored.logits.shape == (2, 7, 7)
    assert scored.logits.isfinite().all()
    assert torch.allclose(scored.class_log_prob.exp().sum(1), torch.ones(2), atol=1e-5)


@pytest.mark.parametrize("name", LABEL_TRAINED)
def test_every_weight_learns_from_the_scorers_own_losses(name):
    scorer = _scorer(name)
    # a fresh SAOL's attention is even and blocks what is before it, by design
    torch.nn.init.normal_(scorer.attend[-1].weight) if name == "saol" else None
    paste = None
    if name == "saol":
        clean = scorer(_view(seed=1))
        box = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.2, 0.2, 1.0, 1.0]])
        paste = PastedPart(box, torch.tensor([1, 1]), torch.tensor([0.25, 0.64]), torch.arange(2), clean)
    view = _view()
    view.stages[1].requires_grad_()
    scored = scorer(view)
    labels = scored.class_log_prob.argmax(1).tolist()  # predicted rightly: OAA accepts
    losses = scorer.losses(scored, _target(labels, pasted=paste))
    assert all(value.ndim == 0 and value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    for key, weight in scorer.named_parameters():
        assert weight.grad is not None, key
        assert weight.grad.abs().max() > 0, key
    assert view.stages[1].grad.abs().max() > 0


@pytest.mark.parametrize("name", LABEL_TRAINED)
def test_rows_of_no_weight_have_no_gradient(name):
    scorer = _scorer(name)
    view = _view()
    target = _target()
    losses = scorer.losses(scorer(view), target._replace(weight=torch.tensor([1.0, 0.0])))
    alone = scorer.losses(
        scorer(ScorerInput(tuple(s[:1] for s in view.stages), view.features[:1], view.fraction[:1])),
        _target((0,)),
    )
    for key, value in losses.items():
        assert number(value) == pytest.approx(number(alone[key]) / 2, abs=1e-6), key


def test_labels_may_be_shares():
    log_prob = torch.randn(3, CLASSES).log_softmax(1)
    target = _target((0, 2, 1))
    hot = target._replace(labels=functional.one_hot(target.labels, CLASSES).float())
    assert torch.allclose(label_loss(log_prob, target), label_loss(log_prob, hot))
    both = target._replace(labels=torch.tensor([[1.0, 1.0, 0.0]]), weight=torch.ones(1))
    assert number(label_loss(log_prob[:1], both)) == pytest.approx(-number(log_prob[0, :2].mean()), abs=1e-6)


# SAOL


def _golden():
    a = torch.tensor([0.0, 1.0, -1.0, 0.5]).view(1, 1, 2, 2).flatten(2).log_softmax(2).view(1, 1, 2, 2)
    s = torch.tensor([[1.0, 0, 2, -1], [0.0, 1, 0, 1], [-1.0, 0.5, 0, 0]]).view(1, 3, 2, 2)
    return a, s.log_softmax(1)


def test_saol_is_the_likelihood_of_a_mixture_not_cross_entropy_of_its_probabilities():
    predicted = mixture(*_golden())
    assert predicted.exp()[0].tolist() == pytest.approx([0.280681, 0.480823, 0.238496], abs=1e-6)
    loss = label_loss(predicted, _target((1,)))
    assert number(loss) == pytest.approx(0.732256, abs=1e-6)
    wrong = functional.cross_entropy(predicted.exp(), torch.tensor([1]))
    assert number(wrong) == pytest.approx(0.956824, abs=1e-6)
    again = functional.cross_entropy(predicted, torch.tensor([1]))  # log-probabilities are their own softmax
    assert number(again) == pytest.approx(0.732256, abs=1e-6)


def test_saol_logits_are_attention_times_the_expected_probability():
    scorer = _scorer("saol")
    torch.nn.init.normal_(scorer.attend[-1].weight)
    view = _view()
    scored = scorer(view)
    attention, spatial = scored.trace.attention.exp(), scored.trace.spatial.exp()
    assert torch.allclose(attention.sum((1, 2, 3)), torch.ones(2), atol=1e-5)
    assert torch.allclose(spatial.sum(1), torch.ones(2, 8, 8), atol=1e-5)
    expected_prob = (scored.class_log_prob.exp()[:, :, None, None] * spatial).sum(1, keepdim=True)
    expected = pool_cells(attention * expected_prob * 64, 7, view.fraction)[:, 0].log()
    assert torch.allclose(scored.logits, expected, atol=1e-4)


def test_saol_evidence_sums_to_the_probability_of_its_class():
    scorer = _scorer("saol")
    scored = scorer(_view())
    for label in range(CLASSES):
        map_ = (scored.trace.attention[:, 0] + scored.trace.spatial[:, label]).exp()
        assert map_.shape == (2, 8, 8)
        assert torch.allclose(map_.sum((1, 2)), scored.class_log_prob[:, label].exp(), atol=1e-5)


def test_the_attention_of_a_fresh_saol_is_uniform():
    attention = _scorer("saol")(_view()).trace.attention.exp()
    assert torch.allclose(attention, torch.full_like(attention, 1 / 64))


def test_distillation_trains_the_pooled_head_and_not_the_mixture():
    teacher = torch.tensor([[0.7, 0.2, 0.1]]).log().requires_grad_()
    student = torch.tensor([[0.2, 0.5, 0.3]]).log().requires_grad_()
    loss = distillation(teacher, student, _target((0,)))
    kl = functional.kl_div(student, teacher.exp(), reduction="sum")
    assert number(loss) == pytest.approx(number(kl - 0.5 * student[0, 0]))
    loss.backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert BETA == 0.5


def test_cutmix_weights_both_labels_by_area():
    log_prob = torch.tensor([[0.6, 0.3, 0.1]]).log()
    paste = PastedPart(
        torch.zeros(1, 4), torch.tensor([1]), torch.tensor([0.25]), torch.tensor([], dtype=torch.int64)
    )
    loss = label_loss(log_prob, _target((0,), pasted=paste))
    assert number(loss) == pytest.approx(-(0.75 * number(log_prob[0, 0]) + 0.25 * number(log_prob[0, 1])))


def test_the_mask_of_a_box_is_1_inside_and_the_share_of_a_px_at_its_edge():
    box = torch.tensor([[0.25, 0.5, 0.75, 1.0], [0.0, 0.0, 0.0, 0.0], [0.125, 0.0, 1.0, 0.3125]])
    mask = box_mask(box, 4, 4)
    assert mask[0].tolist() == [[0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0]]
    assert mask[1].sum() == 0
    assert mask[2].tolist() == [[0.5, 0.125, 0, 0], *[[1, 0.25, 0, 0]] * 3]
    area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    assert torch.allclose(mask.mean((1, 2)), area)


def _pasted(scorer, box, *, clean, share=0.25):
    view = _view(rows=1)
    scored = scorer(view)
    rows = torch.tensor([0])
    paste = PastedPart(torch.tensor([box]), torch.tensor([1]), torch.tensor([share]), rows, clean)
    return scored, scorer.losses(scored, _target((0,), pasted=paste))


def test_pasted_px_are_compared_with_the_donors_and_the_donor_gets_no_gradient():
    scorer = _scorer("saol")
    donor = _view(rows=1, seed=5)
    for stage in donor.stages:
        stage.requires_grad_()
    clean = scorer(donor)
    scored, losses = _pasted(scorer, [0.0, 0.0, 0.5, 0.5], clean=clean)
    teacher, seen = clean.trace.spatial.exp(), scored.trace.spatial
    apart = (teacher * (clean.trace.spatial - seen)).sum(1)[0, :4, :4]
    assert number(losses["paste_what"]) == pytest.approx(number(apart.mean()), abs=1e-6)
    losses["paste_what"].backward()
    assert donor.stages[1].grad is None
    assert scorer.join.weight.grad.abs().max() > 0


def test_a_pasted_part_outside_the_region_has_no_content_loss():
    scorer = _scorer("saol")
    _, losses = _pasted(scorer, [0.0, 0.0, 0.0, 0.0], clean=scorer(_view(rows=1, seed=5)), share=0.0)
    assert number(losses["paste_what"]) == 0
    assert losses["paste_where"].isfinite()
    assert "paste_what" not in _pasted(scorer, [0.0, 0.0, 0.5, 0.5], clean=None)[1]


def test_where_it_was_pasted_can_be_learnt():
    scorer = _scorer("saol")
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(scorer.where_pasted.parameters(), lr=0.05)
    losses = []
    for _ in range(40):
        start = 0.5 * torch.rand((16, 2), generator=generator)
        box = torch.cat([start, start + 0.4], 1)
        mask = box_mask(box, 8, 8)
        last = torch.randn((16, 8, 8, 8), generator=generator) + 2 * mask[:, None]
        view = ScorerInput((torch.zeros(16, 6, 16, 16), last), torch.zeros(16, 5), torch.full((16,), 0.25))
        paste = PastedPart(box, torch.zeros(16, dtype=torch.int64), torch.full((16,), 0.16), torch.arange(0))
        target = _target([0] * 16, pasted=paste)
        loss = scorer.losses(scorer(view), target)["paste_where"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(number(loss))
    assert losses[-1] < 0.3 < losses[0]


# LTPA


@pytest.mark.parametrize(
    ("compatibility", "depends"), [("gated", True), ("dot", True), ("parametrised", False)]
)
def test_attention_depends_on_the_whole_unless_compatibility_is_parametrised(compatibility, depends):
    if compatibility == "parametrised":
        with pytest.warns(UserWarning, match="does not depend on the region as a whole"):
            scorer = _scorer("ltpa", compatibility=compatibility)
    else:
        scorer = _scorer("ltpa", compatibility=compatibility)
    view = _view()
    scored = scorer(view)
    other = scorer(view._replace(features=view.features + torch.randn(2, 5)))
    change = (scored.logits - other.logits).abs().max()
    assert (change > 1e-3) == depends
    scorer.losses(scored, _target())["ltpa"].backward()
    assert (scorer.whole.weight.grad.abs().max() > 1e-6) == depends


def test_ltpa_is_the_weighted_sum_of_local_features():
    scorer = _scorer("ltpa", compatibility="dot")
    view = _view()
    scored = scorer(view)
    whole = scorer.whole(view.features)
    vectors, logits = [], []
    for stage, project in zip((-2, -1), scorer.local, strict=True):
        local = project(view.stages[stage])
        attention = torch.einsum("ndhw,nd->nhw", local, whole).flatten(1).softmax(1)
        vectors.append(torch.einsum("ni,ndi->nd", attention, local.flatten(2)))
        side = local.shape[-1]
        maps = attention.view(2, 1, side, side) * side**2
        logits.append(pool_cells(maps, 7, view.fraction)[:, 0].log())
    assert torch.allclose(
        scored.class_log_prob, scorer.heads[0](torch.cat(vectors, 1)).log_softmax(1), atol=1e-5
    )
    assert torch.allclose(scored.logits, sum(logits) / 2, atol=1e-4)


def test_independent_heads_average_probabilities():
    scorer = _scorer("ltpa", heads="indep")
    view = _view()
    scored = scorer(view)
    prob = []
    for attention, stage, project, head in zip(
        scored.trace, (-2, -1), scorer.local, scorer.heads, strict=True
    ):
        prob.append(head((attention * project(view.stages[stage])).sum((2, 3))).softmax(1))
    assert torch.allclose(scored.class_log_prob.exp(), sum(prob) / 2, atol=1e-5)


# OAA


def test_the_hybrid_loss_has_the_published_value_and_gradient():
    logits = torch.tensor([[2.0, 0.0], [-1.0, 0.5]], requires_grad=True)
    maps = torch.tensor([[1.0, 0.3], [0.0, 0.0]])
    loss = hybrid_loss(logits, maps)
    assert number(loss) == pytest.approx(0.811105, abs=1e-6)
    loss.backward()
    assert logits.grad.flatten().tolist() == pytest.approx([-0.059601, -0.075, 0.134471, 0.311230], abs=1e-6)
    plain = torch.zeros(1, requires_grad=True)
    functional.binary_cross_entropy_with_logits(plain, torch.tensor([0.3]), reduction="sum").backward()
    assert number(plain.grad) / 4 == pytest.approx(0.05)  # cross-entropy would push that px down


def test_a_map_that_is_all_or_nothing_has_one_part_of_the_hybrid_loss():
    logits = torch.tensor([[1.0, -1.0]])
    both = functional.logsigmoid(logits).mean(), functional.logsigmoid(-logits).mean()
    assert number(hybrid_loss(logits, torch.ones(1, 2))) == pytest.approx(-number(both[0]))
    assert number(hybrid_loss(logits, torch.zeros(1, 2))) == pytest.approx(-number(both[1]))


def test_attention_is_the_positive_part_over_its_maximum():
    maps = torch.tensor([[[[2.0, -1.0], [1.0, 0.0]], [[-1.0, -2.0], [-3.0, -4.0]]]])
    found = attention_of(maps)
    assert torch.allclose(found[0, 0], torch.tensor([[1.0, 0.0], [0.5, 0.0]]))
    assert found[0, 1].abs().max() == 0


def test_a_class_is_right_among_as_many_predictions_as_there_are_labels():
    scores = torch.tensor([[3.0, 2, 1, 0]]).repeat(4, 1)
    present = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 1, 1]]).bool()
    found = right_classes(scores, present)
    assert (
        found.tolist()
        == torch.tensor([[1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 1, 0]]).bool().tolist()
    )


class _Memory:
    """A memory of one batch."""

    def __init__(self, start=None):
        self.maps = start
        self.accepted = []

    def __call__(self, maps, accepted):
        kept = maps * accepted[:, :, None, None]
        self.maps = kept if self.maps is None else torch.maximum(self.maps, kept)
        self.accepted.append(accepted)
        return self.maps


def test_only_correctly_predicted_regions_are_accumulated():
    scorer, memory = _scorer("oaa"), _Memory()
    scored = scorer(_view(rows=4))
    guess = scored.class_log_prob.argmax(1)
    labels = [int(guess[0]), (int(guess[1]) + 1) % CLASSES, int(guess[2]), int(guess[3])]
    target = _target(labels, merge_attention=memory)._replace(weight=torch.tensor([1.0, 1.0, 0.0, 1.0]))
    paste = PastedPart(
        torch.zeros(4, 4), torch.zeros(4, dtype=torch.int64), torch.tensor([0, 0, 0, 0.5]), torch.arange(0)
    )
    scorer.losses(scored, target._replace(pasted=paste))
    expected = torch.zeros(4, CLASSES, dtype=torch.bool)
    expected[0, labels[0]] = True  # the others: wrong, of no weight, pasted over
    assert torch.equal(memory.accepted[0], expected)
    assert torch.allclose(memory.maps[0, labels[0]], attention_of(scored.trace[0])[0, labels[0]])


def test_integral_maps_learn_the_accumulated_and_not_the_present_maps():
    scorer = _scorer("oaa")
    scored = scorer(_view())
    labels = ((scored.class_log_prob.argmax(1) + 1) % CLASSES).tolist()  # wrong now, so nothing is added
    start = torch.zeros(2, CLASSES, 8, 8)
    start[0, labels[0], 2, 3] = 0.7
    losses = scorer.losses(scored, _target(labels, merge_attention=_Memory(start)))
    expected = hybrid_loss(scored.trace[1][0, labels[0]], start[0, labels[0]]) / 2  # the second has no memory
    assert number(losses["hybrid"]) == pytest.approx(number(expected), abs=1e-6)
    for progress, share in ((0.0, 0.0), (0.25, 0.5), (0.5, 1.0)):
        again = scorer.losses(scored, _target(labels, progress, merge_attention=_Memory(start)))["hybrid"]
        assert number(again) == pytest.approx(share * number(expected), abs=1e-6)


def test_absent_classes_have_a_loss_only_with_negatives_all():
    scorer = _scorer("oaa", negatives="all")
    scored = scorer(_view(rows=1))
    label = int(scored.class_log_prob.argmax(1) + 1) % CLASSES
    loss = scorer.losses(scored, _target((label,), merge_attention=_Memory(torch.zeros(1, CLASSES, 8, 8))))[
        "hybrid"
    ]
    off = [-functional.logsigmoid(-scored.trace[1][0, c]).mean() for c in range(CLASSES) if c != label]
    assert number(loss) == pytest.approx(number(sum(off)), abs=1e-5)


def test_attention_below_the_floor_counts_as_0():
    start = torch.zeros(1, CLASSES, 8, 8)
    view, losses = _view(rows=1), []
    label = int(_scorer("oaa")(view).class_log_prob.argmax(1) + 1) % CLASSES
    start[0, label, 2, 3], start[0, label, 5, :] = 0.7, 0.4
    for floor in (0.0, 0.5, 0.8):
        scorer = _scorer("oaa", floor=floor)
        scored = scorer(view)
        losses.append(scorer.losses(scored, _target((label,), merge_attention=_Memory(start)))["hybrid"])
        kept = torch.where(start < floor, 0, start)[0, label]
        expected = hybrid_loss(scored.trace[1][0, label], kept) if floor < 0.7 else torch.zeros(())
        assert number(losses[-1]) == pytest.approx(number(expected), abs=1e-6)
    assert number(losses[0]) != number(losses[1])


def test_oaa_logits_weight_integral_maps_by_predicted_probabilities():
    scorer, view = _scorer("oaa"), _view()
    scored = scorer(view)
    activation, integral = scored.trace
    density = sum(
        activation[:, c].mean((1, 2)).sigmoid()[:, None, None] * integral[:, c].sigmoid()
        for c in range(CLASSES)
    )
    assert torch.allclose(
        scored.logits, pool_cells(density[:, None], 7, view.fraction)[:, 0].log(), atol=1e-5
    )


def test_several_labels_are_learnt_by_class():
    scorer = _scorer("oaa")
    scored = scorer(_view(rows=1))
    labels = torch.tensor([[1.0, 0.0, 1.0]])
    loss = scorer.losses(scored, _target((0,))._replace(labels=labels))["cam"]
    mean = scored.trace[0].mean((2, 3))
    expected = functional.multilabel_soft_margin_loss(mean, labels)
    assert number(loss) == pytest.approx(number(expected), abs=1e-6)


# All of them, as parts of a network


@pytest.mark.parametrize("name", SCORERS)
def test_every_scorer_builds_into_a_network_and_scores(name):
    net = build_model(ModelConfig(classes=("a", "b", "c"), scorer=name, grid=Grid(5, 0.25)))
    view = net.encoder(torch.randn(2, 3, 64, 64))
    scored = net.scorer(ScorerInput(view.stages, view.features, torch.tensor([0.25, 0.3])))
    assert scored.logits.shape == (2, 5, 5)
    assert scored.logits.isfinite().all()


def test_stages_that_the_encoder_does_not_have_are_refused():
    for name, encoder_stages in itertools.product(("saol", "ltpa"), ((7,), (-9, -1))):
        with pytest.raises(ConfigError, match=r"encoder stage -?\d: the encoder 'small' has 4 maps"):
            build_model(
                ModelConfig(
                    classes=("a", "b"), scorer=name, scoring=ScorerConfig(encoder_stages=encoder_stages)
                )
            )
    for wrong in (
        {"encoder_stages": ()},
        {"compatibility": "loud"},
        {"heads": "two"},
        {"negatives": "some"},
        {"floor": 1.0},
    ):
        with pytest.raises(ConfigError):
            ScorerConfig(**wrong)


@pytest.mark.parametrize("name", ["location", "mask", "saol", "ltpa", "oaa"])
def test_scoring_takes_a_small_share_of_the_encoders_operations(name):
    config = ModelConfig(
        classes=tuple(map(str, range(1000))),
        encoder="efficientnet_b0",
        scorer=name,
        input=InputConfig(size=224),
        grid=Grid(5, 0.34375),
    )
    parts = describe(config, 448, (2,)).parts
    scoring = sum(part.macs / part.calls for part in parts if part.name == "scorer")
    encoding = sum(part.macs / part.calls for part in parts if part.name.startswith("encoder"))
    assert encoding > 3e8
    assert 0 < scoring < 0.1 * encoding


def test_oaa_scores_the_last_of_its_stages():
    net = build_model(
        ModelConfig(classes=("a", "b"), scorer="oaa", scoring=ScorerConfig(encoder_stages=(-1, 1)))
    )
    crops = torch.randn(2, 3, 64, 64)
    seen = net.encoder(crops)
    scored = net.scorer(ScorerInput(seen.stages, seen.features, torch.tensor([0.25, 0.25])))
    assert scored.trace[0].shape == (2, 2, *seen.stages[1].shape[2:])


@pytest.mark.parametrize("name", SCORERS)
def test_class_maps_are_between_0_and_1(name):
    net = build_model(ModelConfig(classes=("a", "b", "c"), scorer=name, grid=Grid(5, 0.25)))
    seen = net.encoder(torch.randn(2, 3, 64, 64))
    scored = net.scorer(ScorerInput(seen.stages, seen.features, torch.tensor([0.25, 0.3])))
    maps = net.scorer.class_maps(scored)
    assert list(maps) == {"oaa": ["cam", "integral"], "saol": ["evidence"], "evidence": ["evidence"]}.get(
        name, []
    )
    for values in maps.values():
        assert values.shape == (2, 3, 8, 8)
        assert 0 <= values.min() <= values.max() <= 1
    if name == "oaa":
        positive = scored.trace[0].amax((2, 3)) > 0.01
        assert torch.allclose(maps["cam"].amax((2, 3))[positive], torch.tensor(1.0), atol=1e-4)
    if name == "saol":
        assert torch.equal(maps["evidence"].amax((2, 3)), torch.ones(2, 3))
        own = (scored.trace.attention[:, 0] + scored.trace.spatial[:, 1]).exp()
        assert torch.allclose(maps["evidence"][:, 1] * own.amax((1, 2), keepdim=True), own, atol=1e-6)
