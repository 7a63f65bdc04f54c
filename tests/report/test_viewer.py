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
    asked = window.asked()
    assert asked
    assert all(address.startswith(server.address) for address in asked), asked
