"""An archive and what a store knows about it: videos, tokens, labels, families, models and scores."""
