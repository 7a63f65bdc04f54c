"""Overlays: marks lie where the regions are, and every image and answer can be drawn."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageColor

from hiresattn import open_pyramid
from hiresattn.errors import ReadError
from hiresattn.inference.record import Cost, Record, VisitedRegion
from hiresattn.report.looks import decisive, finest
from hiresattn.report.marks import LOOK, SHOWN, TRUTH, Marks, ascii_text
from hiresattn.report.overlay import draw_overlay
from hiresattn.report.panel import Panel

MARGIN = 16


def answer(regions, **changes):
    values = {
        "source": "scene.tif",
        "status": "ok",
        "class_name": "seven",
        "score": 0.9,
        "cost": Cost(glimpses=3),
    }
    return Record(**{**values, "regions": tuple(regions), **changes})


WHOLE = VisitedRegion(0, None, 0, 0, 0, 512, 512, 0.1, 0.0)
CELL = VisitedRegion(1, 0, 1, 128, 256, 128, 128, 0.2, -1.0)
TINY = VisitedRegion(2, 1, 2, 200, 300, 4, 4, 0.7, -1.0)


def drawn(tmp_path, pixels, prediction, **options):
    path = tmp_path / "overlay.png"
    draw_overlay(open_pyramid(pixels), prediction, path, side=512, **options)
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        return np.asarray(image)


def coloured(pixels, colour):
    """Rows and columns of the view that have exactly a colour."""
    view = pixels[MARGIN : MARGIN + 512, MARGIN : MARGIN + 512]
    y, x = np.nonzero((view == ImageColor.getrgb(colour)).all(2))
    return y, x


def test_the_legend_names_what_chose_the_regions(tmp_path, monkeypatch):
    written = []
    plain = Panel._text
    monkeypatch.setattr(
        Panel, "_text", lambda self, text, *a, **k: written.append(text) or plain(self, text, *a, **k)
    )
    chosen = [WHOLE, replace(CELL, scorer="saol"), replace(TINY, scorer="saol")]
    drawn(tmp_path, np.full((512, 512, 3), 90, np.uint8), answer(chosen))
    assert "Chosen by: saol" in written
    written.clear()
    drawn(tmp_path, np.full((512, 512, 3), 90, np.uint8), answer([WHOLE]))
    assert not any("Chosen by" in text for text in written)


def test_an_outline_lies_where_its_look_is_and_only_the_finest_have_one(tmp_path):
    many = [replace(CELL, id=n, attention=0.01) for n in range(1, 9)]
    finer = [replace(TINY, id=9 + n, y=300, x=20 + 30 * n, height=24, width=24) for n in range(8)]
    picture = drawn(tmp_path, np.full((512, 512, 3), 90, np.uint8), answer([WHOLE, *many, *finer]))
    y, x = coloured(picture, LOOK)
    assert (y.min(), y.max()) == pytest.approx((300, 324), abs=2)
    assert (x.min(), x.max()) == pytest.approx((20 + 6 * 30, 20 + 7 * 30 + 24), abs=2)  # six are shown beside
    y, x = coloured(picture, SHOWN)
    shown = (y > 296) & (y < 328) & (x < 200)
    assert shown.sum() > 6 * 80
    inside = picture[MARGIN + 150, MARGIN + 257 : MARGIN + 383]
    assert (inside == inside[0]).all()  # no line in or around the coarser look


def test_attention_is_shaded_by_weight_per_px_and_root_regions_are_clear(tmp_path):
    weak = replace(CELL, id=2, y=0, x=0, attention=0.02)
    found = answer([WHOLE, CELL, weak])
    picture = drawn(tmp_path, np.full((512, 512, 3), 90, np.uint8), found, values=(0, 255)).astype(int)
    at = [picture[MARGIN + y, MARGIN + x] - 90 for y, x in ((190, 320), (64, 64), (400, 400))]
    strong, faint, none = (np.abs(one).sum() for one in at)
    assert strong > 2 * faint > 0
    assert none == 0


def test_root_regions_are_seen_on_glass_and_in_the_dark(tmp_path):
    half = [replace(WHOLE, width=256, height=256, x=x, y=0) for x in (0, 256)]
    for ground in (245, 5):
        pixels = np.full((512, 512, 3), ground, np.uint8)
        picture = drawn(tmp_path, pixels, answer(half), values=(0, 255)).astype(int)
        line = picture[MARGIN : MARGIN + 250, MARGIN + 256]
        assert (np.abs(line - ground).max(1) > 200).mean() > 0.4


def test_a_region_of_a_few_pixels_still_has_a_visible_mark(tmp_path):
    picture = drawn(tmp_path, np.full((5120, 512, 1), 90, np.uint8), answer([TINY], region=(0, 0, 512, 512)))
    y, x = coloured(picture, SHOWN)
    near = (abs(y - 202) < 12) & (abs(x - 302) < 12)
    assert near.sum() >= 20


@pytest.mark.parametrize(
    ("mpp", "text", "share"),
    [
        (0.5, "50 um", 100 / 512),
        (None, "100 px", 100 / 512),
        (1e6, "100 m", 100 / 512),
        (1e4, "1 m", 100 / 512),
    ],
)
def test_the_scale_bar_has_a_round_length_of_that_many_px(monkeypatch, mpp, text, share):
    said = []
    monkeypatch.setattr("hiresattn.report.marks.draw_text", lambda *words: said.append(words[2]))
    picture = Image.new("RGB", (512, 256), (90, 90, 90))
    Marks(picture, (0, 0, 256, 512)).scale_bar(mpp)
    assert said == [text]
    row = np.asarray(picture)[256 - 44 + 9]
    dark = (row == ImageColor.getrgb("#16181d")).all(1)
    assert dark[10:].sum() - 1 == pytest.approx(512 * share, abs=3)


def test_what_carries_the_answer_is_shown_first(tmp_path):
    looks = [replace(CELL, id=n, attention=n / 100) for n in range(1, 9)]
    assert [one.id for one in decisive(answer(looks, sufficient=(3, 1)), 4)] == [3, 1, 8, 7]
    assert [one.id for one in finest([WHOLE, CELL, TINY])] == [2]
    assert finest([WHOLE]) == []


def test_warnings_and_doubts_are_on_the_picture(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("hiresattn.report.panel.draw_text", lambda *words: said.append(words[2]))
    doubts = {"warnings": ("seen at 0.5 µm/px",), "needs_review": True, "review_reasons": ("may be both",)}
    drawn(tmp_path, np.full((512, 512, 3), 90, np.uint8), answer([WHOLE], **doubts))
    assert {"Needs review: may be both", "Warning: seen at 0.5 um/px"} <= set(said)
    said.clear()
    drawn(tmp_path, np.full((512, 512, 3), 90, np.uint8), answer([WHOLE], warnings=("word " * 800,)))
    assert sum("more lines" in one for one in said) == 1


def test_the_close_up_shows_the_most_attended_pixels(tmp_path):
    pixels = np.full((512, 512, 3), 90, np.uint8)
    pixels[128:256, 256:384] = (10, 200, 60)
    picture = drawn(tmp_path, pixels, answer([WHOLE, CELL]))
    panel = picture[:, 512 + 2 * MARGIN :]
    assert (panel == (10, 200, 60)).all(2).sum() > 250 * 250  # 128 px, twice enlarged


def test_targets_can_be_marked_and_those_outside_the_window_are_not(tmp_path):
    pixels = np.full((512, 512, 3), 90, np.uint8)
    one, other, outside = (300, 300, 28, 28), (100, 60, 28, 28), (600, 300, 28, 28)
    none, single, two, same = (
        (drawn(tmp_path, pixels, answer([WHOLE]), truth_boxes=boxes) == ImageColor.getrgb(TRUTH)).all(2).sum()
        for boxes in ([], [one], [one, other], [one, outside])
    )
    assert none == 0
    assert single > 100
    assert two > single + 100
    assert same == single


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((300, 300, 1), "uint16"),
        ((40, 700, 3), "uint8"),
        ((700, 40, 3), "uint8"),
        ((20, 20, 3), "uint8"),
        ((300, 200, 8), "float32"),
        ((300, 200, 2), "int16"),
    ],
)
def test_every_kind_of_image_is_drawn(tmp_path, shape, dtype):
    pixels = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    side = min(shape[:2])
    regions = [
        VisitedRegion(0, None, 0, 0, 0, side, side, 0.5, 0.0),
        VisitedRegion(1, 0, 1, side // 4, 0, side // 2, side // 2, 0.5, 0.0),
    ]
    picture = drawn(tmp_path, pixels, answer(regions))
    assert picture.shape[1] > picture[:, 0].shape[0] // 4
    assert picture.std() > 5


def test_an_answer_without_regions_is_drawn_too(tmp_path):
    pixels = np.full((64, 64, 1), np.nan, np.float32)
    prediction = answer([], status="no_valid_pixels", class_name=None, score=None)
    assert drawn(tmp_path, pixels, prediction).shape[0] >= 512


def test_names_of_any_length_and_alphabet_fit(tmp_path):
    prediction = answer([WHOLE], source="/data/" + "größe-漢字-" * 20 + ".tif", class_name="x" * 99)
    drawn(tmp_path, np.full((512, 512, 3), 90, np.uint8), prediction)


def test_numbers_never_lie_on_each_other():
    picture = Image.new("RGB", (600, 600))
    marks = Marks(picture, (0, 0, 600, 600))
    rng = np.random.default_rng(0)
    places = rng.integers(0, 560, (80, 2))
    looks = [VisitedRegion(i, 0, 2, y, x, 40, 40, 0.1, 0.0) for i, (y, x) in enumerate(places.tolist())]
    marks.draw(looks, looks, ())
    labels = np.array(marks._labels)
    assert len(labels) > 30
    start = np.maximum(labels[:, None, :2], labels[None, :, :2])
    stop = np.minimum(labels[:, None, 2:], labels[None, :, 2:])
    overlap = (start < stop).all(2)
    assert overlap.sum() == len(labels)


def test_a_tile_that_cant_be_read_is_an_error_and_no_picture(tmp_path):
    pyramid = open_pyramid(np.zeros((64, 64, 3), np.uint8))

    def fail(*_):
        raise ReadError("scene.tif, level 0: damaged")

    pyramid._read = fail
    with pytest.raises(ReadError, match="damaged"):
        draw_overlay(pyramid, answer([WHOLE], region=(0, 0, 64, 64)), tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


def test_the_cost_is_told_in_words_and_units_that_fit(monkeypatch):
    said = []
    monkeypatch.setattr(Panel, "_text", lambda _, text, *__, **___: said.append(text))
    Panel().costs(answer([WHOLE], cost=Cost(glimpses=1, tiles=1, bytes_read=33_200, fraction_read=0.004)))
    assert said == ["1 look, 0.40 % of the pixels read", "1 tile, 33.2 kB, 0 s"]


@pytest.mark.parametrize(
    ("text", "drawn"),
    [("Gutartig (ö)", "Gutartig (o)"), ("0.5 µm", "0.5 um"), ("Größe", "Grosse"), ("中", "?")],
)
def test_letters_that_the_font_lacks_are_drawn_as_their_like(text, drawn):
    assert ascii_text(text) == drawn
