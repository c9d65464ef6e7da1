"""Errors that are no bug: a video that cannot be used, and a machine that cannot do what the settings ask."""

from __future__ import annotations


class VideoError(Exception):
    """One video cannot be used; it becomes a row with its stage and reason, and the run goes on.

    Args:
        stage: part of extraction that refused it: "decode", "faces" or "motion".
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


class DeviceError(Exception):
    """This machine cannot compute what the settings ask for; the message names the setting that it can."""


class LayerError(Exception):
    """A network has no such layer or feature; the message names those that it has."""
