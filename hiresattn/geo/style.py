"""How QGIS draws the layer ``regions`` of a GeoPackage: outlines coloured by attention, the strongest on top."""

import sqlite3
from pathlib import Path
from xml.sax.saxutils import quoteattr

#: From weak to strong: red, green, blue of the outlines, dark to bright.
_COLOURS = ("68,1,84", "59,82,139", "33,145,140", "94,201,98", "253,231,37")
_TABLE = """
CREATE TABLE layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256), f_table_schema TEXT(256),
    f_table_name TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT,
    useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30),
    update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now'))
)
"""


def add_style(path: Path, most: float) -> None:
    """Give a GeoPackage the style that QGIS takes for its layer ``regions``.

    Args:
        path: The GeoPackage; it has no styles yet.
        most: The strongest attention in it.
    """
    with sqlite3.connect(path) as file:
        file.execute(_TABLE)
        file.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier) "
            "VALUES ('layer_styles', 'attributes', 'layer_styles')"
        )
        file.execute(
            "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, "
            "styleQML, styleSLD, useAsDefault, description, owner) "
            "VALUES ('', '', 'regions', 'geom', 'attention', ?, '', 1, 'Regions by attention', '')",
            (_qml(most),),
        )
    file.close()


def _qml(most: float) -> str:
    count = len(_COLOURS)
    ends = [most * at / count for at in range(1, count + 1)]
    starts = [0.0, *ends[:-1]]
    ranges = "".join(
        f'<range symbol="{at}" lower="{low:.6g}" upper="{high:.6g}" label="{low:.3g} - {high:.3g}" render="true"/>'
        for at, (low, high) in enumerate(zip(starts, ends, strict=True))
    )
    symbols = "".join(_symbol(at, colour) for at, colour in enumerate(_COLOURS))
    return (
        '<!DOCTYPE qgis PUBLIC "http://mrcc.com/qgis.dtd" "SYSTEM"><qgis version="3.22" styleCategories="Symbology">'
        '<renderer-v2 type="graduatedSymbol" attr="attention" graduatedMethod="GraduatedColor" symbollevels="0" '
        f'forceraster="0" enableorderby="1"><ranges>{ranges}</ranges><symbols>{symbols}</symbols>'
        '<orderby><orderByClause asc="1" nullsFirst="1">"attention"</orderByClause></orderby></renderer-v2></qgis>'
    )


def _symbol(at: int, colour: str) -> str:
    """An outline without a fill."""
    look = {
        "style": "no",
        "color": f"{colour},255",
        "outline_color": f"{colour},255",
        "outline_style": "solid",
    }
    look |= {"outline_width": f"{0.26 + 0.15 * at:.2f}", "outline_width_unit": "MM"}
    options = "".join(
        f'<Option name={quoteattr(name)} value={quoteattr(value)} type="QString"/>'
        for name, value in look.items()
    )
    return (
        f'<symbol name="{at}" type="fill" alpha="1" clip_to_extent="1" force_rhr="0"><layer class="SimpleFill" '
        f'enabled="1" locked="0" pass="0"><Option type="Map">{options}</Option></layer></symbol>'
    )
