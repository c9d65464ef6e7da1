"""The training loop: epochs of steps, validation, the best weights, checkpoints and TensorBoard logs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from fusion.clips.batches import plan_epoch, read_batches
from fusion.clips.sources import ClipSource, clips_of
from fusion.errors import TrainingError
from fusion.model.scoring import predict
from fusion.settings import TrainSettings
from fusion.training.checkpoint import Progress, read_checkpoint, write_checkpoint
from fusion.training.losses import loss_of
from fusion.training.schedule import is_finished, learning_rate
from fusion.training.step import Stepper
from fusion.traits import TRAITS

CHECKPOINT = "checkpoint.npz"


@dataclass(frozen=True, slots=True)
class EpochReport:
    """The argument of `on_epoch`: epoch (from 1) of epochs, loss, and validation_loss (None without validation)."""

    epoch: int
    epochs: int
    loss: float
    validation_loss: float | None


@dataclass(frozen=True, slots=True, eq=False)
class LabelledSource:
    """Clips and their labels, float32 [M, 5]; M exceeds every clip number in the source."""

    clips: ClipSource
    labels: np.ndarray

    def scored_by(self, model: keras.Model, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Return scores and labels of all clips, each [N, 5], in the source's order."""
        rows = np.concatenate(self.clips.groups())
        return predict(model, (clip for _, clip in clips_of(self.clips)), batch_size), self.labels[rows]


class TrainingLoop:
    """Runs epochs until they are done or no longer help, resuming from a checkpoint if there is one.

    Args:
        stepper: with the model in its initial state.
        settings: of the training.
        train: clips to learn from.
        validation: clips to evaluate each epoch on; None disables validation.
        buffer_clips: size of the shuffle buffer.
        folder: for the checkpoint and the logs; None keeps neither.
        identity: of the training, see `write_checkpoint`.
    """

    def __init__(
        self,
        stepper: Stepper,
        settings: TrainSettings,
        train: LabelledSource,
        validation: LabelledSource | None,
        *,
        buffer_clips: int,
        folder: Path | None,
        identity: str,
    ) -> None:
        self._stepper = stepper
        self._settings = settings
        self._train = train
        self._validation = validation
        self._buffer_clips = buffer_clips
        self._checkpoint = None if folder is None else folder / CHECKPOINT
        self._logs = None if folder is None else tf.summary.create_file_writer(str(folder))
        self._identity = identity
        history: dict[str, list[float]] = {"loss": []} if validation is None else {"loss": [], "validation_loss": []}
        self._progress = Progress(history)

    def run(self, on_epoch: Callable[[EpochReport], None] | None = None) -> dict[str, list[float]]:
        """Train; the stepper's model then has the weights of the best epoch (of the last one without validation).

        Returns:
            "loss" and, with validation, "validation_loss": one number per epoch.

        Raises:
            TrainingError: a loss is no longer finite, or the checkpoint cannot be read or written.
        """
        self._resume()
        history, settings = self._progress.history, self._settings
        while not is_finished(settings, self._progress.epochs_done, history.get("validation_loss", [])):
            self._run_epoch()
            if on_epoch is not None:
                losses = {name: values[-1] for name, values in history.items()}
                on_epoch(
                    EpochReport(len(history["loss"]), settings.epochs, losses["loss"], losses.get("validation_loss"))
                )
        if self._validation is not None:
            self._stepper.model.set_weights(self._progress.best)
        return history

    def _run_epoch(self) -> None:
        progress, settings, stepper = self._progress, self._settings, self._stepper
        epoch = progress.epochs_done
        plan = plan_epoch(
            self._train.clips.groups(),
            settings.batch_size,
            buffer_clips=self._buffer_clips,
            rng=np.random.default_rng((settings.seed, epoch)),
        )
        validation_losses = progress.history.get("validation_loss", [])
        written_s = time.monotonic()
        pending: list[tuple[int, tf.Tensor]] = []
        rate = 0.0
        for batch in read_batches(self._train.clips, plan, progress.batches_done):
            step = epoch * len(plan.batches) + progress.batches_done
            rate = learning_rate(settings, step, len(plan.batches), validation_losses)
            pending.append((len(batch.rows), stepper.step(batch.inputs, self._train.labels[batch.rows], rate)))
            progress.batches_done += 1
            if self._checkpoint is not None and time.monotonic() - written_s > settings.checkpoint_s:
                self._add_up(pending)
                self._write_checkpoint(self._checkpoint)
                written_s = time.monotonic()
        self._add_up(pending)
        progress.history["loss"].append(progress.loss_sum / sum(map(len, plan.batches)))
        progress.batches_done, progress.loss_sum = 0, 0.0
        measures = {"loss": progress.history["loss"][-1], "learning_rate": rate}
        if self._validation is not None:
            measures |= self._validate(self._validation)
        self._log(epoch + 1, measures)
        if not np.isfinite([values[-1] for values in progress.history.values()]).all():
            raise TrainingError(f"training diverged: lower learning_rate (now {settings.learning_rate})")
        if self._checkpoint is not None:
            self._write_checkpoint(self._checkpoint)

    def _add_up(self, pending: list[tuple[int, tf.Tensor]]) -> None:
        # One by one and in order, so that an interrupted and resumed training adds up to the same last bit.
        for count, loss in pending:
            self._progress.loss_sum += count * float(loss)
        pending.clear()

    def _validate(self, validation: LabelledSource) -> dict[str, float]:
        model, history = self._stepper.model, self._progress.history
        scores, labels = validation.scored_by(model, self._settings.batch_size)
        log_variance = ops.convert_to_numpy(self._stepper.log_variance)
        loss = float(loss_of(self._settings.loss, scores, labels, log_variance))
        if loss < min(history["validation_loss"], default=math.inf):
            self._progress.best = model.get_weights()
        history["validation_loss"].append(loss)
        ratios = sd_ratio(scores, labels)
        return {"validation_loss": loss} | {f"sd_ratio/{trait}": value for trait, value in ratios.items() if value}

    def _log(self, epoch: int, measures: dict[str, float]) -> None:
        if self._logs is None:
            return
        with self._logs.as_default():
            for name, value in measures.items():
                tf.summary.scalar(name, value, step=epoch)
        self._logs.flush()

    def _write_checkpoint(self, path: Path) -> None:
        self._progress.state = [ops.convert_to_numpy(variable) for variable in self._stepper.state()]
        write_checkpoint(path, self._identity, self._progress)

    def _resume(self) -> None:
        known = None if self._checkpoint is None else read_checkpoint(self._checkpoint, self._identity)
        if known is not None:
            try:
                for variable, value in zip(self._stepper.state(), known.state, strict=True):
                    variable.assign(value)
            except (ValueError, TypeError) as error:
                raise TrainingError(
                    f"{self._checkpoint} does not fit this training: delete it to start over"
                ) from error
            self._progress = known


def sd_ratio(scores: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Divide the standard deviation of the scores by that of the labels, by trait; None if the labels are constant."""
    predicted, true = scores.std(axis=0), labels.std(axis=0)
    return {trait: float(predicted[i] / true[i]) if true[i] > 0 else None for i, trait in enumerate(TRAITS)}
