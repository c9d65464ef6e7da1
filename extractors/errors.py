"""Errors that are not bugs: an unusable video, an unsuitable machine, an unknown layer."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

TRANSIENT = frozenset({"file_changed", "unreadable"})
"""Reasons that do not depend on the file's bytes: the next run tries the video again."""


class VideoError(Exception):
    """One video is unusable: it becomes a row with stage and reason, and the run continues.

    Args:
        stage: the stage that refused it: "decode", "faces" or "motion"; "extract" for a fault of the program.
        reason: short code in snake_case that users count and filter by, such as "no_face".
        message: one sentence for people, with the figures behind the refusal.
    """

    def __init__(self, stage: str, reason: str, message: str) -> None:
        super().__init__(f"{stage}: {reason}: {message}")
        self.stage = stage
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[type[VideoError], tuple[str, str, str]]:
        # Pools send exceptions between processes; by default, __init__ would receive the joined text.
        return type(self), (self.stage, self.reason, self.message)


def undecodable(reason: str, message: str) -> VideoError:
    """Return the refusal of a video that cannot be decoded, stage "decode"."""
    return VideoError("decode", reason, message)


@dataclass(frozen=True)
class Fault:
    """An unexpected exception, as text: not every exception can be pickled.

    Args:
        summary: type and message, in one line.
        trace: the traceback.
    """

    summary: str
    trace: str

    @classmethod
    def of(cls, error: Exception) -> Fault:
        """Describe a raised exception."""
        return cls(f"{type(error).__name__}: {error}".splitlines()[0], "".join(traceback.format_exception(error)))

    def refusal(self) -> VideoError:
        """Return the refusal of the video that raised it, so that it costs only this video."""
        return VideoError("extract", "internal_error", f"{self.summary}: a fault of the program; see the log")


class DeviceError(Exception):
    """This machine cannot compute what the settings ask for; the message names a setting that works."""


class LayerError(Exception):
    """A network lacks the requested layer or feature; the message lists those that it has."""
