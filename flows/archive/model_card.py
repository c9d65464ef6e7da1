"""Describes a trained model in words: limits of its use, and the model card of an export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from flows.archive.model_quality import doubts, figures, search_figures, search_in_words
from flows.archive.models import ModelReference

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
    found = [f"Not for {purpose}." for purpose in NOT_FOR]
    if metadata.get("weights") == "random":
        found.insert(0, f"Not for anything but a trial: {RANDOM}.")
    unseen = metadata.get("unseen")
    if unseen is None:
        found.append("Nobody knows how well it does on people whom it has not seen: that was not measured.")
    found += [f"{doubt[0].upper()}{doubt[1:]}." for doubt in doubts(unseen)]
    own = metadata.get("settings") or {}
    if own.get("kind") == "specified" and own.get("width", SPECIFIED_WIDTH) != SPECIFIED_WIDTH:
        found.append(f"Not the specified network: its fused tokens have {own['width']} numbers, not {SPECIFIED_WIDTH}.")
    if metadata.get("subjects_known") is False:
        found.append(
            "Its measures are too good: the labels do not say who is in a clip, so people may be in both parts."
        )
    return found + [f"Warning of its training: {warning}." for warning in metadata.get("warnings", ())]


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
        limits=limits(metadata),
        figures=figures(metadata["unseen"]) if metadata.get("unseen") else [],
        search=search_in_words(metadata["search"]) if metadata.get("search") else "",
        search_figures=search_figures(metadata["search"]) if metadata.get("search") else [],
    )


def _shape(name: str, shape: list[int | None]) -> str:
    free = ["B", "Ts" if name.startswith("static") else "Td"]
    return f"[{', '.join([*free, *map(str, shape[2:])])}]"


def _meaning(name: str) -> str:
    kind, _, part = name.partition("_")
    return MEANINGS[part if part else kind]
