"""Predictors, baselines, protocols and measures."""
