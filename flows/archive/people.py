"""The videos that `traitline store erase` is asked to erase."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from extractors.assets.own import own_assets
from flows.archive.videos.listed import entries
from flows.session import console
from flows.session.errors import UserError, did_you_mean
from fusion.errors import some_of
from fusion.labels.groups import read_subjects
from fusion.labels.matching import match_names
from storage.files.paths import StorePath
from storage.maintenance.erasing import interrupted, known_videos


def chosen_videos(
    root: StorePath, videos: Collection[str], subject: str | None, file: Path | None, labels: Path | None
) -> set[str]:
    """Return the ids of videos that are named one by one, in a list, or by the person in them.

    Args:
        root: of the store.
        videos: ids.
        subject: a person in `labels`.
        file: a list of ids.
        labels: label file or table of groups; given with `subject` only.

    Raises:
        UserError: nothing is named and no erasure was interrupted, an id or the list is empty, or `labels` do not have
            that person.
        fusion.errors.LabelError: `labels` cannot be used.
    """
    if (subject is None) != (labels is None):
        raise UserError("--subject NAME and --labels FILE go together: the file says which videos show whom")
    listed = [text for _, text in entries(file)] if file is not None else []
    if file is not None and not listed:
        raise UserError(f"{file} names no videos: it is empty")
    chosen = {*videos, *listed}
    if not all(map(str.strip, chosen)):
        raise UserError("a video_id is empty: perhaps a variable of the shell that is not set")
    if subject is not None and labels is not None:
        subject_of, known = read_subjects(labels), known_videos(root)
        names = list(subject_of)
        if subject not in subject_of.values():
            people = sorted(set(subject_of.values()))
            raise UserError(f"{labels} has no subject {subject!r}{did_you_mean(subject, people)}")
        matched = {known[video]: names[row] for video, row in match_names(names, known).items()}
        chosen.update(video_id for video_id, name in matched.items() if subject_of[name] == subject)
        theirs = {name for name, own in subject_of.items() if own == subject}
        if absent := sorted(theirs - set(matched.values())):
            console.say(
                f"not in the store, or several videos of that file name: {some_of(absent)}; --video names any",
                style="yellow",
            )
    if not chosen and not interrupted(root):
        raise UserError("name the videos to erase: --video ID, --subject NAME with --labels FILE, or --file LIST")
    return chosen


def unheld_in_words(root: StorePath, unheld: Sequence[str]) -> str:
    """Describe in one line that a store holds nothing of some videos, of which there is at least one."""
    hint = did_you_mean(unheld[0], known_videos(root)) or "; a video is named by its video_id, as in the trait CSV"
    return f"{root} holds nothing of {some_of(list(unheld))}{hint}"


def own_networks(videos: Collection[str]) -> list[str]:
    """Return the names of fine-tuned networks in the usual places that saw any of these videos."""
    kinds = ("training_videos", "validation_videos")
    return [
        own.name for own in own_assets() if any(not {*own.training.get(kind, ())}.isdisjoint(videos) for kind in kinds)
    ]
