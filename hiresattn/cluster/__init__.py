"""Runs of many processes: shards for job arrays, and dask.distributed."""

from hiresattn.cluster.images import extractor as extractor
from hiresattn.cluster.images import locator as locator
from hiresattn.cluster.merge import merge as merge
from hiresattn.cluster.run import classifier as classifier
from hiresattn.cluster.run import classify as classify
from hiresattn.cluster.status import status as status
