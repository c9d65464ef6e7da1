"""Jobs of extraction, and the reports of its parts and of the whole."""

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


Stretch = tuple[Job, ...]
"""The videos that a worker claims together. It commits them in shards, as they are finished."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What a worker has committed.

    Args:
        shards: number of commits.
        extracted, failed: numbers of videos.
        seconds: of work by stage.
        lost: whether another run has taken over the rest of the stretch.
    """

    shards: int = 0
    extracted: int = 0
    failed: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    lost: bool = False

    def __add__(self, other: Committed) -> Committed:
        return Committed(
            self.shards + other.shards,
            self.extracted + other.extracted,
            self.failed + other.failed,
            {
                stage: sum(of.seconds.get(stage, 0.0) for of in (self, other))
                for stage in {**self.seconds, **other.seconds}
            },
            self.lost or other.lost,
        )


@dataclass(frozen=True, slots=True)
class ExtractReport:
    """Counts of videos, and seconds of work by stage.

    Args:
        extracted, failed: by this run.
        cached: extracted before.
        refused_before: refused before with the same settings, and not retried.
        seconds: by stage, of this run.
        by_others: extracted or refused in the meantime by other runs, or by workers that died before they reported it.
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
            rows.append(("done by other runs or lost workers", f"{self.by_others:,}"))
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
