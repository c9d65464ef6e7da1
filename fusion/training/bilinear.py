"""Fitting the default model: two passes over the clips, then linear algebra.

The first pass takes every clip's mean tokens, and the scatter of tokens about their clip's mean, whose principal
components the model multiplies; the second pass takes the products. Neither uses labels. What uses labels is a stack of
five parts, see `fusion.training.stacking`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np

from fusion.clips.moments import ROUNDING
from fusion.clips.sources import ClipSource, KeptClips, clips_of
from fusion.clips.tokens import ClipTokens, pad_batch
from fusion.model.bilinear import BilinearPersonalityModel
from fusion.model.inputs import KINDS
from fusion.settings import TrainSettings
from fusion.training.stacking import Part, Stack, low_rank_path, ridge_path, stack
from fusion.traits import TRAITS

# Their tokens estimate the scatter: thousands of tokens for 48 components.
SURVEYED_CLIPS = 1500
CLIPS_AT_A_TIME = 64
NOISE_FROM = 48  # later components of the tokens of our networks are mostly noise


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """The model, and the stack that its coefficients come from; the names of its parts in their order."""

    model: BilinearPersonalityModel
    parts: tuple[str, ...]
    stack: Stack


@dataclass(frozen=True, slots=True, eq=False)
class _Survey:
    """What the first pass finds: mean tokens [N, D] by kind, components [D, K] by kind, and the moment's length."""

    means: dict[str, np.ndarray]
    components: dict[str, np.ndarray]
    moment_s: float


def fit_bilinear(
    source: ClipSource, labels: np.ndarray, people: np.ndarray, folds: np.ndarray, settings: TrainSettings
) -> Fitted:
    """Fit the model to N clips.

    Args:
        labels: float32 [N, 5].
        people: int [N], the person in each.
        folds: int [N], the fold of each.
        settings: `components`, `ridge_components`, `form`, `memory_mb` and `seed` count.
    """
    kept = KeptClips(settings.memory_mb * 2**20)
    rows = np.concatenate(source.groups()).tolist()
    survey = _survey(zip(rows, kept.pass_on(clips_of(source)), strict=True), len(source), settings)
    source = kept.instead_of(source)
    sides = (survey.components["static"].shape[1], survey.components["dynamic"].shape[1])
    model = BilinearPersonalityModel(
        survey.means["static"].shape[1], survey.means["dynamic"].shape[1], *sides, survey.moment_s, settings.form
    )
    spread = {kind: _spread(survey.means[kind]) for kind in KINDS}
    means = {kind: (survey.means[kind] / spread[kind]).astype(np.float32) for kind in KINDS}
    parts = [
        Part("both means", np.hstack(list(means.values())), ridge_path),
        Part("face means", means["static"], ridge_path),
        Part("motion means", means["dynamic"], ridge_path),
    ]
    few = (min(sides[0], settings.ridge_components), min(sides[1], settings.ridge_components))
    if settings.form == "sequence":
        for kind in KINDS:
            getattr(model, f"{kind}_projection").kernel.assign(survey.components[kind])
        products = _products(model, source)
        strongest = products.reshape(-1, *sides)[:, : few[0], : few[1]].reshape(len(products), -1)
        parts += [
            Part("simultaneous, ridge", strongest, ridge_path),
            Part("simultaneous, one look and one movement", products, partial(low_rank_path, sides=sides)),
        ]
    fitted = stack(parts, labels, people, folds)
    both, face, motion, *simultaneous = fitted.kernels
    split = len(face)
    model.static_scores.kernel.assign((both[:split] + face) / spread["static"][:, None])
    model.dynamic_scores.kernel.assign((both[split:] + motion) / spread["dynamic"][:, None])
    model.static_scores.bias.assign(fitted.bias)
    if simultaneous:
        kernel = simultaneous[1].reshape(*sides, -1)
        kernel[: few[0], : few[1]] += simultaneous[0].reshape(*few, -1)
        model.product_scores.kernel.assign(kernel.reshape(-1, len(TRAITS)))
    return Fitted(model, tuple(part.name for part in parts), fitted)


def _survey(clips: Iterable[tuple[int, ClipTokens]], count: int, settings: TrainSettings) -> _Survey:
    surveyed = np.zeros(count, bool)
    surveyed[np.random.default_rng(settings.seed).permutation(count)[:SURVEYED_CLIPS]] = True
    means: dict[str, np.ndarray] = {}
    scatter: dict[str, np.ndarray] = {}
    # The tokens that are not in the scatter: while there are few, their own number of dimensions is enough.
    waiting: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    tokens: dict[str, int] = dict.fromkeys(KINDS, 0)
    gaps_s: list[np.ndarray] = []
    for some in _batches(clips):
        for kind in KINDS:
            for row, clip in some:
                vectors = getattr(clip, kind)
                mean = vectors.mean(axis=0)
                if kind not in means:
                    means[kind] = np.empty((count, len(mean)), np.float32)
                means[kind][row] = mean
                if surveyed[row]:
                    waiting[kind].append(vectors - mean)
                    tokens[kind] += len(vectors)
            if waiting[kind] and tokens[kind] > means[kind].shape[1] / 2:
                rows = np.concatenate(waiting[kind])
                waiting[kind].clear()
                scatter[kind] = scatter.get(kind, np.float32(0)) + rows.T @ rows
        gaps_s += [np.diff(clip.dynamic_time_s) for _, clip in some]
    components = {
        kind: _components(scatter[kind] / tokens[kind], settings.components)
        if kind in scatter
        else _components_of_few(np.concatenate(waiting[kind]), settings.components)
        for kind in KINDS
    }
    gaps = np.concatenate(gaps_s)
    gap_s = float(np.median(gaps)) if len(gaps) else 0.0
    # a quarter of the distance of two motion tokens: a face between them draws on both, one at its own on that alone
    return _Survey(means, components, gap_s / 4 if gap_s > 0 else 1.0)


def _components(covariance: np.ndarray, count: int) -> np.ndarray:
    """Return the principal components [D, K] of a covariance, each scaled by how much of it may be signal.

    Divided by the square root of its deviation, a component with a quarter of another's variance counts half as much:
    with a variance of 1 for all, those that are noise would count as much as the others, and without scaling, only the
    first few would count. The variance of the first component that is left out, not before NOISE_FROM, is taken for
    noise in all of them, and the square root of the remaining share of the variance is a further factor. It stands for
    a choice of their number: of 48 components, those beyond 24 real ones hardly count.
    """
    from scipy.linalg import eigh

    dim = len(covariance)
    left_out = max(count, NOISE_FROM)
    values, vectors = eigh(covariance, subset_by_index=(max(dim - left_out - 1, 0), dim - 1))
    noise = max(float(values[0]), 0.0) if dim > left_out else 0.0
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    # a component without variance, as of clips of one token each, is 0
    real = values - noise > ROUNDING * max(values[0], 1e-12)
    values = np.where(real, values, 1.0)
    return np.where(real, vectors * np.sqrt((values - noise) / values) / values**0.25, 0.0).astype(np.float32)


def _components_of_few(tokens: np.ndarray, count: int) -> np.ndarray:
    """Return `_components` of the covariance of N centred tokens [N, D], of which there are far fewer than D.

    The tokens span no more than N dimensions, in which their covariance takes a fraction of the time.
    """
    from scipy.linalg import qr

    missing = max(count - len(tokens), 0)  # components without variance
    basis, factor = qr(np.pad(tokens, ((0, missing), (0, 0))).T, mode="economic")
    return np.asarray(basis @ _components(factor @ factor.T / len(tokens), count))


def _spread(means: np.ndarray) -> np.ndarray:
    """Return the standard deviation of each number of mean tokens [N, D]; infinity for one that is constant."""
    spread = means.std(axis=0)
    return np.where(spread > ROUNDING * np.abs(means.mean(axis=0)), spread, np.inf)


def _products(model: BilinearPersonalityModel, source: ClipSource) -> np.ndarray:
    """Return the products of every clip, float32 [N, F * M]."""
    products = np.empty((len(source), model.static_components * model.dynamic_components), np.float32)
    for some in _batches(clips_of(source)):
        tokens = pad_batch([clip for _, clip in some])
        found = model.products(model.project(tokens), model.attention(tokens))
        products[[row for row, _ in some]] = np.asarray(found)
    return products


def _batches(clips: Iterable[tuple[int, ClipTokens]]) -> Iterator[list[tuple[int, ClipTokens]]]:
    waiting = iter(clips)
    while some := list(islice(waiting, CLIPS_AT_A_TIME)):
        yield some
