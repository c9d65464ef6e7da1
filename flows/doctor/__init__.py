"""The checks of `traitline doctor`."""
