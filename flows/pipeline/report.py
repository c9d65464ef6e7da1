"""The flow `report`: one HTML page about a model's scores over an archive."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from flows.archive.families import families_of
from flows.archive.models import ModelReference
from flows.archive.videos import Archive
from flows.config.settings import RunConfig
from flows.pipeline.steps import step
from flows.report.attention import attention_of
from flows.report.page import page_contents, page_fingerprint, render_page
from flows.session import console
from storage.files.commit import commit_file
from storage.files.paths import StorePath, matching

log = logging.getLogger(__name__)


@step("report")
def report(config: RunConfig, videos: Archive, model: ModelReference) -> StorePath:
    """Write the page to STORE/reports/<model>-<version>-<time>.html, unless the last page says the same.

    Returns:
        The path of the page.

    Raises:
        UserError: a clip that `report.clips` names has no score, or `report.frames` lacks the folder of the videos.
    """
    families = families_of(config)
    contents = page_contents(config, families, videos, model)
    fingerprint = page_fingerprint(config, contents, videos)
    folder = config.store.path / "reports"
    last = _last_page(folder, model)
    if last is not None and not config.report.frames and fingerprint.encode() in last.read_bytes():
        console.say("Report: nothing new since the last page")
        return last
    now = datetime.now(UTC)
    attention = attention_of(config, families, model, contents["metadata"]["settings"]["form"], contents["summary"])
    page = render_page(now=now, attention=attention, fingerprint=fingerprint, **contents)
    path = folder / f"{model.name}-{model.version}-{now.strftime('%Y%m%dT%H%M%S')}.html"
    with commit_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    log.info("Report: %s", path)
    return path


def _last_page(folder: StorePath, model: ModelReference) -> StorePath | None:
    pages = matching(folder, f"{model.name}-{model.version}-*.html")
    return pages[-1] if pages else None
