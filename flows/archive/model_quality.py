"""What the quality of a model on unseen people is called in sentences and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flows.session.console import counted

MEASURES = {"one_minus_mae": "1-MAE", "r2": "R2", "ccc": "CCC"}


def clips_in_words(metadata: Mapping[str, Any]) -> str:
    """Return the number of clips that training used."""
    return f"{metadata.get('train_clips', 0) + metadata.get('validation_clips', 0):,}"


def verdict(unseen: Mapping[str, Any] | None, subjects_known: bool) -> str:
    """Return the quality of a model in one line."""
    if unseen is None:
        return "without a measure of its quality on people whom it has not seen"
    which = "of unseen people" if subjects_known else "not trained on"
    figures = ", ".join(f"{title} {in_words(unseen[name]['mean'])}" for name, title in MEASURES.items())
    return f"{figures} on {counted(unseen['clips'], 'clip')} {which}"


def in_words(cell: Mapping[str, float | None]) -> str:
    """Return a value and its interval, as in "0.412 (0.380 to 0.440)"; "-" if it is not defined."""
    value, low, high = (cell[name] for name in ("value", "low", "high"))
    if value is None:
        return "-"
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} ({low:.3f} to {high:.3f})"


def on_whom(unseen: Mapping[str, Any]) -> str:
    """Return whose clips the measures are of, as in "12 people whom it has not seen"."""
    if unseen["people"] is None:
        return f"{counted(unseen['clips'], 'clip')} not trained on, whose people are unknown"
    return f"{counted(unseen['people'], 'person', 'people')} whom it has not seen"


def gain_in_words(unseen: Mapping[str, Any]) -> str:
    """Return how much of the mean's squared error the scores save."""
    saved = in_words(unseen["gain"])
    return f"on {on_whom(unseen)}, it saves {saved} of the squared error of the mean label that it has learned"


def doubts(unseen: Mapping[str, Any] | None) -> list[str]:
    """Return a sentence, without its end, if a model is not known to be better than the mean of the labels."""
    if unseen is None:
        return ["nothing says how good the model is on people whom it has not seen: too few are held out from training"]
    if unseen["better_than_mean"]:
        return []
    if unseen["better_than_mean"] is None:
        return [
            f"too few people to know whether the model is better than always saying the mean: {gain_in_words(unseen)}"
        ]
    return [f"the model is no better than always saying the mean of the labels: {gain_in_words(unseen)}"]


def figures(unseen: Mapping[str, Any]) -> Sequence[Sequence[str]]:
    """Return rows of trait, 1-MAE, R2 and CCC, with the mean of the traits first."""
    names = ["mean", *(name for name in unseen["r2"] if name != "mean")]
    return [[name, *(in_words(unseen[measure][name]) for measure in MEASURES)] for name in names]


def search_in_words(search: Mapping[str, Any]) -> str:
    """Return what a search for settings has found, in one line."""
    tried = f"{counted(search['trials'], 'trial')} in each of {1 + search['folds']} searches"
    found = ", ".join(f"{name}={value:g}" for name, value in search["found"].items())
    saved = f"{in_words(search['gain'])} of the squared error with the settings given"
    if search["kept"] == "found":
        return f"{tried} chose {found}; on people who had no part in it, such a choice saves {saved}"
    return (
        f"{tried} found nothing better than the settings given, which are kept: on people who had no part in it, the "
        f"choice ({found}) saves {saved}"
    )


def search_figures(search: Mapping[str, Any]) -> Sequence[Sequence[str]]:
    """Return rows of settings, 1-MAE, R2 and CCC: of the search, and of the settings given, on the same people."""
    return [
        [title, *(in_words(search["unseen"][which][measure]) for measure in MEASURES)]
        for which, title in (("found", "chosen by the search"), ("given", "settings given"))
    ]
