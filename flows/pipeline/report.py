"""The flow `report`: one self-contained HTML page about a model's scores over an archive."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from flows import console
from flows import report_sections as sections
from flows.config import RunConfig, dump_config
from flows.console import counted
from flows.export import trait_rows
from flows.extract import last_extraction
from flows.families import Families, families_of
from flows.manifest import Archive
from flows.model_card import INTENDED, limits
from flows.models import ModelReference
from flows.report_attention import Attention, attention_of
from flows.report_charts import learning_curve
from flows.report_summary import summarise
from flows.steps import step
from flows.uncertainty import stored_uncertainty
from storage.commit import commit_file
from storage.failures import FailureLog
from storage.models import ModelSerializer
from storage.paths import StorePath

log = logging.getLogger(__name__)


@step("report")
def report(config: RunConfig, videos: Archive, model: ModelReference) -> StorePath:
    """Write the page to STORE/reports/<model>-<version>-<time>.html, unless the last one says the same already.

    Returns:
        The path of the page.

    Raises:
        UserError: a clip that `report.clips` names has no score, or `report.frames` lacks the folder of the videos.
    """
    families = families_of(config)
    contents = _contents(config, families, videos, model)
    fingerprint = _fingerprint(config, contents, videos)
    folder = config.store.path / "reports"
    last = _last_page(folder, model)
    if last is not None and not config.report.frames and fingerprint in last.read_text("utf-8", errors="replace"):
        console.say("Report: nothing new since the last page")
        return last
    now = datetime.now(UTC)
    attention = attention_of(config, families, model, contents["metadata"]["settings"]["form"], contents["summary"])
    page = _page(now=now, attention=attention, fingerprint=fingerprint, **contents)
    path = folder / f"{model.name}-{model.version}-{now.strftime('%Y%m%dT%H%M%S')}.html"
    with commit_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    log.info("Report: %s", path)
    return path


def render_report(config: RunConfig, families: Families, videos: Archive, model: ModelReference, now: datetime) -> str:
    """Put the page together. Tables of videos have at most 200 rows, whatever the number of videos.

    Raises:
        UserError: as `report`.
    """
    contents = _contents(config, families, videos, model)
    attention = attention_of(config, families, model, contents["metadata"]["settings"]["form"], contents["summary"])
    return _page(now=now, attention=attention, fingerprint=_fingerprint(config, contents, videos), **contents)


def _contents(config: RunConfig, families: Families, videos: Archive, model: ModelReference) -> dict[str, Any]:
    """All that is on the page but its time and the attention, which TensorFlow is needed for."""
    failures = [row for row in FailureLog(config.store.path).current() if row.key == families.features]
    summary = summarise(trait_rows(config, families, videos, model), failures)
    serializer = ModelSerializer(config.store.path)
    metadata = serializer.metadata(model.name, model.version)
    history = serializer.history(model.name, model.version)
    extraction = last_extraction(config)
    return dict(
        version=installed_version("traitline"),
        model=model,
        metadata=metadata,
        intended=INTENDED,
        limits=limits(metadata),
        random="random" in {config.weights, metadata["weights"], *summary.weights},
        config=config,
        families=families,
        described=[(family, json.dumps(family.settings, indent=1, sort_keys=True)) for family in _all(families)],
        summary=summary,
        unread=sorted(videos.unread.items()),
        outcome=sections.outcome(summary),
        flags=sections.flags(summary),
        refusals=sections.refusals(summary),
        coverage_charts=sections.coverage_charts(summary) if summary.names else [],
        material=sections.material(summary) if summary.names else None,
        trait_charts=sections.trait_charts(summary) if summary.names else [],
        statistics=sections.trait_statistics(summary) if summary.names else None,
        correlations=sections.correlations(summary),
        videos=sections.videos(summary),
        calibration=sections.calibration(stored_uncertainty(config, metadata), summary),
        evaluation=sections.evaluation(config, families),
        drifts=sections.drifts(config, model),
        history=learning_curve(history, metadata["settings"]["loss"], metadata["baseline_loss"]),
        extraction=extraction,
        stages=sections.stages(extraction),
        settings=dump_config(config),
    )


def _fingerprint(config: RunConfig, contents: dict[str, Any], videos: Archive) -> str:
    """SHA-256 over all that a page says, and over the videos whose attention it may show.

    Where a run writes its scores does not matter.
    """
    elsewhere = config.model_copy(update={"out": None})
    said = {**contents, "config": elsewhere, "settings": dump_config(elsewhere)}
    page = _page(now=datetime.fromtimestamp(0, UTC), attention=Attention([]), fingerprint="", **said)
    digest = hashlib.sha256(page.encode())
    for video in videos:
        digest.update(f"{video.video_id}\n{video.sha256}\n".encode())
    return digest.hexdigest()


def _last_page(folder: StorePath, model: ModelReference) -> StorePath | None:
    pages = sorted(folder.glob(f"{model.name}-{model.version}-*.html"))
    return pages[-1] if pages else None


def _all(families: Families) -> tuple[Any, ...]:
    return families.faces, families.static, families.dynamic


def _page(**values: Any) -> str:
    environment = Environment(
        loader=PackageLoader("flows"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["counted"] = counted
    style, script = (_template_text(name) for name in ("report.css", "report.js"))
    # Only what was written here runs: text that slipped in would have another digest.
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    template = environment.get_template("report.html.j2")
    return template.render(policy=policy, style=Markup(style), script=Markup(script), **values)


def _template_text(name: str) -> str:
    return files("flows").joinpath("templates", name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"
