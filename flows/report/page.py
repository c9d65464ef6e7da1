"""The report as one self-contained HTML page."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from flows.archive.families import Families
from flows.archive.model_card import INTENDED, misuses, warnings
from flows.archive.model_quality import people_in_words
from flows.archive.models import ModelReference
from flows.archive.outcomes import export_rows
from flows.archive.uncertainty import stored_uncertainty
from flows.archive.videos import Archive
from flows.config.load import dump_config
from flows.config.settings import RunConfig
from flows.extraction.jobs import last_extraction
from flows.report import sections
from flows.report.attention import Attention
from flows.report.charts import learning_curve
from flows.report.summary import summarise
from flows.session.console import counted
from storage.models.serializer import ModelSerializer
from storage.tables.failures import FailureLog


def page_contents(config: RunConfig, families: Families, videos: Archive, model: ModelReference) -> dict[str, Any]:
    """Return the contents of the page, except its time and the attention, which needs TensorFlow."""
    failures = list(FailureLog(config.store.path).refused(families.features).values())
    summary = summarise(export_rows(config.store.path, families, videos, model), failures)
    serializer = ModelSerializer(config.store.path)
    metadata = serializer.metadata(model.name, model.version)
    history = serializer.history(model.name, model.version)
    extraction = last_extraction(config.store.path)
    return dict(
        version=installed_version("traitline"),
        model=model,
        metadata=metadata,
        intended=INTENDED,
        misuses=misuses(metadata),
        warnings=warnings(metadata),
        random="random" in {config.weights, metadata["weights"], *summary.weights},
        config=config,
        families=families,
        described=[
            (family, json.dumps(family.settings, indent=1, sort_keys=True))
            for family in (families.faces, families.static, families.dynamic)
        ],
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
        calibration=sections.calibration(stored_uncertainty(config.uncertainty, metadata), summary),
        evaluation=sections.evaluation(config.store.path, families),
        drifts=sections.drifts(config.store.path, model),
        history=learning_curve(history, metadata["settings"]["loss"], metadata["baseline_loss"]) if history else None,
        quality=sections.quality(metadata),
        search=sections.search(metadata.get("search")),
        extraction=extraction,
        stages=sections.stages(extraction),
        settings=dump_config(config),
    )


def page_fingerprint(config: RunConfig, contents: dict[str, Any], videos: Archive) -> str:
    """Return the SHA-256 of the page's contents and of the videos whose attention it may show.

    The output path of a run has no influence.
    """
    elsewhere = config.model_copy(update={"out": None})
    said = {**contents, "config": elsewhere, "settings": dump_config(elsewhere)}
    page = render_page(now=datetime.fromtimestamp(0, UTC), attention=Attention([]), fingerprint="", **said)
    digest = hashlib.sha256(page.encode())
    for video in videos:
        digest.update(f"{video.video_id}\n{video.sha256}\n".encode())
    return digest.hexdigest()


def render_page(**values: Any) -> str:
    """Fill the template of the page with values."""
    environment = Environment(
        loader=PackageLoader("flows.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"counted": counted, "people_in_words": people_in_words}
    style, script = (_template_text(name) for name in ("report.css", "report.js"))
    # Only the page's own script and styles apply: injected text has another digest.
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    template = environment.get_template("report.html.j2")
    return template.render(policy=policy, style=Markup(style), script=Markup(script), **values)


def _template_text(name: str) -> str:
    return files("flows.report").joinpath("templates", name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"
