"""What cached features are worth: their dimensions, and whether they know people apart."""
