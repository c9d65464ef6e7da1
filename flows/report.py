"""The flow `report`: one self-contained HTML page about a model's scores over an archive."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from prefect import flow

from extractors.stopwatch import STAGES
from flows.config import RunConfig, dump_config
from flows.export import trait_rows
from flows.extract import last_extraction
from flows.families import Families, families_of
from flows.manifest import Archive, VideoFile
from flows.models import ModelReference
from fusion.traits import TRAITS
from storage.commit import commit_file
from storage.models import ModelSerializer
from storage.paths import StorePath
from storage.trait_csv import TraitRow

EXAMPLES_PER_REASON = 5
# Okabe & Ito's palette, which people with colour-blindness can tell apart.
BLUE, ORANGE = "#0072B2", "#D55E00"


@dataclass
class Refusals:
    """Videos without a score for one reason: how many, and a few of them."""

    count: int = 0
    examples: list[str] = field(default_factory=list)


@flow(name="report", validate_parameters=False)
def report(config: RunConfig, videos: Archive, model: ModelReference) -> StorePath:
    """Write the page to STORE/reports/<model>-<version>-<time>.html and return its path."""
    now = datetime.now(UTC)
    page = render_report(config, families_of(config), videos, model, now)
    path = config.store.path / "reports" / f"{model.name}-{model.version}-{now.strftime('%Y%m%dT%H%M%S')}.html"
    with commit_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def render_report(
    config: RunConfig, families: Families, videos: Sequence[VideoFile], model: ModelReference, now: datetime
) -> str:
    """Put the page together; only sums are kept in memory, whatever the number of videos."""
    traits, coverage = [], []
    refusals: dict[str, Refusals] = {}
    for row in trait_rows(config, families, videos, model):
        if row.traits is not None:
            traits.append(row.traits)
            coverage.append(row.face_coverage)
        else:
            _count(refusals, row)
    serializer = ModelSerializer(config.store.path)
    metadata = serializer.metadata(model.name, model.version)
    scores = np.asarray(traits, np.float32).reshape(-1, len(TRAITS))
    environment = Environment(
        loader=PackageLoader("flows"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html.j2").render(
        now=now.isoformat(timespec="seconds"),
        version=installed_version("traitline"),
        model=str(model),
        metadata=metadata,
        families=families,
        weights=config.weights,
        videos=len(videos),
        scored=len(scores),
        refusals=sorted(refusals.items(), key=lambda item: -item[1].count),
        statistics=_statistics(scores),
        charts={
            "traits": _trait_histograms(scores) if len(scores) else None,
            "coverage": _coverage_histogram(coverage) if coverage else None,
            "history": _learning_curve(serializer.history(model.name, model.version), metadata),
        },
        stages=_stages(config),
        settings=dump_config(config),
    )


def _count(refusals: dict[str, Refusals], row: TraitRow) -> None:
    entry = refusals.setdefault(row.reason, Refusals())
    entry.count += 1
    if len(entry.examples) < EXAMPLES_PER_REASON:
        entry.examples.append(row.video_id)


def _statistics(scores: np.ndarray) -> list[tuple[str, list[float]]]:
    if not len(scores):
        return []
    rows = [scores.mean(axis=0), scores.std(axis=0), scores.min(axis=0), np.median(scores, axis=0), scores.max(axis=0)]
    return list(zip(TRAITS, np.asarray(rows).T.tolist(), strict=True))


def _stages(config: RunConfig) -> list[tuple[str, float, float]]:
    extraction = last_extraction(config)
    if extraction is None:
        return []
    total = sum(extraction.seconds.values())
    return [
        (name, extraction.seconds[name], extraction.seconds[name] / total)
        for name in STAGES
        if name in extraction.seconds
    ]


def _trait_histograms(scores: np.ndarray) -> Markup:
    figure, axes = _figure(len(TRAITS), width_in=11, height_in=2.3)
    # One scale for all, so that the shapes can be compared: the labels' range, wider where scores leave it.
    bins = np.linspace(min(0.0, scores.min()), max(1.0, scores.max()), 31)
    for axis, trait, values in zip(axes, TRAITS, scores.T, strict=True):
        axis.hist(values, bins, color=BLUE)
        axis.axvline(values.mean(), color=ORANGE, linewidth=1.5)
        axis.set_title(trait, fontsize=10)
    axes[0].set_ylabel("videos")
    return _svg(figure, "Histograms of the five trait scores; the line marks the mean")


def _coverage_histogram(coverage: Sequence[float]) -> Markup:
    figure, (axis,) = _figure(1, width_in=5, height_in=2.3)
    axis.hist(coverage, np.linspace(0, 1, 21), color=BLUE)
    axis.set_xlabel("share of frames with the main person's face")
    axis.set_ylabel("videos")
    return _svg(figure, "Histogram of face coverage")


def _learning_curve(history: dict[str, list[float]], metadata: dict[str, Any]) -> Markup:
    figure, (axis,) = _figure(1, width_in=5, height_in=2.3)
    epochs = np.arange(1, len(history["loss"]) + 1)
    axis.plot(epochs, history["loss"], color=BLUE, label="training")
    if "validation_loss" in history:
        axis.plot(epochs, history["validation_loss"], color=ORANGE, label="validation")
        axis.axhline(metadata["baseline_loss"], color="0.4", linestyle=":", label="always the mean")
    axis.set_yscale("log")
    axis.set_xlabel("epoch")
    axis.set_ylabel(metadata["settings"]["loss"])
    axis.legend(frameon=False, fontsize=8)
    return _svg(figure, "Loss by epoch in training and validation")


def _figure(columns: int, *, width_in: float, height_in: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # takes a second to import

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    axes = figure.subplots(1, columns, sharey=True, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    return figure, axes


def _svg(figure: Any, title: str) -> Markup:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Title": title, "Date": None})
    # Inside HTML the XML prologue has no place.
    return Markup(text.getvalue()[text.getvalue().index("<svg") :])
