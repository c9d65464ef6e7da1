"""Append-only tables: failures, scores, and the files seen last."""
