"""The flows that Prefect's deployments start, with parameters that make a form on its pages.

The steps themselves take objects. These take what a person can type: the path of a settings file, as the worker sees
it, and the few settings that change from run to run; `flows/scheduling/prefect.yaml` names them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from prefect import State, flow, tags
from prefect.states import Failed

from flows.archive.models import chosen_model
from flows.archive.videos import Archive, check_videos
from flows.config.load import existing_store, keep_settings, load_config
from flows.config.settings import RunConfig
from flows.extraction.jobs import ExtractReport, TooManyRefusedError
from flows.pipeline.export import export
from flows.pipeline.extract import extract
from flows.pipeline.prepare import check_settings, prepare
from flows.pipeline.run import all_steps
from flows.pipeline.score import rescore
from flows.pipeline.train import train
from flows.scheduling import announce_results
from flows.scheduling.deployments import TAG
from flows.scheduling.gpu_slots import gpu_slot
from flows.session import console, stopping
from flows.session.errors import mistake_in_words
from flows.session.log import local_log
from storage.errors import UnreachableError

RETRIES = 3
FIRST_RETRY_S = 30.0

Weights = Literal["pretrained", "random"]

# Prefect's form takes its help from the docstrings.


@flow(name="extract-archive")
def extract_archive(
    settings: Path | None = None,
    videos: Path | None = None,
    store: str | None = None,
    weights: Weights | None = None,
    retry_failed: bool = False,
    overrides: dict[str, Any] | None = None,
) -> State | None:
    """Extract the features of all videos that the store lacks.

    Args:
        settings: YAML file of settings, by its path on the worker.
        videos: Folder of videos, with its subfolders; or a list of them.
        store: Folder of the store, or s3://bucket/folder.
        weights: Weights of both feature networks; random ones are for trials only.
        retry_failed: Try videos again that were refused before.
        overrides: Any other settings by their dotted names, as in {"extract.shard_size": 32}.
    """
    given = {"videos": videos, "store.path": store, "weights": weights, "extract.retry_failed": retry_failed or None}

    def body(config: RunConfig) -> None:
        report: ExtractReport | None = None
        refusal: TooManyRefusedError | None = None
        config, files = _prepared(config, with_files=True)
        with gpu_slot():
            try:
                report = extract(config, files)
            except TooManyRefusedError as error:
                refusal = error
        announce_results.show_extraction(config, report)
        if refusal is not None:
            raise refusal
        files.check_whole()

    return _carry_out("extract", _settings(settings, given, overrides), body)


@flow(name="train-model")
def train_model(
    settings: Path | None = None,
    labels: Path | None = None,
    videos: Path | None = None,
    store: str | None = None,
    weights: Weights | None = None,
    train_as: str | None = None,
    overrides: dict[str, Any] | None = None,
) -> State | None:
    """Train a model on cached features and labels.

    Args:
        settings: YAML file of settings, by its path on the worker.
        labels: Labels: .csv, .parquet, .pkl, or the folder of those pickles.
        videos: Folder of videos, with its subfolders; or a list of them.
        store: Folder of the store, or s3://bucket/folder.
        weights: Weights of both feature networks; random ones are for trials only.
        train_as: Name under which the model is kept.
        overrides: Any other settings by their dotted names, as in {"extract.shard_size": 32}.
    """
    given = {"labels": labels, "videos": videos, "store.path": store, "weights": weights, "train_as": train_as}

    def body(config: RunConfig) -> None:
        config, files = _prepared(config)
        with gpu_slot():
            announce_results.show_model(train(config, files))
        files.check_whole()

    return _carry_out("train", _settings(settings, given, overrides, store_exists=True), body)


@flow(name="rescore-archive")
def rescore_archive(
    settings: Path | None = None,
    store: str | None = None,
    model: str | None = None,
    overrides: dict[str, Any] | None = None,
) -> State | None:
    """Score all that the store holds and a model has not scored, from the cache, and say how the scores moved.

    Args:
        settings: YAML file of settings, by its path on the worker.
        store: Folder of the store, or s3://bucket/folder.
        model: The model: NAME, NAME/VERSION or NAME/ALIAS; by default the latest.
        overrides: Any other settings by their dotted names, as in {"extract.shard_size": 32}.
    """

    def body(config: RunConfig) -> None:
        with gpu_slot():
            announce_results.show_rescoring(rescore(config, chosen_model(config)))

    given = {"store.path": store, "model": model}
    return _carry_out("rescore", _settings(settings, given, overrides, store_exists=True), body)


@flow(name="export-scores")
def export_scores(
    settings: Path | None = None,
    videos: Path | None = None,
    store: str | None = None,
    model: str | None = None,
    out: str | None = None,
    weights: Weights | None = None,
    overrides: dict[str, Any] | None = None,
) -> State | None:
    """Write the scores, one row per video, with a description beside the file.

    Args:
        settings: YAML file of settings, by its path on the worker.
        videos: Folder of videos, with its subfolders; or a list of them.
        store: Folder of the store, or s3://bucket/folder.
        model: The model: NAME, NAME/VERSION or NAME/ALIAS; by default the latest.
        out: File to write, .csv or .parquet; by default a CSV in the store.
        weights: Weights of both feature networks; random ones are for trials only.
        overrides: Any other settings by their dotted names, as in {"extract.shard_size": 32}.
    """
    given = {"videos": videos, "store.path": store, "model": model, "out": out, "weights": weights}

    def body(config: RunConfig) -> None:
        config, files = _prepared(config)
        announce_results.show_scores(export(config, files, chosen_model(config)))
        files.check_whole()

    return _carry_out("export", _settings(settings, given, overrides, store_exists=True), body)


@flow(name="nightly")
def nightly(
    settings: Path | None = None,
    videos: Path | None = None,
    store: str | None = None,
    model: str | None = None,
    out: str | None = None,
    weights: Weights | None = None,
    overrides: dict[str, Any] | None = None,
) -> State | None:
    """Extract new videos, score them with a trained model, write the scores and a report.

    Args:
        settings: YAML file of settings, by its path on the worker.
        videos: Folder of videos, with its subfolders; or a list of them.
        store: Folder of the store, or s3://bucket/folder.
        model: The model: NAME, NAME/VERSION or NAME/ALIAS; by default the latest.
        out: File to write, .csv or .parquet; by default a CSV in the store.
        weights: Weights of both feature networks; random ones are for trials only.
        overrides: Any other settings by their dotted names, as in {"extract.shard_size": 32}.
    """
    given = {"videos": videos, "store.path": store, "model": model, "out": out, "weights": weights}

    def body(config: RunConfig) -> None:
        # It never trains: which model scores is for a person to decide.
        config, files = _prepared(config.model_copy(update={"labels": None}), with_files=True)
        chosen_model(config)  # fail before hours of extraction if there is none
        with gpu_slot():
            report = all_steps(config, files)
        announce_results.show_run(config, report)
        report.check()
        files.check_whole()

    return _carry_out("nightly", _settings(settings, given, overrides, store_exists=True), body)


def _settings(
    file: Path | None, given: Mapping[str, Any], overrides: Mapping[str, Any] | None, *, store_exists: bool = False
) -> Callable[[], RunConfig]:
    def load() -> RunConfig:
        config = load_config(file, parameters=given, overrides=overrides)
        check_videos(config)  # before a store is made for them
        if store_exists:
            existing_store(config.store.path)
        return config

    return load


def _prepared(config: RunConfig, *, with_files: bool = False) -> tuple[RunConfig, Archive]:
    check_settings(config, with_files=with_files)
    return prepare(config, with_files=with_files)


def _carry_out(name: str, load: Callable[[], RunConfig], body: Callable[[RunConfig], None]) -> State | None:
    """Do the work; a user's mistake, or too many refused videos, becomes the state's message, in one line."""
    stopping.remember()
    try:
        config = load()
        with local_log(keep_settings(config, name)) as log:
            console.silence_libraries(log)  # what Prefect logs, its server has as well
            with tags(TAG):
                _patiently(lambda: body(config))
    except Exception as error:
        mistake = mistake_in_words(error)
        if mistake is None:
            raise
        console.complain(mistake)
        return Failed(message=mistake)
    return None


def _patiently(work: Callable[[], None]) -> None:
    """Do idempotent work, and retry it if object storage cannot be reached, but for no other error."""
    delay_s = FIRST_RETRY_S
    for _ in range(RETRIES):
        try:
            return work()
        except UnreachableError as error:
            wait_s = delay_s * random.uniform(0.5, 1.5)  # workers that failed together do not come back together
            console.say(f"{error}; trying again in {wait_s:.0f} s", style="yellow")
            time.sleep(wait_s)
            delay_s *= 4
    return work()
