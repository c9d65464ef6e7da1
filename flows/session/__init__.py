"""The environment, console, log, errors and signals of a process."""
