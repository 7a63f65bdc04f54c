"""Heads trained on features: no image is read, and the model is an ordinary one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from hiresattn import classify, evaluate, load_model, register_encoder, train
from hiresattn.config import InputConfig
from hiresattn.datasets.example import Example
from hiresattn.datasets.feature_files import FeatureFiles
from hiresattn.datasets.features import read_features
from hiresattn.datasets.manifest import read_manifest
from hiresattn.errors import CheckpointError, ConfigError, NotFoundError, ReadError
from hiresattn.inference.extract import extract
from hiresattn.inference.locate import located
from hiresattn.model.build import build_model
from hiresattn.training import features
from hiresattn.training.bags import Bag
from hiresattn.training.distil import HEAD_EPOCHS, distil
from hiresattn.training.features import _predicted, fit_features
from hiresattn.training.options import TrainOptions, model_config
from hiresattn.training.presets import RECIPES
from tests.encoders import MEAN, STD, write_encoder

CLASSES = ("plain", "bright", "dark")
CPU = {"device": "cpu", "threads": 0}
OPTIONS = TrainOptions(epochs=50, batch_size=8, lr=1e-2, **CPU)


class Means(torch.nn.Module):
    """How bright, and how dark, each band is on average."""

    def __init__(self, channels):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.full((1, channels, 1, 1), 2.0))

    def forward(self, crops):
        mean = crops.mean((2, 3), keepdim=True) * self.scale
        return torch.cat([mean.relu(), (-mean).relu()], 1)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Images of 4 x 4 regions, of which one shows the label; features by a tiny backbone of timm."""
    folder, rng = tmp_path_factory.mktemp("cohort"), np.random.default_rng(0)
    register_encoder("means", Means)
    examples = []
    for number in range(48):
        label = CLASSES[number % 3]
        image = rng.integers(90, 110, (128, 128, 3)).astype(np.uint8)
        y, x = 32 * rng.integers(0, 4, 2)
        if label != "plain":
            image[y : y + 32, x : x + 32] = 240 if label == "bright" else 5
        path = folder / f"{number}.png"
        Image.fromarray(image).save(path)
        examples.append(Example(str(path), label, "val" if number >= 36 else "train"))
    records = list(extract(examples, "means", folder / "features", side=32, threads=0))
    assert [record.status for record in records] == ["ok"] * 48
    assert {record.regions for record in records} == {16}
    return folder, examples, replace(OPTIONS, features=str(folder / "features"))


@pytest.mark.parametrize("background", [None, "plain"])
def test_a_head_learns_from_features_and_the_model_looks_at_images_alike(cohort, tmp_path, background):
    _, examples, options = cohort
    *_, last = fit_features(examples, tmp_path / "model", replace(options, background=background))
    model = load_model(tmp_path / "model")
    assert model.training["val_accuracy"] >= 0.9
    assert (model.config.finest, model.config.root_size, model.k) == (32, 32, (0,))
    held_out = [example for example in examples if example.split == "val"]
    found = evaluate(model, held_out, split="val", bootstrap=0, device="cpu")
    assert found.main.accuracy.value == pytest.approx(model.training["val_accuracy"])
    assert found.main.glimpses == 16
    if background:
        (where,) = located([held_out[1]], model, threads=0)
        assert where.boxes
    assert last.epochs == 50


def test_a_head_on_features_of_tissue_looks_at_tissue(tmp_path):
    register_encoder("means", Means)
    rng, examples = np.random.default_rng(0), []
    for number in range(8):
        image = rng.integers(238, 250, (256, 256, 3)).astype(np.uint8)
        image[64:128, 96:224] = rng.normal(
            (190, 120, 170) if number % 2 else (120, 60, 150), 12, (64, 128, 3)
        ).clip(0, 255)
        Image.fromarray(image).save(tmp_path / f"{number}.png")
        examples.append(Example(str(tmp_path / f"{number}.png"), "ab"[number % 2], "train"))
    extracted = list(
        extract(examples, "means", tmp_path / "features", side=32, foreground="tissue", threads=0)
    )
    options = replace(OPTIONS, epochs=1, features=str(tmp_path / "features"))
    assert list(fit_features(examples, tmp_path / "model", options))
    model = load_model(tmp_path / "model")
    assert model.config.input.foreground == "tissue"
    found = classify(examples[0].source, model, budget=1000, stop=None, **CPU)
    kept = read_features(extracted[0].file).regions
    assert {(r.y, r.x, r.height, r.width) for r in found.regions} == set(map(tuple, kept.tolist()))
    assert len(kept) < 20


def test_images_of_a_case_are_one_bag(cohort, tmp_path):
    _, examples, options = cohort
    pairs = [replace(e, case=f"{e.split}-{e.label}-{n // 6}") for n, e in enumerate(examples)]
    (record,) = fit_features(pairs, tmp_path / "cases", replace(options, epochs=1))
    assert (record.images, record.glimpses) == (18, 32)  # 36 training images, two to a case, 16 regions each
    (record,) = fit_features(pairs, tmp_path / "each", replace(options, epochs=1, per_source=True))
    assert (record.images, record.glimpses) == (36, 16)


def test_a_head_on_features_knows_what_its_images_look_like(cohort, tmp_path):
    folder, examples, options = cohort
    split = [replace(one, split="train" if n < 24 else "val") for n, one in enumerate(examples)]
    list(fit_features(split, tmp_path / "model", replace(options, epochs=1)))
    model = load_model(tmp_path / "model")
    assert model.reference is not None
    assert model.reference.limit_cases == 24
    assert len(model.reference.trained) == 24
    for example in (split[0], split[40]):
        kept = read_features(FeatureFiles(folder / "features", [example.source]).of(example.source)).vectors
        found = classify(example.source, model, device="cpu")
        assert found.domain_distance == pytest.approx(
            model.reference.distance(kept.mean(0, np.float64)), rel=0.01
        )
        assert found.out_of_domain is False
    Image.fromarray(np.full((128, 128, 3), (40, 90, 160), np.uint8)).save(tmp_path / "blue.png")
    found = classify(tmp_path / "blue.png", model, device="cpu")
    assert found.out_of_domain
    assert found.review_reasons == ("unlike the training images",)


def test_evidence_of_some_regions_counts_as_that_of_all(monkeypatch):
    """The odds of an image whose regions are alike don't depend on how many of them training sees."""
    options = replace(OPTIONS, background="plain", crop_size=32, finest=32, root_size=32, k=(0,))
    net = build_model(model_config(options, CLASSES, InputConfig(size=32)))
    bag = Bag(torch.ones(64, net.encoder.feature_width), 0, torch.ones(1, net.encoder.feature_width))
    with torch.no_grad():
        whole = _predicted(net, [bag])
        monkeypatch.setattr(features, "MOST_REGIONS", 16)
        some = _predicted(net, [bag], np.random.default_rng(0))
    assert torch.allclose(some, whole, atol=1e-5)


def test_no_image_is_read(cohort, tmp_path):
    _, examples, options = cohort
    gone = [replace(example, source=example.source.replace("/cohort", "/gone")) for example in examples]
    for _ in fit_features(gone, tmp_path / "model", replace(options, epochs=2)):
        pass
    model = load_model(tmp_path / "model")
    assert classify(examples[0].source, model, device="cpu").cost.glimpses == 16


def test_several_labels_are_learnt_too(cohort, tmp_path):
    _, examples, options = cohort
    several = [replace(e, label=() if e.label == "plain" else (e.label,)) for e in examples]
    list(fit_features(several, tmp_path / "model", replace(options, epochs=60)))
    model = load_model(tmp_path / "model")
    assert model.config.multi_label
    assert model.training["val_accuracy"] >= 0.9


def test_a_head_on_features_is_a_teacher_whose_encoder_stays(cohort, tmp_path):
    _, examples, options = cohort
    options = replace(RECIPES["distil"], features=options.features, background="plain", epochs=1, **CPU)
    few = [*examples[:9], *examples[36:39]]
    steps = [record.step for record in distil(few, tmp_path / "model", options)]
    assert steps == [*["teacher 1"] * HEAD_EPOCHS, "coarse", "search"]
    model, teacher = (load_model(tmp_path / name) for name in ("model", "model/steps/teacher-1"))
    assert replace(model.config.input, channels=None) == teacher.config.input
    for name, value in teacher.net.encoder.state_dict().items():
        assert torch.equal(model.net.encoder.state_dict()[name], value)
    facts = model.training["distilled"]
    assert facts["teacher"]["accuracy"] == teacher.training["val_accuracy"]
    assert list(distil(few, tmp_path / "model", options, resume=True)) == []
    with pytest.raises(ConfigError, match="epochs is 1 there and 2 here"):
        next(distil(few, tmp_path / "model", replace(options, epochs=2), resume=True))


@pytest.mark.slow
def test_a_head_on_features_teaches_where_to_look(cohort, tmp_path):
    _, examples, options = cohort
    how = {"features": options.features, "background": "plain", "epochs": 12, "lr": 1e-2, "batch_size": 8}
    for _ in distil(examples, tmp_path / "model", replace(RECIPES["distil"], **how, **CPU)):
        pass
    facts = load_model(tmp_path / "model").training["distilled"]
    assert facts["teacher"]["accuracy"] >= 0.9
    assert facts["student"]["accuracy"] >= 0.9
    right = []
    for row in read_manifest(tmp_path / "model" / "steps" / "regions.csv"):
        odd = np.abs(np.asarray(Image.open(row.source))[..., 0].astype(int) - 100) > 50
        sure = zip(row.boxes or (), row.box_confidence or (), strict=True)
        right += [odd[y : y + h, x : x + w].all() for (y, x, h, w), p in sure if p > 0.5]
    assert len(right) >= 20
    assert np.mean(right) > 0.9


def test_training_from_a_manifest_with_features_is_training(cohort, tmp_path):
    _, examples, options = cohort
    lines = [f"{example.source},{example.label},{example.split}" for example in examples]
    (tmp_path / "cohort.csv").write_text("\n".join(["path,label,split", *lines]))
    model = train(tmp_path / "cohort.csv", tmp_path / "model", options, epochs=3)
    assert model.classes == tuple(sorted(CLASSES))
    with pytest.raises(ConfigError, match="nothing to resume"):
        train(tmp_path / "cohort.csv", tmp_path / "model", options, resume=True)
    with pytest.raises(ConfigError, match="not empty"):
        train(tmp_path / "cohort.csv", tmp_path / "model", options)


def test_the_encoder_must_be_the_one_that_computed_the_features(cohort, tmp_path):
    _, examples, options = cohort
    write_encoder(tmp_path / "encoder", "test_resnet", size=32)
    few = examples[:6]
    list(extract(few, f"local-dir:{tmp_path / 'encoder'}", tmp_path / "features", threads=0))
    options = replace(options, features=str(tmp_path / "features"), epochs=1)
    assert len(list(fit_features(few, tmp_path / "model", options))) == 1
    words = f"test_resnet, started from local-dir:{tmp_path / 'encoder'} (cc-by-nc-4.0), frozen, 96 features"
    assert load_model(tmp_path / "model").encoder == words
    weights = tmp_path / "encoder" / "model.safetensors"
    save_file({name: value + 1 for name, value in load_file(weights).items()}, weights)
    with pytest.raises(CheckpointError, match="not the encoder that computed the features"):
        list(fit_features(few, tmp_path / "next", options))


def test_features_of_two_scales_or_missing_ones_are_refused(cohort, tmp_path):
    _, examples, options = cohort
    some = [example for example in examples if example.split == "train"]
    list(extract(some, "means", tmp_path / "features", threads=0, side=32))
    mixed = replace(options, features=str(tmp_path / "features"))
    with pytest.raises(NotFoundError, match="no features of it"):
        list(fit_features(examples, tmp_path / "model", mixed))
    said = []
    (record,) = fit_features(
        examples, tmp_path / "skipped", replace(mixed, on_error="skip", epochs=1), on_message=said.append
    )
    assert record.skipped == 12
    assert len([line for line in said if line.startswith("Skipped: ")]) == 12
    list(extract(examples, "means", tmp_path / "features", threads=0, side=64, overwrite=True))
    list(extract(some, "means", tmp_path / "features", threads=0, side=32, overwrite=True))
    with pytest.raises(ConfigError, match="extract all alike"):
        list(fit_features(examples, tmp_path / "model", mixed))


@pytest.mark.parametrize(
    ("form", "recipe"), [("zarr", None), ("h5", None), pytest.param("h5", "distil", marks=pytest.mark.slow)]
)
def test_both_formats_of_a_pretrained_encoder_train_alike(cohort, tmp_path, form, recipe):
    if form == "h5":
        pytest.importorskip("h5py")
    _, examples, _ = cohort
    few = [*examples[:6], *examples[36:39]]
    write_encoder(tmp_path / "encoder", "test_resnet", size=32)
    name, folder = f"local-dir:{tmp_path / 'encoder'}", tmp_path / "features"
    list(extract(few, name, folder, format=form, threads=0))
    options = RECIPES["distil"] if recipe else TrainOptions()
    model = train(few, tmp_path / "model", replace(options, features=str(folder), epochs=1, **CPU))
    assert (model.config.input.bands, model.config.input.size) == ((0, 1, 2), 32)
    assert model.config.input.low == pytest.approx([255 * (m - s) for m, s in zip(MEAN, STD, strict=True)])


def test_features_of_another_image_are_not_taken(cohort, tmp_path):
    _, examples, options = cohort
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / Path(examples[0].source).name
    Image.fromarray(np.full((128, 128, 3), 9, np.uint8)).save(other)
    with pytest.raises(NotFoundError, match=r"other/0\.png: no features of it .*another image"):
        list(fit_features([*examples, replace(examples[0], source=str(other))], tmp_path / "model", options))
    pytest.importorskip("h5py")
    both = [Example(f"{n // 2}/{n % 2}.svs", CLASSES[n % 2]) for n in range(4)]
    folder = other_tools(tmp_path / "h5", {one.source: {"patch_size_level0": 64} for one in both})
    how = replace(options, features=str(folder), encoder="means", on_error="skip")
    with pytest.raises(ConfigError, match=r"two images, 0/0\.svs and 1/0\.svs"):
        list(fit_features(both, tmp_path / "model", how))


def other_tools(folder, slides):
    """HDF5 as other tools write it, of 4 patches of a slide, with attributes of the coordinates."""
    import h5py

    folder.mkdir()
    for number, (name, attributes) in enumerate(slides.items()):
        with h5py.File(folder / f"{Path(name).stem}.h5", "w") as file:
            file["features"] = np.random.default_rng(number).normal(size=(4, 6)).astype(np.float32)
            file["coords"] = np.array([[0, 0], [0, 256], [256, 0], [256, 256]])
            file["coords"].attrs.update(attributes)
    return folder


def trident(magnification, side=256, target=20):
    """TRIDENT's attributes of patches of 256 px at 20x."""
    return {
        "patch_size": side,
        "patch_size_level0": side * magnification // target,
        "level0_magnification": magnification,
        "target_magnification": target,
    }


def test_slides_of_two_magnifications_make_a_model_of_one_scale(cohort, tmp_path):
    pytest.importorskip("h5py")
    table = [Example(f"{n}.svs", CLASSES[n % 2]) for n in range(4)]
    slides = {one.source: trident((20, 40)[n // 2]) for n, one in enumerate(table)}
    options = replace(OPTIONS, features=str(other_tools(tmp_path / "f", slides)), encoder="means", epochs=1)
    list(fit_features(table, tmp_path / "model", options))
    model = load_model(tmp_path / "model")
    rule = model.config.input
    assert (rule.mpp, model.config.finest, model.config.root_size) == (128 / rule.size, rule.size, rule.size)
    Image.fromarray(np.full((1024, 1024, 3), 99, np.uint8)).save(tmp_path / "slide.png")
    for mpp, side in ((0.5, 256), (0.25, 512)):
        found = classify(tmp_path / "slide.png", model, mpp=mpp, stop=None, **CPU)
        assert {region.height for region in found.regions} == {side}


def test_patches_of_several_scales_are_refused(cohort, tmp_path):
    pytest.importorskip("h5py")
    table = [Example(f"{n}.svs", CLASSES[n % 2]) for n in range(4)]
    clam = {"patch_size": 256, "patch_level": 1}
    for number, (kinds, words) in enumerate(
        [
            (
                (trident(20), trident(20, side=512)),
                r"2\.h5.* 512 level-0 px \(256 µm\), those of .*0\.h5 .* 256 level",
            ),
            (
                ({**clam, "downsample": 4}, {**clam, "downsample": 2}),
                r"2\.h5.* 512 level-0 px, of unknown scale, those",
            ),
            ((trident(20), {**clam, "downsample": 2}), r"2\.h5.* 512 level-0 px, of unknown scale, those"),
        ]
    ):
        slides = {one.source: kinds[n // 2] for n, one in enumerate(table)}
        folder = other_tools(tmp_path / f"f{number}", slides)
        options = replace(OPTIONS, features=str(folder), encoder="means", epochs=1)
        with pytest.raises(ConfigError, match=words):
            list(fit_features(table, tmp_path / "model", options))
    given = [replace(one, mpp=(0.25, 0.5)[n // 2]) for n, one in enumerate(table)]
    options = replace(options, features=str(tmp_path / "f1"))
    list(fit_features(given, tmp_path / "model", options))
    rule = load_model(tmp_path / "model").config.input
    assert rule.mpp == 256 / rule.size


def test_features_that_say_no_side_take_the_one_that_is_given(cohort, tmp_path):
    pytest.importorskip("h5py")
    table = [Example(f"{n}.svs", CLASSES[n % 2]) for n in range(4)]
    folder = other_tools(tmp_path / "f", {one.source: {} for one in table})
    options = replace(OPTIONS, features=str(folder), encoder="means", epochs=1)
    with pytest.raises(ReadError, match="finest=256"):
        list(fit_features(table, tmp_path / "model", options))
    list(fit_features(table, tmp_path / "model", replace(options, finest=256, foreground="tissue")))
    config = load_model(tmp_path / "model").config
    assert (config.finest, config.root_size, config.input.foreground) == (256, 256, "tissue")
    with pytest.raises(ConfigError, match=r"don't name the encoder .* such as encoder="):
        list(fit_features(table, tmp_path / "next", replace(options, finest=256, encoder="small")))


def test_options_that_contradict_the_features_are_refused_and_the_card_has_those_used(cohort, tmp_path):
    _, examples, options = cohort
    few, distilled = examples[:3], replace(RECIPES["distil"], features=options.features)
    wrong = {
        "crop_size": 48,
        "finest": 64,
        "root_size": 96,
        "mpp": 0.5,
        "value_range": (0.0, 9.0),
        "nodata": 0.0,
    }
    wrong |= {"bands": (3, 2, 1), "foreground": "tissue", "init_from": "model", "coarse_encoder": True}
    for name, value in wrong.items():
        with pytest.raises(ConfigError, match=rf"not {name}="):
            list(fit_features(few, tmp_path / "model", replace(options, **{name: value})))
    words = r"finest=64 \(theirs is 32\), root_size=96 \(theirs is 32\); leave"
    with pytest.raises(ConfigError, match=words):
        list(fit_features(few, tmp_path / "model", replace(options, finest=64, root_size=96)))
    with pytest.raises(ConfigError, match="not finest=64"):
        list(distil(few, tmp_path / "model", replace(distilled, finest=64)))
    write_encoder(tmp_path / "encoder", "test_resnet", size=64)
    other = f"local-dir:{tmp_path / 'encoder'}"
    with pytest.raises(ConfigError, match=rf"encoder={other} didn't compute .* that was means"):
        list(fit_features(few, tmp_path / "model", replace(options, encoder=other)))
    same = {"encoder": "means", "finest": 32, "root_size": 32, "bands": (1, 2, 3), "foreground": "none"}
    said = []
    idle = replace(options, **same, epochs=1, k=(2,), jitter=0.1)
    list(fit_features(few, tmp_path / "model", idle, on_message=said.append))
    assert "No image is read, so these change nothing: k=2, jitter=0.1" in said
    model = load_model(tmp_path / "model")
    used, config = model.training["options"], model.config
    assert (used["encoder"], used["crop_size"], used["mpp"]) == ("means", config.input.size, "off")
    assert (used["finest"], used["root_size"], used["jitter"]) == (config.finest, config.root_size, 0)


def test_an_encoder_that_was_moved_is_named_anew(cohort, tmp_path):
    _, examples, options = cohort
    write_encoder(tmp_path / "encoder", "test_resnet", size=32)
    few = examples[:6]
    list(extract(few, f"local-dir:{tmp_path / 'encoder'}", tmp_path / "features", threads=0))
    (tmp_path / "encoder").rename(tmp_path / "moved")
    options = replace(options, features=str(tmp_path / "features"), epochs=1)
    with pytest.raises(NotFoundError, match="encoder"):
        list(fit_features(few, tmp_path / "model", options))
    options = replace(options, encoder=f"local-dir:{tmp_path / 'moved'}")
    assert len(list(fit_features(few, tmp_path / "model", options))) == 1


def test_a_head_on_features_of_16_bits_takes_images_of_16_bits(cohort, tmp_path):
    examples = []
    for number in range(3):
        path = tmp_path / f"{number}.tif"
        tifffile.imwrite(path, np.full((64, 64, 3), 9000 * number, np.uint16), photometric="rgb")
        examples.append(Example(str(path), CLASSES[number], "train"))
    how = {"side": 32, "value_range": (0, 20000), "threads": 0}
    assert {one.status for one in extract(examples, "means", tmp_path / "features", **how)} == {"ok"}
    list(
        fit_features(
            examples, tmp_path / "model", replace(OPTIONS, features=str(tmp_path / "features"), epochs=1)
        )
    )
    model = load_model(tmp_path / "model")
    assert (model.config.input.dtype, model.config.input.high) == ("uint16", (20000.0,) * 3)
    assert classify(examples[2].source, model, **CPU).cost.glimpses == 4
