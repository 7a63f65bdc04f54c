"""`fmow`: words in, numbers and manifests out."""

import json
import shutil
from types import SimpleNamespace

import pytest

from hiresattn.datasets.manifest import read_manifest
from hiresattn.inference.record import Record
from scenes import fmow_tree

TRUTH = "1,airport\n2,tower\n3,dam\n4,false_detection\n5,tower\n"
ANSWERS = "1,airport\n2,tower\n3,tower\n4,dam\n5,tower\n"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A synthetic tree of fMoW-rgb; not to be changed."""
    return fmow_tree.write_tree(tmp_path_factory.mktemp("fmow") / "fmow-rgb", places=2)


@pytest.fixture
def lines(tmp_path):
    """The hand example's two files: predictions, truth."""
    for name, text in (("categories.txt", ANSWERS), ("truth.txt", TRUTH)):
        (tmp_path / name).write_text(text)
    return tmp_path / "categories.txt", tmp_path / "truth.txt"


def test_score_prints_six_decimals(run, lines):
    result = run("fmow", "score", *lines)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "0.573333\n", "")


def test_score_as_json_has_every_category(run, lines):
    found = json.loads(run("fmow", "score", *lines, "--json").stdout)
    assert round(found["score"], 6) == 0.573333
    tower = next(one for one in found["categories"] if one["category"] == "tower")
    assert (tower["weight"], tower["true_positives"], tower["false_positives"]) == (1.4, 2, 1)


def test_score_warns_of_boxes_that_the_truth_lacks(run, lines):
    with lines[0].open("a") as file:
        file.write("77,zoo\n")
    result = run("fmow", "score", *lines)
    assert result.stdout == "0.573333\n"
    assert "1 boxes" in result.stderr


def test_a_bad_line_is_one_line_on_stderr_and_exit_1(run, lines):
    lines[0].write_text("1,airprot\n")
    result = run("fmow", "score", *lines)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {lines[0]}, line 1: 'airprot'")
    assert "did you mean 'airport'" in result.stderr
    assert result.stderr.count("\n") == 1


def test_index_writes_a_manifest_and_says_what_it_left_out(run, tree, tmp_path):
    result = run(
        "fmow", "index", tree.root, "-o", tmp_path / "m.csv", "--window", "context", "--splits", "val,test"
    )
    assert (result.exit_code, result.stdout) == (0, "")
    examples = read_manifest(tmp_path / "m.csv")
    assert {example.split for example in examples} == {"val", "test"}
    assert all(example.region and example.label for example in examples)
    assert f"m.csv: {len(examples)} rows (" in result.stderr
    assert "x labelled false_detection, such as " in result.stderr


def test_index_lists_what_it_left_out_on_request_and_nothing_when_quiet(run, tree, tmp_path):
    words = ("fmow", "index", tree.root, "-o", tmp_path / "m.csv", "--splits", "train")
    listed = run("-v", *words).stderr
    assert "Left out: damaged metadata: " in listed
    assert run("-q", *words).stderr == ""


def test_index_of_a_folder_that_is_no_release_is_one_line(run, tmp_path):
    result = run("fmow", "index", tmp_path, "-o", tmp_path / "m.csv")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {tmp_path}: none of the folders train, val, test")
    assert not (tmp_path / "m.csv").exists()


def test_index_of_a_split_that_there_is_not_is_wrong_usage(run, tree, tmp_path):
    result = run("fmow", "index", tree.root, "-o", tmp_path / "m.csv", "--splits", "train,valid")
    assert result.exit_code == 2
    assert "train, val, test, seq" in result.stderr


def test_cog_converts_a_tree_once_and_index_takes_it(run, tree, tmp_path):
    words = ("fmow", "cog", tree.root, "-o", tmp_path / "cogs", "--splits", "test")
    first = run(*words)
    assert (first.exit_code, first.stdout) == (0, "")
    count = len(list((tmp_path / "cogs").rglob("*_rgb.tif")))
    assert f": {count} converted\n" in first.stderr
    assert f": {count} there already\n" in run(*words).stderr
    manifest = tmp_path / "m.csv"
    run("fmow", "index", tree.root, "--images", tmp_path / "cogs", "-o", manifest, "--splits", "test")
    assert len(read_manifest(manifest)) == count


def test_cog_goes_on_after_a_damaged_image_and_says_so(run, tree, tmp_path):
    root = shutil.copytree(tree.root, tmp_path / "fmow-rgb")
    next((root / "val" / "zoo").rglob("*_rgb.jpg")).write_bytes(b"\xff\xd8\xff")
    result = run("fmow", "cog", root, "-o", tmp_path / "cogs", "--splits", "val")
    assert result.exit_code == 3
    assert "Left out: 1 x can't be converted, such as " in result.stderr
    assert "1 failed" in result.stderr


@pytest.fixture
def evaluated(monkeypatch):
    """Replaces the model: it calls everything a zoo, and can't read what lies in a folder ``bad``."""
    model = SimpleNamespace(name="m", sha256="0" * 64, classes=("zoo", "dam"))

    def classify_all(examples, _model, **options):
        for example in examples:
            bad = "/bad/" in str(example.source)
            said = {"error": "broken"} if bad else {"class_name": "zoo", "scores": {"zoo": 0.9, "dam": 0.1}}
            yield Record(str(example.source), "error" if bad else "ok", **said)

    monkeypatch.setattr("hiresattn.fmow.results.classify_all", classify_all)
    monkeypatch.setattr("hiresattn.checkpoint.load_model", lambda name: model)


def manifest_of(run, tree, folder, *words):
    path = folder / "m.csv"
    assert run("fmow", "index", tree.root, "-o", path, *words).exit_code == 0
    return path


def test_evaluate_names_the_protocol_and_gives_every_size(run, tree, tmp_path, evaluated):
    manifest = manifest_of(run, tree, tmp_path)
    result = run(
        "fmow", "evaluate", "model", manifest, "--protocol", "tnet-test", "-o", tmp_path / "out.jsonl"
    )
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith("Protocol B, TNet: top-1 over whole test images")
    rows = {line[:15].strip(): line[15:].split() for line in lines if line.startswith(("up to", "all"))}
    tests = [example for example in read_manifest(manifest) if example.split == "test"]
    right = sum(example.label == "zoo" for example in tests)
    assert rows["all"][:2] == [str(len(tests)), f"{right / len(tests):.3f}"]
    assert sum(int(row[0]) for name, row in rows.items() if name != "all") == len(tests)
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [record["label"] for record in records] == [example.label for example in tests]


def test_evaluate_says_when_it_is_a_part(run, tree, tmp_path, evaluated):
    manifest = manifest_of(run, tree, tmp_path)
    words = ("fmow", "evaluate", "model", manifest, "--protocol", "tnet-test", "--limit", 2)
    assert "2 rows (of " in run(*words).stdout
    found = json.loads(run(*words, "--json").stdout)
    assert (found["rows"], found["letter"], found["window"]) == (2, "B", "frame")


def test_the_challenges_categories_are_what_score_takes(run, tree, tmp_path, evaluated):
    manifest = manifest_of(
        run, tree, tmp_path, "--window", "context", "--splits", "test,seq", "--false-detections"
    )
    categories, truth = tmp_path / "categories.txt", tmp_path / "truth.txt"
    truth.write_text("".join(f"{box},{name}\n" for box, name in tree.truth.items()))
    words = (
        "fmow",
        "evaluate",
        "model",
        manifest,
        "--protocol",
        "challenge",
        "--categories",
        categories,
        "--json",
    )
    found = json.loads(run(*words).stdout)
    printed = run("fmow", "score", categories, truth).stdout
    assert printed == f"{found['score']['score']:.6f}\n"
    assert float(printed) > 0
    assert len(categories.read_text().splitlines()) == len(tree.truth)


def test_evaluate_goes_on_after_a_failure_and_exits_3(run, tree, tmp_path, evaluated):
    manifest = manifest_of(run, tree, tmp_path)
    text = manifest.read_text().splitlines()
    at = next(i for i, line in enumerate(text) if ",test," in line)
    text[at] = f"/bad/a.jpg{text[at][text[at].index(',') :]}"
    manifest.write_text("\n".join(text))
    result = run("fmow", "evaluate", "model", manifest, "--protocol", "tnet-test")
    assert (result.exit_code, result.stderr) == (3, "Error: broken\n")
    assert "1 rows failed" in result.stdout


def test_categories_are_of_the_challenge_only(run, tmp_path):
    result = run(
        "fmow", "evaluate", "model", "m.csv", "--protocol", "val-crops", "--categories", tmp_path / "a"
    )
    assert result.exit_code == 2
