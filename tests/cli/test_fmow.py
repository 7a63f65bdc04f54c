"""`fmow`: words in, numbers and manifests out."""

import json

import pytest

TRUTH = "1,airport\n2,tower\n3,dam\n4,false_detection\n5,tower\n"
ANSWERS = "1,airport\n2,tower\n3,tower\n4,dam\n5,tower\n"


@pytest.fixture
def lines(tmp_path):
    """The hand example's two files: predictions, truth."""
    for name, text in (("answers.txt", ANSWERS), ("truth.txt", TRUTH)):
        (tmp_path / name).write_text(text)
    return tmp_path / "answers.txt", tmp_path / "truth.txt"


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
