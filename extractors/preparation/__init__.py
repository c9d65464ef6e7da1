"""Preparation of videos for the networks, in child processes."""
