"""Which process works on what."""
