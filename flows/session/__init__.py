"""What surrounds a run: environment, console, log, errors, signals."""
