"""The page of a report, as `traitline report` writes it."""

from __future__ import annotations

from datetime import datetime

from flows.archive.families import Families
from flows.archive.models import ModelReference
from flows.archive.videos import Archive
from flows.config.settings import RunConfig
from flows.report.attention import attention_of
from flows.report.page import page_contents, page_fingerprint, render_page


def render_report(config: RunConfig, families: Families, videos: Archive, model: ModelReference, now: datetime) -> str:
    """Render the page at a time."""
    contents = page_contents(config, families, videos, model)
    attention = attention_of(config, families, model, contents["metadata"]["settings"]["form"], contents["summary"])
    return render_page(now=now, attention=attention, fingerprint=page_fingerprint(config, contents, videos), **contents)
