"""Scoring with a trained model, from cached features."""
