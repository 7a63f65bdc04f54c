"""Extract features: an encoder's vectors of all regions of images at one scale, each image once."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hiresattn.card import CARD
from hiresattn.checkpoint import load_model
from hiresattn.config import InputConfig
from hiresattn.datasets.example import Example
from hiresattn.datasets.feature_files import feature_file
from hiresattn.datasets.features import FORMATS, Features, remove_features, write_features
from hiresattn.datasets.manifest import read_manifest
from hiresattn.datasets.scales import scale_of
from hiresattn.datasets.sources import Unusable
from hiresattn.errors import ConfigError, OpenError, WriteError, counted
from hiresattn.files import Lock, absolute_source, make_folder
from hiresattn.geometry import root_regions
from hiresattn.inference.bands import input_for
from hiresattn.inference.cover import finest_count
from hiresattn.inference.held_features import features_in_the_way, held_features
from hiresattn.inference.options import ExtractOptions
from hiresattn.model.device import pick_device
from hiresattn.model.embed import encode
from hiresattn.model.encoders import load_encoder
from hiresattn.option_types import changed
from hiresattn.pyramid import Pyramid, open_pyramid
from hiresattn.pyramid.rescaled import Scale
from hiresattn.reading.fetch import CropFetcher
from hiresattn.reading.foreground import is_slide, overview

#: Most regions of one image: a slide of 100,000 x 100,000 px at 0.25 µm/px has 200,000 of 224 px.
MOST_REGIONS = 1_000_000


@dataclass(frozen=True)
class Extracted:
    """What became of one image."""

    source: str
    status: str
    """``ok``; ``held`` (its features were there); ``elsewhere`` (another process extracts them); ``error``."""
    file: str = ""
    regions: int = 0
    """How many regions have features: those with a measured px and foreground."""
    side: int = 0
    """Side of a region, level-0 px."""
    seconds: float = 0.0
    error: str | None = None
    note: str | None = None
    """What is worth knowing of its features: that a region would be larger than the image."""

    def to_json(self) -> dict[str, Any]:
        """The record as JSON types."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Encoder:
    """An encoder, and how its input is made."""

    module: Any
    rule: InputConfig
    sha256: str
    side: int
    name: str
    """As it was asked for; a path is absolute."""
    tissue: bool | None
    """Whether only regions that hold tissue are encoded; None = of slides."""


def extract(
    manifest: str | Path | Iterable[Any],
    encoder: str | Path,
    output: str | Path,
    options: ExtractOptions | None = None,
    *,
    progress: Callable[[float, str], None] = lambda _share, _name: None,
    work: "Callable[[Sequence[Any], str, Path, ExtractOptions], Iterator[Extracted]] | None" = None,
    **changes: Any,
) -> Iterator[Extracted]:
    """Extract the features of images into a folder, one file per image, each whole or not at all.

    An image whose features are there, by the same encoder at the same scale, is not opened again. Features of it that
    were computed otherwise, or are in the other format, are replaced with ``overwrite`` only. Several processes may
    extract into one folder: each image is taken by one of them.

    Args:
        manifest: A manifest (CSV or Parquet); or paths, addresses or examples. Windows of an image are that image.
        encoder: A pretrained encoder (a name of timm, ``hf-hub:owner/name``, ``local-dir:FOLDER``, a ``.safetensors``
            file), or a model directory, whose encoder of finest regions is taken.
        output: The folder; made if missing.
        options: How; None = the defaults.
        progress: Called with the share of the images done, 0 to 1, and the name of the next.
        work: What extracts, such as ``hiresattn.cluster.extractor(client)``; None = this process.
        changes: Single options, in place of those of ``options``.

    Yields:
        One record per image; what is wrong with one is its record, and the others go on.

    Raises:
        ConfigError: If an option can't be used, or the folder holds other features of an image; nothing is extracted.
        HiresattnError: If the encoder can't be loaded.
        WriteError: If the folder can't be written to.

    Examples:
        >>> for record in hiresattn.extract("cohort.csv", "local-dir:encoders/uni", "features", mpp=0.5):
        ...     print(record.source, record.status, record.regions)
    """
    chosen = changed(options, changes, ExtractOptions)
    given = read_manifest(manifest) if isinstance(manifest, str | Path) else manifest
    images = list({image_name(one): one for one in given}.values())
    if work is not None:
        for number, record in enumerate(work(images, absolute(str(encoder)), make_folder(output), chosen), 1):
            yield record
            progress(number / len(images), Path(record.source).name)
        return
    loaded = ready_encoder(str(encoder), chosen)
    folder = make_folder(output)
    if (why := _in_the_way(folder, images, loaded)) is not None:
        raise ConfigError(why)
    for number, image in enumerate(images):
        progress(number / len(images), Path(image_name(image)).name)

        def update(share: float, number: int = number, name: str = Path(image_name(image)).name) -> None:
            progress((number + share) / len(images), name)

        yield extract_one(image, folder, loaded, update)
    progress(1.0, "")


def absolute(name: str) -> str:
    """An encoder's name; a path in it is made one that other processes can use."""
    if Path(name).exists():
        return str(Path(name).absolute())
    kind, colon, path = name.partition(":")
    is_path = colon and not kind.startswith("hf") and Path(path).exists()
    return f"{kind}:{Path(path).absolute()}" if is_path else name


def ready_encoder(name: str, options: ExtractOptions) -> tuple[ExtractOptions, Encoder]:
    """The options, with a model's scale; the encoder, how its input is made, and the side of its regions.

    Raises:
        ConfigError: If an option doesn't fit it.
        HiresattnError: If it can't be loaded.
    """
    if (Path(name) / CARD).is_file() or name.startswith("hf:"):
        model = load_model(name)
        rule, side = model.config.input, model.config.finest_side
        module, sha256 = model.net.encoder, model.sha256
        if rule.mpp is not None and options.side is None:
            options = replace(options, mpp=options.mpp or rule.mpp * side / rule.size)
        rule = replace(rule, mpp=None)  # the side of a region says it
        tissue = rule.foreground is not None
    else:
        loaded = load_encoder(name, bands=tuple(range(1, len(options.bands or "RGB") + 1)))
        module, rule, sha256, side = loaded.module, loaded.input, loaded.sha256, loaded.input.size
        tissue = None
    if options.foreground is not None:
        tissue = options.foreground == "tissue"
    if options.bands is not None and len(options.bands) != len(rule.bands):
        raise ConfigError(f"the encoder takes {len(rule.bands)} bands; {len(options.bands)} are named")
    module = module.to(pick_device(options.device)).eval()
    return options, Encoder(module, rule, sha256, options.side or side, absolute(name), tissue)


def image_name(image: Any) -> str:
    """Path or address of an image."""
    source = image.source if isinstance(image, Example | Unusable) else image
    return str(source)


def extract_one(
    image: Any,
    folder: Path,
    ready: tuple[ExtractOptions, Encoder],
    progress: Callable[[float], None] = lambda _share: None,
) -> Extracted:
    """Extract the features of one image; whatever is wrong with it is its record.

    Args:
        image: Path, address or example.
        folder: Where its file goes.
        ready: What ``ready_encoder`` made.
        progress: Called with the share of it that is done, 0 to 1.

    Raises:
        WriteError: If the folder can't be written to.
    """
    (options, encoder), started, name = ready, time.perf_counter(), image_name(image)
    try:
        if isinstance(image, Unusable):
            raise OpenError(image.error)  # noqa: TRY301 - as the rest
        example = image if isinstance(image, Example) else Example(image)
        if not isinstance(example.source, str | Path):
            raise ConfigError("features are kept by the image's path; an array has none")  # noqa: TRY301
        path = feature_file(folder, name, options.format)
        asked = _asked(encoder, options)
        if (held := held_features(path, asked)) is not None:
            return _record(name, "held", path, held)
        try:
            lock = Lock(folder / f".{path.stem}.lock")
        except BlockingIOError:
            return Extracted(name, "elsewhere", str(path))
        try:
            if (held := held_features(path, asked)) is None:  # another process may just have finished
                if (why := _in_the_way(folder, [image], ready)) is not None:
                    raise ConfigError(why)
                held = _features(example, encoder, options, asked, progress)
                write_features(path, held)
                for other in FORMATS.keys() - {options.format}:
                    remove_features(feature_file(folder, name, other))
        finally:
            lock.release()
        return _record(name, "ok", path, held, round(time.perf_counter() - started, 2))
    except WriteError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this source's
        return Extracted(name, "error", error=str(error) or type(error).__name__)


def _asked(encoder: Encoder, options: ExtractOptions) -> dict[str, Any]:
    """What features must have in common with those asked for, to be the same."""
    rule = encoder.rule
    low, high = ([end] * len(rule.bands) for end in options.value_range or (0, 0))
    scaled = rule.scales is not None and not options.value_range
    scaling = {"scaling": [*(rule.scales or ()), *(rule.offsets or ())]} if scaled else {}
    return scaling | {
        "encoder_sha256": encoder.sha256,
        "size": rule.size,
        "bands": list(options.bands or rule.band_names or (band + 1 for band in rule.bands)),
        "low": low if options.value_range else list(rule.low),
        "high": high if options.value_range else list(rule.high),
        "asked": f"{options.mpp} µm/px" if options.mpp is not None else f"{encoder.side} px",
        "foreground": {None: "auto", True: "tissue", False: "none"}[encoder.tissue],
    }


def _in_the_way(folder: Path, images: Sequence[Any], ready: tuple[ExtractOptions, Encoder]) -> str | None:
    """Which features of these images there are others than those asked for; None = none, or they may be replaced."""
    options, encoder = ready
    if options.overwrite:
        return None
    asked = _asked(encoder, options)
    names = [image_name(one) for one in images if not isinstance(one, Unusable)]
    found = [features_in_the_way(folder, name, options.format, asked, encoder.name) for name in names]
    known = [one for one in found if one is not None]
    if not known:
        return None
    path, differ = known[0]
    of = "" if len(images) == 1 else f", and so {len(known)} of {counted(len(images), 'image')}"
    return f"{path}: features are there already, with {differ}{of}; overwrite replaces them, or give another folder"


def _record(name: str, status: str, path: Path, held: Features, seconds: float = 0.0) -> Extracted:
    """What became of an image that has features."""
    side, note = int(held.facts["side"]), None
    height, width = (int(held.facts.get(one, side)) for one in ("height", "width"))
    if min(height, width) < side:
        note = (
            f"a region of {side:,} px is larger than the image of {height:,} x {width:,} px: its regions are smaller "
            "than others', so that it is seen magnified; a smaller mpp or side avoids that"
        )
    return Extracted(name, status, str(path), len(held.vectors), side, seconds, note=note)


def _features(
    example: Example,
    encoder: Encoder,
    options: ExtractOptions,
    asked: dict[str, Any],
    progress: Callable[[float], None],
) -> Features:
    with open_pyramid(example.source, mpp=example.mpp, nodata=encoder.rule.nodata) as pyramid:
        rule = input_for(encoder.rule, pyramid, options.bands, options.value_range)
        scale = scale_of(pyramid, example)
        side = _side(pyramid, scale, encoder, options)
        if (count := finest_count(pyramid.height, pyramid.width, side)) > MOST_REGIONS:
            raise ConfigError(
                f"{count:,} regions of {side} px, and at most {MOST_REGIONS:,} are extracted; choose a larger side"
            )
        regions = root_regions(pyramid.height, pyramid.width, root_size=side)
        tissue = encoder.tissue or (encoder.tissue is None and is_slide(pyramid))
        if tissue:
            whole = (0, 0, pyramid.height, pyramid.width)
            regions = regions[overview(pyramid, whole, rule, threads=options.threads).holds(regions)]
        vectors, kept = [], []
        with CropFetcher([pyramid], rule, threads=options.threads) as fetch:
            for start in range(0, len(regions), options.batch_size):
                part = regions[start : start + options.batch_size]
                crops = fetch(np.zeros(len(part), np.int64), part)
                measured = crops.coverage.any((1, 2))
                if measured.any():
                    vectors.append(encode(encoder.module, crops.pixels[measured]).astype(np.float16))
                    kept.append(part[measured])
                progress(min(start + len(part), len(regions)) / len(regions))
        width = int(encoder.module.feature_width)
        facts = {
            "source": absolute_source(str(example.source)),
            "tissue": tissue,
            "width": pyramid.width,
            "height": pyramid.height,
            "side": side,
            "mpp": scale.mpp,
            "dtype": rule.dtype,
        }
    return Features(
        np.concatenate(vectors) if vectors else np.zeros((0, width), np.float16),
        np.concatenate(kept) if kept else np.zeros((0, 4), np.int64),
        facts | {"encoder": encoder.name} | asked,
    )


def _side(pyramid: Pyramid, scale: Scale, encoder: Encoder, options: ExtractOptions) -> int:
    """Side of a region, level-0 px."""
    if options.mpp is None:
        return encoder.side
    if scale.mpp is None:
        raise ConfigError(
            f"{pyramid.source}: its µm/px isn't known; give it in a column mpp, or the side of a region in px in place "
            "of mpp"
        )
    return max(round(encoder.rule.size * options.mpp / scale.mpp), 1)
