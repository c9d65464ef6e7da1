"""The flow `report`: one self-contained HTML page about a model's scores over an archive."""

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
from prefect import flow

from flows import report_sections as sections
from flows.config import RunConfig, dump_config
from flows.console import counted
from flows.export import trait_rows
from flows.extract import last_extraction
from flows.families import Families, families_of
from flows.manifest import Archive
from flows.model_card import INTENDED, limits
from flows.models import ModelReference
from flows.report_attention import attention_of
from flows.report_charts import learning_curve
from flows.report_summary import summarise
from flows.uncertainty import stored_uncertainty
from storage.commit import commit_file
from storage.failures import FailureLog
from storage.models import ModelSerializer
from storage.paths import StorePath


@flow(name="report", validate_parameters=False)
def report(config: RunConfig, videos: Archive, model: ModelReference) -> StorePath:
    """Write the page to STORE/reports/<model>-<version>-<time>.html and return its path.

    Raises:
        UserError: a clip that `report.clips` names has no score, or `report.frames` lacks the folder of the videos.
    """
    now = datetime.now(UTC)
    page = render_report(config, families_of(config), videos, model, now)
    path = config.store.path / "reports" / f"{model.name}-{model.version}-{now.strftime('%Y%m%dT%H%M%S')}.html"
    with commit_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def render_report(config: RunConfig, families: Families, videos: Archive, model: ModelReference, now: datetime) -> str:
    """Put the page together. Tables of videos have at most 200 rows, whatever the number of videos.

    Raises:
        UserError: as `report`.
    """
    failures = [row for row in FailureLog(config.store.path).current() if row.key == families.features]
    summary = summarise(trait_rows(config, families, videos, model), failures)
    serializer = ModelSerializer(config.store.path)
    metadata = serializer.metadata(model.name, model.version)
    history = serializer.history(model.name, model.version)
    extraction = last_extraction(config)
    return _page(
        now=now,
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
        attention=attention_of(config, families, model, metadata["settings"]["form"], summary),
        history=learning_curve(history, metadata["settings"]["loss"], metadata["baseline_loss"]),
        extraction=extraction,
        stages=sections.stages(extraction),
        settings=dump_config(config),
    )


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
