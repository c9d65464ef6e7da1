"""The engine: the items of a step, such as videos to extract, worked on in this process or by Dask's workers."""
