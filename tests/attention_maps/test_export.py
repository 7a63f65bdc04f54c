"""Accumulated attention of a training: merged as the image is stored, resumed bit by bit, exported onto the image."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from hiresattn.attention_maps.export import export_attention
from hiresattn.attention_maps.memory import AttentionMemory, load_attention
from hiresattn.checkpoint import load_model
from hiresattn.config import InputConfig
from hiresattn.datasets.example import Example
from hiresattn.errors import CheckpointError, ConfigError
from hiresattn.geometry import Grid
from hiresattn.model.build import build_model
from hiresattn.training.augment import ORIENTATIONS, Augmentation
from hiresattn.training.cutmix import CutMix
from hiresattn.training.data import Loader
from hiresattn.training.fit import fit
from hiresattn.training.options import TrainOptions, model_config
from hiresattn.training.targets import scorer_targets

QUICK = TrainOptions(
    epochs=3, batch_size=4, threads=0, device="cpu", crop_size=16, k=(2,), grid=3, fraction=0.5, scorer="oaa"
)
RULE = InputConfig(size=16, bands=(0, 1), low=(0.0,) * 2, high=(255.0,) * 2)


def squares(folder, count=8, side=64):
    """Images on disk: those of class b have a light square."""
    rng = np.random.default_rng(0)
    out = []
    for number in range(count):
        image = rng.integers(20, 60, (side, side, 3)).astype(np.uint8)
        y, x = rng.integers(0, side - 20, 2)
        if number % 2:
            image[y : y + 20, x : x + 20] += 180
        path = folder / f"scene-{number}.png"
        Image.fromarray(image).save(path)
        out.append(Example(path, "ab"[number % 2]))
    return out


def content(folder):
    (file,) = folder.glob("attention-*.npz")
    return file.name, {key: values.tolist() for key, values in load_attention(file)}


@pytest.mark.parametrize("turn", ORIENTATIONS["turns"])
def test_maps_are_kept_as_the_image_is_stored_and_come_back_as_it_is_seen(turn):
    loader = Loader(RULE, Grid(3, 0.5), threads=0)
    samples = loader.measure([Example(np.zeros((32, 64, 2), np.uint8), label) for label in "ab"], ("a", "b"))
    net = build_model(model_config(QUICK, ("a", "b"), RULE))
    memory = AttentionMemory()
    batch = loader.batch(samples, [Augmentation(turn), Augmentation(turn)])
    image = np.array([0, 1])
    regions = np.stack([roots[1] for roots in batch.roots])
    (stored,) = np.unique(batch.stored(image, regions), axis=0).tolist()
    plane = np.arange(16).reshape(4, 4) / 15  # says where each of its px is, in the stored image
    target_of = scorer_targets(net, batch, (1.0,), progress=0.5, memory=memory)
    target = target_of(image, np.zeros(2, np.int64), regions)
    maps = torch.from_numpy(np.stack([[turn.apply(plane)] * 2] * 2).copy()).float()
    accepted = torch.tensor([[True, False], [True, False]])
    found = target.merge_attention(maps, accepted)
    assert len(memory) == 1  # the second image's label is b, which was not accepted
    ((key, values),) = memory
    assert (key.image, key.label, list(key.region)) == ("array 0", 0, stored)
    assert np.array_equal(values, np.rint(plane * 255))
    assert np.allclose(found[0, 0], turn.apply(plane), atol=1 / 510 + 1e-6)
    assert (found[0, 1] == 0).all()
    assert (found[1] == 0).all()
    plain = loader.batch(samples)
    again = scorer_targets(net, plain, (1.0,), progress=0.5, memory=memory)
    seen = again(np.array([0]), np.zeros(1, np.int64), np.array([stored]))
    none = torch.zeros((1, 2), dtype=torch.bool)
    assert np.allclose(seen.merge_attention(maps[:1] * 0, none)[0, 0], plane, atol=1 / 510 + 1e-6)


def test_what_shows_another_image_is_not_remembered():
    loader = Loader(RULE, Grid(3, 0.5), threads=0)
    samples = loader.measure([Example(np.zeros((64, 64, 2), np.uint8), label) for label in "ab"], ("a", "b"))
    net = build_model(model_config(QUICK, ("a", "b"), RULE))
    memory = AttentionMemory()
    batch = loader.batch(
        samples, [Augmentation(cutmix=CutMix(samples[1], (32, 0, 32, 64), (32, 0))), Augmentation()]
    )
    target_of = scorer_targets(net, batch, (1.0,), progress=0.5, memory=memory)
    regions = np.array([[0, 0, 32, 32], [16, 0, 32, 32]])
    target = target_of(np.zeros(2, np.int64), np.ones(2, np.int64), regions)
    target.merge_attention(torch.ones(2, 2, 4, 4), torch.ones(2, 2, dtype=torch.bool))
    assert [key.region for key, _ in memory] == [(0, 0, 32, 32)]


def test_a_resumed_run_accumulates_what_a_whole_one_does(tmp_path):
    examples = squares(tmp_path)
    options = replace(QUICK, augment="turns", cutmix=0.2)
    list(fit(examples, tmp_path / "whole", options))
    run = fit(examples, tmp_path / "parts", options)
    next(run)
    assert not list((tmp_path / "parts").glob("attention-*"))  # it begins after the first epoch
    next(run)
    run.close()
    assert content(tmp_path / "parts")[0] == "attention-0002.npz"
    list(fit(examples, tmp_path / "parts", options, resume=True))
    assert content(tmp_path / "parts") == content(tmp_path / "whole")
    assert content(tmp_path / "whole")[0] == "attention-0003.npz"
    assert load_model(tmp_path / "parts").sha256 == load_model(tmp_path / "whole").sha256
    (tmp_path / "whole" / "attention-0003.npz").unlink()
    with pytest.raises(CheckpointError, match=r"attention-0003\.npz"):
        list(fit(examples, tmp_path / "whole", replace(options), resume=True))


def test_attention_is_written_for_every_training_image(tmp_path):
    examples = [*squares(tmp_path), *squares(tmp_path, 2)[:1]]  # one of them twice
    held_out = [replace(examples[0], split="val"), replace(examples[1], split="val")]
    list(fit([*examples, *held_out], tmp_path / "model", QUICK))
    _, maps = content(tmp_path / "model")
    done = list(export_attention(tmp_path / "model", [*examples, *held_out], tmp_path / "maps"))
    assert [one.name for one in done] == [str(example.source) for example in examples]
    assert done[-1].done == 1
    remembered = {key.image for key in maps}
    assert {one.name for one in done if one.remembered} == remembered
    for one, example in zip(done, examples, strict=True):
        stem = example.source.stem
        assert sorted(file.name.removeprefix(stem).removeprefix("-2") for file in one.files) == [
            f".{example.label}.png",
            ".ome.zarr",
        ]
        assert all(file.exists() for file in one.files)
    assert len({file for one in done for file in one.files}) == 2 * len(examples)
    plain = list(export_attention(tmp_path / "model", examples[:2], tmp_path / "cam", map_name="cam"))
    assert not any(one.remembered for one in plain)
    assert plain[1].files[0].read_bytes() != done[1].files[0].read_bytes()
    with pytest.raises(ConfigError, match="did you mean 'integral'"):
        list(export_attention(tmp_path / "model", examples, tmp_path / "cam", map_name="integrals"))


def test_images_of_several_labels_or_none_and_names_that_look_numbered(tmp_path):
    examples = squares(tmp_path, 6)
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
    names = ["x/a.png", "y/a.png", "y/a-2.png"]
    for example, name in zip(examples, names, strict=False):
        example.source.rename(tmp_path / name)
    labels = [("a", "b"), ("a",), (), ("b",), ("a", "b"), ("b",)]
    named = [
        replace(example, source=tmp_path / name if number < 3 else example.source, label=label)
        for number, (example, name, label) in enumerate(zip(examples, [*names] * 2, labels, strict=True))
    ]
    list(fit(named, tmp_path / "model", replace(QUICK, epochs=2, cutmix=0.3)))
    done = list(export_attention(tmp_path / "model", named, tmp_path / "maps"))
    assert [one.name for one in done] == [str(e.source) for e in named if e.label]
    written = [{file.name for file in one.files} for one in done]
    assert written[:2] == [{"a.a.png", "a.b.png", "a.ome.zarr"}, {"a-2.a.png", "a-2.ome.zarr"}]
    again = list(
        export_attention(tmp_path / "model", [named[0], named[1], replace(named[2], label=("b",))], tmp_path)
    )
    assert {file.name for file in again[2].files} == {"a-2-2.b.png", "a-2-2.ome.zarr"}


@pytest.mark.parametrize("scorer", ["saol", "location"])
def test_scorers_without_a_memory_show_their_first_look_or_say_that_they_have_none(tmp_path, scorer):
    examples = squares(tmp_path, 4)
    list(fit(examples, tmp_path / "model", replace(QUICK, scorer=scorer, epochs=1)))
    run = export_attention(tmp_path / "model", examples, tmp_path / "maps")
    if scorer == "location":
        with pytest.raises(ConfigError, match="scorer oaa, saol or evidence"):
            next(run)
    else:
        assert len(list(run)) == 4
        assert len(list((tmp_path / "maps").glob("*.png"))) == 4


def test_an_image_without_a_label_has_maps_of_its_boxes_classes(tmp_path):
    examples = squares(tmp_path, 4)
    kinds = ("b", "a", "b"), ("b",), (), ("a",)
    examples = [
        replace(e, label=None, boxes=((2, 2, 9, 9),) * len(kind), box_labels=kind or None)
        for e, kind in zip(examples, kinds, strict=True)
    ]
    list(fit(examples, tmp_path / "model", replace(QUICK, scorer="evidence", epochs=1)))
    done = list(export_attention(tmp_path / "model", examples, tmp_path / "maps"))
    names = [[file.name.split(".")[1] for file in one.files[:-1]] for one in done]
    assert names == [["a", "b"], ["b"], ["a"]]
