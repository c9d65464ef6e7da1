"""Training the specified network with Keras' `Model.fit`.

Keras runs the epochs and the steps. What is here does what Keras lacks: batches streamed from a store in an order that
depends only on the seed and the epoch, a loss over all validation clips at once, a warm-up before
`ReduceLROnPlateau`, and gradients clipped over all devices.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import callbacks, ops

from fusion.clips.batches import BATCHES_AHEAD, plan_epoch, read_batches
from fusion.clips.sources import ClipSource, clips_of
from fusion.errors import TrainingError
from fusion.model.model import CompletePersonalityModel
from fusion.model.scoring import predict
from fusion.settings import TrainSettings
from fusion.training.checkpoint import CHECKPOINT, Checkpoint
from fusion.training.losses import BatchLoss, loss_of, loss_of_the_mean
from fusion.traits import TRAITS

HISTORY_TABLE = "history.csv"


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

    @property
    def own_labels(self) -> np.ndarray:
        """The labels of the source's clips, [N, 5], in the source's order."""
        return np.asarray(self.labels[np.concatenate(self.clips.groups())])

    def scored_by(self, model: keras.Model, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Return scores and labels of all clips, each [N, 5], in the source's order."""
        return predict(model, (clip for _, clip in clips_of(self.clips)), batch_size), self.own_labels


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A model with the weights of the best epoch (of the last one without validation), and how it got there.

    Attributes:
        model: on the devices and in the precision of its training.
        history: "loss" and, with validation, "validation_loss": one number per epoch.
        log_variance: float32 [5], see `BatchLoss`.
    """

    model: CompletePersonalityModel
    history: dict[str, list[float]]
    log_variance: np.ndarray


def fit(
    build: Callable[[], CompletePersonalityModel],
    settings: TrainSettings,
    train: LabelledSource,
    validation: LabelledSource | None,
    *,
    buffer_clips: int,
    folder: Path | None,
    identity: str,
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> Fitted:
    """Train a model, or resume its training.

    Args:
        build: builds the model in its initial state.
        validation: clips to evaluate each epoch on; None disables validation and the early end.
        buffer_clips: size of the shuffle buffer.
        folder: for the checkpoint, `history.csv` and TensorBoard's logs; created if missing. None writes no files.
        identity: of the training, see `Checkpoint`.

    Raises:
        TrainingError: a loss is no longer finite, a requested device does not exist, or the checkpoint cannot be used.
    """
    strategy = strategy_for(settings.devices)
    with strategy.scope():
        model = build()
        model.fusion.norm.synchronized = strategy.num_replicas_in_sync > 1
        # With a strategy of its own, the model would first average the devices' parts of a batch to infer its shapes,
        # which fails if the parts differ in size. The steps use the strategy of the scope.
        model._distribute_strategy = None
        loss = BatchLoss(settings.loss, train.own_labels)
        epochs = EpochBatches(train, model.input_signature(), settings, buffer_clips)
        optimizer = _optimizer(settings, len(epochs), loss_of_the_mean(settings.loss, train.own_labels))
        optimizer.build(model.trainable_variables)
        model.compile(optimizer, loss, jit_compile=False)  # XLA would compile again for every new length of clips

        stopping = plateau = None
        if validation is not None:
            stopping = callbacks.EarlyStopping(patience=settings.patience, restore_best_weights=True)
            if settings.schedule == "plateau":
                plateau = callbacks.ReduceLROnPlateau(factor=0.5, patience=settings.plateau_epochs, min_delta=0.0)
        replayed = [callback for callback in (stopping, plateau) if callback is not None]
        logs = []
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            logs = [callbacks.TensorBoard(folder, write_graph=False)]
            replayed.append(callbacks.CSVLogger(folder / HISTORY_TABLE))
        checkpoint = Checkpoint(
            None if folder is None else folder / CHECKPOINT,
            identity,
            [*model.variables, loss.log_variance, *optimizer.variables],
            stopping,
            replayed,
        )
        done = settings.epochs if checkpoint.progress.finished else len(checkpoint.progress.history)
        steps = [_warm_up(settings, epochs, optimizer)] if settings.schedule == "plateau" else []
        judge = _validate(validation, settings, model, loss)
        report = [] if on_epoch is None else [_report(settings, on_epoch)]
        try:
            model.fit(
                epochs.dataset(),
                epochs=settings.epochs,
                initial_epoch=done,
                verbose=0,
                shuffle=False,  # `EpochBatches` does
                callbacks=[epochs, *steps, judge, *replayed, *logs, checkpoint, *report],
            )
        except tf.errors.OpError:
            if epochs.error is not None:  # TensorFlow only keeps its text
                raise epochs.error from None
            raise
    names = {"loss": "loss"} if validation is None else {"loss": "loss", "validation_loss": "val_loss"}
    history = {ours: [logs[name] for logs in checkpoint.progress.history] for ours, name in names.items()}
    return Fitted(model, history, ops.convert_to_numpy(loss.log_variance))


def strategy_for(devices: int) -> tf.distribute.Strategy:
    """Return the strategy for so many GPUs, or CPU devices without a GPU; 0: all. Raises TrainingError if too few."""
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    names = [device.name for device in tf.config.list_logical_devices(kind)]
    wanted = devices if devices > 0 else len(names)
    if wanted > len(names):
        raise TrainingError(f"train.devices asks for {devices} {kind}s, there are {len(names)}: lower it, or use 0")
    if wanted == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy(names[:wanted])


def sd_ratio(scores: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Divide the standard deviation of the scores by that of the labels, by trait; None if the labels are constant."""
    predicted, true = scores.std(axis=0), labels.std(axis=0)
    return {trait: float(predicted[i] / true[i]) if true[i] > 0 else None for i, trait in enumerate(TRAITS)}


def schedule_of(settings: TrainSettings, steps_per_epoch: int) -> float | keras.optimizers.schedules.CosineDecay:
    """Return the schedule of the step size: a linear warm-up, then half a cosine or, for "constant", no change.

    For "plateau", return the largest step size, which `_warm_up` and `ReduceLROnPlateau` modify.
    """
    if settings.schedule == "plateau":
        return settings.learning_rate
    warm_up = max(round(settings.warmup_epochs * steps_per_epoch), 1)
    return keras.optimizers.schedules.CosineDecay(
        settings.learning_rate / warm_up,  # the first step; a step of size 0 would be wasted
        decay_steps=max(settings.epochs * steps_per_epoch - warm_up + 1, 1),  # 0 after the last step
        alpha=1.0 if settings.schedule == "constant" else 0.0,
        warmup_target=settings.learning_rate if warm_up > 1 else None,
        warmup_steps=warm_up - 1,
    )


class _SharedAdam(keras.optimizers.Adam):
    """Adam that clips the gradient of the whole batch, also if several devices compute its parts."""

    def apply(self, grads: list[Any], trainable_variables: Any = None) -> None:
        """Update the variables with the gradients of this device's part of the batch."""
        replica = tf.distribute.get_replica_context()
        if replica.num_replicas_in_sync > 1:
            whole = replica.all_reduce(tf.distribute.ReduceOp.SUM, grads)
            grads = [gradient / replica.num_replicas_in_sync for gradient in whole]  # Keras adds them up again
        super().apply(grads, trainable_variables)


def _optimizer(settings: TrainSettings, steps_per_epoch: int, unit: float) -> keras.optimizers.Optimizer:
    """Return Adam for a loss that starts at `unit`, with steps that do not depend on the scale of the labels."""
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    adam = _SharedAdam(
        schedule_of(settings, steps_per_epoch),
        weight_decay=settings.weight_decay or None,
        epsilon=1e-7 * unit,
        global_clipnorm=settings.clip_norm * unit / replicas,
        name="adam",
    )
    if settings.weight_decay:
        adam.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return adam


class EpochBatches(callbacks.Callback):
    """The batches of each epoch. As a callback, it learns which epoch begins.

    They are a `tf.data.Dataset`: for a `PyDataset`, Keras infers the shape of every batch from the first two
    (keras-team/keras#19748), but the longest clip differs, and Keras reads any number of batches ahead.

    Attributes:
        epoch: that is read, from 0.
        error: the exception that reading raised; `fit` raises TensorFlow's own instead.
    """

    def __init__(
        self, source: LabelledSource, inputs: dict[str, tf.TensorSpec], settings: TrainSettings, buffer_clips: int
    ) -> None:
        """Create the batches of a source; `inputs` are the names and shapes of the model's inputs."""
        super().__init__()
        self._source = source
        self._inputs = inputs
        self._settings = settings
        self._buffer_clips = buffer_clips
        self.epoch = 0
        # with several devices, TensorFlow starts to read a further epoch, which it discards, at the end of each epoch
        self._reading = threading.Lock()
        self.error: Exception | None = None

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return -(-len(self._source.own_labels) // self._settings.batch_size)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Choose the epoch to read next."""
        self.epoch = epoch

    def dataset(self) -> tf.data.Dataset:
        """Return pairs of inputs and labels [B, 5]; a thread reads up to `BATCHES_AHEAD` + 1 of them in advance."""
        labels = tf.TensorSpec((None, len(TRAITS)), tf.float32)
        batches = tf.data.Dataset.from_generator(self._read, output_signature=(self._inputs, labels))
        return batches.apply(tf.data.experimental.assert_cardinality(len(self))).prefetch(BATCHES_AHEAD)

    def _read(self) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        settings, clips = self._settings, self._source.clips
        rng = np.random.default_rng((settings.seed, self.epoch))
        plan = plan_epoch(clips.groups(), settings.batch_size, buffer_clips=self._buffer_clips, rng=rng)
        batches = read_batches(clips, plan)
        for _ in plan.batches:
            try:
                with self._reading:
                    rows, inputs = next(batches)
            except Exception as error:
                self.error = error
                raise
            yield {name: inputs[name] for name in self._inputs}, self._source.labels[rows]


def _warm_up(settings: TrainSettings, epochs: EpochBatches, optimizer: keras.optimizers.Optimizer) -> Any:
    """Return a callback that raises the step size linearly over the first epochs."""
    steps = round(settings.warmup_epochs * len(epochs))

    def set_rate(batch: int, logs: dict[str, float] | None = None) -> None:
        step = epochs.epoch * len(epochs) + batch + 1
        if step <= steps:
            optimizer.learning_rate = settings.learning_rate * step / steps

    return callbacks.LambdaCallback(on_train_batch_begin=set_rate)


def _validate(
    validation: LabelledSource | None, settings: TrainSettings, model: CompletePersonalityModel, loss: BatchLoss
) -> Any:
    """Return a callback that adds `learning_rate` and, with validation, `val_loss` and `val_sd_ratio/<trait>` to the
    logs of an epoch, and raises TrainingError if a loss is not finite.
    """

    def measure(epoch: int, logs: dict[str, float]) -> None:
        logs["learning_rate"] = float(ops.convert_to_numpy(model.optimizer.learning_rate))
        if validation is not None:
            scores, labels = validation.scored_by(model, settings.batch_size)
            logs["val_loss"] = float(loss_of(settings.loss, scores, labels, loss.log_variance))
            ratios = sd_ratio(scores, labels)
            logs |= {f"val_sd_ratio/{trait}": ratio for trait, ratio in ratios.items() if ratio is not None}
        if not np.isfinite([logs["loss"], logs.get("val_loss", 0.0)]).all():
            raise TrainingError(f"training diverged: lower learning_rate (now {settings.learning_rate})")

    return callbacks.LambdaCallback(on_epoch_end=measure)


def _report(settings: TrainSettings, on_epoch: Callable[[EpochReport], None]) -> Any:
    def report(epoch: int, logs: dict[str, float]) -> None:
        on_epoch(EpochReport(epoch + 1, settings.epochs, logs["loss"], logs.get("val_loss")))

    return callbacks.LambdaCallback(on_epoch_end=report)
