"""The scale that a model is trained at."""

from collections.abc import Callable, Sequence

from hiresattn.card import Card
from hiresattn.datasets.example import Example
from hiresattn.datasets.scales import check_scales, common_scale, scaled
from hiresattn.pyramid.mpp import scale_words
from hiresattn.pyramid.rescaled import SAME
from hiresattn.training.options import TrainOptions

_REMEDY = (
    'give it in a column mpp, or as assume_mpp for those without; or train with mpp "off", on px as they are'
)


def training_scale(
    train: Sequence[Example],
    val: Sequence[Example],
    options: TrainOptions,
    earlier: Card | None,
    on_message: Callable[[str], None],
) -> tuple[float | None, list[Example], list[Example]]:
    """The scale to train at, and the images to train and validate on with their own; headers are read, and no pixel.

    It is what ``options.mpp`` says; else that of the model that training starts from, or goes on with; else the median
    of the training images' scales.

    Args:
        train: Images to train on.
        val: Images to validate on.
        options: How to train.
        earlier: The model that training starts from, or goes on with.
        on_message: Called with a sentence, where images of several scales are brought to one.

    Returns:
        Micrometres per px that regions are counted in, and the images. None = regions are in level-0 px: where the
        scale of at most half of the images is known, images are squashed, or ``options.mpp`` is ``off``.

    Raises:
        ConfigError: If the scale of most images is known, or ``options.mpp`` a number, and that of others isn't.
    """
    if options.mpp == "off" or options.squash is not None:
        return None, list(train), list(val)
    filled = scaled([*train, *val], assumed=options.assume_mpp)
    at = None if earlier is None else earlier.config.input.mpp
    if isinstance(options.mpp, float | int):
        at = float(options.mpp)
    elif at is None:
        count = sum(example.mpp is not None for example in filled)
        at = common_scale(filled[: len(train)]) if 2 * count > len(filled) else None
        if count and at is None:
            on_message(
                f"The scale of {count} of {len(filled)} images is known: px are taken as they are; assume_mpp gives "
                "the others one"
            )
    if at is None:
        return None, list(train), list(val)
    check_scales(filled, at, _REMEDY)
    known = [example.mpp for example in filled if example.mpp is not None]
    if options.mpp == "auto" and known and (max(known) > at * SAME or min(known) < at / SAME):
        low, high = scale_words(min(known)), scale_words(max(known))
        on_message(f"Images of {low} to {high} are seen at {scale_words(at)}; mpp=1, say, sets another scale")
    return at, filled[: len(train)], filled[len(train) :]
