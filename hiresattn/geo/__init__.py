"""Records as layers of geospatial programs: GeoDataFrames, GeoPackage, GeoParquet, FlatGeobuf, GeoJSON."""

from hiresattn.geo.attention import write_attention as write_attention
from hiresattn.geo.items import write_items as write_items
from hiresattn.geo.layers import frames as frames
from hiresattn.geo.mlm import mlm_item as mlm_item
from hiresattn.geo.mlm import write_mlm_item as write_mlm_item
from hiresattn.geo.outputs import export as export
from hiresattn.geo.polygons import manifest_of_polygons as manifest_of_polygons
from hiresattn.geo.run import classify as classify
from hiresattn.pyramid.stac import stac_sources as stac_sources
