"""How far to trust a score."""
