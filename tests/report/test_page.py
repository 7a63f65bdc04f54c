"""The results as a page: all that a record says is in it, nothing in it is run or fetched, and it stays small."""

import base64
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
from PIL import Image

from hiresattn.errors import ConfigError, WriteError
from hiresattn.inference.record import CaseSource, Cost, Record, VisitedRegion
from hiresattn.report.colours import DEPTH_COLOURS
from hiresattn.report.page import embedded, write_report
from hiresattn.report.provenance import provenance
from tests.browser import browser as browser_window

SIDE = 1200


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """Noise, which JPEG makes larger than any photograph, and a marked square at row 300, column 600."""
    pixels = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    pixels[300:364, 600:664] = (250, 10, 10)
    path = tmp_path_factory.mktemp("images") / "a.png"
    Image.fromarray(pixels).save(path)
    return path


def record(image, source=None, **changes):
    regions = [
        VisitedRegion(0, None, 0, 0, 0, SIDE, SIDE, 0.1, 0.0, finest=False),
        VisitedRegion(1, 0, 1, 300, 600, 64, 64, 0.5, -1.0, finest=True),
    ]
    regions += [
        VisitedRegion(n, 0, 1, 8 * n, 8 * n, 300, 300, 0.4 / 62, -2.0, finest=False) for n in range(2, 64)
    ]
    values = {
        "class_name": "sea",
        "score": 0.9,
        "scores": {"sea": 0.9, "land": 0.1},
        "scores_after": {"sea": (0.2, 0.3, *[0.9] * 62), "land": (0.8, 0.7, *[0.1] * 62)},
        "sufficient": (1,),
        "score_without": 0.3,
        "needs_review": False,
        "regions": tuple(regions),
        "sources": (CaseSource(str(image), height=SIDE, width=SIDE, mpp=0.5),),
        "cost": Cost(glimpses=64, fraction_read=0.25, stop_reason="budget"),
        "model": {"name": "m", "sha256": "ab" * 32},
    }
    return Record(str(source or image), "ok", **{**values, **changes})


def jpeg(address):
    kind, data = address.split(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_a_case_is_in_the_page_with_its_pictures(image, tmp_path):
    made = write_report([record(image)], tmp_path / "r.html")
    assert (made.cases, made.notes) == (1, [])
    page = (tmp_path / "r.html").read_text()
    (row,), case = embedded(page, "list"), embedded(page, "case-0")
    assert (row["answer"], row["score"], row["looks"], row["share"]) == ("sea", 0.9, 64, 0.25)
    assert case["scores"] == {"sea": 0.9, "land": 0.1}
    assert case["regions"][1][:7] == [1, 0, 1, 300, 600, 64, 64]
    look = np.asarray(jpeg(case["crops"]["1"]))
    assert look.shape == (64, 64, 3)  # native resolution
    assert np.abs(look[8:-8, 8:-8].astype(int) - (250, 10, 10)).max() < 40
    assert len(case["crops"]) == 6  # of noise there is no room for more
    (picture,) = case["pictures"]
    assert picture["frame"] == [0, 0, SIDE, SIDE]
    overview = np.asarray(jpeg(picture["image"])).astype(int)
    scale = SIDE / len(overview)
    assert overview[int(332 / scale), int(632 / scale)].tolist() == pytest.approx((250, 10, 10), abs=60)
    assert len(page) < 230_000  # the page itself, and 200 kB a case


def test_as_many_looks_have_a_picture_as_there_is_room_for(tmp_path):
    Image.linear_gradient("L").resize((SIDE, SIDE)).convert("RGB").save(tmp_path / "smooth.png")
    write_report([record(tmp_path / "smooth.png")], tmp_path / "r.html")
    crops = embedded((tmp_path / "r.html").read_text(), "case-0")["crops"]
    assert len(crops) == 24
    assert jpeg(crops["2"]).size == (256, 256)


def test_200_cases_stay_within_200_kb_each(image, tmp_path):
    one = record(image)
    write_report([one] * 3, tmp_path / "3.html")
    write_report([one], tmp_path / "1.html")
    sizes = [(tmp_path / name).stat().st_size for name in ("1.html", "3.html")]
    assert (sizes[1] - sizes[0]) / 2 <= 200_000


def test_nothing_is_run_or_fetched(image, tmp_path):
    evil = "</script><script>alert(1)</script><!--<img src=http://x/y>"
    write_report([record(image, class_name=evil, scores={evil: 0.9}, warnings=(evil,))], tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert embedded(page, "list")[0]["answer"] == evil
    assert (
        page.count("<script") == page.count("</script>") == 4
    )  # the case, the run, the list, the page's own
    assert "default-src 'none'" in page
    outside = re.sub(r'<script type="application/json".*?</script>', "", page, flags=re.DOTALL)
    assert set(re.findall(r"https?://[^\s\"'`]+", outside)) <= {"http://www.w3.org/2000/svg"}
    assert "innerHTML" not in page


def test_what_cant_be_opened_has_no_picture_and_all_facts(image, tmp_path):
    sources = (
        CaseSource(str(image)),
        CaseSource("absent.svs", height=90, width=80),
        CaseSource("bad.svs", error="bad.svs: broken"),
    )
    regions = (
        VisitedRegion(0, None, 0, 0, 0, SIDE, SIDE, 0.5, 0.0),
        VisitedRegion(1, None, 0, 0, 0, 9, 9, 0.5, 0.0, source=1),
    )
    case = record("P1", case="P1", sources=sources, regions=regions, sufficient=None)
    error = Record("c.svs", "error", error="c.svs: broken")
    made = write_report([case, error], tmp_path / "r.html")
    assert (made.cases, len(made.notes)) == (2, 1)
    assert made.notes[0].startswith("absent.svs: no pictures of it:")
    page = (tmp_path / "r.html").read_text()
    first, second = embedded(page, "case-0"), embedded(page, "case-1")
    assert [bool(one["image"]) for one in first["pictures"]] == [True, False]
    assert "absent.svs" in first["pictures"][1]["note"]
    assert first["pictures"][1]["frame"] == [0, 0, 90, 80]
    assert list(first["crops"]) == ["0"]
    assert (second["error"], second["pictures"], second["answer"]) == ("c.svs: broken", [], "failed")


def test_a_window_is_shown_as_the_window(image, tmp_path):
    window = (250, 550, 200, 400)
    regions = (VisitedRegion(0, None, 0, 250, 550, 200, 200, 1.0, 0.0),)
    facts = CaseSource(str(image), region=window)
    write_report([record(image, region=window, regions=regions, sources=(facts,))], tmp_path / "r.html")
    (picture,) = embedded((tmp_path / "r.html").read_text(), "case-0")["pictures"]
    assert picture["frame"] == list(window)
    assert jpeg(picture["image"]).size == (768, 384)


def test_a_page_is_written_whole_and_replaces_only_when_asked(image, tmp_path):
    path = tmp_path / "r.html"
    with pytest.raises(ConfigError, match="no records"):
        write_report([], path)
    assert not path.exists()
    write_report([record(image)], path)
    first = path.read_bytes()
    with pytest.raises(ConfigError, match="is there already"):
        write_report([record(image)], path)
    write_report([record(image)], path, overwrite=True)
    assert path.read_bytes() == first
    with pytest.raises(WriteError, match="can't be written"):
        write_report([record(image)], tmp_path / "absent" / "r.html")


ACTS = """<script>
"use strict";
const seen = {};
const press = (target, key) => target.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
const names = () => [...$("rows").children].map(row => row.firstChild.textContent);
seen.start = names();
$("heads").children[2].firstChild.click(); seen.sorted = names();
$("heads").children[2].firstChild.click(); seen.reversed = names();
$("filter").value = "sea"; $("filter").dispatchEvent(new Event("input")); seen.filtered = names();
$("filter").value = ""; $("doubtful").checked = true;
$("doubtful").dispatchEvent(new Event("input")); seen.doubtful = names();
$("doubtful").checked = false; $("doubtful").dispatchEvent(new Event("input"));
$("rows").firstChild.click(); press($("rows").firstChild, "ArrowDown");
seen.opened = $("case").querySelector("h2").textContent; seen.focused = document.activeElement.firstChild.textContent;
press(document.activeElement, "End");
const lines = () => [...document.querySelectorAll("rect.r")].filter(line => line.style.display !== "none").length;
setTimeout(() => {
  const after = () => [...document.querySelectorAll(".bars span")].map(s => s.textContent).filter(Boolean).join(" ");
  seen.finest = lines(); document.querySelector("#every").click(); seen.lines = lines(); seen.after = [after()];
  $("order").value = 2; $("order").dispatchEvent(new Event("input")); seen.replayed = lines();
  seen.after.push(after());
  const chart = $("course").getBoundingClientRect();
  $("course").dispatchEvent(new MouseEvent("click", {clientX: chart.left + chart.width * 26 / 300, bubbles: true}));
  seen.after.push(after()); seen.drawn = document.querySelectorAll("#course path").length;
  $("order").value = 64; $("order").dispatchEvent(new Event("input"));
  document.querySelector("#few").click(); seen.decisive = lines();
  document.querySelector(".strip button").click();
  setTimeout(() => { seen.crop = $("crop").naturalWidth; seen.told = $("crop").nextSibling.textContent;
  document.querySelector("rect.r").dispatchEvent(new MouseEvent("click")); seen.picked = $("crop").alt;
  seen.alerts = window.alerted || 0;
  document.title = JSON.stringify(seen); }, 500);
}, 500);
</script>"""


@pytest.mark.browser
def test_in_a_browser_lists_sort_filter_and_open_and_looks_replay(image, tmp_path):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert browser, "no Chromium; `apt-get install chromium`, or another that is called chromium"
    some = [
        record(image, source="b.svs", score=0.5, needs_review=True, review_reasons=("may be <b>",)),
        record(image, source="a.svs", class_name="land", score=0.9),
        Record("c.svs", "error", error="c.svs: broken", needs_review=True),
    ]
    write_report(some, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    (tmp_path / "r.html").write_text(page.replace("</body>", ACTS + "</body>"))
    words = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    words += [
        f"--user-data-dir={tmp_path / 'profile'}",
        "--enable-logging=stderr",
        "--virtual-time-budget=3000",
    ]
    done = subprocess.run(  # noqa: S603
        [*words, "--dump-dom", f"file://{tmp_path / 'r.html'}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "CONSOLE" not in done.stderr
    seen = json.loads(unescape(re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)[1]))
    assert seen == {
        "start": ["b.svs", "a.svs", "c.svs"],
        "sorted": ["b.svs", "a.svs", "c.svs"],
        "reversed": ["c.svs", "a.svs", "b.svs"],
        "filtered": ["b.svs"],
        "doubtful": ["c.svs", "b.svs"],
        "opened": "a.svs",
        "focused": "a.svs",
        "finest": 1,
        "lines": 64,
        "replayed": 2,
        "after": ["sea 0.90 land 0.10", "sea 0.30 land 0.70", "sea 0.20 land 0.80"],
        "drawn": 2,
        "decisive": 1,
        "crop": 64,
        "told": seen["told"],
        "picked": "look 0",
        "alerts": 0,
    }
    assert "At native resolution." in seen["told"]


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    with browser_window(tmp_path_factory.mktemp("profile"), width=1400, height=1000) as window:
        yield window


SAID = "return document.querySelector('.said').textContent"


@pytest.mark.browser
def test_what_nobody_judged_is_said_to_be_not_assessed(image, window, tmp_path):
    some = [record(image, source="a.svs", needs_review=None), record(image, source="b.svs")]
    write_report(some, tmp_path / "r.html")
    window.open(f"file://{tmp_path / 'r.html'}")
    said = "review not assessed in 1 case: the model is not calibrated (`hiresattn evaluate --calibrate`), "
    said += "or not for such searches"
    assert said in window.run("return $('about').textContent")
    assert window.run("return [...$('rows').children].map(row => row.children[3].textContent)") == [
        "not assessed", "no",
    ]  # fmt: skip
    window.click("#doubtful")
    assert window.run("return $('count').textContent") == f"0 of 2 cases; {said}"
    several = record(image, class_name=None, labels=("sea",), needs_review=None)
    write_report([several], tmp_path / "s.html")
    window.open(f"file://{tmp_path / 's.html'}")
    assert "Review not assessed: there are no prediction sets" in window.run("return $('case').textContent")
    write_report(some[1:] * 2, tmp_path / "r.html", overwrite=True)
    window.open("data:text/html,")
    window.open(f"file://{tmp_path / 'r.html'}")
    assert "assessed" not in window.run("return document.querySelector('header').textContent")
    assert window.console() == []


@pytest.mark.browser
@pytest.mark.parametrize(
    ("score", "without", "few", "said", "stars"),
    [
        (0.9, 0.3, (1,), "1 look alone keeps 90 % of that; without it sea has 0.30.", 1),
        (0.9, 0.85, (1,), "No single place decides: without the look of most weight the answer stays sea, 0.85.", 0),
        (0.9, 0.95, (1, 3), "without the 2 looks of most weight the answer stays sea, 0.95.", 0),
        (0.4, 0.35, (1,), "without the look of most weight sea still has 0.35.", 0),
    ],
)  # fmt: skip
def test_looks_carry_an_answer_that_is_another_without_them(
    image, window, tmp_path, score, without, few, said, stars
):
    one = record(image, score=score, score_without=without, sufficient=few)
    write_report([one], tmp_path / "r.html")
    window.open("data:text/html,")
    window.open(f"file://{tmp_path / 'r.html'}")
    assert window.run(SAID).endswith(said)
    marks = "return [...document.querySelectorAll('.strip button')].filter(one => one.textContent.includes('★')).length"
    window.until("document.querySelectorAll('.strip button').length")
    assert window.run(marks) == stars
    assert window.console() == []


def colours(window, css):
    found = "[...document.querySelectorAll(arguments[0])]"
    script = f"return {found}.map(one => one.style.background || one.getAttribute('stroke'))"
    return window.run(script, css)


@pytest.mark.browser
def test_a_class_has_one_colour_in_every_case_and_looks_have_none_of_them(image, window, tmp_path):
    scores = {"sea": 0.1, "land": 0.9}
    after = {"land": (0.1,) * 64, "sea": (0.9,) * 64}
    other = record(image, source="b.svs", class_name="land", scores=scores, scores_after=after)
    write_report([record(image, source="a.svs"), other], tmp_path / "r.html")
    window.open("data:text/html,")
    window.open(f"file://{tmp_path / 'r.html'}")
    sea, land = "rgb(0, 114, 178)", "rgb(213, 94, 0)"
    assert colours(window, "#case .bars i") == [sea, land]
    assert colours(window, "#course path") == ["#0072b2", "#d55e00"]
    window.click("[data-case='1']")
    assert colours(window, "#case .bars i") == [land, sea]
    assert colours(window, "#course path") == ["#d55e00", "#0072b2"]
    drawn = colours(window, "rect.r")
    assert drawn.count("#d55e00") == 1  # the look that carries the answer
    assert set(drawn) - {"#d55e00"} <= set(DEPTH_COLOURS)
    assert window.console() == []


@pytest.mark.browser
def test_what_was_not_looked_at_closely_is_shaded(image, window, tmp_path):
    whole = VisitedRegion(0, None, 0, 0, 0, SIDE, SIDE, 1.0, 0.0, finest=False)
    early = record(image, source="b.svs", regions=(whole,), scores_after={}, sufficient=None)
    old = record(image, source="c.svs", regions=(replace(whole, finest=None),), scores_after={})
    write_report([record(image, source="a.svs"), early, old], tmp_path / "r.html")
    window.open("data:text/html,")
    window.open(f"file://{tmp_path / 'r.html'}")
    dark = "return [...document.querySelectorAll('rect[mask]')].map(one => one.style.display !== 'none')"
    holes = "return [...document.querySelectorAll('mask rect[fill=\"#000\"]')].map(one => one.getAttribute('width'))"
    assert window.run(dark) == [False]
    window.click("#shade")
    assert window.run(dark) == [True]
    assert window.run(holes) == ["64"]  # the only one of the finest scale
    window.click("[data-case='1']")
    assert window.run(dark) == [True]  # it stays so
    assert window.run(holes) == []
    assert "(nothing was)" in window.run("return document.querySelector('.controls').textContent")
    window.click("[data-case='2']")
    assert window.run("return $('shade')") is None  # a record that doesn't say what was close
    assert window.run(dark) == [False]
    assert window.console() == []


@pytest.mark.browser
def test_attention_is_a_layer_and_the_scale_says_who_said_it(image, window, tmp_path):
    source = CaseSource(str(image), height=SIDE, width=SIDE, mpp=0.5, mpp_source="option assume_mpp")
    write_report([record(image, sources=(source,))], tmp_path / "r.html")
    window.open("data:text/html,")
    window.open(f"file://{tmp_path / 'r.html'}")
    said = window.run("return document.querySelector('figcaption').textContent")
    assert said.endswith("; 600 µm \u00d7 600 µm at 0.5 µm/px (assumed)")
    bar = window.run(
        "const bar = document.querySelector('.scale'); return [bar.textContent, "
        "bar.getBoundingClientRect().width / document.querySelector('.view').getBoundingClientRect().width]"
    )
    assert bar == ["100 µm", pytest.approx(100 / 600, abs=0.01)]
    at = """
    const layer = document.querySelector('.view canvas'), zoom = layer.width / arguments[0];
    const copy = make('canvas', {width: layer.width, height: layer.height});
    const pen = copy.getContext('2d', {willReadFrequently: true});
    pen.drawImage(layer, 0, 0);
    return [...pen.getImageData((arguments[2] + 5) * zoom, (arguments[1] + 5) * zoom, 1, 1).data];
    """
    assert window.run(at, SIDE, 310, 610) == [0, 0, 0, 0]
    window.click("#heat")
    strongest, weak = window.run(at, SIDE, 310, 610), window.run(at, SIDE, 700, 700)
    assert strongest == pytest.approx([214, 40, 20, 140], abs=2)
    assert 0 < weak[3] < 40
    assert window.run(at, SIDE, 5, 1100) == [0, 0, 0, 0]  # a root region alone
    assert window.console() == []


def test_a_case_of_many_looks_stays_within_200_kb(image, tmp_path):
    rng = np.random.default_rng(0)
    regions = [VisitedRegion(0, None, 0, 0, 0, SIDE, SIDE, 0.1, 0.0, finest=False)]
    for number in range(1, 3000):
        y, x = rng.integers(0, SIDE - 64, 2).tolist()
        above = int(rng.integers(0, number))
        regions.append(
            VisitedRegion(number, above, 1, y, x, 64, 64, 0.9 / 3000, -1.0, finest=number % 3 == 0)
        )
    after = {name: tuple(rng.random(3000).round(4).tolist()) for name in "abcde"}
    few = record(
        image,
        source="a.svs",
        regions=tuple(regions),
        scores=dict.fromkeys("abcde", 0.2),
        scores_after=after,
        class_name="a",
        sufficient=tuple(range(900)),
        cost=Cost(glimpses=3000),
    )
    write_report([few] * 2, tmp_path / "2.html")
    write_report([few], tmp_path / "1.html")
    sizes = [(tmp_path / name).stat().st_size for name in ("1.html", "2.html")]
    assert sizes[1] - sizes[0] <= 200_000
    case = embedded((tmp_path / "1.html").read_text(), "case-0")
    kept = [one[0] for one in case["regions"]]
    assert 1000 <= len(kept) < 1100
    assert {one[1] for one in case["regions"]} - {None} <= set(kept)
    assert case["scores_after"]["b"][5] == after["b"][kept[5]]
    (picture,) = case["pictures"]
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture["unseen"].split(",")[1]))))
    scale = SIDE / len(mask)
    closely = np.zeros((SIDE, SIDE), bool)
    for one in regions[3::3]:  # those that are not listed, too
        closely[one.y : one.y + 64, one.x : one.x + 64] = True
    middle = ((np.arange(len(mask)) + 0.5) * scale).astype(int)
    assert (mask != closely[np.ix_(middle, middle)]).mean() > 0.97


def test_what_made_the_results_is_in_the_page_and_no_name_that_is_hidden(image, tmp_path):
    run = {
        "folder": "Jane-Doe",
        "started": "2026-11-29T19:43:11+00:00",
        "budget": "64 looks",
        "stop": 0.95,
        "seed": 3,
    }
    write_report([record(image)], tmp_path / "r.html", run=run)
    page = (tmp_path / "r.html").read_text()
    assert embedded(page, "run") == run | {"model": {"name": "m", "sha256": "ab" * 32}, "version": ""}
    assert embedded(page, "case-0")["sizes"] == [image.stat().st_size]
    write_report([record(image)], tmp_path / "h.html", run=run, hide_names=True)
    write_report([record(image)], tmp_path / "i.html", run=run | {"names": "hidden"})
    assert "Jane" not in (tmp_path / "h.html").read_text() + (tmp_path / "i.html").read_text()


def test_what_a_run_was_made_with_is_read_from_its_folder(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    assert provenance(out) == {"folder": "out"}
    options = {"budget": {"glimpses": 64, "bytes": 2_000_000, "seconds": None}, "stop": None, "seed": 0}
    (out / "run.json").write_text(
        json.dumps({"started": "2026", "options": options | {"policy": "best-first"}})
    )
    wanted = {
        "folder": "out", "started": "2026", "names": "shown", "budget": "64 looks and 2.0 MB", "stop": None,
        "seed": 0, "policy": "best-first",
    }  # fmt: skip
    assert provenance(out) == provenance(out / "records.jsonl") == wanted
    (out / "run.json").write_text("[]")
    assert provenance(out) == {"folder": "out"}


@pytest.mark.browser
def test_all_cases_are_printed_and_the_open_one_comes_back(image, window, tmp_path):
    run = {
        "folder": "out",
        "started": "2026-11-29T19:43:11+00:00",
        "budget": "64 looks",
        "stop": 0.95,
        "seed": 3,
    }
    some = [record(image, source=f"{name}.svs") for name in "abc"]
    write_report(some, tmp_path / "r.html", run=run)
    window.open("data:text/html,")
    window.open(f"file://{tmp_path / 'r.html'}#1")
    assert window.run("return document.title") == "Results of m in out"
    said = "Run of 2026-11-29 19:43:11 UTC, model m abababababab, budget 64 looks, stop at 0.95, seed 3"
    assert window.run("return $('made').textContent") == said
    assert "Research use only: not for diagnosis." in window.run("return document.body.innerText")
    titles = "return [...$('case').querySelectorAll('h2')].map(one => one.textContent)"
    window.run(
        "window.print = () => { window.printed = document.querySelectorAll('article .view img').length; }"
    )
    window.click("#print")
    window.until("window.printed === 3")
    assert window.run(titles) == ["a.svs", "b.svs", "c.svs"]
    window.run("window.dispatchEvent(new Event('afterprint'))")
    assert window.run(titles) == ["b.svs"]
    assert window.console() == []


@pytest.mark.browser
def test_keys_and_slider_show_a_look_and_the_list_is_not_cut(image, window, tmp_path):
    name = "TCGA-05-4244-01Z-00-DX1.d4ff32cd-38cf-40ea-8213-45c2b100ac01.ome.tif"
    some = [
        record(image, source=f"{n}-{name}", prediction_set=("sea", "land"), label="land") for n in range(2)
    ]
    write_report(some, tmp_path / "r.html")
    window.open("data:text/html,")
    window.open(f"file://{tmp_path / 'r.html'}")
    box = "document.querySelector('.scroll')"
    assert window.run(f"return {box}.scrollWidth - {box}.clientWidth") <= 0
    assert window.run("return $('crop').alt") == "look 1"
    window.keys("n")  # whatever has the focus
    assert window.run("return $('crop').alt") == "look 2"
    window.click("[data-case='1']")
    window.keys("p")
    assert window.run("return $('crop').alt") == "look 0"
    window.run("$('order').focus()")
    window.keys("Home", "ArrowRight", "ArrowRight")
    assert window.run("return [$('order').value, $('crop').alt]") == ["3", "look 2"]
    window.run("$('filter').focus()")
    window.keys("n")
    assert window.run("return [$('filter').value, $('crop').alt]") == ["n", "look 2"]
    assert window.console() == []
