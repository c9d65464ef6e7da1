"""Extraction of features, shard by shard, in one process or in many."""
