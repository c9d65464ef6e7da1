"""Videos made ready for the networks, in child processes."""
