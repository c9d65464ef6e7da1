"""What of the scores goes into an export."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, BeforeValidator, Field, model_validator

from flows.session.errors import UserError, did_you_mean
from fusion.traits import TRAITS
from storage.exports.columns import TraitColumn, trait_columns
from storage.exports.package import FORMATS
from storage.files.paths import StorePath


def _names(value: object) -> object:
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


class ExportSettings(BaseModel, frozen=True, extra="forbid"):
    """What of the scores goes into an export."""

    columns: Annotated[tuple[str, ...], BeforeValidator(_names)] | None = Field(
        None, min_length=1, description="Columns, in this order, as a list or with commas between; by default all."
    )
    since: AwareDatetime | None = Field(
        None, description="Only what was scored then or later: ISO 8601 with its zone, 2026-01-31T00:00+01:00."
    )
    until: AwareDatetime | None = Field(None, description="Only what was scored before then, likewise.")

    @model_validator(mode="after")
    def _has_length(self) -> ExportSettings:
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise ValueError(f"since must come before until, not {self.since.isoformat()}, {self.until.isoformat()}")
        return self

    @property
    def bounded(self) -> bool:
        """Whether there is a range of time."""
        return self.since is not None or self.until is not None

    def holds(self, time: datetime) -> bool:
        """Whether a time is in the range; its end is not."""
        return (self.since is None or time >= self.since) and (self.until is None or time < self.until)


def chosen_columns(settings: ExportSettings, out: StorePath | None, model: str = "") -> list[TraitColumn]:
    """The columns that the settings name, in their order.

    Raises:
        UserError: one is not known or is named twice, or the file is to have another ending than .csv or .parquet.
    """
    if out is not None and out.suffix.lower() not in FORMATS:
        raise UserError(f"cannot write {out}: its name must end in {' or '.join(FORMATS)}")
    known = {column.name: column for column in trait_columns(TRAITS, model)}
    names = known if settings.columns is None else settings.columns
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(
            f"there is no column {unknown[0]!r}{did_you_mean(unknown[0], known)}; there are {', '.join(known)}"
        )
    if len(set(names)) < len(names):
        raise UserError(f"a column is named twice: {', '.join(names)}")
    return [known[name] for name in names]
