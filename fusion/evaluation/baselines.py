"""Baselines that a model must beat: constants, the memory of a person, and plain regressions on pooled features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fusion.labels.split import split_by_subject
from fusion.traits import TRAITS

if TYPE_CHECKING:
    import keras

RIDGE_PENALTIES = tuple(10.0**power for power in range(0, 7))
RIDGE_FOLDS = 3
MLP_EPOCHS = 100
MLP_PATIENCE = 10
MLP_VALIDATION = 0.2


def say_constant(constant: np.ndarray, count: int) -> np.ndarray:
    """Return the same five numbers [5] for each of `count` clips, float [count, 5]."""
    return np.tile(constant, (count, 1))


def look_up_subject(
    labels: np.ndarray, subjects: Sequence[str], test_subjects: Sequence[str], *, shrinkage: float
) -> np.ndarray:
    """Predict for each person the mean label of that person's training clips, without looking at any pixel.

    A person without training clips gets the overall mean. On subject-disjoint folds that applies to everyone, and the
    look-up equals the mean baseline; its gain on another split is leakage.

    Args:
        labels: float [N, 5] of the training clips.
        subjects: the person in each of them.
        test_subjects: the person in each of M clips.
        shrinkage: number of clips with the overall mean to add for each person; 0 is the raw look-up.

    Returns:
        float64 [M, 5].
    """
    labels = np.asarray(labels, np.float64)
    overall = labels.mean(axis=0)
    people, person_of_clip, counts = np.unique(np.asarray(subjects, str), return_inverse=True, return_counts=True)
    sums = np.zeros((len(people), labels.shape[1]))
    np.add.at(sums, person_of_clip, labels)
    means = (sums + shrinkage * overall) / (counts + shrinkage)[:, None]
    wanted = np.asarray(test_subjects, str)
    place = np.minimum(np.searchsorted(people, wanted), len(people) - 1)
    known = people[place] == wanted
    predictions: npt.NDArray[np.float64] = np.where(known[:, None], means[place], overall)
    return predictions


def ridge(features: np.ndarray, labels: np.ndarray, subjects: Sequence[str], test_features: np.ndarray) -> np.ndarray:
    """Fit a ridge regression on standardised features, with the penalty chosen on people excluded from the fit.

    Args:
        features: float32 [N, D] of the training clips.
        labels: float [N, 5].
        subjects: the person in each of them.
        test_features: float32 [M, D].

    Returns:
        float [M, 5].
    """
    from sklearn.linear_model import Ridge  # takes a second to import
    from sklearn.model_selection import GridSearchCV, GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    people = len(set(subjects))
    pipeline = make_pipeline(StandardScaler(), Ridge())
    if people < 2:
        return np.asarray(pipeline.fit(features, labels).predict(test_features))
    search = GridSearchCV(
        pipeline,
        {"ridge__alpha": RIDGE_PENALTIES},
        scoring="neg_mean_squared_error",
        cv=GroupKFold(min(RIDGE_FOLDS, people)),
    )
    return np.asarray(search.fit(features, labels, groups=subjects).predict(test_features))


def mlp(
    features: np.ndarray, labels: np.ndarray, subjects: Sequence[str], test_features: np.ndarray, *, seed: int
) -> np.ndarray:
    """Train a perceptron on standardised features like the model: same widths, dropout, optimiser and stopping.

    scikit-learn's own early stopping would hold out clips, not people. Sets the global seeds.

    Args:
        features: float32 [N, D] of the training clips.
        labels: float [N, 5].
        subjects: the person in each of them.
        test_features: float32 [M, D].
        seed: of the weights, the order of clips, dropout and the people held out.

    Returns:
        float [M, 5].
    """
    import keras  # takes seconds
    from sklearn.preprocessing import StandardScaler

    fit, held_out = split_by_subject(subjects, MLP_VALIDATION, seed)
    scaler = StandardScaler().fit(features[fit])
    centre, spread = labels[fit].mean(axis=0), np.maximum(labels[fit].std(axis=0), 1e-6)
    inputs, targets = scaler.transform(features), (labels - centre) / spread
    keras.utils.set_random_seed(seed)
    network = mlp_network(features.shape[1], labels.shape[1])
    network.compile(keras.optimizers.Adam(1e-3), "mse", jit_compile=False)
    validation = (inputs[held_out], targets[held_out]) if len(held_out) else None
    monitor = "val_loss" if len(held_out) else "loss"
    stopping = keras.callbacks.EarlyStopping(monitor, patience=MLP_PATIENCE, restore_best_weights=True)
    network.fit(
        inputs[fit],
        targets[fit],
        validation_data=validation,
        batch_size=32,
        epochs=MLP_EPOCHS,
        callbacks=[stopping],
        verbose=0,
    )
    scores: np.ndarray = network.predict(scaler.transform(test_features), verbose=0) * spread + centre
    return scores


def mlp_network(features: int, outputs: int = len(TRAITS)) -> keras.Model:
    """Build the untrained perceptron of `mlp`, from [N, features] to [N, outputs]."""
    import keras

    vector = keras.Input((features,))
    x = keras.layers.Dense(128, "relu", name="first")(vector)
    x = keras.layers.Dropout(0.3, name="dropout")(x)
    x = keras.layers.Dense(64, "relu", name="second")(x)
    # the last layer starts at 0, that is, at the mean: from random outputs, 150 clips never recovered (R2 -0.5)
    return keras.Model(vector, keras.layers.Dense(outputs, kernel_initializer="zeros", name="scores")(x), name="mlp")
