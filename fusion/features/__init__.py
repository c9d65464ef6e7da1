"""The quality of cached features: statistics of their dimensions, and how well they distinguish people."""
