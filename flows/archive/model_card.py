"""Describes a trained model in words: limits of its use, and the model card of an export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from flows.archive.families import network_name
from flows.archive.model_quality import (
    REFERENCES,
    doubts,
    figures,
    intervals_in_words,
    measured_in_words,
    people_in_words,
    search_figures,
    search_in_words,
)
from flows.archive.models import ModelReference
from fusion.settings import effective

if TYPE_CHECKING:
    from fusion.model.kinds import PersonalityModel

INTENDED = (
    "research on how people perceive others in short face videos: it predicts *apparent* personality, what viewers "
    "ascribe to a speaker from a short clip"
)
NOT_FOR = (
    "decisions about people in employment, education, justice or health care",
    "finding out who somebody is or what somebody is really like: it was trained on the impressions of viewers, with "
    "all their prejudices about age, sex, skin colour, clothing and speech",
    "faces of people who do not know about it",
)
MEANINGS = {
    "static": "face tokens",
    "dynamic": "motion tokens",
    "mask": "which of them are real",
    "time_s": "their times in seconds from the start of the video",
}
SPECIFIED_WIDTH = 128
RANDOM = "the feature networks had RANDOM weights, so its scores only show that everything works"


def limits(metadata: Mapping[str, Any]) -> list[str]:
    """List what a model must not be used for, and its known faults, one sentence each."""
    return [*misuses(metadata), *warnings(metadata)]


def misuses(metadata: Mapping[str, Any]) -> list[str]:
    """List what a model must not be used for, one sentence each."""
    found = [f"Not for {purpose}." for purpose in NOT_FOR]
    if metadata.get("weights") == "random":
        found.insert(0, f"Only for a trial: {RANDOM}.")
    return found


def warnings(metadata: Mapping[str, Any]) -> list[str]:
    """List the known faults of a model, one sentence each."""
    found = [f"{doubt[0].upper()}{doubt[1:]}." for doubt in doubts(metadata)]
    own = metadata.get("settings") or {}
    if own.get("kind") == "specified" and own.get("width", SPECIFIED_WIDTH) != SPECIFIED_WIDTH:
        found.append(f"Not the specified network: its fused tokens have {own['width']} numbers, not {SPECIFIED_WIDTH}.")
    return found + [f"{warning[0].upper()}{warning[1:]}." for warning in metadata.get("warnings", ())]


def features_of(metadata: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the features that a model takes, as pairs of a heading and a text."""
    return [
        (
            f"{kind} features",
            f"{network_name(metadata.get('networks', {}).get(kind, {}), kind)}, {metadata[f'{kind}_dim']} numbers per "
            f"token, {metadata['weights']} weights, key {metadata[f'{kind}_key']}",
        )
        for kind in ("static", "dynamic")
    ]


def facts_of(metadata: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a model was made of, and how, as pairs of a heading and a text."""
    settings = metadata["settings"]
    clips = f"{metadata['train_clips']} of {people_in_words(metadata, metadata['train_subjects'])}"
    facts = [
        ("labels", f"{metadata['labels']}, SHA-256 {metadata['labels_sha256']}"),
        ("model", settings.get("kind", "specified")),
        ("clips", clips),
    ]
    if "train_loss" in metadata:
        facts.append(("training loss", f"{settings['loss']} {metadata['train_loss']:.4f}"))
        if metadata["validation_loss"] is not None:
            on = f"{metadata['validation_clips']} clips of {people_in_words(metadata, metadata['validation_subjects'])}"
            constant = f"{metadata['baseline_loss']:.4f}"
            loss = f"{settings['loss']} {metadata['validation_loss']:.4f} on {on}, the lowest of all epochs"
            facts.append(("validation loss", f"{loss} (constant mean: {constant})"))
        facts.append(("epochs", f"{metadata['epochs_run']}; epoch {metadata['best_epoch']} is kept"))
    facts.append(("settings", " ".join(f"{name}={value}" for name, value in effective(settings).items())))
    if "uncertainty" in metadata:
        facts.append(("intervals", intervals_in_words(metadata)))
    program = metadata["program"]
    return [
        *facts,
        ("libraries", " ".join(f"{name} {version}" for name, version in metadata["libraries"].items())),
        ("program", f"Traitline {program['version']}, commit {program['commit'] or 'unknown'}"),
        ("SHA-256 of model.keras", metadata["files"]["model.keras"]),
    ]


def inputs_of(network: PersonalityModel) -> list[tuple[str, str, str, str]]:
    """Return name, dtype, shape and meaning of each input of an exported model."""
    return [
        (name, spec.dtype.name, _shape(name, spec.shape.as_list()), _meaning(name))
        for name, spec in network.input_signature().items()
    ]


def card_of(
    model: ModelReference, metadata: Mapping[str, Any], files: Sequence[str], inputs: Sequence[Sequence[str]]
) -> str:
    """Return the card of an exported model as Markdown.

    Args:
        files: names of the exported files.
        inputs: from `inputs_of`.
    """
    environment = Environment(
        loader=PackageLoader("flows.archive"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("model_card.md.j2").render(
        model=model,
        metadata=metadata,
        files=files,
        inputs=inputs,
        intended=INTENDED,
        misuses=misuses(metadata),
        warnings=warnings(metadata),
        facts=facts_of(metadata),
        figures=figures(metadata["unseen"]) if metadata.get("unseen") else [],
        references=REFERENCES,
        measured=measured_in_words(metadata) if metadata.get("unseen") else "",
        search=search_in_words(metadata["search"]) if metadata.get("search") else "",
        search_figures=search_figures(metadata["search"]) if metadata.get("search") else [],
    )


def _shape(name: str, shape: list[int | None]) -> str:
    free = ["B", "Ts" if name.startswith("static") else "Td"]
    return f"[{', '.join([*free, *map(str, shape[2:])])}]"


def _meaning(name: str) -> str:
    kind, _, part = name.partition("_")
    return MEANINGS[part if part else kind]
