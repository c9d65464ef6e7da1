"""The default model finds what is planted, says what it is worth, and gives no weight to what does not help."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
from learning_worlds import CAMERAS, WORLDS, Camera, Recordings, draw_labels
from sklearn.linear_model import Ridge

from fusion import get_attention_weights
from fusion.clips.tokens import ClipTokens, pad_batch
from fusion.evaluation.unseen import measure_unseen
from fusion.labels.split import folds_by_subject
from fusion.model.bilinear import BilinearPersonalityModel
from fusion.model.relevance import attention_relevance
from fusion.model.scoring import predict
from fusion.settings import TrainSettings
from fusion.training import stacking
from fusion.training.bilinear import _components
from fusion.training.stacking import RIDGE_PENALTIES, Part, low_rank_path, ridge_path, stack
from fusion.training.train import Trained, train
from storage.models.serializer import ModelSerializer

CAMERA = Camera(0, static_dim=96, dynamic_dim=64, latents=8, noise=0.5)
KNOWN, UNSEEN = CAMERA.record(500, 1), CAMERA.record(300, 2)


def r2(scores: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(1 - np.mean((scores - labels) ** 2, axis=0) / labels.var(axis=0)))


def learn(
    world: str, known: Recordings = KNOWN, unseen: Recordings = UNSEEN, **settings
) -> tuple[Trained, np.ndarray, np.ndarray]:
    """The training, and the labels of both parts."""
    labels, truth = draw_labels(WORLDS[world], [known, unseen], seed=0)
    return train(known.clips(), labels, known.subjects(), TrainSettings(**settings)), labels, truth


def ridge_on_means(labels: np.ndarray, truth: np.ndarray) -> float:
    """The best penalty by the test itself: an upper bound of what ridge regression on pooled tokens can do."""
    known, unseen = (np.hstack([part.static.mean(axis=1), part.dynamic.mean(axis=1)]) for part in (KNOWN, UNSEEN))
    centre, spread = known.mean(axis=0), known.std(axis=0)
    known, unseen = (known - centre) / spread, (unseen - centre) / spread
    return max(r2(Ridge(alpha).fit(known, labels).predict(unseen), truth) for alpha in 10.0 ** np.arange(0, 6))


@pytest.fixture(scope="module")
def interaction():
    return learn("interaction")


@pytest.mark.parametrize("world", ["face", "motion"])
def test_what_is_in_the_means_is_found_as_ridge_regression_finds_it(world):
    trained, labels, truth = learn(world)
    assert r2(predict(trained.model, UNSEEN.clips()), truth) > ridge_on_means(labels, truth) - 0.01
    other = trained.metadata["parts"]["motion means" if world == "face" else "face means"]
    assert max(other.values()) < 0.2


def test_what_only_face_and_motion_of_one_moment_tell_is_found(interaction):
    trained, labels, truth = interaction
    found = r2(predict(trained.model, UNSEEN.clips()), truth)
    assert found > 0.25
    assert ridge_on_means(labels, truth) < 0.05
    # with the motion of the other moments, nothing is left
    other = [replace(clip, dynamic=clip.dynamic[::-1].copy()) for clip in UNSEEN.clips()]
    assert r2(predict(trained.model, other), truth) < 0.05
    # means alone say nothing
    vector, _, _ = learn("interaction", form="vector")
    assert r2(predict(vector.model, UNSEEN.clips()), truth) < 0.05


def test_scores_out_of_fold_say_what_unseen_people_show(interaction):
    trained, labels, truth = interaction
    own = trained.out_of_fold
    unseen = r2(predict(trained.model, UNSEEN.clips()), truth)
    assert r2(own.scores, labels) == pytest.approx(unseen, abs=0.12)
    people = np.array(KNOWN.subjects())
    assert all(len(set(own.folds[people == person])) == 1 for person in set(people))
    assert own.mean[own.folds == 2][0] == pytest.approx(labels[own.folds != 2].mean(axis=0))


def test_noise_is_not_better_than_the_mean():
    trained, labels, truth = learn("noise")
    own = trained.out_of_fold
    unseen = measure_unseen(own.scores, labels, KNOWN.subjects(), mean=own.mean)
    assert unseen["better_than_mean"] is False
    assert unseen["gain"]["value"] < 0.02
    assert r2(predict(trained.model, UNSEEN.clips()), truth) > -0.03
    assert "hardly vary" in trained.metadata["warnings"][0]


def test_a_saved_model_scores_the_same(interaction, tmp_path):
    trained, _, _ = interaction
    ModelSerializer(tmp_path).save(trained.model, "traits", {}, trained.history)
    loaded, _ = ModelSerializer(tmp_path).load("traits")
    clips = UNSEEN.clips()
    scores = predict(trained.model, clips)
    assert isinstance(loaded, BilinearPersonalityModel)
    assert np.array_equal(predict(loaded, clips), scores)
    copy = BilinearPersonalityModel.from_config(trained.model.get_config())
    copy.set_weights(trained.model.get_weights())
    assert np.array_equal(predict(copy, clips), scores)
    trained.model.save(tmp_path / "model.keras")
    assert np.array_equal(predict(keras.saving.load_model(tmp_path / "model.keras"), clips), scores)


def test_padding_and_neighbours_change_nothing(interaction):
    trained, _, _ = interaction
    long, other = UNSEEN.clips()[:2]
    short = ClipTokens("", other.static[:3], other.static_time_s[:3], other.dynamic[:2], other.dynamic_time_s[:2])
    batch = pad_batch([long, short])
    for kind in ("static", "dynamic"):
        batch[kind][~batch[f"{kind}_mask"]] = np.nan
    together = np.asarray(trained.model(batch))
    alone = np.concatenate([np.asarray(trained.model(pad_batch([clip]))) for clip in (long, short)])
    assert together == pytest.approx(alone, abs=1e-6)
    assert predict(trained.model, [long, short]) == pytest.approx(alone, abs=1e-6)


def test_a_face_attends_to_the_motion_of_its_moment_and_relevance_adds_up(interaction):
    trained, _, _ = interaction
    batch = pad_batch(UNSEEN.clips()[:20])
    weights = get_attention_weights(trained.model, batch)
    assert weights.shape == (20, 1, 8, 4)
    assert weights.sum(axis=-1) == pytest.approx(1, abs=1e-6)
    assert (weights.argmax(axis=-1) == np.arange(8) // 2).all()
    relevance = attention_relevance(trained.model, batch, "openness")
    assert relevance.sum(axis=-1) == pytest.approx(0, abs=1e-6)
    assert np.abs(relevance).max() > 1e-3


def test_the_smallest_archives_train():
    clips, labels = UNSEEN.clips(), np.random.default_rng(0).random((4, 5)).astype(np.float32)
    two = train(clips[:2], labels[:2], ["a", "b"], TrainSettings())
    assert np.isfinite(predict(two.model, clips[:5])).all()
    alone = train(clips[:4], labels, ["a"] * 4, TrainSettings())
    assert alone.out_of_fold is None
    assert "same subject" in alone.metadata["warnings"][0]
    stills = [replace(clip, dynamic=clip.dynamic[:1], dynamic_time_s=clip.dynamic_time_s[:1]) for clip in clips[:4]]
    still = train(stills, labels, list("aabb"), TrainSettings())
    assert np.isfinite(predict(still.model, stills)).all()


def test_one_person_with_most_of_the_clips_empties_no_fold():
    clips, labels = KNOWN.clips()[:60], draw_labels(WORLDS["face"], [KNOWN], 0)[0][:60]
    trained = train(clips, labels, ["host"] * 50 + [f"guest {clip}" for clip in range(10)], TrainSettings())
    assert np.bincount(trained.out_of_fold.folds).min() > 0
    assert np.isfinite(trained.out_of_fold.scores).all()


def stacked_r2(world: np.ndarray, seed: int, people: int) -> np.ndarray:
    """R2 [5] on the population of a stack of ridge regressions on two kinds of features; column t of `world` [2, 5] has
    the share of the variance of trait t that follows from each."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), 10)
    kinds = [
        np.sqrt(0.6) * rng.normal(size=(people, 15))[person] + np.sqrt(0.4) * rng.normal(size=(len(person), 15))
        for _ in world
    ]
    kinds = [features.astype(np.float32) for features in kinds]
    slopes = [rng.normal(size=(15, 5)) for _ in world]
    slopes = [one * np.sqrt(share) / np.linalg.norm(one, axis=0) for one, share in zip(slopes, world, strict=True)]
    rest = 1 - world.sum(axis=0)
    labels = sum(features @ one for features, one in zip(kinds, slopes, strict=True))
    labels = labels + np.sqrt(rest / 2) * (rng.normal(size=(people, 5))[person] + rng.normal(size=labels.shape))
    parts = [Part("both", np.hstack(kinds), ridge_path)] + [Part("one", features, ridge_path) for features in kinds]
    found = stack(parts, labels, person, folds_by_subject(person.astype(str).tolist(), 5, 0))
    both, first, second = found.kernels
    kernels = (both[:15] + first, both[15:] + second)
    missed = sum(np.square(one - kernel).sum(axis=0) for one, kernel in zip(slopes, kernels, strict=True))
    return 1 - missed - found.bias**2 - rest


@pytest.mark.parametrize(
    ("people", "world", "least"),
    [
        (20, [[0.2] * 5, [0.2] * 5], 0.005),  # all traits alike: few people choose better together
        (20, [[0.4, 0.4, 0.4, 0, 0], [0.0] * 5], -0.03),  # two of them are noise
        (150, [[0.4, 0.4, 0.4, 0, 0], [0, 0, 0, 0.4, 0.4]], -0.01),  # each from its own kind of features
    ],
)
def test_traits_choose_together_if_people_are_few_and_apart_if_there_are_many(people, world, least, monkeypatch):
    seeds = range(20 if people < 50 else 3)
    together = np.mean([stacked_r2(np.array(world), seed, people) for seed in seeds], axis=0)
    monkeypatch.setattr(stacking, "PRIOR_PEOPLE", 0)
    apart = np.mean([stacked_r2(np.array(world), seed, people) for seed in seeds], axis=0)
    print(f"\n{people} people: R2 together {together.round(3)}, apart {apart.round(3)}")
    assert np.mean(together - apart) > least


def test_components_that_are_noise_hardly_count():
    rng = np.random.default_rng(0)
    mixture = rng.normal(size=(10, 120))
    tokens = rng.normal(size=(20_000, 10)) @ mixture + rng.normal(size=(20_000, 120))
    lengths = np.linalg.norm(_components(np.cov(tokens.T), 48), axis=0)
    spread = lengths * np.sqrt(np.linalg.eigvalsh(np.cov(tokens.T))[::-1][:48])
    assert spread[10:].max() < 0.2 * spread[:10].min()


@pytest.mark.parametrize("dim", [10, 80])
def test_ridge_path_is_ridge_regression(dim):
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(40, dim)), rng.normal(size=(40, 5))
    features -= features.mean(axis=0)
    labels -= labels.mean(axis=0)
    unit = np.sum(features**2) / min(features.shape)
    for penalty, kernel in zip(RIDGE_PENALTIES, ridge_path(features, labels), strict=True):
        expected = Ridge(penalty * unit, fit_intercept=False).fit(features, labels).coef_.T
        assert kernel == pytest.approx(expected, rel=1e-5, abs=1e-8)


def test_low_rank_path_finds_the_look_and_the_movement():
    rng = np.random.default_rng(0)
    looks, movements = rng.normal(size=(5, 12)), rng.normal(size=(5, 9))
    products = rng.normal(size=(400, 12, 9))
    labels = np.einsum("nij,ti,tj->nt", products, looks, movements) + rng.normal(size=(400, 5))
    kernel = low_rank_path(products.reshape(400, -1), labels, sides=(12, 9))[-1]
    planted = np.einsum("ti,tj->ijt", looks, movements).reshape(-1, 5)
    for trait in range(5):
        assert np.corrcoef(kernel[:, trait], planted[:, trait])[0, 1] > 0.98


@pytest.mark.slow
@pytest.mark.parametrize(("camera", "least"), [("uneven", 0.27), ("even", 0.45)])
def test_the_interaction_at_full_width_is_learned_from_a_thousand_clips(camera, least):
    known, unseen = CAMERAS[camera](0).record(1000, 100), CAMERAS[camera](0).record(500, 900)
    trained, _, truth = learn("interaction", known, unseen)
    found = r2(predict(trained.model, unseen.clips()), truth)
    print(f"\n1,000 clips of full width, {camera}: R2 {found:.3f}")
    assert found > least


@pytest.mark.parametrize("seed", range(5))
def test_parts_that_say_the_same_are_stacked(seed):
    rng = np.random.default_rng(seed)
    features, person = rng.normal(size=(60, 4)).astype(np.float32), np.repeat(np.arange(12), 5)
    labels = features @ rng.normal(size=(4, 5)) + rng.normal(size=(60, 5))
    folds = folds_by_subject(person.astype(str).tolist(), 4, 0)
    parts = [Part("the same, but for rounding", np.roll(features, by, axis=1), ridge_path) for by in range(4)]
    found = stack(parts, labels, person, folds)
    assert np.square(found.out_of_fold - labels).mean() < 0.6 * labels.var()
