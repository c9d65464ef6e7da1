"""What preparing one video may cost. More is taken for an attack, or for something that should be cut up first."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Limits(BaseModel, frozen=True, extra="forbid"):
    """Bounds of one video, beyond which it is refused; they change no feature and are part of no key."""

    pixels: int = Field(
        8192 * 4320, ge=1, description="Pixels of a picture (count); more is refused, reason too_large. By default 8K."
    )
    frames: int = Field(
        1_000_000, ge=1, description="Frames of a video, in the file and on the grid (count); more: too_large."
    )
    memory_mb: int = Field(
        4096,
        ge=512,
        description="Memory that preparing a video may take (MiB), beyond what its process needs to begin with; more: "
        "too_large.",
    )
    cpu_s: float = Field(21_600, ge=1, description="Seconds of processor time for preparing a video; more: timeout.")
    wall_s: float = Field(86_400, gt=0, description="Seconds from a video's begin to its end; more: timeout.")


DEFAULT_LIMITS = Limits()
