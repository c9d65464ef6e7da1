"""Errors that a user can fix; each message is one line that names the cure."""


class LabelError(Exception):
    """A label file cannot be used as it is."""


class TrainingError(Exception):
    """The available clips and labels do not allow training."""


class InputError(ValueError):
    """The inputs of a model do not fit it, or each other."""


def one_line(error: Exception) -> str:
    """Return a library's error message in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def some_of(names: list[str], limit: int = 5) -> str:
    """Return the first few names of a list that may be long, for an error message."""
    shown = ", ".join(name if name.isprintable() else repr(name)[1:-1] for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
