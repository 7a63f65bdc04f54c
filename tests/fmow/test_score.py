"""The challenge's score: the hand example, a second implementation, and lines that can't be used."""

import numpy as np
import pytest

from hiresattn.errors import ConfigError, NotFoundError
from hiresattn.fmow.classes import BASELINE_ORDER, CLASSES, FALSE_DETECTION, TNET_ORDER, WEIGHTS
from hiresattn.fmow.score import challenge_score, read_lines

TRUTH = {1: "airport", 2: "tower", 3: "dam", 4: "false_detection", 5: "tower"}
ANSWERS = {1: "airport", 2: "tower", 3: "tower", 4: "dam", 5: "tower"}


def write(folder, text, name="lines.txt"):
    path = folder / name
    path.write_bytes(text.encode())
    return path


def test_the_hand_example():
    found = challenge_score(ANSWERS, TRUTH)
    f1 = {one.category: one.f1 for one in found.categories}
    assert f1 == {"airport": 1, "tower": pytest.approx(0.8), "dam": 0, "false_detection": 0}
    assert found.score == pytest.approx((1 * 0.6 + 0.8 * 1.4) / (0.6 + 1.4 + 1.0))
    assert f"{found.score:.6f}" == "0.573333"


def test_everything_right_is_one_and_everything_wrong_is_nothing():
    assert challenge_score(TRUTH, TRUTH).score == 1
    assert challenge_score(dict.fromkeys(TRUTH, "zoo"), TRUTH).score == 0


def test_calling_nothing_something_costs_precision():
    truth = {1: "dam", 2: "false_detection"}
    assert challenge_score({1: "dam", 2: "false_detection"}, truth).score == 1
    assert challenge_score({1: "dam", 2: "dam"}, truth).score == pytest.approx(2 / 3)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_scikit_learns_f1_under_the_weights(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    some = rng.choice(sorted(WEIGHTS), 9, replace=False).tolist()
    truth = {box: str(rng.choice(some)) for box in range(200)}
    answers = {box: str(rng.choice([truth[box]] * 4 + some)) for box in truth}
    seen = sorted({*truth.values(), *answers.values()})
    f1 = metrics.f1_score([*truth.values()], [*answers.values()], labels=seen, average=None, zero_division=0)
    weights = [WEIGHTS[name] for name in seen]
    expected = sum(w * f for w, f in zip(weights, f1, strict=True)) / sum(weights)
    assert challenge_score(answers, truth).score == pytest.approx(expected, abs=1e-12)


def test_a_box_without_a_prediction_is_an_error_that_names_it():
    with pytest.raises(ConfigError, match=r"mine\.txt: 2 of the truth's 5 boxes .*\(ID 2, 5\)"):
        challenge_score({1: "airport", 3: "dam", 4: "dam"}, TRUTH, "mine.txt")


def test_boxes_that_the_truth_does_not_have_are_counted_and_count_for_nothing():
    found = challenge_score({**ANSWERS, 9: "zoo"}, TRUTH)
    assert (found.ignored, f"{found.score:.6f}") == (1, "0.573333")


def test_a_truth_of_false_detections_only_is_an_error():
    with pytest.raises(ConfigError, match="nothing to score"):
        challenge_score({1: FALSE_DETECTION}, {1: FALSE_DETECTION})


def test_lines_are_read_in_order_whatever_their_ends(tmp_path):
    path = write(tmp_path, "\ufeff7,dam\r\n\r\n 12 , zoo \n3,unknown")
    assert list(read_lines(path).items()) == [(7, "dam"), (12, "zoo"), (3, "false_detection")]


def test_a_truth_without_a_category_is_a_false_detection_but_a_prediction_is_an_error(tmp_path):
    path = write(tmp_path, "7,\n")
    assert read_lines(path, truth=True) == {7: FALSE_DETECTION}
    with pytest.raises(ConfigError, match="line 1: no category"):
        read_lines(path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("1,dam\n2;dam\n", "line 2: '2;dam' is not boxID,category"),
        ("1,dam,0.5\n", "line 1: '1,dam,0.5' is not boxID,category"),
        ("boxID,category\n", "line 1: 'boxID' is no box ID"),
        ("-1,dam\n", "line 1: '-1' is no box ID"),
        ("1.0,dam\n", "line 1: '1.0' is no box ID"),
        ("9" * 5000 + ",dam\n", "is no box ID"),
        ("1,Airport\n", "'Airport' is no category of fMoW; did you mean 'airport'"),
        ("1,dam\n01,zoo\n", "line 2: box 01 a second time"),
        ("\n\n", "no lines in it"),
    ],
)
def test_a_line_that_cant_be_used_is_named(tmp_path, text, complaint):
    with pytest.raises(ConfigError, match=complaint) as raised:
        read_lines(write(tmp_path, text))
    assert "lines.txt" in str(raised.value)


def test_files_that_are_no_text_or_not_there(tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"1,d\xe4m\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_lines(tmp_path / "latin.txt")
    with pytest.raises(ConfigError, match="can't be read"):
        read_lines(tmp_path)
    with pytest.raises(NotFoundError, match="boxID,category"):
        read_lines(tmp_path / "none.txt")


def test_the_classes_and_their_orders():
    assert len(set(CLASSES)) == 62
    assert list(CLASSES) == sorted(CLASSES)
    assert len(WEIGHTS) == 63
    assert sum(WEIGHTS.values()) == pytest.approx(62.0)
    assert sorted(WEIGHTS.values()) == [0.0, *[0.6] * 10, *[1.0] * 42, *[1.4] * 10]
    assert TNET_ORDER.index("impoverished_settlement") == 42
    assert BASELINE_ORDER.index("impoverished_settlement") == 43
    assert BASELINE_ORDER[0] == FALSE_DETECTION
    assert sorted(TNET_ORDER) == list(CLASSES)
    changed = [i for i, (ours, theirs) in enumerate(zip(CLASSES, TNET_ORDER, strict=True)) if ours != theirs]
    assert changed == list(range(25, 43))
