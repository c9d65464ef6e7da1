"""Errors that are no bug: a video that cannot be used, and a machine that cannot do what the settings ask."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

TRANSIENT = frozenset({"file_changed", "unreadable"})
"""Reasons that lie in the moment and not in a file's bytes: the next run tries such a video again."""


class VideoError(Exception):
    """One video cannot be used; it becomes a row with its stage and reason, and the run goes on.

    Args:
        stage: part of extraction that refused it: "decode", "faces" or "motion"; "extract" for a fault of the program.
        reason: short code in snake_case that users count and filter by, such as "no_face".
        message: one sentence for people, with the figures that led to the refusal.
    """

    def __init__(self, stage: str, reason: str, message: str) -> None:
        super().__init__(f"{stage}: {reason}: {message}")
        self.stage = stage
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[type[VideoError], tuple[str, str, str]]:
        # Exceptions cross process borders in pools; the default would hand __init__ the joined text.
        return type(self), (self.stage, self.reason, self.message)


@dataclass(frozen=True)
class Fault:
    """An exception that is no refusal, as text: not every exception survives pickling.

    Args:
        summary: what it is, in one line.
        trace: where it was raised, in many.
    """

    summary: str
    trace: str

    @classmethod
    def of(cls, error: Exception) -> Fault:
        """Describe an exception that has been raised."""
        return cls(f"{type(error).__name__}: {error}".splitlines()[0], "".join(traceback.format_exception(error)))

    def refusal(self) -> VideoError:
        """Refuse the video at which it was raised, so that it costs this one only."""
        return VideoError("extract", "internal_error", f"{self.summary}: a fault of the program; the log says where")


class DeviceError(Exception):
    """This machine cannot compute what the settings ask for; the message names the setting that it can."""


class LayerError(Exception):
    """A network has no such layer or feature; the message names those that it has."""
