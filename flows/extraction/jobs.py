"""Jobs of extraction, and the reports of shards and of the whole."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from pydantic import TypeAdapter

from flows.archive.videos import VideoFile
from flows.session.console import tally
from flows.session.errors import UserError
from storage.files.commit import commit_file
from storage.files.paths import StorePath, matching


@dataclass(frozen=True, slots=True)
class Job:
    """One video and what it still needs.

    Args:
        static: whether its static tokens are missing.
        dynamic: whether its dynamic tokens are missing.
        attempts: number of earlier refusals with the same settings.
        reason: of the last refusal.
    """

    video: VideoFile
    static: bool
    dynamic: bool
    attempts: int = 0
    reason: str = ""


Shard = tuple[Job, ...]


@dataclass(frozen=True, slots=True)
class ShardReport:
    """The result of one shard: counts, and seconds by stage; `lost` if another run has taken it over."""

    extracted: int
    failed: int
    seconds: dict[str, float]
    lost: bool = False


@dataclass(frozen=True, slots=True)
class ExtractReport:
    """Counts of videos, and seconds by stage over all shards.

    Args:
        extracted, failed: by this run.
        cached: extracted before.
        refused_before: refused before with the same settings, and not retried.
        seconds: by stage, of this run.
        by_others: extracted or refused by other runs in the meantime.
        reasons: of the refusals by this run, and by others in the meantime: code -> count.
    """

    extracted: int
    failed: int
    cached: int
    refused_before: int
    seconds: dict[str, float]
    by_others: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Return whether there was no video to extract, neither for this run nor for others in the meantime."""
        return self.extracted + self.failed + self.by_others == 0

    def rows(self) -> list[tuple[str, str]]:
        """Return the counts with their names, for a summary."""
        rows = [
            ("extracted", f"{self.extracted:,}"),
            ("rejected", f"{self.failed:,}" + (f": {tally(self.reasons)}" if self.reasons else "")),
            ("in the store before", f"{self.cached:,}"),
        ]
        if self.by_others:
            rows.append(("done by other runs", f"{self.by_others:,}"))
        if self.refused_before:
            rows.append(("rejected before", f"{self.refused_before:,} (see `traitline failures list`)"))
        return rows


class TooManyRefusedError(UserError):
    """More videos were refused than the settings allow."""


def keep_report(report: ExtractReport, root: StorePath) -> None:
    """Write the report to STORE/runs."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    with commit_file(root / "runs" / f"{stamp}-extract.json") as temporary:
        temporary.write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")


def last_extraction(root: StorePath) -> ExtractReport | None:
    """Read the report of the last extraction that processed videos, if any.

    Raises:
        UserError: its file is damaged.
    """
    reports = matching(root / "runs", "*-extract.json")
    if not reports:
        return None
    try:
        return TypeAdapter(ExtractReport).validate_json(reports[-1].read_text(encoding="utf-8"), strict=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{reports[-1]} is damaged; remove it: it only describes the last extraction") from error
