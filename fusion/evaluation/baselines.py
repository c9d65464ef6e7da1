"""Baselines that a model must beat: constants, the memory of a person, and plain regressions on pooled features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fusion.labels.split import split_by_subject
from fusion.traits import TRAITS

if TYPE_CHECKING:
    import keras

# in units of the mean squared singular value of the features; the largest leaves only the mean of the labels
RIDGE_PENALTIES = 10.0 ** np.arange(-3, 4.1, 0.5)
ROUNDING = 1e-6  # relative to the largest squared singular value, of float32 sums
COMPONENTS = 256
LANDMARKS = 1000
MLP_EPOCHS = 100
MLP_PATIENCE = 10
MLP_VALIDATION = 0.2

Regression = Callable[[np.ndarray, np.ndarray, Sequence[str], np.ndarray, int], np.ndarray]
"""From features [N, D], labels [N, T] and people of training clips, features of test clips [M, D] and a seed to scores
[M, T]. Without randomness, the seed has no effect."""


def look_up_subject(
    labels: np.ndarray, subjects: Sequence[str], test_subjects: Sequence[str], *, shrinkage: float
) -> np.ndarray:
    """Predict for each person the mean label of that person's training clips, without looking at any pixel.

    A person without training clips gets the overall mean. On subject-disjoint folds that applies to everyone, and the
    look-up equals the mean baseline; its gain on another split is leakage.

    Args:
        labels: float [N, 5] of the training clips.
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
    return np.asarray(np.where(known[:, None], means[place], overall))


def ridge(
    features: np.ndarray, labels: np.ndarray, subjects: Sequence[str], test_features: np.ndarray, seed: int
) -> np.ndarray:
    """Fit a ridge regression on standardised features; see `_ridge` for the penalties."""
    from sklearn.preprocessing import StandardScaler  # takes a second to import

    return _ridge([StandardScaler()], features, labels, subjects, test_features)


def pca_ridge(
    features: np.ndarray, labels: np.ndarray, subjects: Sequence[str], test_features: np.ndarray, seed: int
) -> np.ndarray:
    """Fit a ridge regression on the first principal components of standardised features."""
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    components = min(COMPONENTS, *features.shape)
    steps = [StandardScaler(), PCA(components, svd_solver="randomized", random_state=seed)]
    return _ridge(steps, features, labels, subjects, test_features)


def kernel_ridge(
    features: np.ndarray, labels: np.ndarray, subjects: Sequence[str], test_features: np.ndarray, seed: int
) -> np.ndarray:
    """Fit a ridge regression with a Gaussian kernel on standardised features.

    The kernel of LANDMARKS or more clips is Nystroem's approximation from as many of them.
    """
    from sklearn.kernel_approximation import Nystroem
    from sklearn.preprocessing import StandardScaler

    kernel = Nystroem(gamma=0.5 / features.shape[1], n_components=min(LANDMARKS, len(features)), random_state=seed)
    return _ridge([StandardScaler(), kernel], features, labels, subjects, test_features)


def _ridge(
    steps: Sequence[Any], features: np.ndarray, labels: np.ndarray, subjects: Sequence[str], test_features: np.ndarray
) -> np.ndarray:
    """Fit a ridge regression on what scikit-learn's steps make of the features, with a penalty for each trait.

    The penalty is that with the smallest squared error on people left out of the fit one at a time. One decomposition
    is enough for all penalties, traits and people: scores of people left out follow from the smoother matrix.
    scikit-learn's RidgeCV does so too, but leaves out clips, whose people it then knows from other clips.

    Args:
        steps: transformers, fitted on the training clips.
        subjects: the person in each of them; of a single person, clips are left out.

    Sources:
        Allen 1974, "The relationship between variable selection and data augmentation" (PRESS), for groups of rows.
    """
    from sklearn.pipeline import make_pipeline

    if len(labels) < 2:
        return np.tile(labels[0].astype(np.float64), (len(test_features), 1))
    pipeline = make_pipeline(*steps)
    inputs = pipeline.fit_transform(features)
    centre, mean = inputs.mean(axis=0), labels.mean(axis=0, dtype=np.float64)
    inputs, targets = inputs - centre, labels - mean
    variances, axes, scores = _principal(inputs)
    penalties = RIDGE_PENALTIES[:, None] * variances.sum() / max(len(variances), 1)
    kept = variances / (variances + penalties)
    moments = scores.T @ targets
    _, person = np.unique(np.asarray(subjects, str), return_inverse=True)
    errors = np.zeros((len(penalties), targets.shape[1]))
    for clips in _of_each(person if person.any() else np.arange(len(labels))):
        own = scores[clips]
        for number, factors in enumerate(kept):
            scaled = own * factors
            remaining = np.eye(len(clips)) - scaled @ own.T - 1 / len(labels)
            errors[number] += np.square(np.linalg.solve(remaining, targets[clips] - scaled @ moments)).sum(axis=0)
    best = errors.argmin(axis=0)
    weights = axes @ ((kept / np.sqrt(variances))[best].T * moments)
    return np.asarray((pipeline.transform(test_features) - centre) @ weights + mean)


def _principal(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return squared singular values [r], right vectors [D, r] and left vectors [N, r] of centred inputs [N, D]."""
    wide = inputs.shape[1] > len(inputs)
    values, vectors = np.linalg.eigh(inputs @ inputs.T if wide else inputs.T @ inputs)
    real = values > ROUNDING * max(values[-1], 1e-12)
    values, vectors = values[real].astype(np.float64), vectors[:, real].astype(np.float64)
    other = (inputs.T if wide else inputs) @ vectors / np.sqrt(values)
    return (values, other, vectors) if wide else (values, vectors, other)


def _of_each(person: np.ndarray) -> list[np.ndarray]:
    order = np.argsort(person, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(person[order])) + 1)


def mlp(
    features: np.ndarray, labels: np.ndarray, subjects: Sequence[str], test_features: np.ndarray, seed: int
) -> np.ndarray:
    """Train a perceptron on standardised features: widths, dropout and optimiser are those of the specified model.

    A first training stops early on people held out, and a second one on all clips takes as many epochs. Sets the global
    seeds. scikit-learn's own early stopping would hold out clips, not people.
    """
    import keras  # takes seconds
    from sklearn.preprocessing import StandardScaler

    from fusion.training.seeds import seeded

    def trained(rows: np.ndarray, held_out: np.ndarray, epochs: int) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
        scaler = StandardScaler().fit(features[rows])
        centre, spread = labels[rows].mean(axis=0), np.maximum(labels[rows].std(axis=0), 1e-6)
        inputs, targets = scaler.transform(features), (labels - centre) / spread
        with seeded(seed):
            network = mlp_network(features.shape[1], labels.shape[1])
        network.compile(keras.optimizers.Adam(1e-3), "mse", jit_compile=False)
        stopping = keras.callbacks.EarlyStopping(patience=MLP_PATIENCE)
        history = network.fit(
            inputs[rows],
            targets[rows],
            validation_data=(inputs[held_out], targets[held_out]) if len(held_out) else None,
            batch_size=32,
            epochs=epochs,
            callbacks=[stopping] if len(held_out) else [],
            verbose=0,
        ).history
        best = 1 + int(np.argmin(history["val_loss"])) if len(held_out) else epochs
        return lambda asked: network.predict(scaler.transform(asked), verbose=0) * spread + centre, best

    fit, held_out = split_by_subject(subjects, MLP_VALIDATION, seed)
    _, epochs = trained(fit, held_out, MLP_EPOCHS)
    score, _ = trained(np.arange(len(labels)), np.zeros(0, int), epochs)
    return score(test_features)


def mlp_network(features: int, outputs: int = len(TRAITS)) -> keras.Model:
    """Build the untrained perceptron of `mlp`, from [N, features] to [N, outputs]."""
    import keras

    vector = keras.Input((features,))
    x = keras.layers.Dense(128, "relu", name="first")(vector)
    x = keras.layers.Dropout(0.3, name="dropout")(x)
    x = keras.layers.Dense(64, "relu", name="second")(x)
    # the last layer starts at 0, that is, at the mean: from random outputs, 150 clips never recovered (R2 -0.5)
    return keras.Model(vector, keras.layers.Dense(outputs, kernel_initializer="zeros", name="scores")(x), name="mlp")
