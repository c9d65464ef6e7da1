"""Tokens of clips, from a store into batches."""
