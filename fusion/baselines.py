"""What any model has to beat: constants, the memory of a person, and plain regressions on pooled features."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fusion.split import split_by_subject

RIDGE_PENALTIES = tuple(10.0**power for power in range(0, 7))
RIDGE_FOLDS = 3
MLP_HIDDEN = 128
MLP_EPOCHS = 100
MLP_PATIENCE = 10
MLP_VALIDATION = 0.2


def say_constant(constant: np.ndarray, count: int) -> np.ndarray:
    """The same five numbers [5] for each of `count` clips."""
    return np.tile(constant, (count, 1))


def look_up_subject(
    labels: np.ndarray, subjects: Sequence[str], test_subjects: Sequence[str], *, shrinkage: float
) -> np.ndarray:
    """Say of each person the mean of the labels of the same person's training clips: no pixel is looked at.

    Whoever is not in the training clips gets their overall mean. Over subject-disjoint folds that is everybody, and the
    look-up is the mean baseline; what it gains on another split is leakage.

    Args:
        labels: float [N, 5] of the training clips.
        subjects: the person in each of them.
        test_subjects: the person in each of M clips.
        shrinkage: how many clips at the overall mean each person is given besides; 0 is the raw look-up.

    Returns:
        float64 [M, 5].
    """
    labels = np.asarray(labels, np.float64)
    overall = labels.mean(axis=0)
    people, person_of_clip, counts = np.unique(np.asarray(subjects, str), return_inverse=True, return_counts=True)
    sums = np.zeros((len(people), labels.shape[1]))
    np.add.at(sums, person_of_clip, labels)
    means = (sums + shrinkage * overall) / (counts + shrinkage)[:, None]
    test_subjects = np.asarray(test_subjects, str)
    place = np.minimum(np.searchsorted(people, test_subjects), len(people) - 1)
    known = people[place] == test_subjects
    return np.where(known[:, None], means[place], overall)


def ridge(features: np.ndarray, labels: np.ndarray, subjects: Sequence[str], test_features: np.ndarray) -> np.ndarray:
    """Ridge regression on standardised features; the penalty is chosen on people whom the fit has not seen.

    Args:
        features: float32 [N, D] of the training clips.
        labels: float [N, 5].
        subjects: the person in each of them.
        test_features: float32 [M, D].

    Returns:
        float [M, 5].
    """
    people = len(set(subjects))
    pipeline = make_pipeline(StandardScaler(), Ridge())
    if people < 2:
        return pipeline.fit(features, labels).predict(test_features)
    search = GridSearchCV(
        pipeline,
        {"ridge__alpha": RIDGE_PENALTIES},
        scoring="neg_mean_squared_error",
        cv=GroupKFold(min(RIDGE_FOLDS, people)),
    )
    return search.fit(features, labels, groups=subjects).predict(test_features)


def mlp(
    features: np.ndarray, labels: np.ndarray, subjects: Sequence[str], test_features: np.ndarray, *, seed: int
) -> np.ndarray:
    """A perceptron with one hidden layer on standardised features, stopped by its error on people held out.

    scikit-learn's own early stopping holds out clips, whose people would be in training as well.

    Args:
        features: float32 [N, D] of the training clips.
        labels: float [N, 5].
        subjects: the person in each of them.
        test_features: float32 [M, D].
        seed: of the weights, the order of clips and the people held out.

    Returns:
        float [M, 5].
    """
    fit, held_out = split_by_subject(subjects, MLP_VALIDATION, seed)
    scaler = StandardScaler().fit(features[fit])
    centre, spread = labels[fit].mean(axis=0), np.maximum(labels[fit].std(axis=0), 1e-6)
    inputs, targets = scaler.transform(features), (labels - centre) / spread
    network = MLPRegressor(hidden_layer_sizes=(MLP_HIDDEN,), batch_size=min(32, len(fit)), random_state=seed)
    best, best_error, waited = None, np.inf, 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for _ in range(MLP_EPOCHS):
            network.partial_fit(inputs[fit], targets[fit])
            judged = held_out if len(held_out) else fit
            error = float(np.mean((network.predict(inputs[judged]) - targets[judged]) ** 2))
            waited += 1
            if error < best_error:
                best, best_error, waited = copy.deepcopy(network), error, 0
            if waited == MLP_PATIENCE:
                break
    return best.predict(scaler.transform(test_features)) * spread + centre
