"""Who said how large a pixel is, in a word."""

from hiresattn.inference.record import CaseSource

_WORDS = {"option mpp": "flag", "option assume_mpp": "assumed", "column mpp": "column", "given": "given"}


def scale_origin(source: CaseSource) -> str | None:
    """Who said how large a pixel of an image is.

    Args:
        source: The image, as a record says.

    Returns:
        ``header``, ``column`` (of the manifest), ``flag`` (``--mpp``), ``assumed`` (``--assume-mpp``), ``given`` (in
        Python), or ``CRS``; None where no scale is known, or not who said it.
    """
    if source.mpp is None or source.mpp_source is None:
        return None
    return "CRS" if source.mpp_source.startswith("CRS") else _WORDS.get(source.mpp_source, "header")
