"""Evaluation of models and features."""
