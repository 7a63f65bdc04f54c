"""Records: nothing about an answer can be changed, and they go everywhere that values go."""

import copy
import json
import pickle
from dataclasses import FrozenInstanceError, asdict, replace

import pytest

from hiresattn.inference.lines import json_line
from hiresattn.inference.record import Record, VisitedRegion


@pytest.fixture
def record():
    region = VisitedRegion(0, None, 0, 0, 0, 64, 64, 1.0, 0.0)
    return Record(
        "a.tif",
        "ok",
        scores={"sea": 0.75, "land": 0.25},
        regions=(region,),
        model={"name": "m", "sha256": "0"},
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.scores.__setitem__("sea", 1.0),
        lambda record: record.scores.__delitem__("sea"),
        lambda record: record.scores.update(sea=1.0),
        lambda record: record.scores.pop("sea"),
        lambda record: record.scores.setdefault("sky", 1.0),
        lambda record: record.scores.__ior__({"sky": 1.0}),
        lambda record: record.scores.clear(),
        lambda record: record.model.popitem(),
    ],
)
def test_scores_and_model_cant_be_changed(record, change):
    before = record.to_json()
    with pytest.raises(TypeError, match="can't be changed"):
        change(record)
    assert record.to_json() == before


def test_a_record_keeps_the_scores_that_it_was_made_with(record):
    scores = {"sea": 1.0}
    made = replace(record, scores=scores)
    scores["sea"] = 0.0
    assert made.scores == {"sea": 1.0}
    with pytest.raises(FrozenInstanceError):
        made.scores = scores


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, replace, lambda record: pickle.loads(pickle.dumps(record))],  # noqa: S301 - its own
)
def test_copies_and_pickles_are_equal_and_as_unchangeable(record, copied):
    made = copied(record)
    assert made == record
    with pytest.raises(TypeError, match="can't be changed"):
        made.scores["sea"] = 0.0


def test_json_is_of_plain_dicts(record):
    facts = record.to_json()
    assert type(facts["scores"]) is type(facts["model"]) is dict
    assert facts == asdict(record)
    assert json.loads(json.dumps(facts))["scores"] == {"sea": 0.75, "land": 0.25}


def test_a_record_is_a_small_escaped_table_in_notebooks(record):
    html = replace(record, source="<a>.tif", class_name="sea & sand", warnings=("1 < 2",))._repr_html_()
    assert "&lt;a&gt;.tif" in html
    assert "sea &amp; sand" in html
    assert "1 &lt; 2" in html
    assert "rows 0 to 64, columns 0 to 64" in html
    assert html.count("<table>") == html.count("</table>") == 1


def test_json_has_the_digits_that_the_network_supports():
    def written(error):
        region = VisitedRegion(0, None, 0, 0, 0, 64, 64, 0.014396022 + error, -1.9330066 + 10 * error)
        first = VisitedRegion(1, 0, 1, 0, 0, 64, 64, 1.0, -1e-8)
        record = Record(
            "a", "ok", score=0.95778999 + error, scores={"x": 0.95778999 + error}, regions=(region, first)
        )
        return json_line(record.to_json())

    assert written(0) == written(3e-8)
    assert written(0) != written(3e-5)
    assert '"select_logp": -1.933' in written(0)
    assert '"select_logp": 0.0' in written(0)
    assert '"attention": 0.0144,' in written(0)
