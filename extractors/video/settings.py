"""How video is sampled, and how much of a file may be missing or broken."""

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
