"""Protocols: which rows they take, what counts as right, and what they refuse."""

import csv
import json
from types import SimpleNamespace

import pytest
from PIL import Image

from hiresattn.datasets.example import Example
from hiresattn.errors import ConfigError
from hiresattn.fmow import results
from hiresattn.fmow.index import Row, rows, write_rows
from hiresattn.fmow.protocols import PROTOCOLS, Entry, read_entries
from hiresattn.fmow.results import ClassifiedEntry, report
from hiresattn.fmow.tree import scan
from hiresattn.inference.record import Cost, Record, Seconds

MODEL = SimpleNamespace(name="m", sha256="0", classes=("dam", "tower", "zoo"))


@pytest.fixture
def manifest(tree, tmp_path):
    """``manifest("frame")`` writes one of the tree."""

    def make(window="frame", splits=("train", "val", "test"), *, false_detections=False):
        path = tmp_path / f"{window}.csv"
        found = rows(scan(tree.root, splits=splits), window=window, false_detections=false_detections)
        list(write_rows(found, path, window))
        return path

    return make


def change(path, **columns):
    """Write other values into columns; None takes one out."""
    with path.open(newline="") as file:
        table = list(csv.DictReader(file))
    for row in table:
        row.update({name: value for name, value in columns.items() if value is not None})
        for name in [name for name, value in columns.items() if value is None]:
            del row[name]
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, table[0])
        out.writeheader()
        out.writerows(table)


def answer(label, scores, *, box=None, side=300, status="ok", seconds=None, suffix=".jpg"):
    entry = Entry(Example(f"a{suffix}", label, "test"), box, "frame", "test", (side, side // 2))
    best = max(scores, key=scores.get) if scores else None
    cost = Cost(glimpses=4, fraction_read=0.5, bytes_read=100, seconds=seconds or Seconds())
    return ClassifiedEntry(entry, Record("a", status, class_name=best, scores=scores, cost=cost))


def test_protocol_b_takes_the_frames_of_test_and_nothing_else(tree, manifest):
    entries, of = read_entries(manifest(), "tnet-test")
    assert len(entries) == of == len(list((tree.root / "test").rglob("*_rgb.jpg")))
    assert {(entry.split, entry.window, entry.example.region) for entry in entries} == {
        ("test", "frame", None)
    }
    assert all(entry.size for entry in entries)


def test_protocol_c_takes_the_crops_of_val(tree, manifest):
    entries, _ = read_entries(manifest("jhu-baseline", false_detections=True), "val-crops")
    boxes = {box for box, facts in tree.boxes.items() if (facts["split"], facts["category"]) != ("val", "x")}
    assert {entry.box_id for entry in entries} <= boxes
    assert {tree.boxes[entry.box_id]["split"] for entry in entries} == {"val"}
    assert "false_detection" not in {entry.example.label for entry in entries}
    assert all(entry.example.region for entry in entries)


def test_protocol_a_takes_the_boxes_of_test_and_seq_with_false_detections(tree, manifest):
    path = manifest("context", splits=("val", "test", "seq"), false_detections=True)
    entries, _ = read_entries(path, "challenge")
    assert {entry.box_id: entry.example.label for entry in entries} == tree.truth


def test_a_limit_is_spread_evenly(manifest):
    path = manifest()
    whole, of = read_entries(path, "tnet-test")
    some, same = read_entries(path, "tnet-test", limit=3)
    assert same == of
    assert some == [whole[0], whole[(of - 1) // 2], whole[-1]]


@pytest.mark.parametrize(
    ("protocol", "window", "splits", "complaint"),
    [
        ("tnet-test", "context", ("val", "test"), r"windows context; protocol B .* takes frame"),
        ("val-crops", "frame", ("val",), r"windows frame; protocol C .*--window context"),
        ("val-crops", "context", ("train", "test"), r"no row of val for protocol C .* it has test, train"),
        ("tnet", "frame", ("test",), "did you mean 'tnet-test'"),
    ],
)
def test_a_manifest_of_another_protocol_is_refused_with_the_command(
    manifest, protocol, window, splits, complaint
):
    with pytest.raises(ConfigError, match=complaint):
        read_entries(manifest(window, splits), protocol)


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"label": ""}, "rows of test have no label; give fmow index the ground truth"),
        ({"window": None}, "no column 'window', so that it is no manifest of fMoW"),
        ({"image_width": "wide"}, "line 2: invalid literal"),
    ],
)
def test_a_manifest_that_cant_be_used_is_named(manifest, columns, complaint):
    path = manifest()
    change(path, **columns)
    with pytest.raises(ConfigError, match=complaint) as raised:
        read_entries(path, "tnet-test")
    assert str(raised.value).startswith(f"{path}")


def test_top_1_top_5_and_macro_by_hand():
    given = [
        answer("dam", {"dam": 0.6, "zoo": 0.4}),
        answer("dam", {"dam": 0.4, "zoo": 0.6}),
        answer("dam", {"dam": 0.9, "zoo": 0.1}),
        answer("zoo", {"dam": 0.6, "zoo": 0.4}),
        answer("zoo", {str(i): 0.2 - i / 100 for i in range(5)} | {"zoo": 0.01}),
    ]
    found = report(given, "tnet-test", MODEL, of=9).overall
    assert (found.rows, found.top1, found.top5) == (5, 2 / 5, 4 / 5)
    assert found.macro == pytest.approx((2 / 3 + 0) / 2)


def test_buckets_are_by_the_long_side_and_hold_everything_once():
    sides = [100, 512, 513, 1024, 9000]
    given = [answer("dam", {"dam": 1.0}, side=side) for side in sides]
    found = report(given, "tnet-test", MODEL, of=5)
    assert [(bucket.name, bucket.rows) for bucket in found.buckets] == [
        ("up to 512 px", 2), ("up to 1024 px", 2), ("above 8192 px", 1),
    ]  # fmt: skip
    found = report(given, "tnet-test", MODEL, of=5, edges=(1024,))
    assert [(bucket.name, bucket.rows) for bucket in found.buckets] == [
        ("up to 1024 px", 4),
        ("above 1024 px", 1),
    ]


def test_an_image_of_unknown_size_is_opened_for_it(image_of):
    entry = Entry(Example(image_of(700, 300), "dam"), None, "frame", "test", None)
    lost = Entry(Example("none.jpg", "dam"), None, "frame", "test", None)
    given = [ClassifiedEntry(one, answer("dam", {"dam": 1.0}).prediction) for one in (entry, lost)]
    names = [bucket.name for bucket in report(given, "tnet-test", MODEL, of=2).buckets]
    assert names == ["up to 1024 px", "unknown"]


@pytest.fixture
def image_of(tmp_path):
    def make(height, width):
        from PIL import Image

        Image.new("RGB", (width, height)).save(tmp_path / "image.png")
        return str(tmp_path / "image.png")

    return make


def test_what_failed_is_wrong_and_costs_nothing():
    given = [
        answer("dam", {"dam": 1.0}, seconds=Seconds(open=0.1, read=0.2, model=0.3, total=0.7)),
        answer("dam", {}, status="error", seconds=Seconds(total=50)),
    ]
    found = report(given, "tnet-test", MODEL, of=2).overall
    assert (found.failed, found.top1) == (1, 0.5)
    assert (found.decode_ms, found.model_ms, found.total_ms) == pytest.approx((300, 300, 700))


def test_classes_that_the_model_lacks_are_counted():
    given = [answer("airport", {"dam": 1.0}), answer("dam", {"dam": 1.0})]
    found = report(given, "tnet-test", MODEL, of=2)
    assert (found.unknown_labels, found.overall.top1) == (1, 0.5)


def test_a_box_is_called_by_the_sum_over_its_views():
    given = [
        answer("dam", {"dam": 0.55, "tower": 0.45}, box=1),
        answer("dam", {"dam": 0.55, "tower": 0.45}, box=1),
        answer("dam", {"dam": 0.05, "tower": 0.95}, box=1),  # two of three say dam, the sum says tower
        answer("tower", {"dam": 0.1, "tower": 0.9}, box=2),
        answer("zoo", {}, box=3, status="error"),
    ]
    found = report(given, "challenge", MODEL, of=5)
    assert found.categories == {1: "tower", 2: "tower", 3: "false_detection"}
    # tower: P 1/2, R 1; dam and zoo: 0; weights 1.4, 1, 1.
    assert found.score.score == pytest.approx(1.4 * (2 / 3) / 3.4)
    assert report(given, "tnet-test", MODEL, of=5).score is None


def test_a_model_of_other_classes_cant_take_part_in_the_challenge():
    with pytest.raises(ConfigError, match="'sea' is no category of fMoW"):
        report([answer("dam", {"sea": 1.0}, box=1)], "challenge", MODEL, of=1)


def test_nothing_and_falling_edges_are_refused():
    with pytest.raises(ConfigError, match="no rows"):
        report([], "tnet-test", MODEL, of=0)
    with pytest.raises(ConfigError, match="must rise"):
        report([], "tnet-test", MODEL, of=0, edges=(2, 1))


def test_rows_are_classified_without_their_labels_and_the_first_twice(monkeypatch, manifest):
    seen = []

    def classify_all(examples, _model, **options):
        seen.append(([(e.source, e.label) for e in examples], options))
        return (Record(e.source, "ok", class_name="zoo", scores={"zoo": 1.0}) for e in examples)

    monkeypatch.setattr(results, "classify_all", classify_all)
    entries, of = read_entries(manifest(), "tnet-test")
    found = list(results.classify_entries(entries, MODEL, budget=7))
    assert [one.entry for one in found] == entries
    assert [one.prediction.label for one in found] == [entry.example.label for entry in entries]
    (warm, first), (everything, second) = seen
    assert warm == everything[:1]
    assert len(everything) == of
    assert {label for _, label in everything} == {None}
    assert first == second == {"budget": 7, "on_error": "record"}
    assert report(found, "tnet-test", MODEL, of=of).overall.top1 == pytest.approx(
        sum(entry.example.label == "zoo" for entry in entries) / of
    )


def test_the_letters_are_those_of_the_facts():
    assert {one.letter: name for name, one in PROTOCOLS.items()} == {
        "A": "challenge", "B": "tnet-test", "C": "val-crops",
    }  # fmt: skip


def test_every_box_of_the_truth_has_a_prediction_also_where_it_can_not_be_cropped(tmp_path, monkeypatch):
    root = challenge_tree(tmp_path / "fmow-rgb")
    path = tmp_path / "box.csv"
    found = rows(scan(root, splits=("test",)), window="context", false_detections=True)
    assert sum(isinstance(row, Row) and not row.croppable for row in write_rows(found, path, "context")) == 3
    entries, of = read_entries(path, "challenge")
    assert (len(entries), of) == (6, 6)
    assert {entry.box_id: entry.example.label for entry in entries} == {
        1: "dam", 2: "zoo", 3: "tower", 4: "false_detection",
    }  # fmt: skip

    def classify_all(examples, model, **_):
        for _ in examples:
            yield Record("a", "ok", class_name="dam", scores={"dam": 0.9, "zoo": 0.1}, cost=Cost(glimpses=4))

    monkeypatch.setattr(results, "classify_all", classify_all)
    made = report(results.classify_entries(entries, MODEL), "challenge", MODEL, of=of)
    assert dict(made.categories) == {1: "dam", 2: "false_detection", 3: "dam", 4: "dam"}
    assert (made.window, made.uncropped, made.overall.failed, made.overall.glimpses) == ("context", 3, 0, 4)
    assert made.score.boxes == 4


def challenge_tree(root):
    """Two frames of a place whose boxes are too small (2) or outside in one frame (3); 4 has no category."""
    inside, tiny, outside = [10, 10, 60, 40], [10, 10, 2, 2], [900, 900, 20, 20]
    frames = {0: {1: inside, 2: tiny, 3: outside}, 1: {2: tiny, 3: inside, 4: inside}}
    for frame, boxes in frames.items():
        facts = {"img_height": 150, "img_width": 200}
        for folder, categories in (
            ("test/0000001", {}),
            ("groundtruth/test_gt/dam/dam_0", {1: "dam", 2: "zoo", 3: "tower"}),
        ):
            listed = [
                {"ID": n, "box": box} | ({"category": categories[n]} if n in categories else {})
                for n, box in boxes.items()
            ]
            path = root / folder / f"{folder.rsplit('/')[-1]}_{frame}_rgb.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(facts | {"bounding_boxes": listed}))
        Image.new("RGB", (200, 150)).save(root / f"test/0000001/0000001_{frame}_rgb.jpg")
    mapping = [{"input": "test_gt/dam/dam_0", "output": "test/0000001"}]
    (root / "groundtruth/test_gt_mapping.json").write_text(json.dumps(mapping))
    return root
