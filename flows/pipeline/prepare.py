"""Preparation of all flows: lists the videos, and fails early for what would end a run hours later."""

from __future__ import annotations

import importlib.util

from flows.archive.families import families_of, settle_weights
from flows.archive.labels import labels_of
from flows.archive.videos import Archive, known_videos, videos_of
from flows.config.export import ExportSettings
from flows.config.settings import RunConfig
from flows.session import console
from flows.session.errors import UserError, did_you_mean
from fusion.traits import TRAITS
from storage.exports.columns import TraitColumn, trait_columns
from storage.exports.package import FORMATS
from storage.files.commit import check_writable
from storage.files.paths import StorePath


def prepare(settings: RunConfig, *, with_files: bool = False) -> tuple[RunConfig, Archive]:
    """List the videos of the folder or list, or else those that the store knows, and settle `weights: auto`.

    With files, this also checks for the networks' weights. Features in the store can be used without them.

    Raises:
        UserError: files are needed and no videos are named, or there are no videos.
    """
    if settings.videos is None and with_files:
        raise UserError("which videos? give their folder with --videos DIR, or as 'videos: DIR' in the settings file")
    # Fail now rather than hours later.
    if settings.labels is not None:
        labels_of(settings)
    if settings.out is not None:
        check_writable(settings.out)
    chosen_columns(settings.export, settings.out)
    if with_files:
        _check_dask(settings)
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
            files = known_videos(settings, families_of(settings))
    return settings, files


def chosen_columns(settings: ExportSettings, out: StorePath | None, model: str = "") -> list[TraitColumn]:
    """The columns that the settings name, in their order.

    Raises:
        UserError: one is not known or is named twice, or the file is to have another ending than .csv or .parquet.
    """
    if out is not None and out.suffix.lower() not in FORMATS:
        raise UserError(f"cannot write {out}: its name must end in {' or '.join(FORMATS)}")
    known = {column.name: column for column in trait_columns(TRAITS, model)}
    names = known if settings.columns is None else settings.columns
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(
            f"there is no column {unknown[0]!r}{did_you_mean(unknown[0], known)}; there are {', '.join(known)}"
        )
    if len(set(names)) < len(names):
        raise UserError(f"a column is named twice: {', '.join(names)}")
    return [known[name] for name in names]


def _check_dask(settings: RunConfig) -> None:
    if settings.extract.runner == "dask" and importlib.util.find_spec("prefect_dask") is None:
        raise UserError("extract.runner dask needs packages that are not installed: pip install 'traitline[dask]'")
