"""The public names: lazy, documented, few parameters, and each of them works on small made inputs."""

import ast
import inspect
import typing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hiresattn

FUNCTIONS = [name for name in hiresattn.__all__ if inspect.isfunction(getattr(hiresattn, name))]


def test_all_dir_the_table_and_what_type_checkers_see_agree():
    tree = ast.parse(Path(hiresattn.__file__).read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If)).body
    seen = {alias.asname: node.module for node in guarded for alias in node.names}
    assert seen == hiresattn._HOME
    assert sorted(hiresattn.__all__) == sorted([*seen, "errors", "HiresattnError"])
    assert dir(hiresattn) == sorted([*hiresattn.__all__, "__version__"])
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = hiresattn.nonsense


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_is_typed_has_an_example_and_at_most_8_parameters(name):
    function = getattr(hiresattn, name)
    parameters = inspect.signature(function).parameters
    assert len(parameters) <= 8
    assert set(typing.get_type_hints(function)) == {*parameters, "return"}
    text = inspect.getdoc(function)
    assert f"{name}(" in text
    for section in ("Args:", "Raises:"):
        assert section in text


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Eight pictures, dark and light, and their manifest."""
    folder = tmp_path_factory.mktemp("api")
    rng = np.random.default_rng(0)
    rows = ["path,label,split"]
    for number in range(8):
        bright = 150 * (number % 2)
        pixels = rng.integers(bright, bright + 60, (48, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{('dark', 'light')[number % 2]},{('train', 'val', 'test')[number // 3]}")
    (folder / "m.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def model(work):
    """A model directory that `train` made."""
    hiresattn.train(
        work / "m.csv", work / "model", epochs=2, crop_size=16, k=(1,), grid=3, fraction=0.5,
        background="dark", value_range=(0, 255), bands=(1, 2, 3), device="cpu", threads=1,
    )  # fmt: skip
    return work / "model"


def test_read_manifest_and_classes_of_a_trained_model(work, model):
    examples = hiresattn.read_manifest(work / "m.csv")
    assert [example.label for example in examples[:2]] == ["dark", "light"]
    loaded = hiresattn.load_model(model)
    assert isinstance(loaded, hiresattn.Model)
    assert loaded.classes == ("dark", "light")


def test_pyramids_and_crops(work):
    with hiresattn.open_pyramid(work / "0.png") as pyramid:
        assert isinstance(pyramid, hiresattn.Pyramid)
        crops = hiresattn.read_crops(pyramid, [(0, 0), (8, 16)], 32)
    assert crops.pixels.shape == (2, 32, 32, 3)
    path = work / "0.png"
    for source in (path, str(path), np.asarray(Image.open(path))):
        assert np.array_equal(hiresattn.read_crops(source, [(0, 0), (8, 16)], 32).pixels, crops.pixels)


def test_classify_one_and_all_and_draw(work, model):
    record = hiresattn.classify(work / "1.png", model, budget=2, device="cpu", mpp=0.5, bands=(1, 2, 3))
    assert isinstance(record, hiresattn.Record)
    assert (record.status, record.mpp) == ("ok", 0.5)
    scaled = hiresattn.Example(work / "1.png", mpp=2.0)
    assert [hiresattn.classify(scaled, model, mpp=mpp, device="cpu").mpp for mpp in (None, 0.5)] == [2.0, 0.5]
    paths = [work / "0.png", work / "1.png"]
    budget = hiresattn.Budget(glimpses=2)
    records = list(hiresattn.classify_all(paths, model, budget=budget, device="cpu", batch_images=2))
    assert [Path(one.source).name for one in records] == ["0.png", "1.png"]
    for source in (work / "1.png", str(work / "1.png"), np.asarray(Image.open(work / "1.png"))):
        hiresattn.draw_overlay(source, record, work / "new" / "drawn.png")
    with Image.open(work / "new" / "drawn.png") as drawn:
        assert drawn.format == "PNG"
    with pytest.raises(hiresattn.errors.WriteError):
        hiresattn.draw_overlay(work / "1.png", record, work / "new")


def test_classify_all_takes_manifests_folders_and_globs(work, model, tmp_path):
    def found(sources, **more):
        records = hiresattn.classify_all(sources, model, budget=1, device="cpu", **more)
        return [(Path(one.source).name, one.label, one.status) for one in records]

    assert found(work / "m.csv")[1] == ("1.png", "light", "ok")
    assert found(str(work / "[0-1].png")) == [("0.png", None, "ok"), ("1.png", None, "ok")]
    assert found(tmp_path, on_error="record") == [(tmp_path.name, None, "error")]
    with pytest.raises(hiresattn.errors.OpenError, match="no image in it"):
        found(tmp_path)
    with pytest.raises(hiresattn.errors.ConfigError, match="several sources"):
        hiresattn.classify_all(None, model)
    records = hiresattn.write_records(tmp_path / "out.jsonl", work / "m.csv", model, budget=1, device="cpu")
    assert len(list(records)) == 8
    assert hiresattn.EvaluateOptions(mpp=0.5, strict=True, nms=0.3).classify().nms == 0.3


def test_evaluate_with_progress_and_files(work, model):
    seen = []
    found = hiresattn.evaluate(
        model, work / "m.csv", work / "out", budgets=(2,), bands=(1, 2, 3), bootstrap=10, device="cpu",
        progress=lambda share, step: seen.append((share, step)),
    )  # fmt: skip
    assert (found.split, found.images, len(found.curve)) == ("test", 2, 4)
    assert seen[-1] == (1.0, "exhaustive")
    names = {path.name for path in (work / "out").iterdir()}
    assert names >= {"metrics.json", "predictions.jsonl", "confusion.png", "budget.png"}
    same = hiresattn.evaluate(
        hiresattn.load_model(model), hiresattn.read_manifest(work / "m.csv"), device="cpu"
    )
    assert same.metrics["accuracy"].value == found.metrics["accuracy"].value


def test_locate(work, model):
    found = hiresattn.locate(work / "m.csv", model, work / "boxes.csv", threads=1)
    assert (found.searched, len(found.examples)) == (3, 8)
    assert hiresattn.read_manifest(work / "boxes.csv")[0].boxes == ()


def test_convert(work):
    made = hiresattn.convert(work / "0.png", work / "0.zarr", compression="none")
    assert (made.width, made.format) == (48, "zarr")


@pytest.mark.parametrize("name", ["train", "evaluate", "classify", "classify_all", "convert"])
def test_an_option_that_is_not_there_is_an_error_with_the_nearest_name(work, name):
    nearest = {"train": "epochs", "evaluate": "budget", "convert": "chunk"}.get(name, "budget")
    first = [work / "0.png"] if name == "classify_all" else work / "0.png"
    with pytest.raises(hiresattn.HiresattnError, match=f"unknown option .*; did you mean '{nearest}'?"):
        getattr(hiresattn, name)(first, work / "new", **{f"{nearest}x": 3})


def test_register_encoder_and_train_with_it(work):
    import torch

    class Encoder(torch.nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.convolution = torch.nn.Conv2d(channels, 8, 4, 4)

        def forward(self, crops):
            return self.convolution(crops).relu()

    hiresattn.register_encoder("for-test-api", Encoder)
    words = {"epochs": 1, "crop_size": 16, "k": (1,), "value_range": (0, 255), "device": "cpu", "threads": 1}
    hiresattn.train(work / "m.csv", work / "own", encoder="for-test-api", **words)
    assert hiresattn.load_model(work / "own").config.encoder == "for-test-api"


def test_train_keeps_what_a_folder_holds_unless_told_to_train_anew(work, tmp_path):
    (tmp_path / "card.json").write_text("mine")
    (tmp_path / "attention-mine.npz").write_text("mine")
    words = {"epochs": 1, "crop_size": 16, "k": (1,), "value_range": (0, 255), "device": "cpu", "threads": 1}
    with pytest.raises(
        hiresattn.HiresattnError, match=r"not empty; overwrite trains anew .* no run to resume"
    ):
        hiresattn.train(work / "m.csv", tmp_path, **words)
    assert (tmp_path / "card.json").read_text() == "mine"
    hiresattn.train(work / "m.csv", tmp_path, overwrite=True, **words)
    assert hiresattn.load_model(tmp_path).classes == ("dark", "light")
    assert (tmp_path / "attention-mine.npz").read_text() == "mine"
    with pytest.raises(hiresattn.HiresattnError, match="resume goes on with the run in it"):
        hiresattn.train(work / "m.csv", tmp_path, **words)
    with pytest.raises(hiresattn.HiresattnError, match="nothing to resume"):
        hiresattn.train(work / "m.csv", tmp_path / "none", resume=True, **words)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "ClassifyOptions",
            {"bands": 5},
            "bands = 5 is of a wrong type; it takes a list of whole numbers or names",
        ),
        ("ClassifyOptions", {"value_range": 5}, "a list of 2 numbers"),
        ("ClassifyOptions", {"seed": "a"}, "a whole number"),
        ("ClassifyOptions", {"seed": 1.5}, "a whole number"),
        ("ClassifyOptions", {"nms": "x"}, "a number"),
        ("ClassifyOptions", {"threads": "x"}, "a whole number"),
        ("ClassifyOptions", {"nms": 0.5, "policy": "lowres"}, "lowres chooses none"),
        ("TrainOptions", {"epochs": "3"}, "a whole number"),
        ("TrainOptions", {"epochs": 1.5}, "a whole number"),
        ("TrainOptions", {"epochs": True}, "a whole number"),
        ("TrainOptions", {"k": 3}, "k = 3 is of a wrong type; it takes a list of whole numbers"),
        ("TrainOptions", {"k": (1.5,)}, "a list of whole numbers"),
        ("TrainOptions", {"value_range": (0, 1, 2)}, "a list of 2 numbers"),
        ("TrainOptions", {"lr": "x"}, "a number"),
        ("TrainOptions", {"amp": "x"}, "true or false"),
        ("TrainOptions", {"squash": "x"}, "a whole number"),
        ("TrainOptions", {"scorer": "locaton"}, "did you mean 'location'"),
        ("TrainOptions", {"aggregator": "nosuch"}, "unknown aggregator 'nosuch'"),
        ("TrainOptions", {"root_size": 16, "finest": 64}, "less than the finest region's side"),
        ("TrainOptions", {"clip": 0}, "must be above 0"),
        ("TrainOptions", {"crop_size": 1}, "crop_size must be at least 8"),
        ("EvaluateOptions", {"budgets": 4}, "a list of whole numbers"),
        ("EvaluateOptions", {"bootstrap": 2.5}, "a whole number"),
        ("ConvertOptions", {"levels": "x"}, "a whole number"),
        ("ConvertOptions", {"region": 5}, "a list of 4 whole numbers"),
        ("ConvertOptions", {"mpp": "a"}, "a number"),
        ("ConvertOptions", {"mpp": -1}, "above 0"),
        ("LocateOptions", {"threads": -4}, "0 or more"),
        ("Budget", {"glimpses": 0}, "one glimpse or more"),
        ("Budget", {"glimpses": 2.5}, "a whole number"),
        ("Budget", {"bytes": -3}, "one byte or more"),
        ("Budget", {"seconds": -1}, "more than 0 s"),
    ],
)
def test_an_option_of_a_wrong_type_or_out_of_bounds_is_refused_where_it_is_made(name, value, message):
    with pytest.raises(hiresattn.errors.ConfigError, match=message):
        getattr(hiresattn, name)(**value)


def test_lists_ranges_and_numpy_numbers_are_taken_as_options():
    options = hiresattn.ClassifyOptions(bands=np.array([1, 2]), value_range=[0, 5], seed=np.int64(3))
    assert (options.bands, options.value_range, options.seed) == ((1, 2), (0, 5), 3)
    assert type(options.seed) is int
    assert hiresattn.TrainOptions(k=[4, 2], bands=range(1, 4), lr=1).bands == (1, 2, 3)


def test_train_and_evaluate_say_what_examples_are(work, model, tmp_path):
    examples = hiresattn.read_manifest(work / "m.csv")
    words = {"epochs": 1, "crop_size": 16, "k": (1,), "value_range": (0, 255), "device": "cpu", "threads": 1}
    trained = hiresattn.train((example for example in examples), tmp_path / "model", **words)
    assert trained.classes == ("dark", "light")
    for given, message in (([], "no images"), (["a.png"], "as an Example"), (None, "give a manifest")):
        for call in (lambda x: hiresattn.train(x, tmp_path / "no"), lambda x: hiresattn.evaluate(model, x)):
            with pytest.raises(hiresattn.errors.ConfigError, match=message):
                call(given)


def test_what_is_no_options_image_encoder_or_batch_is_refused_in_words(work, model):
    import torch

    from hiresattn.errors import ConfigError, OpenError

    for given in (64, {"budget": 3}, hiresattn.TrainOptions()):
        with pytest.raises(ConfigError, match="options are of class ClassifyOptions"):
            hiresattn.classify(work / "0.png", model, given)
    with pytest.raises(OpenError, match="a torch tensor"):
        hiresattn.classify(torch.zeros(32, 32, 3, dtype=torch.uint8), model, device="cpu")
    with pytest.raises(ConfigError, match="the module's class"):
        hiresattn.register_encoder("for-test-none", torch.nn.Identity())
    with pytest.raises(ConfigError, match="1 or more"):
        hiresattn.load_model(model).embed(np.zeros((1, 3, 16, 16), np.float32), batch_size=0)


def test_a_name_whose_package_is_not_installed_says_so(monkeypatch):
    def refuse(_):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("hiresattn.import_module", refuse)
    with pytest.raises(
        hiresattn.errors.BackendMissingError,
        match=r"hiresattn\.train needs torch, which isn't installed; pip install torch",
    ):
        hiresattn.train  # noqa: B018 - looking it up is the point
