"""Leases: each video is extracted by one process at a time."""
