"""Linear models of a clip's features, stacked by what they say of people whom they have not seen.

Every part is a path of linear maps, one for each of its penalties, fitted on all folds but one. Scores of the folds
left out choose, for each trait, the penalty of every part and its weight, from 0 to 1; a part that does not help gets
0. The fewer people there are, the more of the choice is made by all traits together. The scores of a fold that say how
good the stack is come from penalties and weights that the other folds chose, so the choice does not flatter it.

Sources:
    Breiman 1996, "Stacked regressions", Machine Learning 24.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import lsq_linear

from fusion.labels.split import sides_of

# In units of the mean eigenvalue of the features; the largest leaves only the mean of the labels.
RIDGE_PENALTIES = 10.0 ** np.arange(4, -2.1, -0.5)
LOW_RANK_PENALTIES = (1.0, 0.3, 0.1, 0.03)
SWEEPS = 8
# A further part that does not make the stack this much better gets no weight: parts that each fit a little noise lose
# more than a weak signal wins.
LEAST_STANDARD_ERRORS = 2.0
# A trait's penalties and weights are chosen as if this many people had shown what all traits say on average: 20 people
# hardly tell one trait's best penalty, but all traits together do. With thousands, each trait speaks for itself.
PRIOR_PEOPLE = 40
ROUNDING = 1e-6  # relative to the largest eigenvalue, of float32 sums

Fit = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One of the models to stack.

    Attributes:
        features: float32 [N, D].
        fit: turns centred features [n, D] and labels [n, T] of some clips into kernels [P, D, T], one for each of P
            penalties.
    """

    name: str
    features: np.ndarray
    fit: Fit


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """The fitted stack: scores are `sum(part.features @ kernel for part, kernel in ...) + bias`.

    Attributes:
        kernels: float64 [D, T] of each part, its weight included.
        bias: float64 [T].
        weights: float64 [parts, T].
        out_of_fold: float64 [N, T], the score of each clip by a stack that has not seen its fold.
        mean_out_of_fold: float64 [N, T], the mean label of the other folds: the score without any features.
    """

    kernels: list[np.ndarray]
    bias: np.ndarray
    weights: np.ndarray
    out_of_fold: np.ndarray
    mean_out_of_fold: np.ndarray


def principal_axes(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the eigenvalues of the scatter of centred features [n, D], descending, and its eigenvectors [D, r].

    Eigenvalues that are rounding errors are left out; r is at least 1.
    """
    count, dim = features.shape
    dual = dim > count
    values, vectors = np.linalg.eigh(features @ features.T if dual else features.T @ features)
    values, vectors = values[::-1], vectors[:, ::-1]
    rank = max(int(np.sum(values > ROUNDING * values[0])), 1)
    values, vectors = np.maximum(values[:rank], 1e-12), vectors[:, :rank]
    return values, features.T @ (vectors / np.sqrt(values)) if dual else vectors


def ridge_path(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Fit ridge regressions of centred features [n, D] on labels [n, T]: float32 [P, D, T], by RIDGE_PENALTIES."""
    values, vectors = principal_axes(features)
    unit = values.sum() / min(features.shape)
    moments = vectors.T @ (features.T @ labels)
    return np.stack([vectors @ (moments / (values + penalty * unit)[:, None]) for penalty in RIDGE_PENALTIES])


def low_rank_path(features: np.ndarray, labels: np.ndarray, *, sides: tuple[int, int]) -> np.ndarray:
    """Fit products of one direction of the face and one of motion to each trait, by alternating ridge regressions.

    Ridge regression on all F * M products needs several clips for each of them. If a trait follows from one look and
    one movement, F + M numbers describe it.

    Args:
        features: float32 [n, F * M], products of F numbers of the face (rows) and M of motion (columns), centred.
        labels: float32 [n, T].
        sides: F and M.

    Returns:
        float [P, F * M, T], by LOW_RANK_PENALTIES.

    Sources:
        Zhou, Li and Zhu 2013, "Tensor regression with applications in neuroimaging data analysis", JASA 108: block
        relaxation, algorithm 1, for matrices and with a ridge penalty.
    """
    by_face = features.reshape(-1, *sides)
    by_motion = np.ascontiguousarray(by_face.transpose(0, 2, 1))
    _, _, right = np.linalg.svd((features.T @ labels).T.reshape(-1, *sides))
    motion = right[:, 0]
    path = []
    for penalty in LOW_RANK_PENALTIES:
        for _ in range(SWEEPS):
            face = _solve(by_face, motion, labels, penalty)
            motion = _solve(by_motion, face, labels, penalty)
        path.append(np.einsum("ti,tj->ijt", _unit(face), motion).reshape(features.shape[1], -1))
    return np.stack(path)


def _solve(products: np.ndarray, other: np.ndarray, labels: np.ndarray, penalty: float) -> np.ndarray:
    """Regress labels [n, T] on products [n, F, M] times unit directions along `other`, [T, M]; return [T, F]."""
    count, rows, columns = products.shape
    contracted = products.reshape(-1, columns) @ _unit(other).T.astype(np.float32)
    found = []
    for trait in range(labels.shape[1]):
        design = np.ascontiguousarray(contracted[:, trait]).reshape(count, rows)
        gram = (design.T @ design).astype(np.float64)
        gram[np.diag_indices_from(gram)] += penalty * np.trace(gram) / len(gram) + 1e-12
        found.append(np.linalg.solve(gram, design.T @ labels[:, trait]))
    return np.array(found)


def _unit(directions: np.ndarray) -> np.ndarray:
    return np.asarray(directions / np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-12))


def stack(parts: Sequence[Part], labels: np.ndarray, people: np.ndarray, folds: np.ndarray) -> Stack:
    """Fit the parts on all clips, with penalties and weights chosen by scores of the folds left out.

    Args:
        parts: one or more, of N clips.
        labels: float [N, T].
        people: int [N], the person in each clip, from 0.
        folds: int [N], the fold of each clip, from 0; at least two folds.
    """
    labels = labels.astype(np.float64)
    sides = list(sides_of(folds))
    mean = np.empty_like(labels)
    for rest, out in sides:
        mean[out] = labels[rest].mean(axis=0)
    scores = [_scores_out_of_fold(part, labels, sides) for part in parts]
    above = labels - mean
    out_of_fold = mean.copy()
    for rest, out in sides:
        penalties, weights = _choose([found[:, rest] for found in scores], above[rest], people[rest])
        for found, chosen, weight in zip(scores, penalties, weights, strict=True):
            out_of_fold[out] += weight * _by_trait(found[:, out], chosen)
    penalties, weights = _choose(scores, above, people)
    kernels, bias = [], labels.mean(axis=0)
    for part, chosen, weight in zip(parts, penalties, weights, strict=True):
        centre = part.features.mean(axis=0)
        path = part.fit(part.features - centre, (labels - labels.mean(axis=0)).astype(np.float32))
        kernel = _by_trait(path, chosen).astype(np.float64) * weight
        kernels.append(kernel)
        bias = bias - centre @ kernel
    return Stack(kernels, bias, weights, out_of_fold, mean)


def _scores_out_of_fold(part: Part, labels: np.ndarray, sides: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return the scores of each clip, less the mean label, by fits on the other folds: float32 [P, N, T]."""
    found = []
    for rest, out in sides:
        centre, mean = part.features[rest].mean(axis=0), labels[rest].mean(axis=0)
        kernels = part.fit(part.features[rest] - centre, (labels[rest] - mean).astype(np.float32))
        found.append((part.features[out] - centre) @ kernels)
    order = np.argsort(np.concatenate([out for _, out in sides]))
    return np.concatenate(found, axis=1)[:, order].astype(np.float32)


def _choose(scores: Sequence[np.ndarray], labels: np.ndarray, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choose a penalty and a weight for each part and trait, both [parts, T], by scores [P, n, T] of some clips.

    Parts are taken one after the other, the one that helps most first, as long as one more helps by more than chance.
    """
    unit = np.maximum(np.mean(np.square(labels), axis=0), 1e-12)
    prior = PRIOR_PEOPLE / len(np.unique(people))
    errors = (_with_others(np.square(found - labels).mean(axis=1) / unit, prior) for found in scores)
    penalties = np.array([error.argmin(axis=0) for error in errors])
    chosen = np.array([_by_trait(found, best) for found, best in zip(scores, penalties, strict=True)], np.float64)
    weights = np.zeros(penalties.shape)
    moments = _with_others(np.einsum("pnt,nt->pt", chosen, labels) / unit, prior)
    gram = _with_others(np.einsum("pnt,qnt->pqt", chosen, chosen) / unit, prior)
    taken: list[int] = []
    while len(taken) < len(scores):
        error = np.square(labels - np.einsum("pnt,pt->nt", chosen, weights))
        found = {}
        for part in set(range(len(scores))) - set(taken):
            tried = _weigh(gram, moments, [*taken, part])
            gain = (error - np.square(labels - np.einsum("pnt,pt->nt", chosen, tried))) / unit
            found[part] = (gain.sum(), _standard_errors(gain.mean(axis=1), people), tried)
        best = max(found, key=lambda part: found[part][0])
        if found[best][1] <= (LEAST_STANDARD_ERRORS if taken else 0.0):
            break
        taken.append(best)
        weights = found[best][2]
    return penalties, weights


def _with_others(values: np.ndarray, prior: float) -> np.ndarray:
    """Add to what each trait says, [..., T], `prior` times what all say on average."""
    return np.asarray(values + prior * values.mean(axis=-1, keepdims=True))


def _weigh(gram: np.ndarray, moments: np.ndarray, parts: list[int]) -> np.ndarray:
    """Return the weights [P, T] in [0, 1] of some parts by least squares, from products [P, P, T] and [P, T]."""
    weights = np.zeros(moments.shape)
    for trait in range(moments.shape[1]):
        own = gram[np.ix_(parts, parts, [trait])][..., 0]
        values, axes = np.linalg.eigh(own)  # parts that say the same make the smallest 0, or less by rounding
        root = np.sqrt(np.maximum(values, 1e-9 * max(float(values[-1]), 1e-9)))
        goal = axes.T @ moments[parts, trait] / root
        # An active-set method, which takes an eighth of the time of the default for the few parts that there are.
        found = lsq_linear(root[:, None] * axes.T, goal, (0, 1), method="bvls", max_iter=100).x
        weights[parts, trait] = np.where(found > ROUNDING, found, 0)
    return weights


def _standard_errors(values: np.ndarray, people: np.ndarray) -> float:
    """Return by how many standard errors the sum of values [n] is above 0; clips of one person count as one draw."""
    of_person = np.bincount(people, values)
    of_person = of_person[np.bincount(people) > 0]
    return float(of_person.sum() / max(np.sqrt(np.square(of_person).sum()), 1e-12))


def _by_trait(values: np.ndarray, penalties: np.ndarray) -> np.ndarray:
    """Select [n, T] from [P, n, T], with a penalty for each trait."""
    return np.asarray(np.take_along_axis(values, penalties[None, None], axis=0)[0])
