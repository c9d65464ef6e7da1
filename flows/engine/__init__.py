"""The engine: the items of a step, such as shards, worked on in this process or by Dask's workers."""
