"""Labels: read, matched with videos, grouped and split."""
