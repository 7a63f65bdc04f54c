"""The right-hand column of an overlay: answer, warnings, probabilities, the looks of most weight, legend, cost."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from hiresattn.errors import counted
from hiresattn.inference.record import Record, VisitedRegion
from hiresattn.report.looks import finest
from hiresattn.report.marks import DARK, LOOK, SHOWN, TRUTH, ascii_text, draw_text, heat_colour
from hiresattn.report.units import human_bytes, human_seconds, human_share
from hiresattn.report.view import hatch

#: Side of the largest look that is shown px by px.
INSET = 256
_ACROSS, _GAP = 3, 12
WIDTH = _ACROSS * INSET + (_ACROSS - 1) * _GAP
BACKGROUND = "#fafafa"
_GREY, _AMBER, _AMBER_TEXT, _BAR = "#5b616e", "#fff1dc", "#8a4b00", "#56b4e9"
_MAX_HEIGHT = 3000
#: Most classes with a bar, most lines of warnings, and px of the thumbnail.
_MAX_BARS, _MAX_LINES, _THUMBNAIL = 8, 8, 210


class Panel:
    """Collects text and pictures, one below the other."""

    def __init__(self) -> None:
        self._image = Image.new("RGB", (WIDTH, _MAX_HEIGHT), BACKGROUND)
        self._draw = ImageDraw.Draw(self._image)
        self.y = 0
        """Top of the next part, px."""

    def heading(self, prediction: Record) -> None:
        """Add source, class and probability."""
        self._text(Path(prediction.source).name or prediction.source, 16)
        if prediction.region:
            y, x, height, width = prediction.region
            self._text(f"rows {y} to {y + height}, columns {x} to {x + width}", 12, _GREY)
        if prediction.labels is not None:
            self._text(", ".join(prediction.labels) or "no label", 30)
            if prediction.label is not None:
                self._text(f"labels given: {', '.join(prediction.label) or 'none'}", 14)
        elif prediction.class_name is None:
            self._text(prediction.status.replace("_", " "), 26)
        else:
            self._text(prediction.class_name, 30)
            label = "" if prediction.label is None else f", label given: {prediction.label}"
            self._text(f"probability {prediction.score or 0:.3f}{label}", 14)
            if prediction.prediction_set is not None and len(prediction.prediction_set) != 1:
                may = " or ".join(prediction.prediction_set) or "no class is probable enough"
                self._text(f"may be: {may}", 14)
        self.y += 6

    def warnings(self, prediction: Record) -> None:
        """Add what to mind about the answer, if anything."""
        said = [f"Warning: {one}" for one in prediction.warnings]
        if prediction.needs_review:
            said.insert(0, f"Needs review: {'; '.join(prediction.review_reasons)}")
        font = ImageFont.load_default(size=13)
        lines = [line for one in said for line in _wrapped(one, font, WIDTH - 20)]
        if len(lines) > _MAX_LINES:
            lines = [
                *lines[: _MAX_LINES - 1],
                f"... and {len(lines) - _MAX_LINES + 1} more lines, in the record",
            ]
        if lines:
            height = 18 * len(lines) + 12
            self._draw.rectangle((0, self.y, WIDTH - 1, self.y + height), fill=_AMBER)
            for number, line in enumerate(lines):
                draw_text(self._draw, (10, self.y + 6 + 18 * number), line, font, _AMBER_TEXT)
            self.y += height + 10

    def probabilities(self, prediction: Record, thumbnail: Image.Image) -> None:
        """Add a bar for each of the likeliest classes, and the image without marks beside them."""
        scale = min(_THUMBNAIL / thumbnail.width, _THUMBNAIL / thumbnail.height)
        size = (max(round(thumbnail.width * scale), 1), max(round(thumbnail.height * scale), 1))
        left, top = WIDTH - size[0], self.y
        self._image.paste(thumbnail.resize(size, Image.Resampling.BOX), (left, top))
        self._draw.rectangle((left, top, WIDTH - 1, top + size[1] - 1), outline=_GREY)
        ranked = sorted(prediction.scores.items(), key=lambda item: -item[1])
        if ranked:
            self._text("Probabilities", 14)
        font = ImageFont.load_default(size=13)
        room = WIDTH - _THUMBNAIL - 24
        for name, share in ranked[:_MAX_BARS]:
            draw_text(self._draw, (0, self.y), _shortened(name, font, 150), font)
            self._draw.rectangle((158, self.y + 3, 158 + (room - 208) * share, self.y + 14), fill=_BAR)
            draw_text(self._draw, (room - 40, self.y), f"{share:.3f}", font)
            self.y += 20
        if len(ranked) > _MAX_BARS:
            self._text(f"and {len(ranked) - _MAX_BARS} other classes", 12, _GREY)
        self.y = max(self.y, top + size[1]) + 12

    def looks(self, pictures: Sequence[tuple[VisitedRegion, Image.Image]]) -> None:
        """Add looks px by px, or enlarged by a whole number, or reduced to ``INSET`` px, numbered from 1."""
        if not pictures:
            return
        self._text("The looks of most weight", 14)
        side, top = INSET, self.y
        for number, (region, picture) in enumerate(pictures):
            times = max(side // max(picture.size), 1)
            shown = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
            left = number % _ACROSS * (side + _GAP)
            if number and number % _ACROSS == 0:
                top = self.y
            self._draw.rectangle((left, top, left + side - 1, top + side - 1), fill="#e4e6ea", outline=DARK)
            self._image.paste(shown, (left + (side - shown.width) // 2, top + (side - shown.height) // 2))
            self._draw.rectangle((left, top, left + 22, top + 20), fill=DARK)
            at = ImageFont.load_default(size=14)
            draw_text(self._draw, (left + 7, top + 2), str(number + 1), at, SHOWN)
            shrunk = max(region.height, region.width) / max(picture.size)
            how = f"x {times}" if times > 1 else f"1 : {shrunk:.0f}" if shrunk > 1 else "1 : 1"
            self.y = top + side + 2
            share = human_share(region.attention)
            self._text(f"look {region.id}: {share} of the weight", 12, x=left, right=left + side)
            self._text(f"{region.width} x {region.height} px, {how}", 12, _GREY, x=left, right=left + side)
            self.y += 4
        self.y += 4

    def legend(self, prediction: Record, *, invalid: bool, truth: bool) -> None:
        """Add what the marks on the picture mean."""
        regions = prediction.regions
        by_depth = [[one for one in regions if one.depth == depth] for depth in range(8)]
        if by_depth[0]:
            self._key(f"{counted(len(by_depth[0]), 'root region')}: all of it, from afar", "dashed")
        if finer := finest(regions):
            side = max(region.height for region in finer)
            self._key(f"{counted(len(finer), 'look')} at the finest scale, {side} px a side", LOOK)
            between = len(regions) - len(finer) - len(by_depth[0])
            if between:
                self._text(f"{counted(between, 'look')} in between: no outline", 13, _GREY, x=26)
            self._key("weight per px, from little to most", "heat")
        if names := sorted({region.scorer for region in regions if region.scorer}):
            self._text(f"Chosen by: {', '.join(names)}", 13)
        if truth:
            self._key("known target", TRUTH)
        if invalid:
            self._key("no valid pixels", "hatched")
        self.y += 6

    def costs(self, prediction: Record) -> None:
        """Add looks, share of pixels read, bytes, seconds, and why the search stopped."""
        cost = prediction.cost
        looks, tiles = counted(cost.glimpses, "look"), counted(cost.tiles, "tile")
        self._text(f"{looks}, {human_share(cost.fraction_read)} of the pixels read", 13)
        about = "about " if cost.bytes_estimated else ""
        self._text(f"{tiles}, {about}{human_bytes(cost.bytes_read)}, {human_seconds(cost.seconds.total)}", 13)
        if cost.stop_reason:
            self._text(f"stopped by: {cost.stop_reason.replace('_', ' ')}", 13)

    def image(self) -> Image.Image:
        """Return the column, cut to the height of its contents."""
        return self._image.crop((0, 0, WIDTH, self.y))

    def _text(self, text: str, size: int, colour: str = DARK, x: float = 0, right: float = WIDTH) -> None:
        font = ImageFont.load_default(size=size)
        draw_text(self._draw, (x, self.y), _shortened(text, font, right - x), font, colour)
        self.y += round(size * 1.4)

    def _key(self, text: str, kind: str) -> None:
        left, top, right, bottom = box = (2, self.y + 2, 18, self.y + 16)
        if kind == "hatched":
            self._image.paste(Image.fromarray(hatch(15, 17)), (2, self.y + 2))
        elif kind == "heat":
            for column in range(17):
                line = (left + column, top, left + column, bottom)
                self._draw.line(line, fill=heat_colour(column / 16))
        elif kind == "dashed":
            self._draw.rectangle(box, outline=DARK, width=2)
            for at in range(left + 3, right, 6):
                self._draw.line((at, top, at + 2, top), fill="#ffffff", width=2)
                self._draw.line((at, bottom - 1, at + 2, bottom - 1), fill="#ffffff", width=2)
        elif kind == TRUTH:
            self._draw.ellipse(box, outline=kind, width=3)
        else:
            self._draw.rectangle(box, outline=DARK, width=3)
            self._draw.rectangle((left + 1, top + 1, right - 1, bottom - 1), outline=kind)
        self._text(text, 13, x=26)
        self.y += 2


_Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


def _shortened(text: str, font: _Font, width: float) -> str:
    """A text cut in its middle, so that it is no wider."""
    text = ascii_text(text)
    shown = text
    while font.getlength(shown) > width and len(text) > 2:
        text = text[: len(text) // 2] + text[len(text) // 2 + 1 :]
        shown = text[: len(text) // 2] + "..." + text[len(text) // 2 :]
    return shown


def _wrapped(text: str, font: _Font, width: float) -> list[str]:
    """A text in lines that are no wider; longer words are cut."""
    lines = [""]
    for word in ascii_text(text).split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(_shortened(word, font, width))
    return [line for line in lines if line]
