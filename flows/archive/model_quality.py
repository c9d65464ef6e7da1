"""The quality of a model on unseen people, in sentences and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flows.session.console import counted
from fusion.evaluation.unseen import GAIN_LEVEL
from fusion.uncertainty.intervals import least_people

MEASURES = {"one_minus_mae": "1-MAE", "r2": "R2", "ccc": "CCC"}
REFERENCES = (
    "R2 compares the model with the mean of these clips' own labels, which no model can know; its squared error is "
    "compared with that of the mean of the training labels"
)


def clips_in_words(metadata: Mapping[str, Any]) -> str:
    """Return the number of clips that training used."""
    return f"{metadata.get('train_clips', 0) + metadata.get('validation_clips', 0):,}"


def people_known(metadata: Mapping[str, Any]) -> bool:
    """Return whether a model's labels say who is in a clip; old models did not record it, and are trusted."""
    return bool(metadata.get("subjects_known", True))


def people_in_words(metadata: Mapping[str, Any], count: int) -> str:
    """Return a number of people, as in "12 people"; "unknown people" if the labels do not say who is in a clip."""
    return counted(count, "person", "people") if people_known(metadata) else "unknown people"


def verdict(metadata: Mapping[str, Any]) -> str:
    """Return the quality of a model in one line."""
    unseen = metadata["unseen"]
    if unseen is None:
        return "its quality on unseen people was not measured"
    which = "of unseen people" if people_known(metadata) else "not trained on"
    figures = ", ".join(
        f"{title} {in_words(unseen[name]['mean'], level='95% interval ')}" for name, title in MEASURES.items()
    )
    return f"{figures} on {counted(unseen['clips'], 'clip')} {which}"


def in_words(cell: Mapping[str, float | None], form: str = ".3f", *, level: str = "") -> str:
    """Return a value and its interval, as in "0.412 (0.380 to 0.440)"; "-" if it is not defined.

    Args:
        level: what the interval is called, with a space after it, as in "90% interval ".
    """
    value, low, high = (cell[name] for name in ("value", "low", "high"))
    if value is None:
        return "-"
    if low is None or high is None:
        return f"{value:{form}}"
    return f"{value:{form}} ({level}{low:{form}} to {high:{form}})"


def on_whom(metadata: Mapping[str, Any]) -> str:
    """Say on whom a model was measured, as in "12 people whom the model has not seen"."""
    unseen = metadata["unseen"]
    if people_known(metadata):
        return f"{people_in_words(metadata, unseen['people'])} whom the model has not seen"
    return f"{counted(unseen['clips'], 'clip')} not trained on, whose people are unknown"


def measured_in_words(metadata: Mapping[str, Any]) -> str:
    """Describe the clips behind a model's table of measures, which has intervals only if there are enough people."""
    unseen = metadata["unseen"]
    known = any(cell["low"] is not None for name in MEASURES for cell in unseen[name].values())
    intervals = ", with 95% intervals over people" if known else ""
    clips = f"{counted(unseen['clips'], 'clip')} of " if people_known(metadata) else ""
    return f"{clips}{on_whom(metadata)}{intervals}"


def gain_in_words(metadata: Mapping[str, Any]) -> str:
    """Say how much smaller a measured model's squared error is than that of the mean label."""
    saved = in_words(metadata["unseen"]["gain"], ".1%", level=f"{GAIN_LEVEL:.0%} interval ")
    return (
        f"on {on_whom(metadata)}, the model's squared error is {saved} smaller than that of always predicting the mean "
        "of the training labels"
    )


def intervals_in_words(metadata: Mapping[str, Any]) -> str:
    """Describe the clips that the intervals of a model are calibrated on."""
    confidence = metadata["uncertainty"]["settings"]["confidence"]
    found = metadata["uncertainty"]["calibration"]
    if found is None:
        return (
            f"no {confidence:.0%} intervals: they need at least {least_people(confidence)} people who are scored by a "
            "model that has not seen them, and the labels have too few"
        )
    clips = counted(found["clips"], "clip")
    if people_known(metadata):
        people = people_in_words(metadata, found["subjects"])
        return f"{confidence:.0%} intervals calibrated on {clips} of {people} that the scoring model had not seen"
    return f"{confidence:.0%} intervals calibrated on {clips} not trained on, whose people are unknown"


def doubts(metadata: Mapping[str, Any]) -> list[str]:
    """Return sentences, without full stops, that say why a model's quality is unknown, too low, or flattered."""
    unseen = metadata.get("unseen")
    found = []
    if unseen is None:
        found.append("the quality of the model on unseen people is unknown, because too few are held out from training")
    elif unseen["better_than_mean"] is None:
        found.append(
            "too few people to tell whether the model is better than always predicting the mean: "
            f"{gain_in_words(metadata)}"
        )
    elif not unseen["better_than_mean"]:
        found.append(f"the model is no better than always predicting the mean of the labels: {gain_in_words(metadata)}")
    if not people_known(metadata):
        found.append(
            "the labels do not say who is in a clip, so clips of one person may be both learned from and used to "
            "measure the model, which flatters it"
        )
    return found


def figures(unseen: Mapping[str, Any]) -> Sequence[Sequence[str]]:
    """Return rows of trait, 1-MAE, R2 and CCC, with the mean of the traits first."""
    names = ["mean", *(name for name in unseen["r2"] if name != "mean")]
    return [[name, *(in_words(unseen[measure][name]) for measure in MEASURES)] for name in names]


def search_in_words(search: Mapping[str, Any]) -> str:
    """Describe the result of a search for settings in one line."""
    tried = f"{counted(search['trials'], 'trial')} in each of {1 + search['folds']} searches"
    found = ", ".join(f"{name}={value:g}" for name, value in search["found"].items())
    saved = f"{in_words(search['gain'], '.1%')} smaller than with the settings given"
    if search["kept"] == "found":
        return f"{tried} chose {found}; on people left out of the search, the squared error of such a choice is {saved}"
    return (
        f"{tried} found nothing better than the settings given, which are kept: on people left out of the search, the "
        f"squared error of the choice ({found}) is {saved}"
    )


def search_figures(search: Mapping[str, Any]) -> Sequence[Sequence[str]]:
    """Return rows of settings, 1-MAE, R2 and CCC: of the search, and of the settings given, on the same people."""
    return [
        [title, *(in_words(search["unseen"][which][measure]) for measure in MEASURES)]
        for which, title in (("found", "chosen by the search"), ("given", "settings given"))
    ]
