"""The viewer in a browser: what is clicked is flown to, keys work, nothing is asked of anybody else."""

import numpy as np
import pytest
from PIL import Image

from hiresattn.inference.record import CaseSource, Cost, Record, VisitedRegion
from hiresattn.report.server import images_to_view
from tests.browser import browser
from tests.report.test_server import serving

pytestmark = pytest.mark.browser


def record(image):
    regions = [VisitedRegion(0, None, 0, 0, 0, 2000, 2000, 0.1, 0.0)]
    regions += [
        VisitedRegion(1, 0, 1, 1024, 512, 256, 256, 0.6, 0.0),
        VisitedRegion(2, 0, 1, 0, 0, 256, 256, 0.1, 0.0),
    ]
    regions += [VisitedRegion(3, 1, 2, 1024, 512, 64, 64, 0.2, 0.0)]
    return Record(
        str(image), "ok", class_name="<b>sea", score=0.9, scores={"<b>sea": 0.9, "land": 0.1}, sufficient=(1,),
        regions=tuple(regions), sources=(CaseSource(str(image), mpp=0.5),), cost=Cost(glimpses=4),
    )  # fmt: skip


READY = "viewer.world.getItemCount() === 1 && viewer.world.getItemAt(0).getFullyLoaded()"
FLOWN = "Math.abs(viewer.viewport.getZoom(true) - viewer.viewport.getZoom(false)) < 1e-6"
CENTRE = """
const item = viewer.world.getItemAt(0), view = viewer.viewport.getBounds();
const at = item.viewportToImageCoordinates(view.getCenter());
return [at.y, at.x, item.viewportToImageRectangle(view).width];
"""
PLACE = """
const at = viewer.world.getItemAt(0).imageToWindowCoordinates(new OpenSeadragon.Point(740, 1250));
return [at.x, at.y];
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """One with results, one without, and one that is gone."""
    folder = tmp_path_factory.mktemp("images")
    image, other = folder / "a.png", folder / "b.png"
    pixels = np.full((2000, 2000, 3), 240, np.uint8)
    pixels[1024:1280, 512:768] = (20, 160, 20)
    for path in (image, other):
        Image.fromarray(pixels).save(path)
    return images_to_view([str(image), str(other), str(folder / "absent.svs")], [record(image)])


@pytest.fixture(scope="module")
def case(images):
    """The second look of a case of two images, and the first two of another."""
    name, other = (one.source for one in images[:2])
    regions = tuple(
        VisitedRegion(n, None, 0, 0, 0, 2000, 2000, 0.25, 0.0, source=s) for n, s in enumerate((0, 1, 1))
    )
    found = Record(
        "P1", "ok", case="P1", class_name="sea", score=0.9, scores={"land": 0.1, "sea": 0.9}, regions=regions,
        scores_after={"sea": (0.3, 0.8, 0.9), "land": (0.7, 0.2, 0.1)}, cost=Cost(glimpses=3),
        sources=(CaseSource(name), CaseSource(other)),
    )  # fmt: skip
    return images_to_view([name, other], [found])


@pytest.fixture(scope="module")
def server(images):
    with serving(images) as server:
        yield server


@pytest.fixture(scope="module")
def window(server, tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as window:
        window.open("data:text/html,")
        window.asked()
        yield window


def test_a_look_is_flown_to(server, window, tmp_path):
    window.open(server.address)
    window.until(READY)
    rows = window.run("return [...document.querySelectorAll('#tree button')].map(one => one.dataset.look)")
    assert rows == ["0", "1", "3", "2"]
    window.click("#tree [data-look='1']")
    window.until(FLOWN)
    y, x, width = window.run(CENTRE)
    assert (y, x) == (pytest.approx(1152, abs=2), pytest.approx(640, abs=2))
    assert 256 < width < 1000
    window.until(READY)
    window.screenshot(tmp_path / "look.png")
    shown = np.asarray(Image.open(tmp_path / "look.png").convert("RGB")).astype(int)
    box = window.run("return viewer.element.getBoundingClientRect().toJSON()")
    middle = shown[int(box["y"] + box["height"] / 2), int(box["x"] + box["width"] / 2)]
    assert np.abs(middle - (20, 160, 20)).max() < 12
    assert "µm" in window.run("return $('scale').textContent")
    window.keys("n")  # the next in the order of looking
    window.until(FLOWN)
    assert window.run(CENTRE)[:2] == [pytest.approx(128, abs=2), pytest.approx(128, abs=2)]
    window.keys("0")
    window.until(FLOWN)
    window.click_at(*window.run(PLACE))
    window.until("picked === 1")
    assert window.console() == []


def test_looks_are_left_out_and_replayed(server, window):
    window.open(server.address)
    window.until(READY)
    window.click("#few")
    assert window.run("return looks.filter(visible).map(one => one.id)") == [1]
    window.keys("s")
    window.run("$('order').focus()")
    window.keys("Home")
    assert window.run("return [count, looks.filter(visible).length]") == [1, 1]
    assert window.run("return $('told').textContent") == "1 of 4 looks"
    assert window.run("return document.querySelectorAll('.said b').length") == 0
    assert window.console() == []


def test_images_are_changed_and_nobody_else_is_asked(server, window):
    window.open(server.address)
    window.until(READY)
    window.click("[data-image='1']")  # an image without results
    window.until("shown && !shown.answers.length && " + READY)
    assert window.run("return document.body.classList.contains('bare')")
    assert window.console() == []
    window.click("[data-image='2']")
    window.until("$('trouble').textContent.includes('there is no such file')")
    assert window.run("return viewer.navigator.element.style.visibility") == "hidden"
    window.console()  # the request that failed is in it
    asked = window.asked()
    assert asked
    assert all(address.startswith(server.address) for address in asked), asked


def test_what_cant_be_shown_is_marked_in_the_list_without_being_opened(server, window):
    window.open("data:text/html,")
    window.open(server.address)
    window.until("document.querySelectorAll('#list .flag').length === 1")
    assert "can't be shown" in window.run("return document.querySelector('[data-image=\"2\"]').textContent")
    assert window.run("return $('trouble').textContent") == ""
    window.until(READY)
    assert window.run("return viewer.navigator.element.getBoundingClientRect().width") <= 152
    assert window.run("return viewer.navigator.world.getItemCount() && viewer.navigator.viewport.getZoom()")
    shares = "const view = viewer.viewport.getBounds(); return [view.width, view.height]"
    assert min(window.run(shares)) == pytest.approx(1, abs=0.05)  # the whole image, and no smaller
    said = window.run("return document.querySelector('.key').textContent")
    assert said == "Depth of the look:0 (the whole, from afar)12carries the answer"


def test_of_a_case_of_several_images_the_answer_is_the_case_s(case, window):
    with serving(case) as server:
        window.open(server.address)
        window.until(READY)
        text = window.run("return $('answer').innerText")
        assert "Answer of the case: sea, probability 0.90" in text
        assert "3 looks, 0 % of the pixels read, in 2 images; in this one look 0" in text
        assert window.run("return $('after').textContent") == "Probabilities of the case"
        assert window.run("return $('shares').innerText").split() == ["sea", "0.90", "land", "0.10"]
        assert window.run("return $('told').textContent") == "1 of 1 look in this image"
        window.click("[data-image='1']")
        window.until("shown && shown.name.endsWith('b.png') && " + READY)
        assert "in this one looks 1 to 2" in window.run("return $('answer').innerText")
        window.run("$('order').focus()")
        window.keys("Home")
        assert window.run("return $('after').textContent") == "Probabilities of the case after its look 1"
        assert window.run("return $('shares').innerText").split() == ["sea", "0.80", "land", "0.20"]
        assert window.console() == []


def test_attention_is_of_the_px_and_does_not_add_up(server, window):
    window.open("data:text/html,")
    window.open(server.address)
    window.until(READY)
    window.click("#lines")
    window.click("#heat")
    at = """
    const item = viewer.world.getItemAt(0), ratio = window.devicePixelRatio || 1;
    const copy = make('canvas', {width: $('marks').width, height: $('marks').height});
    const pen = copy.getContext('2d', {willReadFrequently: true});
    pen.drawImage($('marks'), 0, 0);
    return arguments[0].map(([y, x]) => {
      const at = item.imageToViewerElementCoordinates(new OpenSeadragon.Point(x, y));
      return [...pen.getImageData(at.x * ratio, at.y * ratio, 1, 1).data];
    });
    """
    finest, coarse, other, root = window.run(at, [[1050, 540], [1200, 700], [100, 100], [1900, 1900]])
    assert finest == pytest.approx([214, 40, 20, 140], abs=2)  # in place of the coarser one that it lies in
    assert coarse[3] > other[3] > 0
    assert root == [0, 0, 0, 0]
    assert window.console() == []
