"""Extraction of features, in one process or in many."""
