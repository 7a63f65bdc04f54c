"""The right-hand column of an overlay: class, close-ups, legend, cost."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from hiresattn.errors import counted
from hiresattn.inference.record import Record, VisitedRegion
from hiresattn.report.marks import DARK, TRUTH, depth_colour
from hiresattn.report.units import human_bytes, human_seconds, human_share
from hiresattn.report.view import hatch

WIDTH = 340
#: Side of a close-up, px.
INSET = 300
BACKGROUND = "#fafafa"
_GREY = "#5b616e"
_MAX_HEIGHT = 1600
#: Most labels whose probability is written.
_MAX_LABELS = 8


class Panel:
    """Collects text and images, one below the other."""

    def __init__(self) -> None:
        self._image = Image.new("RGB", (WIDTH, _MAX_HEIGHT), BACKGROUND)
        self._draw = ImageDraw.Draw(self._image)
        self.y = 0
        """Top of the next part, px."""

    def heading(self, prediction: Record) -> None:
        """Add source, class and score."""
        self._text(Path(prediction.source).name or prediction.source, 15)
        if prediction.region:
            y, x, height, width = prediction.region
            self._text(f"rows {y} to {y + height}, columns {x} to {x + width}", 12, _GREY)
        if prediction.labels is not None:
            self._text(", ".join(prediction.labels) or "no label", 30)
            for name in prediction.labels[:_MAX_LABELS]:
                self._text(f"{name}: {prediction.scores[name]:.3f}", 14)
            if prediction.label is not None:
                self._text(f"labels given: {', '.join(prediction.label) or 'none'}", 14)
        elif prediction.class_name is None:
            self._text(prediction.status.replace("_", " "), 26)
        else:
            self._text(prediction.class_name, 30)
            label = "" if prediction.label is None else f", label given: {prediction.label}"
            self._text(f"score {prediction.score or 0:.3f}{label}", 14)
        self.y += 6

    def close_up(self, image: Image.Image, region: VisitedRegion, title: str) -> None:
        """Add a framed image of a region, its title and where it is."""
        side = INSET + 8
        self._draw.rectangle((0, self.y, side - 1, self.y + side - 1), fill=DARK)
        self._draw.rectangle((1, self.y + 1, side - 2, self.y + side - 2), fill=depth_colour(region.depth))
        self._image.paste(image, (4, self.y + 4))
        self.y += side + 4
        self._text(title, 13)
        self._text(f"{region.width} x {region.height} px at row {region.y}, column {region.x}", 12, _GREY)
        self.y += 8

    def legend(self, regions: tuple[VisitedRegion, ...], *, invalid: bool, truth: bool) -> None:
        """Add what colours, numbers and marks mean."""
        if regions:
            self._text("Outlines by depth; numbers in the order of looking", 13)
        if names := sorted({region.scorer for region in regions if region.scorer}):
            self._text(f"Chosen by: {', '.join(names)}", 13)
        for depth in sorted({region.depth for region in regions}):
            at = [region for region in regions if region.depth == depth]
            looks = counted(len(at), "look")
            sides = f"{max(region.height for region in at)} px a side"
            self._key(f"depth {depth}: {looks}, {sides}", depth_colour(depth))
        if truth:
            self._key("known target", TRUTH, round_mark=True)
        if invalid:
            self._key("no valid pixels", None)
        self.y += 8

    def costs(self, prediction: Record) -> None:
        """Add looks, share of pixels read, bytes, seconds, and why the search stopped."""
        cost = prediction.cost
        looks, tiles = counted(cost.glimpses, "look"), counted(cost.tiles, "tile")
        self._text(f"{looks}, {human_share(cost.fraction_read)} of the pixels read", 13)
        about = "about " if cost.bytes_estimated else ""
        self._text(f"{tiles}, {about}{human_bytes(cost.bytes_read)}, {human_seconds(cost.seconds.total)}", 13)
        if cost.stop_reason:
            self._text(f"stopped by: {cost.stop_reason}", 13)

    def image(self) -> Image.Image:
        """Return the column, cut to the height of its contents."""
        return self._image.crop((0, 0, WIDTH, self.y))

    def _text(self, text: str, size: int, colour: str = DARK, x: int = 0) -> None:
        font = ImageFont.load_default(size=size)
        text = text.encode("ascii", "replace").decode()  # all that Pillow's built-in font can draw
        shown = text
        while font.getlength(shown) > WIDTH - x and len(text) > 2:
            text = text[: len(text) // 2] + text[len(text) // 2 + 1 :]
            shown = text[: len(text) // 2] + "..." + text[len(text) // 2 :]
        self._draw.text((x, self.y), shown, fill=colour, font=font)
        self.y += round(size * 1.4)

    def _key(self, text: str, colour: str | None, *, round_mark: bool = False) -> None:
        box = (2, self.y + 2, 16, self.y + 16)
        if colour is None:
            self._image.paste(Image.fromarray(hatch(15, 15)), (2, self.y + 2))
        elif round_mark:
            self._draw.ellipse(box, outline=colour, width=3)
        else:
            self._draw.rectangle(box, outline=DARK, fill=colour)
        self._text(text, 13, x=26)
        self.y += 2
