"""Scores as files for other programs."""
