"""The record of one classified source: prediction, regions and cost. Frozen, and JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NoReturn

#: Probability from which on one of several labels is part of an answer.
LIKELY = 0.5
#: Classes whose probability is kept after each glimpse.
MOST_FOLLOWED = 5
#: In JSON: numbers that the network gave, and their significant digits; those of attention; decimals of logarithms.
_PROBABILITIES = ("score", "score_without", "sufficiency", "domain_distance")
_DIGITS, _ATTENTION_DIGITS, _LOGP_DECIMALS = 5, 4, 3
#: Regions and classes that are listed.
_MOST_LISTED = 5


@dataclass(frozen=True)
class VisitedRegion:
    """One glimpse."""

    id: int
    """Order in which it was looked at, from 0."""
    parent: int | None
    """``id`` of the glimpse that it was chosen from."""
    depth: int
    """Divisions between a root region and this one: 0 is a root region."""
    y: int
    """First row, level-0 px."""
    x: int
    """First column, level-0 px."""
    height: int
    """Rows, level-0 px."""
    width: int
    """Columns, level-0 px."""
    attention: float
    """The aggregator's weight; sums to 1 over the regions."""
    select_logp: float
    """Log-probability of the choice within its parent; 0 at depth 0."""
    scorer: str | None = None
    """What chose it: the name of the scorer, or ``random``; None where nothing was chosen, as at depth 0."""
    source: int = 0
    """Which of the record's ``sources`` it is of."""
    finest: bool | None = None
    """Whether it is of the finest scale, and so not divided further; None = a record of an earlier version."""


@dataclass(frozen=True)
class CaseSource:
    """One image of a record: what it is, and what was read of it."""

    source: str
    """Path or address."""
    region: tuple[int, int, int, int] | None = None
    """Window asked for ``(y, x, height, width)``, level-0 px; None = the whole image."""
    height: int | None = None
    """Rows of level 0; None = it couldn't be opened."""
    width: int | None = None
    """Columns of level 0."""
    mpp: float | None = None
    """Micrometres per level-0 px that the model's domain was checked with; None = not known."""
    mpp_source: str | None = None
    """``given`` (in place of what the file says), where the file says it, or why that wasn't taken."""
    crs: str | None = None
    """Coordinate reference system: an authority code such as ``EPSG:32618``, else WKT."""
    transform: tuple[float, float, float, float, float, float] | None = None
    """Affine transform (a, b, c, d, e, f) of level-0 px (column, row) to coordinates of the CRS."""
    gcps: tuple[tuple[float, float, float, float], ...] | None = None
    """Ground control points of an image without a transform: row, column (level-0 px), x, y (in its CRS)."""
    bounds: tuple[int, int, int, int] | None = None
    """The scanned part of a slide ``(y, x, height, width)``, level-0 px; None = all of it, or not known."""
    bytes: int | None = None
    """Size of the file when it was classified; None = not known, as of addresses."""
    modified: str | None = None
    """When the file had last been changed then, ISO 8601, UTC; None = not known."""
    acquired: str | None = None
    """When it was taken, ISO 8601, where its STAC item or its file says so."""
    glimpses: int = 0
    """Regions of it that were looked at."""
    fraction_read: float = 0.0
    """Pixels decoded over the level-0 pixels classified."""
    error: str | None = None
    """Why it couldn't be read, and is not part of the answer; None = it could."""
    empty: bool = False
    """Whether it holds no foreground, beside others of its case that do: it is not part of the answer."""
    domain_distance: float | None = None
    """How far its coarse view is from the training images'; see ``Record.domain_distance``."""


@dataclass(frozen=True)
class Seconds:
    """Wall time by part."""

    open: float = 0.0
    read: float = 0.0
    model: float = 0.0
    total: float = 0.0


@dataclass(frozen=True)
class Cost:
    """What an answer cost."""

    glimpses: int = 0
    tiles: int = 0
    """Storage tiles decoded."""
    missing_tiles: int = 0
    """Tiles asked for that the file leaves out."""
    pixels_decoded: int = 0
    bytes_read: int = 0
    """Stored bytes of the tiles decoded."""
    bytes_estimated: bool = False
    """True where the format doesn't tell: the file's size shared out over its pixels."""
    requests: int | None = None
    """Requests to servers; None = none, or they aren't counted."""
    bytes_received: int | None = None
    """Bytes of the servers' responses, headers of files and what lies beside them included."""
    fraction_read: float = 0.0
    """Pixels decoded over the level-0 pixels classified."""
    foreground_seen: float | None = None
    """Share of the foreground that lies in finest regions looked at; None = no foreground was looked for."""
    seconds: Seconds = field(default_factory=Seconds)
    stop_reason: str = ""
    """``confidence``, ``budget``, ``exhausted`` (all of the image was seen at the finest scale, or no cell is open),
    ``depth`` (all that a policy without a search looks at was seen), ``no_valid_pixels``, ``no_foreground``."""


class _ReadOnly(dict[str, Any]):
    """A dict that can't be changed; for ``asdict``, copies, pickles and JSON it is one like any other."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a record can't be changed; take a copy of it with dict()")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


@dataclass(frozen=True)
class Record:
    """What was predicted for one case, from which regions and at what cost; or why nothing was."""

    source: str
    """Path or address of the image; of a case with several, the case."""
    status: str
    """``ok``, ``no_valid_pixels``, ``no_foreground`` or ``error``."""
    error: str | None = None
    region: tuple[int, int, int, int] | None = None
    """Window asked for ``(y, x, height, width)``, level-0 px; None = the whole image, or several."""
    mpp: float | None = None
    """Micrometres per level-0 px; None = not known, or several images."""
    mpp_source: str | None = None
    """``given`` (in place of what the file says), where the file says it, or why that wasn't taken."""
    foreground: float | None = None
    """Share of the measured image that is foreground, as its root regions show it; None = it was not looked for."""
    case: str | None = None
    """The case, where one was named."""
    sources: tuple[CaseSource, ...] = ()
    """The images of the case; of a source for itself, that one."""
    label: str | tuple[str, ...] | None = None
    """The label given with the source, if any; all of them where the model answers with several."""
    class_name: str | None = None
    score: float | None = None
    labels: tuple[str, ...] | None = None
    """Where the model answers with several labels, in place of the class: those of probability ``LIKELY`` or more,
    the likeliest first."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Probability of every class; of several labels, each one's own. Read-only."""
    scores_after: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Probability after each of ``regions``, in the order of looking, to 4 decimals: of the answer, and of the classes
    that were likeliest at any time, ``MOST_FOLLOWED`` at most. Read-only."""
    prediction_set: tuple[str, ...] | None = None
    """The classes that may be right, the likeliest first: see ``Conformal``. None = the model wasn't calibrated for
    them, or not with searches like this one."""
    needs_review: bool | None = None
    """Whether somebody should look at the case; None = nothing says so, and the model can't say that nobody need: it
    has no prediction sets for such searches, and no confidence was asked for."""
    review_reasons: tuple[str, ...] = ()
    """Why, a phrase each."""
    out_of_domain: bool | None = None
    """Whether the coarse view is further from the training images' than nearly all validation images'; of several
    images, that of any; None = the model doesn't know."""
    domain_distance: float | None = None
    """That distance, of several images the largest; 1 = as far as a training image is from their mean."""
    sufficient: tuple[int, ...] | None = None
    """``id`` of the glimpses of most weight that, pooled alone, keep 90 % of ``score``; None = not defined."""
    score_without: float | None = None
    """The class's probability where only the other glimpses are pooled; None = there are none, or not defined."""
    sufficiency: float | None = None
    """Share of ``score`` that the k glimpses of most weight keep, mean over all k; near 1 = few carry the answer."""
    scorer: str | None = None
    regions: tuple[VisitedRegion, ...] = ()
    cost: Cost = field(default_factory=Cost)
    warnings: tuple[str, ...] = ()
    """Where the image leaves the model's domain, was upsampled, or was seen in part only."""
    model: Mapping[str, str] = field(default_factory=dict)
    """``name``, ``sha256`` of the weights file and the ``engine`` that ran it, if one did. Read-only."""
    version: str = ""

    def __post_init__(self) -> None:
        for name in ("scores", "scores_after", "model"):
            object.__setattr__(self, name, _ReadOnly(getattr(self, name)))

    def _repr_html_(self) -> str:
        """A small table for notebooks."""
        return _html(self)

    def by_source(self) -> "tuple[Record, ...]":
        """The record once per image that is part of the answer, each with the regions of that one, counted anew.

        ``scores_after`` are those of the case after each of them.
        """
        found = []
        for number, one in enumerate(self.sources):
            if one.error is None and not one.empty:
                own = [region for region in self.regions if region.source == number]
                ids: dict[int | None, int | None] = {region.id: at for at, region in enumerate(own)}
                regions = (
                    replace(region, id=at, parent=ids.get(region.parent), source=0)
                    for at, region in enumerate(own)
                )
                found.append(
                    replace(
                        self,
                        source=one.source,
                        sources=(one,),
                        region=one.region,
                        mpp=one.mpp,
                        mpp_source=one.mpp_source,
                        regions=tuple(regions),
                        sufficient=None
                        if self.sufficient is None
                        else tuple(at for at, region in enumerate(own) if region.id in self.sufficient),
                        scores_after={
                            name: tuple(shares[region.id] for region in own)
                            for name, shares in self.scores_after.items()
                        },
                    )
                )
        return tuple(found) if self.sources else (self,)

    def to_json(self) -> dict[str, Any]:
        """The record as JSON types; regions and costs nested.

        Numbers of the network have as many digits as it supports: which images were searched side by side changes the
        others.
        """
        plain = {name: dict(getattr(self, name)) for name in ("scores", "scores_after", "model")}
        facts = asdict(self) | plain
        for name in _PROBABILITIES:
            facts[name] = _significant(facts[name], _DIGITS)
        facts["scores"] = {name: _significant(score, _DIGITS) for name, score in self.scores.items()}
        for region in facts["regions"]:
            region["attention"] = _significant(region["attention"], _ATTENTION_DIGITS)
            region["select_logp"] = round(region["select_logp"], _LOGP_DECIMALS) + 0.0  # no -0.0
        return facts


def _significant(value: float | None, digits: int) -> float | None:
    return None if value is None else float(f"{value:.{digits}g}")


def _html(record: Record) -> str:
    """The table: prediction, cost, and the regions of the largest weight."""
    from html import escape

    facts: list[tuple[str, str]] = [("source", record.source), ("status", record.status)]
    if len(record.sources) > 1:
        facts.insert(1, ("images", ", ".join(one.source for one in record.sources)))
    if record.error is not None:
        facts.append(("error", record.error))
    if record.class_name is not None:
        facts.append(("class", record.class_name))
    if record.labels is not None:
        facts.append(("labels", ", ".join(record.labels) or "none"))
    if record.scores:
        best = sorted(record.scores.items(), key=lambda item: -item[1])[:_MOST_LISTED]
        facts.append(("scores", ", ".join(f"{name} {score:.3f}" for name, score in best)))
    cost = record.cost
    if cost.glimpses:
        read = f"{cost.bytes_read / 1e6:.2f} MB, {100 * cost.fraction_read:.2f} % of the pixels"
        spent = f"{cost.glimpses} glimpses, {read}, {cost.seconds.total:.2f} s; ended by {cost.stop_reason}"
        facts.append(("cost", spent))
    if record.prediction_set is not None:
        facts.append(("prediction set", ", ".join(record.prediction_set) or "empty"))
    if record.needs_review is not None:
        facts.append(("review", "; ".join(record.review_reasons) or "not needed"))
    if record.warnings:
        facts.append(("warnings", "; ".join(record.warnings)))
    rows = [f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts]
    heaviest = sorted(record.regions, key=lambda region: -region.attention)[:_MOST_LISTED]
    if heaviest:
        listed = "".join(
            f"<li>{region.attention:.3f}: rows {region.y} to {region.y + region.height}, columns {region.x} to "
            f"{region.x + region.width}</li>"
            for region in heaviest
        )
        rows.append(f"<tr><th>regions by weight</th><td><ol>{listed}</ol></td></tr>")
    return f"<table>{''.join(rows)}</table>"
