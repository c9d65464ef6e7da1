"""Decoding: frames of a video, upright, on an even grid of time, within limits."""
