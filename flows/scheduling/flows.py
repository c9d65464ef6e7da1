"""The flows that deployments start. Prefect's pages show their parameters as a form.

The steps of a run take objects; these flows take values that people can type: the path of a settings file on the
worker, and the few settings that change from run to run. `flows/scheduling/prefect.yaml` lists the flows.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from prefect import State, flow, tags
from prefect.exceptions import FailedRun
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
from flows.pipeline.steps import named_by_time
from flows.pipeline.train import train
from flows.scheduling import announce_results
from flows.scheduling.deployments import TAG
from flows.scheduling.gpu_slots import gpu_slot
from flows.session import console, stopping
from flows.session.environment import restrict_access
from flows.session.errors import mistake_in_words
from flows.session.log import local_log
from storage.errors import UnreachableError

RETRIES = 3
FIRST_RETRY_S = 30.0

AS_SET: Final = "as in the settings"
Weights = Literal["as in the settings", "pretrained", "random"]

_FAILURES = ("Finished in state Failed(", "Finished in state Crashed(")
_OPTION = re.compile(r"--([a-z]+(?:-[a-z]+)*)(?: (?:DIR|FILE)\b)?")

# The help texts of Prefect's form come from these docstrings.


@flow(name="extract-archive", flow_run_name=named_by_time("extract"))
def extract_archive(
    settings: Path | None = None,
    videos: Path | None = None,
    store: str | None = None,
    weights: Weights = AS_SET,
    retry_failed: bool = False,
    overrides: dict[str, Any] | None = None,
) -> State | None:
    """Extract the features of all videos that the store lacks.

    Args:
        settings: YAML file of settings, by its path on the worker.
        videos: Folder of videos, with its subfolders; or a list of them.
        store: Folder of the store, or s3://bucket/folder.
        weights: Weights of both feature networks; random ones are for trials only.
        retry_failed: Retry videos that were rejected before.
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

    return _carry_out("extract", body, settings, given, overrides, makes_store=True)


@flow(name="train-model", flow_run_name=named_by_time("train"))
def train_model(
    settings: Path | None = None,
    labels: Path | None = None,
    videos: Path | None = None,
    store: str | None = None,
    weights: Weights = AS_SET,
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

    return _carry_out("train", body, settings, given, overrides)


@flow(name="rescore-archive", flow_run_name=named_by_time("rescore"))
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
    return _carry_out("rescore", body, settings, given, overrides)


@flow(name="export-scores", flow_run_name=named_by_time("export"))
def export_scores(
    settings: Path | None = None,
    videos: Path | None = None,
    store: str | None = None,
    model: str | None = None,
    out: str | None = None,
    weights: Weights = AS_SET,
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

    return _carry_out("export", body, settings, given, overrides)


@flow(name="nightly", flow_run_name=named_by_time("nightly"))
def nightly(
    settings: Path | None = None,
    videos: Path | None = None,
    store: str | None = None,
    model: str | None = None,
    out: str | None = None,
    weights: Weights = AS_SET,
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
        # Never trains: a person decides which model scores.
        config, files = _prepared(config.model_copy(update={"labels": None}), with_files=True)
        chosen_model(config)  # fail before hours of extraction if there is none
        with gpu_slot():
            report = all_steps(config, files)
        announce_results.show_run(config, report)
        report.check()
        files.check_whole()

    return _carry_out("nightly", body, settings, given, overrides)


def _prepared(config: RunConfig, *, with_files: bool = False) -> tuple[RunConfig, Archive]:
    check_settings(config, with_files=with_files)
    return prepare(config, with_files=with_files)


def _carry_out(
    name: str,
    body: Callable[[RunConfig], None],
    file: Path | None,
    given: Mapping[str, Any],
    overrides: Mapping[str, Any] | None,
    *,
    makes_store: bool = False,
) -> State | None:
    """Run a flow's body. A user's mistake, or too many refused videos, becomes the message of a failed state."""
    restrict_access()
    stopping.remember()
    for logger in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(logger).addFilter(_is_no_mistake)
    chosen = {name: None if value == AS_SET else value for name, value in given.items()}
    try:
        config = load_config(file, parameters=chosen, overrides=overrides)
        check_videos(config)  # before a store is created for them
        if not makes_store:
            existing_store(config.store.path)
        with local_log(keep_settings(config, name)) as log:
            console.silence_libraries(log)  # Prefect's server keeps what Prefect logs
            with tags(TAG):
                _patiently(lambda: body(config))
    except Exception as error:
        mistake = mistake_in_words(error)
        if mistake is None:
            raise
        mistake = _in_words_of_form(mistake)
        console.complain(mistake, logged=False)  # Prefect logs it with the state of the run
        return Failed(message=mistake)
    return None


def _is_no_mistake(record: logging.LogRecord) -> bool:
    """Return whether a record of Prefect's engine is about anything but a user's mistake, which needs no traceback.

    Once a flow has returned a failed state, the engine raises FailedRun with the state's message and logs that, too.
    It logs how a run has ended as information, even if it has failed; here this becomes an error.
    """
    if record.getMessage().startswith(_FAILURES):
        record.levelno, record.levelname = logging.ERROR, "ERROR"
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, FailedRun) or (isinstance(error, Exception) and mistake_in_words(error) is not None))


def _in_words_of_form(message: str) -> str:
    """Replace the options of the command line in a message by the parameters of the form."""
    parts = message.split("`")  # every second one is a command, as in `traitline extract --store DIR`
    parts[::2] = [_OPTION.sub(lambda found: f"`{found[1].replace('-', '_')}`", part) for part in parts[::2]]
    return "`".join(parts)


def _patiently(work: Callable[[], None]) -> None:
    """Do idempotent work, and retry it only if object storage cannot be reached."""
    delay_s = FIRST_RETRY_S
    for _ in range(RETRIES):
        try:
            return work()
        except UnreachableError as error:
            wait_s = delay_s * random.uniform(0.5, 1.5)  # so that workers do not all retry at once
            console.say(f"{error}; trying again in {wait_s:.0f} s", style="yellow")
            time.sleep(wait_s)
            delay_s *= 4
    return work()
