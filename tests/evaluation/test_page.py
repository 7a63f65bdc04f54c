"""An evaluation as a page: its numbers are those of the report, and a cell of the matrix leads to its cases."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from hiresattn.evaluation.outcomes import Outcome, Pass
from hiresattn.evaluation.page import evaluation_page
from hiresattn.evaluation.summary import summarize
from hiresattn.report.page import embedded
from tests.browser import browser

EVIL = "</script><script>alert(1)</script>"


def outcome(number, truth, scores, **changes):
    values = {"group": f"P{number}", "region": None, "error": None, "glimpses": 9, "fraction_read": 0.01}
    values |= {"seconds": 1.0, "hit": None, **changes}
    return Outcome(truth=truth, scores=scores, source=f"slides/{number}.svs", **values)


@pytest.fixture(scope="module")
def page():
    config = SimpleNamespace(multi_label=False, scorer="location")
    model = SimpleNamespace(
        name="m", sha256="ab" * 32, temperature=1.0, classes=("<b>cat", EVIL), config=config, conformal=None,
        reference=None,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    truths = [0] * 8 + [1] * 8
    right = [0.9] * 5 + [0.3] * 3 + [0.8] * 6 + [0.2] * 2

    def given(noise):
        found = []
        for number, (truth, share) in enumerate(zip(truths, right, strict=True)):
            p = float(np.clip(share + noise * rng.normal(), 0.01, 0.99))
            found.append(
                outcome(number, truth, (p, 1 - p) if truth == 0 else (1 - p, p), needs_review=p < 0.5)
            )
        return found

    main = (Pass("best-first", "64", 0.95), [*given(0), outcome(16, 1, None, error="16.svs: broken")])
    curve = [
        (Pass("best-first", str(budget)), [*given(1 / budget), outcome(16, 1, None)]) for budget in (8, 64)
    ]
    curve += [(Pass("lowres", None), [*given(1), outcome(16, 1, None)])]
    found = summarize(main, curve, model, "test", resamples=20)
    return evaluation_page(found, main[1], curve)


def test_the_page_holds_the_report_and_the_cases(page):
    data = embedded(page, "data")
    assert data["confusion"] == [[5, 3], [2, 6]]
    assert data["metrics"]["accuracy"]["value"] == pytest.approx(11 / 16)
    assert len(data["rows"]) == 17
    assert data["rows"][5]["right"] is False
    assert data["rows"][5]["prediction"] == [EVIL]
    assert (
        data["rows"][16] | {"error": "16.svs: broken", "prediction": None, "score": None} == data["rows"][16]
    )
    assert [(one["policy"], one["budget"]) for one in data["passes"]] == [
        ("best-first", "8"), ("best-first", "64"), ("lowres", None),
    ]  # fmt: skip
    assert data["passes"][1]["values"][0] == pytest.approx(0.9, abs=0.1)
    assert data["passes"][1]["values"][16] is None


def test_nothing_is_run_or_fetched(page):
    assert page.count("<script") == page.count("</script>") == 2
    outside = re.sub(r'<script type="application/json".*?</script>', "", page, flags=re.DOTALL)
    assert set(re.findall(r"https?://[^\s\"'`]+", outside)) <= {"http://www.w3.org/2000/svg"}
    assert "innerHTML" not in page


@pytest.mark.browser
def test_a_cell_leads_to_its_cases(page, tmp_path):
    (tmp_path / "index.html").write_text(page, encoding="utf-8")
    names = "return [...$('rows').children].map(row => row.firstChild.firstChild.textContent)"
    with browser(tmp_path / "profile") as window:
        window.open("data:text/html,")
        window.asked()
        window.open(f"file://{tmp_path / 'index.html'}")
        assert len(window.run(names)) == 17
        window.click("[data-cell='0,1']")
        assert window.run(names) == ["5.svs", "6.svs", "7.svs"]
        window.keys("ArrowDown", "Enter")  # the cell below it, by key
        assert window.run("return cell") == [1, 1]
        assert len(window.run(names)) == 6
        window.click("#all")
        window.click("#wrong")
        assert window.run(names) == [f"{number}.svs" for number in (5, 6, 7, 14, 15, 16)]
        window.click("[data-row='14']")
        assert (
            window.run("return document.querySelector('[data-line=\"14\"]').getAttribute('stroke-width')")
            == "4"
        )
        assert "14.svs" in window.run("return $('own').textContent")
        window.keys("ArrowDown")
        assert window.run("return chosen") == 15
        assert window.run("return document.querySelectorAll('main svg').length") == 4
        assert window.console() == []
        assert [one for one in window.asked() if not one.startswith("file:")] == []
        assert json.loads(window.run("return JSON.stringify(data.classes)"))[1] == EVIL


@pytest.mark.browser
def test_what_many_rows_share_is_said_once_and_the_axis_ends_with_the_data(page, tmp_path):
    data = embedded(page, "data")
    data["rows"][0] |= {"review": None, "source": "slides/P0.tif", "case": "P0"}
    for one in data["metrics"].values():
        one |= {"low": None, "high": None, "reason": "no interval: 10 cases, and it takes 20"}
    data["curve"] = [one for one in data["curve"] if one["budget"] != "64"]
    head, _, tail = page.partition('<script type="application/json" id="data">')
    text = json.dumps(data).replace("<", "\\u003c")
    page = f'{head}<script type="application/json" id="data">{text}{tail[tail.index("</script>") :]}'
    (tmp_path / "index.html").write_text(page, encoding="utf-8")
    with browser(tmp_path / "profile") as window:
        window.open(f"file://{tmp_path / 'index.html'}")
        seen = window.run("return document.body.innerText")
        assert seen.count("No interval: 10 cases, and it takes 20.") == 1
        assert "no interval" not in seen
        assert "lowres (9 looks)" in seen
        assert "glimpses" not in seen
        said = "review not assessed in 1 case: the model is not calibrated (`hiresattn evaluate --calibrate`)"
        assert said in window.run("return $('about').textContent")
        assert window.run("return $('rows').firstChild.firstChild.textContent") == "P0.tif"
        assert window.run("return budgets().map(one => one[1])") == ["8"]
        assert window.console() == []
