"""Drawn clips whose tokens vary like those of real networks, and traits planted in them in several ways.

Tokens are the ReLU of a few latent numbers, mixed, plus noise: most of their numbers are redundant, as in pooled
features of ResNet-50 and I3D. A latent number is the sum of a part that a person keeps, one that a clip keeps, and one
of its moment. Every world adds noise to its signal so that a known share of the labels' variance can be explained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from fusion.clips.tokens import ClipTokens
from fusion.traits import TRAITS

FACES, MOTIONS = 8, 4
FACES_PER_MOTION = FACES // MOTIONS
LABEL_MEAN, LABEL_SD = 0.5, 0.15


@dataclass(frozen=True, eq=False)
class Recordings:
    """N clips without labels.

    Attributes:
        static: float32 [N, 8, Ds], a face each second.
        dynamic: float32 [N, 4, Dd], a window of motion for each two faces.
        face: float64 [N, 8, R], the latent numbers of the moment behind each face, standard normal.
        motion: float64 [N, 4, R], likewise.
        person: int [N].
    """

    static: np.ndarray
    dynamic: np.ndarray
    face: np.ndarray
    motion: np.ndarray
    person: np.ndarray

    def clips(self) -> list[ClipTokens]:
        """Return the tokens as the model takes them; both share memory."""
        face_s = (np.arange(FACES) + 0.5).astype(np.float32)
        motion_s = ((np.arange(MOTIONS) + 0.5) * FACES_PER_MOTION).astype(np.float32)
        pairs = zip(self.static, self.dynamic, strict=True)
        return [ClipTokens(f"{row}.mp4", face, face_s, motion, motion_s) for row, (face, motion) in enumerate(pairs)]

    def subjects(self) -> list[str]:
        """Return the name of the person in each clip."""
        return [f"person {number}" for number in self.person]


class Camera:
    """The same for all clips of an experiment: how latent numbers become tokens. Draws are made of `seed` alone.

    Args:
        seed: of the mixtures.
        static_dim: Ds.
        dynamic_dim: Dd.
        latents: R, latent numbers of each kind of token.
        noise: standard deviation of a token's number about its latent part, which has a deviation of 1.
        even: all latent numbers matter equally, the ReLU has its threshold at 0, and the noise follows it. Otherwise
            each matters less than the one before, as principal components of real features do, and the noise comes
            before the ReLU, whose threshold differs from number to number.
    """

    def __init__(
        self,
        seed: int,
        *,
        static_dim: int = 2048,
        dynamic_dim: int = 1024,
        latents: int = 32,
        noise: float = 1.0,
        even: bool = False,
    ) -> None:
        rng = np.random.default_rng((seed, 1))
        self.latents = latents
        self._noise = noise
        self._even = even
        strength = (1.0 if even else 0.95) ** np.arange(latents)
        strength /= np.sqrt(np.mean(strength**2))
        self._mixtures = {
            kind: (strength[:, None] * rng.normal(size=(latents, dim)) / np.sqrt(latents)).astype(np.float32)
            for kind, dim in (("static", static_dim), ("dynamic", dynamic_dim))
        }
        self._offsets = {
            kind: (not even) * rng.normal(-0.3, 0.5, mixture.shape[1]).astype(np.float32)
            for kind, mixture in self._mixtures.items()
        }

    def record(self, count: int, seed: int, *, clips_each: int = 2, person_share: float = 0.3) -> Recordings:
        """Draw clips of new people.

        Args:
            count: N.
            seed: of the clips; people of another seed are other people.
            clips_each: clips of a person.
            person_share: of the variance of latent numbers, what a person keeps in all clips; clips keep 0.2.
        """
        rng = np.random.default_rng((seed, 2))
        person = np.arange(count) // clips_each
        people = person[-1] + 1
        shares = np.sqrt([person_share, 0.2, 0.8 - person_share])
        tokens, latent = {}, {}
        for kind, length in (("static", FACES), ("dynamic", MOTIONS)):
            own = rng.normal(size=(people, 1, self.latents))[person]
            of_clip = rng.normal(size=(count, 1, self.latents))
            moment = rng.normal(size=(count, length, self.latents))
            mixed = (shares[0] * own + shares[1] * of_clip + shares[2] * moment).astype(np.float32)
            rows = mixed.reshape(-1, self.latents) @ self._mixtures[kind] + self._offsets[kind]
            noise = self._noise * rng.standard_normal(rows.shape, np.float32)
            rows = np.maximum(rows, 0) + noise if self._even else np.maximum(rows + noise, 0)
            tokens[kind] = rows.reshape(count, length, -1)
            latent[kind] = moment
        return Recordings(tokens["static"], tokens["dynamic"], latent["static"], latent["dynamic"], person)


CAMERAS: dict[str, Callable[[int], Camera]] = {
    "uneven": Camera,
    # as an independent trial described its clips: there, ridge regression on the products of 24 components of each kind
    # had an R2 of .27, .40 and .495 with 1,000, 2,000 and 6,000 clips of the world "interaction"; here .30, .41, .49
    "even": partial(Camera, latents=24, noise=0.5, even=True),
}

Signal = Callable[[Recordings, np.random.Generator], np.ndarray]


def _mean_token(*kinds: str) -> Signal:
    def signal(clips: Recordings, rng: np.random.Generator) -> np.ndarray:
        total = np.zeros((len(clips.person), len(TRAITS)))
        for kind in kinds:
            mean = getattr(clips, kind).mean(axis=1)
            weights = rng.normal(size=(mean.shape[1], len(TRAITS)))
            total += mean @ weights / np.sqrt(mean.shape[1])
        return total

    return signal


def _face_times_motion(clips: Recordings, rng: np.random.Generator) -> np.ndarray:
    """A look of the face times a movement at the same moment, mean over the moments of a clip."""
    look, movement = (rng.normal(size=(clips.face.shape[2], len(TRAITS))) for _ in range(2))
    faces = clips.face @ (look / np.linalg.norm(look, axis=0))
    motions = np.repeat(clips.motion @ (movement / np.linalg.norm(movement, axis=0)), FACES_PER_MOTION, axis=1)
    return (faces * motions).mean(axis=1)


def _nothing(clips: Recordings, rng: np.random.Generator) -> np.ndarray:
    return np.zeros((len(clips.person), len(TRAITS)))


@dataclass(frozen=True, slots=True)
class World:
    """What labels follow from.

    Attributes:
        title: in words.
        signal: from clips and a generator that draws the directions, the same for all clips of an experiment.
        ceiling: share of the labels' variance that the signal is.
        person_noise: share of it that belongs to the person and is in no token.
        clips_each: clips of a person.
        person_share: see `Camera.record`.
    """

    title: str
    signal: Signal
    ceiling: float
    person_noise: float = 0.0
    clips_each: int = 2
    person_share: float = 0.3


WORLDS = {
    "face": World("linear in the mean face token", _mean_token("static"), 0.5),
    "motion": World("linear in the mean motion token", _mean_token("dynamic"), 0.5),
    "interaction": World("face x motion at the same moment", _face_times_motion, 0.8),
    # labels of one person correlate by .6: signal .45, of which the person has three quarters, and noise of the person
    "impressions": World("like First Impressions", _mean_token("static", "dynamic"), 0.45, 0.25, 10, 0.6),
    "noise": World("pure noise", _nothing, 0.0),
}


def draw_labels(world: World, parts: list[Recordings], seed: int) -> list[np.ndarray]:
    """Draw the labels of all parts of an experiment: float32 [N, 5] each, mean .5 and standard deviation .15.

    Args:
        world: what they follow from.
        parts: clips; those of the first set the scale.
        seed: of directions and noise.
    """
    signals = [world.signal(part, np.random.default_rng((seed, 3))) for part in parts]
    centre, spread = signals[0].mean(axis=0), np.maximum(signals[0].std(axis=0), 1e-9)
    rng = np.random.default_rng((seed, 4))
    labels = []
    for part, signal in zip(parts, signals, strict=True):
        own = rng.normal(size=(part.person[-1] + 1, len(TRAITS)))[part.person]
        rest = rng.normal(size=signal.shape)
        left = 1 - world.ceiling - world.person_noise
        standard = np.sqrt(world.ceiling) * (signal - centre) / spread * (world.ceiling > 0)
        standard = standard + np.sqrt(world.person_noise) * own + np.sqrt(left) * rest
        labels.append((LABEL_MEAN + LABEL_SD * standard).astype(np.float32))
    return labels
