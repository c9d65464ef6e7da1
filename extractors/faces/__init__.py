"""Faces in pictures: found, judged, followed through a video, and cut out."""
