"""The resources that one video may take. More suggests an attack, or a video that should be split first."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Limits(BaseModel, frozen=True, extra="forbid"):
    """Bounds beyond which a video is refused; they change no feature and enter no key."""

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
