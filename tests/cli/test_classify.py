"""`classify`: JSON lines out, messages on stderr, and an exit status that tells what failed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hiresattn
from hiresattn.errors import CheckpointError, ConfigError


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_per_source_on_stdout_and_a_summary_on_stderr(run, classified):
    result = run("classify", "a.tif", "b.tif", "-m", "model")
    assert result.exit_code == 0
    assert [record["source"] for record in lines(result.stdout)] == ["a.tif", "b.tif"]
    assert result.stderr == "2 ok, 0 failed; mean 2.0 glimpses; 50 % of the pixels read\n"
    assert (classified.sources, classified.model) == (["a.tif", "b.tif"], "model")


def test_some_failed_is_exit_3_with_every_line_written(run, classified, tmp_path):
    out = tmp_path / "out.jsonl"
    result = run("classify", "a.tif", "bad.tif", "c.tif", "-m", "m", "-o", out)
    assert (result.exit_code, result.stdout) == (3, "")
    records = lines(out.read_text())
    assert [record["status"] for record in records] == ["ok", "error", "ok"]
    assert "Error: bad.tif: broken in two lines\n" in result.stderr
    assert "2 ok, 1 failed" in result.stderr


def test_all_failed_is_exit_1(run, classified):
    assert run("classify", "bad.tif", "-m", "m").exit_code == 1
    assert run("classify", "bad.tif", "bad2.tif", "-m", "m").exit_code == 1


@pytest.mark.parametrize(
    ("status", "words"),
    [("no_valid_pixels", "1 without valid pixels"), ("no_foreground", "1 without foreground")],
)
def test_an_empty_image_is_an_answer_and_no_failure(run, classified, monkeypatch, status, words):
    monkeypatch.setattr(
        sys.modules["hiresattn.inference.classify"],
        "classify_all",
        lambda sources, model, **options: iter([classified.record("a.tif", status=status)]),
    )
    result = run("classify", "a.tif", "-m", "m")
    assert result.exit_code == 0
    assert words in result.stderr


def test_options_arrive_in_the_librarys_words(run, classified, computing_threads):
    words = "--budget 50MB --stop off --policy top-k --nms 0.3 --bands 3,2,1 --value-range 0,10000 --strict --seed 7"
    words += " --batch-images 4 --foreground none"
    assert (
        run("classify", "a.tif", "-m", "m", *words.split(), "--threads", 2, "--device", "cpu").exit_code == 0
    )
    assert classified.options == {
        "budget": "50MB",
        "stop": None,
        "until_confidence": None,
        "max_budget": None,
        "policy": "top-k",
        "nms": 0.3,
        "bands": (3, 2, 1),
        "value_range": (0.0, 10000.0),
        "strict": True,
        "per_source": False,
        "mpp": None,
        "assume_mpp": None,
        "nodata": None,
        "foreground": "none",
        "seed": 7,
        "threads": 2,
        "device": "cpu",
        "engine": "auto",
        "provider": None,
        "precision": "float32",
        "on_error": "record",
        "scorer": None,
        "batch_images": 4,
    }


def test_the_defaults_are_those_of_the_help(run, classified):
    run("classify", "a.tif", "-m", "m")
    assert classified.options["stop"] == 0.95
    assert (classified.options["budget"], classified.options["policy"]) == ("64", "best-first")
    assert (classified.options["nms"], classified.options["threads"]) == (1.0, None)
    assert classified.options["bands"] is classified.options["value_range"] is None


def test_regions_of_one_image_are_one_record_each(run, classified):
    result = run("classify", "a.tif", "-m", "m", "--region", "0,0,32,32", "--region", "32,0,64,64")
    assert [record["region"] for record in lines(result.stdout)] == [[0, 0, 32, 32], [32, 0, 64, 64]]
    result = run("classify", "a.tif", "b.tif", "-m", "m", "--region", "0,0,32,32")
    assert result.exit_code == 2
    assert "single image" in result.stderr


def test_a_manifest_of_windows_gives_accuracy(run, classified, tmp_path):
    manifest = tmp_path / "m.csv"
    rows = [
        "path,label,split,y,x,height,width",
        "a.tif,sea,test,0,0,8,8",
        "a.tif,land,test,8,0,8,8",
        "a.tif,sea,train,,,,",
    ]
    manifest.write_text("\n".join(rows))
    result = run("classify", manifest, "-m", "m", "--split", "test")
    assert [record["label"] for record in lines(result.stdout)] == ["sea", "land"]
    assert "accuracy 0.500 on 2 with labels" in result.stderr


def test_stdin_lists_sources(run, classified):
    assert [r["source"] for r in lines(run("classify", "-", "-m", "m", stdin="x.tif\ny.tif\n").stdout)] == [
        "x.tif",
        "y.tif",
    ]


def test_a_model_that_cant_be_loaded_is_exit_1_and_one_line(run, classified, monkeypatch):
    def read_card(_, **__):
        raise CheckpointError("m: no card.json; give a model directory")

    monkeypatch.setattr("hiresattn.card.read_card", read_card)
    result = run("classify", "a.tif", "-m", "m")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: m: no card.json; give a model directory\n"


@pytest.mark.parametrize(
    "broken", [("hiresattn.card", "read_card"), ("hiresattn.inference.classify", "classify_all")]
)
def test_the_output_keeps_what_it_held_until_model_device_and_overlays_are_fine(
    run, classified, monkeypatch, tmp_path, broken
):
    out = tmp_path / "out.jsonl"
    out.write_text("kept\n")
    words = ["classify", "a.tif", "-m", "m", "--overwrite", "-o", out]
    result = run(*words, "--overlay", "/proc/nope")
    assert (result.exit_code, out.read_text()) == (1, "kept\n")
    assert result.stderr.startswith("Error: /proc/nope: the directory can't be made (")
    assert result.stderr.count("\n") == 1

    def refuse(*_, **__):
        raise ConfigError("no such thing")

    monkeypatch.setattr(sys.modules[broken[0]], broken[1], refuse)
    assert run(*words).exit_code == 1
    assert out.read_text() == "kept\n"


def test_what_worked_is_kept_when_the_run_is_interrupted(run, classified, monkeypatch, tmp_path):
    def classify(*_, **__):
        yield classified.record("a.tif")
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["hiresattn.inference.classify"], "classify_all", classify)
    out = tmp_path / "out.jsonl"
    result = run("classify", "a.tif", "b.tif", "-m", "m", "-o", out)
    assert result.exit_code == 130
    assert [record["source"] for record in lines(out.read_text())] == ["a.tif"]


def test_a_file_that_holds_something_is_resumed_or_overwritten_or_refused(run, classified, tmp_path):
    out = tmp_path / "out.jsonl"
    assert run("classify", "a.tif", "bad.tif", "-m", "m", "-o", out).exit_code == 3
    before = out.read_text()
    result = run("classify", "a.tif", "-m", "m", "-o", out)
    assert (result.exit_code, result.stdout, out.read_text()) == (1, "", before)
    assert result.stderr == (
        f"Error: {out}: is there already; --resume adds what is missing in it, --overwrite starts anew, or give "
        "another file\n"
    )
    result = run("classify", "a.tif", "bad.tif", "c.tif", "-m", "m", "-o", out, "--resume")
    assert (result.exit_code, classified.sources) == (3, ["bad.tif", "c.tif"])
    assert [record["source"] for record in lines(out.read_text())] == ["a.tif", "bad.tif", "c.tif"]
    assert "1 ok, 1 failed; 1 were there" in result.stderr
    result = run("classify", "bad.tif", "-m", "m", "-o", out, "--resume")
    assert result.exit_code == 1  # all that it was asked for
    assert run("classify", "c.tif", "-m", "m", "-o", out, "--overwrite").exit_code == 0
    assert [record["source"] for record in lines(out.read_text())] == ["c.tif"]


def test_other_options_classify_again(run, classified, tmp_path):
    out = tmp_path / "out.jsonl"
    words = ["classify", "a.tif", "-m", "m", "-o", out, "--resume"]
    assert run(*words).exit_code == 0
    result = run(*words, "--budget", 8)
    assert classified.sources == ["a.tif"]
    assert "1 of its records are of other sources" in result.stderr
    run(*words, "--budget", 8, "--threads", 1, "--batch-images", 2)
    assert classified.sources == []
    assert len(lines(out.read_text())) == 2


@pytest.mark.parametrize("name", ["x.txt", "x.shp", "x.json", "x.jsonl.gz"])
def test_a_suffix_of_another_format_is_refused(run, classified, tmp_path, name):
    result = run("classify", "a.tif", "-m", "m", "-o", tmp_path / name)
    assert (result.exit_code, list(tmp_path.iterdir())) == (1, [])
    assert (
        f"are written as JSON lines, not as {Path(name).suffix}; give a name that ends in .jsonl"
        in result.stderr
    )


def test_resuming_leaves_the_overlays_that_are_there(run, classified, image, tmp_path):
    (tmp_path / "second").mkdir()
    second = shutil.copy(image, tmp_path / "second")
    words = ["-m", "m", "-o", tmp_path / "out.jsonl", "--overlay", tmp_path / "overlays"]
    run("classify", image, *words)
    drawn = (tmp_path / "overlays" / "image.png.png").stat().st_mtime_ns
    assert run("classify", image, second, *words, "--resume").exit_code == 0
    first = f"{tmp_path.name}_image.png.png"  # named with its folder, now that there are two
    assert {p.name for p in (tmp_path / "overlays").iterdir()} == {
        "image.png.png",
        first,
        "second_image.png.png",
    }
    assert (tmp_path / "overlays" / "image.png.png").stat().st_mtime_ns == drawn


def test_a_folder_holds_records_and_tables_and_is_gone_on_with(run, classified, tmp_path):
    out = tmp_path / "out"
    words = ["classify", "a.tif", "bad.tif", "-m", "m", "-o", f"{out}/"]
    result = run(*words)
    assert (result.exit_code, result.stdout) == (3, "")
    names = [
        "errors.csv",
        "glimpses.parquet",
        "overlays",
        "predictions.csv",
        "qupath",
        "records.jsonl",
        "run.json",
    ]
    assert sorted(path.name for path in out.iterdir()) == names
    assert run(*words, "--budget", 8).exit_code == 1
    assert run(*words).exit_code == 3
    assert classified.sources == ["bad.tif"]
    assert len((out / "predictions.csv").read_text().splitlines()) == 3
    assert run("classify", "a.tif", "-m", "m", "-o", out, "--dry-run").exit_code == 2


def test_a_folder_gets_pictures_and_objects_unless_told_not_to(run, classified, image, tmp_path):
    second = shutil.copy(image, tmp_path / "second.png")
    words = ["classify", image, second, "-m", "m", "-o", f"{tmp_path}/out/"]

    def found():
        return sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").glob("*/*"))

    assert run(*words, "--no-overlays", "--no-qupath").exit_code == 0
    assert found() == []
    every = [
        "overlays/image.png.png",
        "overlays/second.png.png",
        "qupath/image.png.geojson",
        "qupath/second.png.geojson",
    ]
    assert run(*words).exit_code == 0
    assert (found(), classified.sources) == (every, [])  # of the records that were there
    before = (tmp_path / "out" / every[1]).stat().st_mtime_ns
    (tmp_path / "out" / every[0]).unlink()  # as if the run had been ended before it was drawn
    assert run(*words).exit_code == 0
    assert (found(), (tmp_path / "out" / every[1]).stat().st_mtime_ns) == (every, before)
    assert run(*words, "--overwrite", "--no-overlays").exit_code == 0
    assert found() == every[2:]
    assert run("classify", image, "-m", "m", "--no-qupath").exit_code == 2


def test_of_many_images_a_folder_gets_no_overlays_and_says_so(run, classified, image, tmp_path, monkeypatch):
    monkeypatch.setattr("hiresattn_cli.pictures.MOST_OVERLAYS", 1)
    monkeypatch.setattr("hiresattn.report.results.MOST_LOOKS", 3)
    second = shutil.copy(image, tmp_path / "second.png")
    result = run("classify", image, second, "-m", "m", "-o", f"{tmp_path}/out/")
    assert (
        f"No overlays of 2 images, which are more than 1; --overlay {tmp_path}/out/overlays" in result.stderr
    )
    assert "more than 3 looks; `hiresattn export" in result.stderr
    assert not {"overlays", "qupath"} & {path.name for path in (tmp_path / "out").iterdir()}


def test_resume_and_overwrite_need_a_file(run, classified):
    assert run("classify", "a.tif", "-m", "m", "--resume").exit_code == 2
    assert run("classify", "a.tif", "-m", "m", "-o", "-", "--overwrite").exit_code == 2


def test_an_output_that_cant_be_written_fails_before_anything_is_read(run, classified, tmp_path):
    result = run("classify", "a.tif", "-m", "m", "-o", tmp_path / "absent" / "out.jsonl")
    assert result.exit_code == 1
    assert "can't be written" in result.stderr
    assert result.stdout == ""


def test_quiet_keeps_errors_and_drops_the_summary(run, classified):
    result = run("-q", "classify", "a.tif", "bad.tif", "-m", "m")
    assert result.stderr == "Error: bad.tif: broken in two lines\n"


def test_overlays_are_drawn_for_what_was_classified(run, classified, image, tmp_path):
    folder = tmp_path / "overlays"
    result = run(
        "classify", image, "-m", "m", "--overlay", folder, "--region", "0,0,96,96", "--region", "0,32,96,96"
    )
    assert result.exit_code == 0, result.stderr
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["image.png_0_0_96_96.png", "image.png_0_32_96_96.png"]
    with Image.open(folder / names[0]) as drawn:
        assert drawn.format == "PNG"


def test_an_overlay_that_cant_be_drawn_is_a_warning(run, classified, tmp_path):
    result = run("classify", "absent.tif", "-m", "m", "--overlay", tmp_path)
    assert result.exit_code == 0
    assert "Warning: " in result.stderr
    assert "overlay not drawn" in result.stderr


@pytest.mark.parametrize("warning", ["a.tif: values above the card's", "values above the card's"])
def test_a_warning_names_its_source_once(run, classified, monkeypatch, warning):
    monkeypatch.setattr(
        sys.modules["hiresattn.inference.classify"],
        "classify_all",
        lambda *_, **__: iter([classified.record("a.tif", warnings=(warning,))]),
    )
    assert "Warning: a.tif: values above the card's\n" in run("classify", "a.tif", "-m", "m").stderr


def test_the_warnings_of_one_image_are_one_line(run, classified, monkeypatch):
    warnings = ("band 1 has a mean of 9;\nthe training images had 5", "band 2 has a mean of 3")
    monkeypatch.setattr(
        sys.modules["hiresattn.inference.classify"],
        "classify_all",
        lambda *_, **__: iter([classified.record("a.tif", warnings=warnings)]),
    )
    result = run("classify", "a.tif", "-m", "m")
    said = "Warning: a.tif: band 1 has a mean of 9; the training images had 5; band 2 has a mean of 3\n"
    assert result.stderr.startswith(said)
    assert result.stderr.count("Warning") == 1


def test_a_word_that_names_no_source_is_an_error_record_in_its_place(run, classified, tmp_path):
    (tmp_path / "empty").mkdir()
    words = ["a.tif", tmp_path / "empty", "b.tif", tmp_path / "*.ndpi", tmp_path / "absent.csv", "x" * 300]
    result = run("classify", *words, "c.tif", "-m", "m")
    assert result.exit_code == 3
    records = lines(result.stdout)
    assert [record["source"] for record in records] == [*map(str, words), "c.tif"]
    assert [record["status"] for record in records] == ["ok", "error", "ok", "error", "error", "error", "ok"]
    parts = ["no image in it", "no file matches", "no such manifest", "File name too long"]
    for record, part in zip([record for record in records if record["error"]], parts, strict=True):
        assert part in record["error"]
        assert f"Error: {record['error']}\n" in result.stderr
        assert record["model"] == {"name": "m", "sha256": "0" * 64}
    assert "3 ok, 4 failed" in result.stderr
    assert classified.sources == ["a.tif", "b.tif", "c.tif"]


def test_only_words_that_name_no_source_is_exit_1(run, classified, tmp_path):
    result = run("classify", tmp_path, "-m", "m", "--region", "0,0,8,8", "--region", "8,0,8,8")
    assert result.exit_code == 1
    assert [record["region"] for record in lines(result.stdout)] == [[0, 0, 8, 8], [8, 0, 8, 8]]
    assert [record["status"] for record in lines(result.stdout)] == ["error", "error"]


def test_no_sources_at_all_is_wrong_usage(run, classified):
    assert run("classify", "-m", "m").exit_code == 2
    result = run("classify", "-", "-m", "m", stdin="\n")
    assert result.exit_code == 2
    assert "stdin held no paths" in result.stderr


def test_nms_is_for_policies_that_choose(run, classified):
    assert run("classify", "a.tif", "-m", "m", "--nms", "0.5").exit_code == 0
    assert run("classify", "a.tif", "-m", "m", "--nms", "1.5", "--policy", "top-k").exit_code == 2
    text = " ".join(run("classify", "--help").stdout.split())
    assert "don't use --budget" in text


def test_threads_are_also_those_that_compute(run, classified, computing_threads):
    assert run("classify", "a.tif", "-m", "m").exit_code == 0
    assert computing_threads == []
    assert run("classify", "a.tif", "-m", "m", "--threads", 2).exit_code == 0
    assert (computing_threads, classified.options["threads"]) == ([2], 2)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_that_no_encoding_has_are_written_as_escapes_and_cost_no_other_source(tmp_path, encoding):
    good = tmp_path / "größe.png"
    Image.fromarray(np.zeros((80, 80), np.uint8)).save(good)
    odd = os.fsencode(tmp_path) + b"/bad\xff\xfe.png"
    shutil.copy(good, odd)
    model = Path(hiresattn.__file__).parent / "demo" / "model"
    words = [
        sys.executable,
        "-m",
        "hiresattn_cli.main",
        "classify",
        "-",
        odd,
        "absent\udcff.tif",
        "-m",
        model,
    ]
    done = subprocess.run(  # noqa: S603
        words,
        input=odd + b"\n" + os.fsencode(good) + b"\nabsent\xfe.tif\n",
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert b"Traceback" not in done.stderr
    records = lines(done.stdout.decode("ascii"))
    names = [os.fsencode(record["source"]) for record in records]
    assert names == [odd, os.fsencode(good), b"absent\xfe.tif", odd, b"absent\xff.tif"]
    assert [record["status"] for record in records] == ["ok", "ok", "error", "ok", "error"]
    shown = {"utf-8": b"absent\\udcfe.tif", "ascii": b"absent?.tif"}[encoding]
    assert b"Error: %b: there is no such file" % shown in done.stderr
    assert done.returncode == 3
