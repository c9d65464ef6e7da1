"""Losses to minimise: means over clips and traits, in the unit of the labels (mae), its square (mse) or no unit."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from fusion.settings import LossName

# The variance of "nll" is the running mean of the squared residuals, the optimum for the current scores. As a weight
# that Adam moves by 0.001 per step it would take thousands of steps to follow.
VARIANCE_MOMENTUM = 0.98
SMALLEST_VARIANCE = 1e-12


class BatchLoss(keras.losses.Loss):
    """The loss of a whole batch, for `compile`.

    Keras expects a loss per clip and averages those of each device's part of the batch. But "ccc" is undefined for a
    single clip, and "nll" has a state. Here every device computes the loss of the whole batch and returns its share, so
    that the gradients of all devices add up to the gradient of that loss.

    Attributes:
        log_variance: variable float32 [5], of the Gaussian of "nll". Each call moves it towards the squared residuals;
            initially it is that of the labels, because the model starts by predicting their mean.
    """

    def __init__(self, name: LossName, labels: np.ndarray) -> None:
        """Create the loss for a training on these labels, float32 [N, 5]."""
        super().__init__(name=name)
        self._loss = name
        self.log_variance = keras.Variable(
            np.log(np.maximum(labels.var(axis=0), SMALLEST_VARIANCE)),
            trainable=False,
            aggregation="only_first_replica",
            name="log_variance",
        )

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Compute a scalar from labels and scores, each [B, 5]."""
        replica = tf.distribute.get_replica_context()
        if replica.num_replicas_in_sync > 1:
            y_true, y_pred = replica.all_gather(y_true, axis=0), replica.all_gather(y_pred, axis=0)
        loss = loss_of(self._loss, y_pred, y_true, self.log_variance.value)
        if self._loss == "nll":
            squares = ops.maximum(ops.mean(ops.square(y_pred - y_true), axis=0), SMALLEST_VARIANCE)
            variance = ops.exp(self.log_variance.value)
            self.log_variance.assign(ops.log(variance + (1 - VARIANCE_MOMENTUM) * (squares - variance)))
        return loss / replica.num_replicas_in_sync


def loss_of(name: LossName, scores: Any, labels: Any, log_variance: Any | None = None) -> Any:
    """Compute one number from a batch, or from all clips at once.

    Args:
        name: "mse", "mae", "ccc" or "nll".
        scores: float32 [B, 5].
        labels: float32 [B, 5].
        log_variance: float32 [5], natural logarithm of the Gaussian's variance; required by "nll", ignored by others.

    Returns:
        A float32 scalar. "ccc" is in [0, 2]: 1 for scores that are unrelated to the labels.

    Raises:
        ValueError: "nll" without log_variance.

    Sources:
        Lin 1989, "A concordance correlation coefficient to evaluate reproducibility", equation 1 (with 1/n).
    """
    if name == "mse":
        return ops.mean(ops.square(scores - labels))
    if name == "mae":
        return ops.mean(ops.abs(scores - labels))
    if name == "nll":
        if log_variance is None:
            raise ValueError("the loss nll needs log_variance")
        squares = ops.square(scores - labels) * ops.exp(-log_variance)
        return 0.5 * ops.mean(squares + log_variance + math.log(2 * math.pi))
    score_mean, label_mean = ops.mean(scores, axis=0), ops.mean(labels, axis=0)
    covariance = ops.mean((scores - score_mean) * (labels - label_mean), axis=0)
    spread = ops.var(scores, axis=0) + ops.var(labels, axis=0) + ops.square(score_mean - label_mean)
    # a batch of one clip, or of identical clips, has no spread and therefore no agreement
    return 1 - ops.mean(2 * covariance / ops.maximum(spread, 1e-12))


def loss_of_the_mean(name: LossName, labels: np.ndarray) -> float:
    """Return the loss of always predicting the labels' mean, at which training starts. 1 for "nll", which can be 0.

    Never 0, even if the labels are all equal.
    """
    if name in ("ccc", "nll"):
        return 1.0
    deviation = labels.astype(np.float64) - labels.mean(axis=0, dtype=np.float64)
    cost = float(np.mean(deviation**2) if name == "mse" else np.mean(np.abs(deviation)))
    return cost if cost > 1e-12 else 1.0
