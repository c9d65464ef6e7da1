"""Which scores and columns go into an export."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, BeforeValidator, Field, model_validator


def _names(value: object) -> object:
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


class ExportSettings(BaseModel, frozen=True, extra="forbid"):
    """Which scores and columns go into an export."""

    columns: Annotated[tuple[str, ...], BeforeValidator(_names)] | None = Field(
        None, min_length=1, description="Columns, in this order, as a list or with commas between; by default all."
    )
    since: AwareDatetime | None = Field(
        None, description="Only scores from this time on: ISO 8601 with its zone, 2026-01-31T00:00+01:00."
    )
    until: AwareDatetime | None = Field(None, description="Only scores from before this time, likewise.")

    @model_validator(mode="after")
    def _has_length(self) -> ExportSettings:
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise ValueError(f"since must come before until, not {self.since.isoformat()}, {self.until.isoformat()}")
        return self

    @property
    def bounded(self) -> bool:
        """Whether the export is limited to a range of time."""
        return self.since is not None or self.until is not None

    def holds(self, time: datetime) -> bool:
        """Whether a time is in the range, whose end is excluded."""
        return (self.since is None or time >= self.since) and (self.until is None or time < self.until)
