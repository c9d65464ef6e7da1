"""Errors that are not bugs: an unusable video, an unsuitable machine, an unknown layer."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

REASONS = {
    "unreadable": "The file cannot be opened or read: missing, no permission, a failing disk.",
    "file_changed": "The file changed while it was read. The next run tries it again.",
    "not_a_video": "The file is in no accepted video format, or is a playlist.",
    "no_video": "The file has no video stream, only sound for example.",
    "no_frames": "No frame of the video decodes.",
    "unsupported": "No decoder or converter supports this kind of video.",
    "too_large": "The video needs more pixels, frames or memory than `limits.*` allow.",
    "timeout": "The video needs more processor time than `limits.cpu_s` allows, or no progress was made for "
    "`extract.stall_s`.",
    "decoder_crashed": "The decoder crashed on this video.",
    "timestamps": "A single frame would be shown for longer than `video.max_still_s`.",
    "truncated": "Too little of what the file promises can be decoded: `video.min_decoded_share` of the duration, "
    "`video.min_frames_share` of the frames.",
    "damaged": "More frames are broken than `video.max_broken_share` allows.",
    "changed": "The video has fewer frames than when its face was tracked.",
    "no_face": "No face was found in any frame.",
    "low_coverage": "The main person's face was found in a smaller share of frames than `faces.min_coverage`.",
    "many_gaps": "The face is missing more often than `faces.max_gaps` allows.",
    "long_gap": "The face is missing for longer than `faces.max_absence_s`.",
    "false_face": "The second detector confirmed a smaller share of the faces than `faces.min_confirmed_share`.",
    "several_people": "Somebody else's face is seen in a larger share of frames than `faces.max_others_share`.",
    "too_short": "The video is too short to show motion.",
    "internal_error": "A fault of Traitline. The log has the traceback; please report it.",
}
"""Every reason for which a video is refused, with its meaning in Markdown."""

TRANSIENT = frozenset({"file_changed", "unreadable"})
"""Reasons that do not depend on the file's bytes: the next run tries the video again."""


class VideoError(Exception):
    """One video is unusable: it becomes a row with stage and reason, and the run continues.

    Args:
        stage: the stage that refused it: "decode", "faces" or "motion"; "extract" for a fault of the program.
        reason: short code in snake_case that users count and filter by, such as "no_face".
        message: one sentence for people, with the figures behind the refusal. Bytes of file names that are not UTF-8
            become visible escapes, as in ids.
    """

    def __init__(self, stage: str, reason: str, message: str) -> None:
        # Names of files need not be UTF-8, as everything must be that a table holds.
        message = message.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
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


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, 200 characters at most, or the name of its type if it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


@dataclass(frozen=True)
class Fault:
    """An unexpected exception, as text, because not every exception can be pickled: a line, and the traceback."""

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
