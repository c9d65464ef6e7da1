"""One training step, on one device or shared by several, and all the state that steps change."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from fusion.errors import TrainingError
from fusion.model.model import CompletePersonalityModel
from fusion.settings import TrainSettings
from fusion.training.losses import loss_of, loss_of_the_mean

# The variance of "nll" is the running mean of the squared residuals, the optimum for the current scores. As a weight
# that Adam moves by 0.001 per step it would take thousands of steps to follow.
VARIANCE_MOMENTUM = 0.98
SMALLEST_VARIANCE = 1e-12


def strategy_for(devices: int) -> tf.distribute.Strategy:
    """Return the distribution strategy for this many GPUs, or CPU devices if there is no GPU; 0 uses all.

    Raises:
        TrainingError: there are fewer devices.
    """
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    names = [device.name for device in tf.config.list_logical_devices(kind)]
    wanted = devices if devices > 0 else len(names)
    if wanted > len(names):
        raise TrainingError(f"train.devices asks for {devices} {kind}s, there are {len(names)}: lower it, or use 0")
    if wanted == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy(names[:wanted])


class Stepper:
    """A model with its optimiser, which learns from one batch at a time.

    Every replica processes its part of a batch, BatchNorm and the loss see the whole batch, and the gradients are added
    up: several devices give the result of one, up to the order of sums and the random numbers of dropout.

    Args:
        build: builds the model; called within the strategy's scope.
        settings: of the training.
        labels: float32 [N, 5] of the training clips.
    """

    def __init__(
        self, build: Callable[[], CompletePersonalityModel], settings: TrainSettings, labels: np.ndarray
    ) -> None:
        self._strategy = strategy_for(settings.devices)
        self._replicas = self._strategy.num_replicas_in_sync
        self._loss = settings.loss
        self._unit = 1 / loss_of_the_mean(settings.loss, labels)
        with self._strategy.scope():
            self.model = build()
            self.model.fusion.norm.synchronized = self._replicas > 1
            # of the Gaussian; initially the variance of the labels, since the model starts by predicting their mean
            self.log_variance = keras.Variable(
                np.log(np.maximum(labels.var(axis=0), SMALLEST_VARIANCE)),
                trainable=False,
                aggregation="only_first_replica",
                name="log_variance",
            )
            self._learned = list(self.model.trainable_variables)
            self._optimizer = keras.optimizers.Adam(
                settings.learning_rate,
                weight_decay=settings.weight_decay if settings.weight_decay > 0 else None,
                global_clipnorm=settings.clip_norm / self._replicas,
            )
            if settings.weight_decay > 0:
                self._optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
            self._optimizer.build(self._learned)
        labels_like = tf.TensorSpec((None, labels.shape[1]), tf.float32)
        self._inputs = self.model.input_signature()
        self._step = tf.function(self._step_on_all, input_signature=[self._inputs, labels_like])

    def step(self, inputs: dict[str, np.ndarray], labels: np.ndarray, learning_rate: float) -> tf.Tensor:
        """Learn from a batch; return its loss, before the step and with dropout, as a tensor that may be pending."""
        self._optimizer.learning_rate.assign(learning_rate)
        return self._step({name: inputs[name] for name in self._inputs}, labels)

    def state(self) -> list[keras.Variable]:
        """Return everything the next step depends on: weights, moving statistics, dropout's seeds, Adam's moments."""
        return [*self.model.variables, self.log_variance, *self._optimizer.variables]

    def _step_on_all(self, inputs: dict[str, tf.Tensor], labels: tf.Tensor) -> tf.Tensor:
        losses = self._strategy.run(self._step_on_one, args=(inputs, labels))
        return self._strategy.experimental_local_results(losses)[0]

    def _step_on_one(self, inputs: dict[str, tf.Tensor], labels: tf.Tensor) -> tf.Tensor:
        replica = tf.distribute.get_replica_context()
        if self._replicas > 1:
            count, number = tf.shape(labels)[0], replica.replica_id_in_sync_group
            part = slice(number * count // self._replicas, (number + 1) * count // self._replicas)
            inputs = {name: value[part] for name, value in inputs.items()}
        learned = [variable.value for variable in self._learned]
        with tf.GradientTape() as tape:
            scores = self.model(inputs, training=True)
            if self._replicas > 1:
                scores = replica.all_gather(scores, axis=0)
            loss = loss_of(self._loss, tf.cast(scores, tf.float32), labels, self.log_variance.value)
            # every replica has the loss of the whole batch, and gradients are added up
            objective = loss * (self._unit / self._replicas)
        gradients = tape.gradient(objective, learned, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        if self._replicas > 1:
            # added up here, so that clipping sees the whole gradient; the optimiser adds them up again
            gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
            gradients = [gradient / self._replicas for gradient in gradients]
        self._optimizer.apply(gradients, self._learned)
        if self._loss == "nll":
            squares = tf.reduce_mean(tf.square(tf.cast(scores, tf.float32) - labels), axis=0)
            variance = tf.exp(self.log_variance.value)
            variance += (1 - VARIANCE_MOMENTUM) * (tf.maximum(squares, SMALLEST_VARIANCE) - variance)
            self.log_variance.assign(tf.math.log(variance))
        return loss
