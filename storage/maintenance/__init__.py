"""Inspection and maintenance of a store."""
