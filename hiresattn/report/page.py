"""The results as one HTML file that needs no server: a list of cases, and for each what was looked at."""

import base64
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from hiresattn.errors import ConfigError, HiresattnError, WriteError, reason
from hiresattn.files import atomic_write, is_remote
from hiresattn.inference.lines import json_line
from hiresattn.inference.record import CaseSource, Record, VisitedRegion
from hiresattn.pyramid import Pyramid, open_pyramid
from hiresattn.report import hidden
from hiresattn.report.changed import why_changed
from hiresattn.report.facts import answer_of, case_facts, with_most_weight
from hiresattn.report.looks import decisive
from hiresattn.report.template import page_template
from hiresattn.report.view import display_range, read_view, to_image

#: Longer side of an overview and of a look, px.
_OVERVIEW, _LOOK = 768, 256
#: Looks of a case that have a picture of their own: so many at least, and as many more as there is room for.
_LOOKS, _MOST_LOOKS = 6, 24
#: Most looks of a case that are listed, but for some that these were chosen from.
_LISTED = 1000
#: Most bytes of a case, and of its overviews and of its looks, JPEG, where its facts leave room for them.
_CASE = 200_000
_BYTES = {"overview": 75_000, "look": 95_000}
#: Longer side of the mask of what was not looked at closely, px, where not all looks are listed.
_MASK = 384
_QUALITIES = (82, 70, 55, 40, 25)
#: Quality at which more looks are worth more than better ones.
_PLAIN = 55
#: Where the cases and their list go in the page.
_CASES, _LIST = "<!--CASES-->", "<!--LIST-->"


@dataclass
class Report:
    """What a report holds."""

    cases: int = 0
    notes: list[str] = field(default_factory=list)
    """Images whose pictures are missing, and why."""


def write_report(
    records: Iterable[Record],
    path: str | os.PathLike[str],
    *,
    values: tuple[float, float] | None = None,
    overwrite: bool = False,
    hide_names: bool = False,
    progress: Callable[[int, str], None] | None = None,
    run: Mapping[str, Any] | None = None,
) -> Report:
    """Write records as one HTML file, which opens in any browser and reads nothing else.

    The images are opened again for pictures: of each a coarse view, of each case the looks that carry the answer. An
    image that can't be opened has none; what the record says is there.

    Args:
        records: As ``classify`` returns them, or ``read_records`` reads them; one is in memory at a time.
        path: The file.
        values: Pixel values to show as black and as white; see ``draw_overlay``.
        overwrite: Replace what is there.
        hide_names: Call cases and images by case and number: see ``hiresattn.report.hidden``.
        progress: Called with the number of cases done and the name of the last.
        run: What the records were made with, from ``hiresattn.report.provenance.provenance``.

    Returns:
        How many cases it holds, and what is missing.

    Raises:
        ConfigError: If the file is there, or there are no records.
        WriteError: If it can't be written.
    """
    path = Path(path)
    if path.is_dir():
        raise ConfigError(f"{path}: that is a folder; give the name of a file, such as report.html")
    if path.exists() and not overwrite:
        raise ConfigError(f"{path}: is there already; overwrite replaces it, or give another file")
    head, _, rest = page_template("hiresattn.report", "page.html").partition(_CASES)
    middle, _, tail = rest.partition(_LIST)
    found = Report()
    listed: list[dict[str, Any]] = []
    facts = dict(run or {})
    if hide_names or facts.get("names") == "hidden":
        facts.pop("folder", None)
    try:
        with atomic_write(path) as part, part.open("w", encoding="utf-8") as file:
            file.write(head)
            for record in records:
                shown = record
                if hide_names:
                    shown = hidden.hide_names(record, hidden.hidden_name(record.case, found.cases + 1))
                file.write(_script(f"case-{found.cases}", _case(record, shown, values, found.notes)))
                listed.append(_summary(shown))
                if record.model:
                    facts |= {"model": dict(record.model), "version": record.version}
                found.cases += 1
                if progress is not None:
                    progress(found.cases, record.source)
            if not listed:
                raise ConfigError(f"{path}: there are no records to show")
            _name_cases(listed)
            file.write(middle + _script("run", facts) + _script("list", listed) + tail)
    except HiresattnError:
        raise
    except OSError as error:
        raise WriteError(f"{path}: can't be written ({error.strerror or error}); check its folder") from error
    return found


def _script(name: str, value: Any) -> str:
    """Data in a page: JSON in which nothing ends the element."""
    text = json_line(value).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>\n'


def _summary(record: Record) -> dict[str, Any]:
    """A row of the list."""
    return {
        "name": record.source,
        "case": record.case,
        "images": len(record.sources),
        "region": record.region,
        "answer": answer_of(record),
        "several": record.labels is not None,
        "score": record.score,
        "set": record.prediction_set,
        "review": record.needs_review,
        "label": record.label,
        "looks": record.cost.glimpses,
        "share": record.cost.fraction_read,
    }


def _name_cases(rows: list[dict[str, Any]]) -> None:
    """Call the rows of the list by their cases, where each has one row; else by their images."""
    count = Counter(row["case"] for row in rows)
    for row in rows:
        case = row.pop("case")
        if case is not None and count[case] == 1:
            row["name"], row["region"] = case, None


def _case(
    record: Record, shown: Record, values: tuple[float, float] | None, notes: list[str]
) -> dict[str, Any]:
    """All that the page shows of a case; ``shown`` is the record with the names that are shown."""
    few = with_most_weight(shown, _LISTED)
    facts = case_facts(few)
    facts["sizes"] = [_file_size(one.source) for one in record.sources]
    room = 0.75 * (_CASE - len(json_line(facts).encode())) - 5000
    share = min(max(room / sum(_BYTES.values()), 0.1), 1.0)
    facts["pictures"], facts["crops"] = _pictures(record, values, notes, share)
    for picture in facts["pictures"] if len(few.regions) < len(record.regions) else ():
        if picture["frame"] is not None:
            picture["unseen"] = _unseen(record, picture["source"], picture["frame"])
    for picture in facts["pictures"] if shown is not record else ():
        picture["name"] = (shown.sources[picture["source"]] if shown.sources else shown).source
        if "note" in picture:
            picture["note"] = hidden.cleaner(record, shown.source)(picture["note"])
    return facts


def _pictures(
    record: Record, values: tuple[float, float] | None, notes: list[str], share: float
) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """An overview of each image that is part of the answer, and the looks of most weight, as data addresses.

    ``share`` is how much of the ``_BYTES`` they may have.
    """
    most = {kind: round(share * size) for kind, size in _BYTES.items()}
    shown_looks = decisive(record, _MOST_LOOKS)
    overviews: list[dict[str, Any]] = []
    crops: dict[int, Image.Image] = {}
    shown: list[tuple[dict[str, Any], Image.Image]] = []
    numbers = [n for n, one in enumerate(record.sources) if one.error is None] or (
        [0] if record.regions else []
    )
    for number in numbers:
        named = record.sources[number] if record.sources else record
        picture: dict[str, Any] = {
            "source": number,
            "name": named.source,
            "frame": _frame(named),
            "image": None,
        }
        overviews.append(picture)
        if not any(region.source == number for region in record.regions):
            continue
        try:
            if isinstance(named, CaseSource) and (why := why_changed(named)):
                raise ConfigError(why)
            with open_pyramid(named.source) as pyramid:
                picture["frame"] = frame = named.region or (0, 0, pyramid.height, pyramid.width)
                view = read_view(pyramid, frame, max(_OVERVIEW // len(numbers), 256))
                low, high = display_range(view, pyramid.dtype)
                if values is not None:
                    low, high = np.full_like(low, values[0]), np.full_like(high, values[1])
                shown.append((picture, to_image(view, low, high)))
                for region in shown_looks:
                    if region.source == number:
                        crops[region.id] = _crop(pyramid, region, low, high)
        except (HiresattnError, OSError) as error:
            picture["note"] = reason(error)
            notes.append(f"{named.source}: no pictures of it: {reason(error)}")
    for (picture, _), data in zip(shown, _jpegs([i for _, i in shown], most["overview"]), strict=True):
        picture["image"] = data
    kept = [region.id for region in shown_looks if region.id in crops]
    sizes = np.cumsum([len(_jpeg(crops[look], _PLAIN)) for look in kept])
    kept = kept[: max(_LOOKS, int((sizes <= most["look"]).sum()))]
    return overviews, dict(zip(kept, _jpegs([crops[look] for look in kept], most["look"]), strict=True))


def _unseen(record: Record, number: int, frame: Sequence[int]) -> str:
    """A mask of an image, as a data address: black where it was looked at closely, else white."""
    y, x, height, width = frame
    scale = _MASK / max(height, width)
    mask = Image.new("1", (max(round(width * scale), 1), max(round(height * scale), 1)), 1)
    draw = ImageDraw.Draw(mask)
    for r in record.regions:
        if r.source == number and r.finest:
            left, top = round((r.x - x) * scale), round((r.y - y) * scale)
            right, bottom = (round(edge * scale) - 1 for edge in (r.x - x + r.width, r.y - y + r.height))
            draw.rectangle((left, top, max(right, left), max(bottom, top)), fill=0)
    file = io.BytesIO()
    mask.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _file_size(source: str) -> int | None:
    """Bytes of a file on this computer; None = it is none, or not there."""
    try:
        path = Path(source)
        return path.stat().st_size if not is_remote(source) and path.is_file() else None
    except (OSError, ValueError):
        return None


def _frame(named: CaseSource | Record) -> tuple[int, ...] | None:
    """What the record says that was classified of an image, so that regions have a place where it can't be opened."""
    if named.region is not None or not isinstance(named, CaseSource):
        return named.region
    return None if named.height is None or named.width is None else (0, 0, named.height, named.width)


def _crop(pyramid: Pyramid, region: VisitedRegion, low: np.ndarray, high: np.ndarray) -> Image.Image:
    """A look: at native resolution, or reduced where it is larger than the picture."""
    side = min(max(region.height, region.width), _LOOK)
    return to_image(read_view(pyramid, (region.y, region.x, region.height, region.width), side), low, high)


def _jpegs(images: list[Image.Image], most: int) -> list[str]:
    """Images as data addresses, of the best quality at which they are small enough together."""
    encoded: list[bytes] = []
    for quality in _QUALITIES:
        encoded = [_jpeg(image, quality) for image in images]
        if sum(map(len, encoded)) <= most:
            break
    while sum(map(len, encoded)) > most:
        images = [image.reduce(2) for image in images]
        encoded = [_jpeg(image, _QUALITIES[-1]) for image in images]
    return [f"data:image/jpeg;base64,{base64.b64encode(data).decode()}" for data in encoded]


def _jpeg(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, optimize=True)
    return file.getvalue()


def embedded(page: str, name: str) -> Any:
    """The data of a page, by the name of their element: ``list``, ``case-0`` and so on."""
    _, _, rest = page.partition(f'<script type="application/json" id="{name}">')
    return json.loads(rest.partition("</script>")[0])
