"""Training on cases: the images of a case are one sample, on one canvas."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile

from hiresattn.config import InputConfig
from hiresattn.datasets.example import Example
from hiresattn.datasets.manifest import read_manifest
from hiresattn.errors import ConfigError
from hiresattn.geometry import Grid
from hiresattn.training.augment import ORIENTATIONS, Augmentation
from hiresattn.training.data import Loader
from hiresattn.training.fit import fit
from hiresattn.training.options import TrainOptions

CLASSES = ("dark", "light")
QUICK = TrainOptions(
    epochs=1, device="cpu", threads=1, crop_size=16, batch_size=2, k=(2,), scorer="location", augment="turns"
)


def _image(seed=0, height=96, width=64):
    return np.random.default_rng(seed).integers(0, 255, (height, width, 1)).astype(np.uint8)


def _examples():
    """Two cases of two images, and one image for itself."""
    box = ((8, 8, 16, 16),)
    return [
        Example(_image(0), "dark", case="a", boxes=()),
        Example(_image(1, 64, 80), "light", case="b", boxes=box),
        Example(_image(2, 48, 48), "dark", case="a", boxes=()),
        Example(_image(3), "light", case="b", boxes=()),
        Example(_image(4), "light", boxes=box),
    ]


def _loader(**more):
    rule = InputConfig(size=16, bands=(0,), low=(0.0,), high=(255.0,), dtype="uint8")
    return Loader(rule, Grid(), threads=1, **more)


def test_images_of_a_case_are_one_sample():
    loader = _loader()
    samples = loader.measure(_examples(), CLASSES)
    assert [len(sample.images) for sample in samples] == [2, 2, 1]
    assert [sample.label for sample in samples] == [0, 1, 1]
    assert [sample.root_count for sample in samples] == [3, 4, 2]
    assert len(loader.measure(_examples(), CLASSES, per_source=True)) == 5


@pytest.mark.parametrize("turn", range(8))
def test_crops_and_boxes_of_a_case_are_those_of_its_images(turn):
    loader = _loader()
    samples = loader.measure(_examples(), CLASSES)
    alone = loader.measure(_examples(), CLASSES, per_source=True)
    way = Augmentation(ORIENTATIONS["turns"][turn])
    joined = loader.batch(samples[1:], [way] * 2)
    regions = np.concatenate(joined.roots)
    case = np.repeat([0, 1], [len(roots) for roots in joined.roots])
    crops = joined.fetch(case, regions)
    single = loader.batch([alone[1], alone[3], alone[4]], [way] * 3)
    image = np.repeat([0, 1, 2], [len(roots) for roots in single.roots])
    expected = single.fetch(image, np.concatenate(single.roots))
    assert np.array_equal(crops.pixels, expected.pixels)
    assert [None if one is None else len(one) for one in joined.boxes] == [1, 1]
    assert joined.boxes[0].tolist() == single.boxes[0].tolist()  # of the first image, which stays where it is
    assert joined.box_confidence == [None, None]
    assert joined.labels.tolist() == [1, 1]
    assert [len(frames) for frames in joined.frames] == [2, 1]
    names = [joined.name_at(0, region) for region in joined.roots[0]]
    assert len(set(names)) == 2


def test_boxes_known_of_some_images_of_a_case_only_are_not_all_there_are():
    examples = [replace(e, boxes=None) if n == 3 else e for n, e in enumerate(_examples())]
    loader = _loader()
    batch = loader.batch(loader.measure(examples, CLASSES))
    assert batch.box_confidence[1].tolist() == [1.0]
    assert batch.box_confidence[0] is batch.box_confidence[2] is None


def test_an_image_that_can_not_be_read_is_left_out_of_its_case(tmp_path):
    skipped = []
    loader = _loader(on_skip=skipped.append)
    paths = [str(tmp_path / f"{n}.tif") for n in range(3)]
    for number, path in enumerate(paths):
        tifffile.imwrite(path, _image(number)[..., 0], photometric="minisblack")
    cases = "aab"
    examples = [Example(path, "dark", case=name) for path, name in zip(paths, cases, strict=True)]
    samples = loader.measure(examples, CLASSES)
    loader.close()
    for path in (paths[0], paths[2]):
        (tmp_path / path).unlink()
    seen, dropped = loader.process(
        samples,
        lambda batch: (
            batch.fetch(np.arange(len(batch.roots)), np.stack([r[0] for r in batch.roots])),
            batch,
        ),
    )
    assert (dropped, len(seen[1].samples), len(skipped)) == (1, 1, 2)
    assert seen[1].samples[0].example.source == paths[1]


@pytest.mark.parametrize("scorer", ["location", "oaa", "evidence"])
def test_a_model_is_trained_on_cases(tmp_path, scorer):
    extra = {"background": "dark"} if scorer == "evidence" else {}
    options = replace(QUICK, scorer=scorer, epochs=2, **extra)
    held_out = [replace(e, split="val", case=e.case and f"v{e.case}") for e in _examples()]
    first, last = fit([*_examples(), *held_out], tmp_path / "model", options)
    assert first.images in (3, 4)  # cases, in whole batches
    assert last.val_accuracy is not None
    assert last.val_accuracy * 3 == pytest.approx(round(last.val_accuracy * 3))


def test_the_images_of_a_case_agree_and_are_not_mixed(tmp_path):
    unlike = [Example(_image(), "dark", case="a"), Example(_image(), "light", case="a"), *_examples()[1:2]]
    with pytest.raises(ConfigError, match="case 'a' has label 'dark' and label 'light'"):
        list(fit(unlike, tmp_path / "model", QUICK))
    with pytest.raises(ConfigError, match="case 'a' has several images, and cutmix"):
        list(fit(_examples(), tmp_path / "model", replace(QUICK, cutmix=0.5)))


def test_one_label_is_enough_for_a_case(tmp_path):
    manifest = tmp_path / "slides.csv"
    manifest.write_text("path,label,case_id\na.tif,x,1\nb.tif,,1\nc.tif,y,2\n")
    assert [example.label for example in read_manifest(manifest, labels=True)] == ["x", "x", "y"]
