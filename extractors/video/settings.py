"""How video is sampled, how much of a file may be missing or broken, and which resources it may take."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

REVISION = 2  # part of the cache key: raise it if the pictures of a file change

Share = Annotated[float, Field(ge=0, le=1)]


class VideoSettings(BaseModel, frozen=True, extra="forbid"):
    """How video is sampled, and how much of a file may be missing or broken."""

    fps: float = Field(25.0, gt=0, le=240, description="Frames per second of the grid on which videos are sampled.")
    min_decoded_share: Share = Field(
        0.95, description="Share of the promised duration that must decode, otherwise the video is rejected."
    )
    min_frames_share: Share = Field(
        0.7,
        description="Share of the promised frames that must decode, otherwise the video is rejected. Some encoders "
        "promise a frame for each repetition of the previous one.",
    )
    max_broken_share: Share = Field(
        0.02, description="Share of frames that may be broken; the last good frame replaces a broken one."
    )
    max_still_s: float = Field(
        10.0, gt=0, description="Seconds that one frame may be shown; more means lost video or broken timestamps."
    )

    @property
    def numerics(self) -> dict[str, Any]:
        """All settings that change the pictures, for a cache key; JSON-able."""
        return {**self.model_dump(mode="json"), "revision": REVISION}


class Limits(BaseModel, frozen=True, extra="forbid"):
    """Bounds on the resources that one video may take; they change no feature and enter no key.

    More suggests an attack, or a video that should be split first.
    """

    pixels: int = Field(8192 * 4320, ge=1, description="Pixels of a picture (count), by default 8K; more: too_large.")
    frames: int = Field(
        1_000_000, ge=1, description="Frames of a video, in the file and on the grid (count); more: too_large."
    )
    memory_mb: int = Field(
        4096,
        ge=512,
        description="Memory that preparing a video may take (MiB), beyond what its process needs at its start; "
        "more: too_large.",
    )
    cpu_s: float = Field(21_600, ge=1, description="Seconds of processor time for preparing a video; more: timeout.")
    wall_s: float = Field(86_400, gt=0, description="Seconds for preparing a video; more: timeout.")


DEFAULT_LIMITS = Limits()
