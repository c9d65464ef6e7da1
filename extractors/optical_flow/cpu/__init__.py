"""TV-L1 on CPUs, by Numba."""
