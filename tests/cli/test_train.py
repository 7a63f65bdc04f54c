"""`train`: a manifest in, a model directory out; nothing is written over unasked."""

import json
from dataclasses import asdict
from types import SimpleNamespace

import pytest
from PIL import Image

from hiresattn.datasets.example import Example
from hiresattn.errors import ConfigError
from hiresattn.training.options import TrainOptions
from hiresattn.training.presets import PRESETS


def epoch(number, val_accuracy, skipped=0):
    return SimpleNamespace(
        epoch=number,
        epochs=2,
        stage=1,
        stages=2,
        images=10,
        loss=0.5,
        accuracy=0.75,
        val_accuracy=val_accuracy,
        hit=None,
        skipped=skipped,
        seconds=1.0,
        cpu_seconds=2.0,
    )


@pytest.fixture
def trained(monkeypatch):
    """Replaces the training; records how ``fit`` was called."""
    calls = SimpleNamespace(
        examples=None, options=None, resume=None, val=0.875, epochs=(1, 2), skipped=0, saved={}, several=False
    )

    def fit(examples, output, options, *, resume=False, overwrite=False, on_message=None, progress=None):
        calls.examples, calls.options = list(examples), options
        calls.resume, calls.overwrite = resume, overwrite
        output.mkdir(exist_ok=True)
        for number in calls.epochs:
            yield epoch(number, calls.val, calls.skipped)
        calls.saved = {"epochs": 1, "accuracy": 0.75, "val_accuracy": calls.val and 0.9375, **calls.saved}

    monkeypatch.setattr("hiresattn.training.run.fit", fit)
    monkeypatch.setitem(PRESETS, "fast", TrainOptions(epochs=3, crop_size=32))
    monkeypatch.setattr(
        "hiresattn.checkpoint.load_model",
        lambda folder: SimpleNamespace(
            training=calls.saved, config=SimpleNamespace(multi_label=calls.several)
        ),
    )
    return calls


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("path,label,split\na.tif,x,train\nb.tif,y,train\nc.tif,y,val\n")
    return path


def test_a_line_per_epoch_and_at_the_end_where_the_model_is_and_how_good_the_saved_one_is(
    run, trained, manifest, tmp_path
):
    result = run("train", manifest, "-o", tmp_path / "model")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.splitlines() == [
        "epoch 1/2, stage 1/2, 10 images, loss 0.500, accuracy 0.750, validation 0.875, 1 s",
        "epoch 2/2, stage 1/2, 10 images, loss 0.500, accuracy 0.750, validation 0.875, 1 s",
        f"Model in {tmp_path / 'model'}; validation accuracy 0.938 (after epoch 1)",
    ]
    assert trained.examples[2] == Example(str(tmp_path / "c.tif"), "y", "val")


@pytest.mark.parametrize(
    ("accuracy", "counts", "several", "told"),
    [
        (0.5312, {"x": 16, "y": 16}, False, "Always answering 'x' would get 0.500 of these 32 cases"),
        (0.9, {"x": 4, "y": 36}, False, "Always answering 'y' would get 0.900"),
        (0.9, {"x": 16, "y": 16}, False, None),
        (
            1.0,
            {"x": 2, "y": 2},
            False,
            "4 validation cases: the accuracy says little, its 95 % interval is 0.51",
        ),
        (1.0, {"x": 40, "y": 0}, False, "Always answering 'x' would get 1.000 of these 40 cases"),
        (0.5, {"x": 16, "y": 16}, True, None),
    ],
)
def test_an_accuracy_that_one_answer_for_all_may_get_is_named(
    run, trained, manifest, tmp_path, accuracy, counts, several, told
):
    trained.saved |= {"val_accuracy": accuracy, "validated": counts}
    trained.several = several  # by a flag, or by the table
    last = run("train", manifest, "-o", tmp_path / "model").stderr.splitlines()[-1]
    assert last.startswith(told) if told else last.startswith("Model in")


@pytest.mark.parametrize("flags", [[], ["--multi-label"]])
def test_a_class_that_no_validation_case_is_of_is_named(run, trained, manifest, tmp_path, flags):
    trained.saved |= {"val_accuracy": 1.0, "validated": {"x": 1, "y": 0, "z": 0}}
    lines = run("train", manifest, "-o", tmp_path / "model", *flags).stderr.splitlines()
    assert lines[3] == "No validation case is of class 'y', 'z': how well that is recognised stays unknown"


def test_without_validation_images_the_accuracy_is_that_of_training(run, trained, manifest, tmp_path):
    trained.val = None
    assert "0.750 on the images trained on" in run("train", manifest, "-o", tmp_path / "model").stderr


def test_notes_name_options_as_the_command_line_does(run, trained, tmp_path):
    manifest = tmp_path / "m.csv"
    manifest.write_text("path,label\na.tif,x\nb.tif,y\n")
    assert "set --val-fraction 0.15 or the like" in run("train", manifest, "-o", tmp_path / "m").stderr


def test_images_that_were_left_out_are_counted_in_each_line_and_at_the_end(run, trained, manifest, tmp_path):
    trained.skipped = 3
    lines = run("train", manifest, "-o", tmp_path / "model").stderr.splitlines()
    assert [", 3 skipped," in line for line in lines] == [True, True, False, False]
    assert lines[2] == "The last epoch left out 3 images that can't be read; the lines `Skipped:` say why"


def test_options_given_win_over_the_preset_and_the_rest_stays(run, trained, manifest, tmp_path):
    words = "--preset fast --epochs 5 --k 4,2,1 --bands 3,2,1 --value-range 0,255 --lr 0.01 --pretrained"
    assert run("train", manifest, "-o", tmp_path / "model", *words.split()).exit_code == 0
    expected = TrainOptions(
        epochs=5,
        crop_size=32,
        k=(4, 2, 1),
        bands=(3, 2, 1),
        value_range=(0.0, 255.0),
        lr=0.01,
        pretrained=True,
    )
    assert trained.options == expected


def test_nothing_given_is_the_librarys_defaults(run, trained, manifest, tmp_path):
    run("train", manifest, "-o", tmp_path / "model")
    assert trained.options == TrainOptions()


def test_an_unknown_preset_is_exit_1_as_other_unknown_names_and_names_the_nearest(
    run, trained, manifest, tmp_path
):
    result = run("train", manifest, "-o", tmp_path / "model", "--preset", "fats")
    assert result.exit_code == 1
    assert "did you mean 'fast'?" in result.stderr


def test_resume_and_overwrite_reach_the_training(run, trained, manifest, tmp_path):
    for flags in ([], ["--overwrite"], ["--resume"]):
        assert run("train", manifest, "-o", tmp_path / "model", *flags).exit_code == 0
        assert (trained.overwrite, trained.resume) == ("--overwrite" in flags, "--resume" in flags)


def test_a_resumed_run_has_its_own_options_unless_others_are_given(run, trained, manifest, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    begun = asdict(TrainOptions(epochs=7, crop_size=32, k=(3,))) | {"of a later version": 1}
    (folder / "card.json").write_text(json.dumps({"training": {"options": begun}}))
    assert run("train", manifest, "-o", folder, "--resume", "--epochs", 9).exit_code == 0
    assert trained.options == TrainOptions(epochs=9, crop_size=32, k=(3,))
    assert run("train", manifest, "-o", folder, "--overwrite", "--epochs", 9).exit_code == 0
    assert trained.options == TrainOptions(epochs=9)


def test_threads_of_a_config_file_are_those_of_torch_too(run, trained, manifest, tmp_path):
    import torch

    before = torch.get_num_threads()
    (tmp_path / "run.toml").write_text(f"threads = {before + 1}\n")
    try:
        assert run("train", manifest, "-o", tmp_path / "m", "--config", tmp_path / "run.toml").exit_code == 0
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_a_run_that_is_done_has_nothing_to_resume(run, trained, manifest, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "card.json").touch()
    trained.epochs = ()
    trained.saved = {"val_accuracy": 0.5}
    assert "Nothing left to train" in run("train", manifest, "-o", folder, "--resume").stderr


def test_no_manifest_is_an_error(run, trained, tmp_path):
    result = run("train", tmp_path / "absent.csv", "-o", tmp_path / "new")
    assert result.exit_code == 1
    assert "no such manifest" in result.stderr
    assert trained.examples is None


def test_every_option_is_one_that_the_library_knows():
    from dataclasses import fields

    from hiresattn.training.options import TrainOptions
    from hiresattn_cli.train import train

    own = {"manifest", "output", "preset", "recipe", "config", "resume", "overwrite", "onnx", "help_all"}
    offered = {parameter.name for parameter in train.params} - own
    assert offered <= {field.name for field in fields(TrainOptions)}


@pytest.mark.parametrize("option", ["--encoder", "--scorer", "--augment", "--device"])
def test_a_name_that_the_library_doesnt_know_is_exit_1(run, tmp_path, option):
    for name, pixels in (("a", 0), ("b", 200)):
        Image.new("L", (64, 64), pixels).save(tmp_path / f"{name}.png")
    manifest = tmp_path / "m.csv"
    manifest.write_text("path,label\na.png,x\nb.png,y\n")
    result = run("train", manifest, "-o", tmp_path / "model", option, "nope", "--epochs", 1)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "'nope'" in result.stderr


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("path\na.tif\n", "m.csv: no column 'label'"),
        ("path,label\na.tif,x\nb.tif,\n", "m.csv, line 3: no label"),
        ("path,label,split\na.tif,x,test\n", "m.csv: no rows of split 'train'"),
        ("path,label\na.tif,x\nb.tif,x\n", "m.csv: one class in split 'train', 'x'"),
        ("path,label,split\na.tif,x,train\nb.tif,y,train\nc.tif,z,val\n", "m.csv: label 'z' in split 'val'"),
    ],
)
def test_a_set_that_cant_be_trained_on_is_an_error_that_names_the_manifest(
    run, trained, tmp_path, rows, says
):
    manifest = tmp_path / "m.csv"
    manifest.write_text(rows)
    result = run("train", manifest, "-o", tmp_path / "model")
    assert result.exit_code == 1
    assert says in result.stderr
    assert trained.examples is None


def test_threads_are_also_those_that_compute(run, trained, manifest, tmp_path, computing_threads):
    assert run("train", manifest, "-o", tmp_path / "model", "--threads", 2).exit_code == 0
    assert (computing_threads, trained.options.threads) == ([2], 2)


def test_quiet_says_nothing_of_a_training_that_works(run, trained, manifest, tmp_path):
    result = run("-q", "train", manifest, "-o", tmp_path / "model")
    assert (result.exit_code, result.output) == (0, "")


def test_the_network_for_onnx_runtime_is_written_where_it_can_be_and_asked_for_or_not(
    run, trained, manifest, tmp_path, monkeypatch
):
    written, card = [], SimpleNamespace(onnx=None)
    monkeypatch.setattr("hiresattn.card.read_card", lambda _: card)
    monkeypatch.setattr("hiresattn.inference.onnx_export.export_onnx", written.append)
    words = ["train", manifest, "-o", tmp_path / "model"]
    assert run(*words).exit_code == 0
    assert written == []  # not installed, as the tests have it
    monkeypatch.setattr("hiresattn_cli.train.onnx_installed", lambda: True)
    assert run(*words, "--no-onnx").exit_code == 0
    assert written == []
    assert run(*words).exit_code == 0
    assert written == [tmp_path / "model"]
    card.onnx = {"files": {}}
    assert run(*words).exit_code == 0
    assert len(written) == 1

    def refused(_):
        raise ConfigError("random scores")

    card.onnx = None
    monkeypatch.setattr("hiresattn.inference.onnx_export.export_onnx", refused)
    told = run(*words)
    assert (told.exit_code, "No network for ONNX Runtime: random scores" in told.stderr) == (0, True)
    assert run(*words, "--onnx").exit_code == 1
