"""The command `traitline`."""
