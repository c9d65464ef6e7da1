"""Preparation of all flows: find mistakes that would end a run hours later, then list the videos."""

from __future__ import annotations

from flows.archive.families import families_of, settle_weights
from flows.archive.labels import labels_of
from flows.archive.models import find_model
from flows.archive.videos import Archive, check_videos, known_videos, named_videos, videos_of
from flows.config.settings import ExportSettings, RunConfig
from flows.session import console
from flows.session.errors import UserError, did_you_mean
from fusion.traits import TRAITS
from storage.exports.columns import Column, Row, trait_columns
from storage.exports.package import FORMATS
from storage.files.commit import check_writable
from storage.files.paths import StorePath


def check_settings(settings: RunConfig, *, with_files: bool = False, with_labels: bool = False) -> None:
    """Check everything that needs neither a look at every video nor a heavy library.

    Args:
        with_files: whether the run needs the videos' files.
        with_labels: whether it needs labels.

    Raises:
        UserError: needed videos or labels are not named, or the videos folder or list does not exist; an unknown
            column.
        fusion.errors.LabelError: the labels cannot be read.
        fusion.errors.TrainingError: a search has nothing to choose.
        StoreError: the output cannot be written.
    """
    if with_files:
        named_videos(settings)
    check_videos(settings)
    if with_labels or settings.labels is not None:
        labels_of(settings)
    if settings.search.trials is not None:
        settings.search.space(settings.train)
    if settings.out is not None:
        check_writable(settings.out)
    chosen_columns(settings.export, settings.out)


def prepare(settings: RunConfig, *, with_files: bool = False) -> tuple[RunConfig, Archive]:
    """List the videos of the folder or list, or else those that the store knows, and settle `weights: auto`.

    With files, this also checks for the networks' weights. Features in the store can be used without them.

    Raises:
        UserError: there are no videos, or no model of the name in the settings.
    """
    if settings.model is not None:
        find_model(settings.store.path, settings.model)  # a mistyped name is reported before anything about features
    with console.console.status("Looking at the videos") as status:
        if settings.videos is not None:
            files = videos_of(settings, lambda done, total: status.update(f"Looking at the videos: {done} of {total}"))
        asked = settings.weights
        if with_files or asked == "auto":
            settings = settle_weights(settings)
        if asked == "auto" and settings.weights == "random":
            console.say(
                "Weights: RANDOM, because the pretrained networks are not available here. The scores show that "
                "everything works and mean nothing else.",
                style="bold yellow",
            )
        if settings.videos is None:
            files = known_videos(settings.store.path, families_of(settings))
    return settings, files


def check_table_name(out: StorePath) -> None:
    """Raise UserError unless the name ends in .csv or .parquet."""
    if out.suffix.lower() not in FORMATS:
        raise UserError(f"cannot write {out}: its name must end in {' or '.join(FORMATS)}")


def chosen_columns(settings: ExportSettings, out: StorePath | None, model: str = "") -> list[Column[Row]]:
    """Return the columns that the settings name, in their order.

    Raises:
        UserError: a column is unknown or named twice, or the file's name ends in neither .csv nor .parquet.
    """
    if out is not None:
        check_table_name(out)
    known = {column.name: column for column in trait_columns(TRAITS, model)}
    names = known if settings.columns is None else settings.columns
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(
            f"there is no column {unknown[0]!r}{did_you_mean(unknown[0], known) or '; there are ' + ', '.join(known)}"
        )
    if len(set(names)) < len(names):
        raise UserError(f"a column is named twice: {', '.join(names)}")
    return [known[name] for name in names]
