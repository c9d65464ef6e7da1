"""Errors that a user can mend; each message is one line that names the cure."""


class LabelError(Exception):
    """A label file cannot be used as it is."""


class TrainingError(Exception):
    """The clips and labels at hand do not allow training."""


def one_line(error: Exception) -> str:
    """What a library has to say, in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def some_of(names: list[str], limit: int = 5) -> str:
    """The first few names of a list that may be long, for an error message."""
    shown = ", ".join(name if name.isprintable() else repr(name)[1:-1] for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
