"""Scenes and areas in, layers out."""

import os
from typing import Any

from hiresattn.files import make_folder
from hiresattn.geo.areas import areas_of, windows_of
from hiresattn.geo.attention import write_attention
from hiresattn.geo.layers import frames
from hiresattn.report.names import unique_names


def classify(
    sources: Any,
    model: Any,
    regions: Any = None,
    attention: str | os.PathLike[str] | None = None,
    *,
    clip: bool = False,
    **options: Any,
) -> tuple[Any, Any]:
    """Classify scenes, or areas of them.

    Args:
        sources: One source as ``hiresattn.classify`` takes it, or several as ``hiresattn.classify_all`` does.
        model: A model directory, a hub name (``hf:owner/name``) or a loaded model.
        regions: A GeoDataFrame or GeoSeries in any CRS: each row is classified, as the rectangle of px around it, cut
            to the scene. A row that lies on several scenes is a case with one answer, unless ``per_source``. None =
            whole scenes.
        attention: Folder for ``NAME.attention.tif`` of each image (of a window ``NAME_Y_X_H_W``): see
            ``write_attention``. None = none are written.
        clip: Whether px outside of a row's polygons aren't valid, and aren't looked at.
        options: Those of ``classify_all``; ``on_error`` is ``record``, unless it is given.

    Returns:
        The layers ``scenes`` and ``regions`` (what was looked at): see ``frames``. With ``regions``, ``scenes`` has a
        column ``area``: the row's index. A row that lies on no scene has the status ``error``.

    Raises:
        ConfigError: If an option can't be used, or ``regions`` has no CRS, or an index with names twice.
        BackendMissingError: If GeoPandas isn't installed.

    Examples:
        >>> scenes, looked_at = hiresattn.geo.classify("scene.tif", "model", regions=fields)
        >>> fields.join(scenes.set_index("area")[["class_name", "score"]])
    """
    from hiresattn.datasets.sources import is_manifest
    from hiresattn.inference.classify import classify_all
    from hiresattn.inference.sources import all_of, is_one

    several = not is_one(sources) or (isinstance(sources, str) and is_manifest(sources))
    listed = all_of(sources) if several else [sources]
    areas = None if regions is None else areas_of(regions)
    if areas is not None:
        listed = windows_of(listed, areas, clip=clip)
    records = list(classify_all(listed, model, **({"on_error": "record"} | options)))
    if attention is not None:
        folder = make_folder(attention)
        seen = [one for record in records if record.status != "error" for one in record.by_source()]
        sources_seen = list(dict.fromkeys(one.source for one in seen))
        names = dict(zip(sources_seen, unique_names(sources_seen), strict=True))
        for one in seen:
            window = "".join(f"_{value}" for value in one.region or ())
            write_attention(one, folder / f"{names[one.source]}{window}.attention.tif")
    scenes, looked_at = frames(records)
    if regions is not None:
        index = {str(name): name for name in regions.index}
        scenes["area"] = [index.get(str(case)) for case in scenes["case"]]
    return scenes, looked_at
