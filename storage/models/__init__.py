"""Trained models, with their versions and aliases."""
