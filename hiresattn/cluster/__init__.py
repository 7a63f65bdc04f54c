"""Runs of many processes: shards for job arrays, and dask.distributed."""
