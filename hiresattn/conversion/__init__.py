"""Any image that is read → OME-Zarr 0.5 or COG: tiled, with exact levels, checked after writing."""

from hiresattn.conversion.convert import FORMATS, Conversion, ConvertOptions, convert

__all__ = ["FORMATS", "Conversion", "ConvertOptions", "convert"]
