"""Faces in videos: detection, quality, tracking and crops."""
