"""The scales of many images, found and checked before anything else is done with them."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median_high
from typing import Any

from hiresattn.datasets.cases import Case, examples_of
from hiresattn.datasets.example import Example
from hiresattn.datasets.sources import Unusable
from hiresattn.errors import ConfigError, HiresattnError, counted
from hiresattn.pyramid import Pyramid, open_pyramid
from hiresattn.pyramid.formats.gdalenv import callers_settings, with_settings
from hiresattn.pyramid.mpp import implausible, scale_words
from hiresattn.pyramid.rescaled import Scale, at_scale, known_scale

#: Headers that are read at once.
_AT_ONCE = 8
#: Images that an error names.
_NAMED = 50
#: Where a scale is from that nothing else says.
ASSUMED = "option assume_mpp"
#: In place of where a scale is from: the file can't be opened.
_UNREADABLE = "the file can't be opened"


@contextmanager
def opened(
    example: Example, at: float | None, *, nodata: float | None = None, assumed: float | None = None
) -> Iterator[Pyramid]:
    """An example's image, with regions in px of a model's scale; closed again if it was opened here.

    Args:
        example: The image.
        at: Micrometres per px that the model works at; None = regions are in level-0 px.
        nodata: Stored value of px that were not measured; None = as the image says.
        assumed: Micrometres per level-0 px where nothing else says it.

    Raises:
        DomainError: If the model works at a scale, and the image's isn't known.
        HiresattnError: If the image can't be opened.
    """
    image = open_pyramid(example.source, mpp=example.mpp, nodata=nodata)
    try:
        yield at_scale(image, at, scale_of(image, example, assumed))
    finally:
        if image is not example.source:
            image.close()


def scale_of(image: Pyramid, example: Example, assumed: float | None = None, *, ground: bool = True) -> Scale:
    """The scale of an example's image: what is given with it, else what the image says, else what is assumed.

    Args:
        image: The image.
        example: What it is opened for.
        assumed: Micrometres per level-0 px where nothing else says it.
        ground: Whether an image says it by its CRS, too.
    """
    if example.mpp is not None:
        return Scale(example.mpp, example.mpp_source or "given")
    scale = known_scale(image) if ground else Scale(image.mpp, image.meta.mpp_source)
    return scale if scale.mpp is not None or assumed is None else Scale(assumed, ASSUMED)


def common_scale(examples: Sequence[Example]) -> float | None:
    """The median of the scales of images, of the two in the middle the coarser; None = none is known.

    Those that can't be meant don't count where there are others.
    """
    known = [example.mpp for example in examples if example.mpp is not None]
    meant = [mpp for mpp in known if not implausible(mpp)]
    return median_high(meant or known) if known else None


def scaled(
    examples: Sequence[Example], given: float | None = None, assumed: float | None = None
) -> list[Example]:
    """Examples with the scale that they, or else their images' headers, say; files that can't be opened stay without.

    Args:
        examples: Images; each file is opened once, and no pixel read.
        given: Micrometres per level-0 px of all, in place of what they and the files say.
        assumed: The same, of images that say none.
    """
    if given is not None:
        return [replace(example, mpp=given, mpp_source="option mpp") for example in examples]
    unknown = {_key(e.source): e.source for e in examples if e.mpp is None}
    settings = callers_settings()

    def read(source: Any) -> Scale:
        with with_settings(settings):
            return _scale_of(source)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = dict(zip(unknown, pool.map(read, unknown.values()), strict=True))
    return [
        one if one.mpp is not None else _with_scale(one, found[_key(one.source)], assumed) for one in examples
    ]


def _with_scale(example: Example, scale: Scale, assumed: float | None) -> Example:
    if scale.mpp is None and assumed is not None and scale.source != _UNREADABLE:
        scale = Scale(assumed, ASSUMED)
    return replace(example, mpp=scale.mpp, mpp_source=scale.source)


def with_scales(
    sources: Iterable[Any], at: float | None, given: float | None = None, assumed: float | None = None
) -> list[Any]:
    """Sources with their scales, as examples; refuses the whole batch if any has none, before anything is done.

    Args:
        sources: Examples and cases, or what is classified in place of one; what isn't an image stays as it is.
        at: Micrometres per px that the model works at; None = the sources are returned as they are.
        given: Micrometres per level-0 px of all, in place of what they and the files say.
        assumed: The same, of images that say none.

    Raises:
        ConfigError: If images have no scale, or one that can't be meant; names them.
    """
    listed = list(sources)
    if at is None:
        return listed
    usable = [one for one in listed if not isinstance(one, Unusable)]
    examples = [e if isinstance(e, Example) else Example(e) for one in usable for e in examples_of(one)]
    filled = scaled(examples, given, assumed)
    check_scales(filled, at)
    coming = iter(filled)
    return [one if isinstance(one, Unusable) else _with_scales(one, coming) for one in listed]


def _with_scales(one: Any, coming: Iterator[Example]) -> Any:
    """A source as the next example; a case with the next of its examples."""
    if isinstance(one, Case):
        return Case(one.name, [next(coming) for _ in one.sources])
    return next(coming)


def check_scales(
    examples: Sequence[Example],
    at: float,
    remedy: str = "give it in a column mpp, with mpp=0.5 for all, or with assume_mpp=0.5 for those without",
) -> None:
    """Refuse images without a scale, or with one that can't be meant, all in one error.

    Args:
        examples: From ``scaled``. What can't be opened is not refused here: reading it says why.
        at: Micrometres per px that the model works at.
        remedy: What to do, for the message.

    Raises:
        ConfigError: If there are such images; names them.
    """
    wrong = {}
    for example in examples:
        why = None if example.mpp is None else implausible(example.mpp, at)
        if example.mpp is None and example.mpp_source != _UNREADABLE:
            why = example.mpp_source or "its header has none"
        if why:
            wrong[_key(example.source)] = f"{_name(example)} ({why})"
    if not wrong:
        return
    named = list(wrong.values())[:_NAMED]
    named += [f"and {len(wrong) - _NAMED} more"] if len(wrong) > _NAMED else []
    count = len({_key(example.source) for example in examples})
    raise ConfigError(
        f"the model works at {scale_words(at)}, and of {len(wrong)} of {counted(count, 'image')} no scale can be used: "
        f"{', '.join(named)}; {remedy}"
    )


def _scale_of(source: Any) -> Scale:
    try:
        with opened(Example(source), None) as image:
            return known_scale(image)
    except (HiresattnError, MemoryError):
        return Scale(None, _UNREADABLE)


def _key(source: Any) -> str | int:
    """What an image is known by: its name, or the object that it is."""
    return str(source) if isinstance(source, str | Path) else id(source)


def _name(example: Example) -> str:
    source = example.source
    return str(
        source.source
        if isinstance(source, Pyramid)
        else source
        if isinstance(source, str | Path)
        else "<array>"
    )
