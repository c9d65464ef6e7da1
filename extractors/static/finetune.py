"""Fine-tuning of ResNet-50: its unfrozen layers learn to predict labels of face crops.

First a linear head is fitted to the features of the unchanged network. Then head and unfrozen layers are trained
together, which changes the features less than a random head would (linear probing, then fine-tuning). BatchNorm stays
frozen, because the statistics of batches of a few crops are useless.

Sources:
    Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from extractors.static.settings import FinetuneSettings

if TYPE_CHECKING:
    import keras

# Videos whose crops are mixed into batches; more mix better and take more memory (2.4 MB each with 16 crops).
MIXED_VIDEOS = 16
RIDGE_PENALTIES = 10.0 ** np.arange(-2, 7)


@dataclass(frozen=True, slots=True)
class FinetuneReport:
    """Result of fine-tuning: mean squared errors on the validation videos, with predictions averaged over crops.

    Attributes:
        constant_error: of always predicting the training videos' mean.
        frozen_error: of the best linear head on the unchanged network (penalty chosen on the same videos).
        errors: after each epoch.
        best_epoch: epoch of the network's present weights, 1, 2, ...; 0 if no epoch was better and they are unchanged.
    """

    constant_error: float
    frozen_error: float
    errors: list[float]
    best_epoch: int

    @property
    def best_error(self) -> float:
        """Error of the network as it is now."""
        return min([self.frozen_error, *self.errors])


def fine_tune(
    model: keras.Model,
    read: Callable[[int], np.ndarray],
    labels: np.ndarray,
    training: Sequence[int],
    validation: Sequence[int],
    settings: FinetuneSettings,
    on_video: Callable[[str], None] = lambda state: None,
) -> FinetuneReport:
    """Train the trainable layers of a network, and leave it with its best weights.

    Every BatchNorm is frozen. Crops are mirrored at random and otherwise unchanged.

    Args:
        model: keras.applications' ResNet-50 without its head, as `StaticFeatureExtractor.model`; changed in place.
        read: returns a video's face crops, uint8 RGB [n, side, side, 3], n >= 1; called once per epoch and video.
        labels: float32 [videos, traits].
        training: indices of the training videos.
        validation: indices of videos of other people, which decide when to stop.
        on_video: called after each video that was read, with a short description of the state.
    """
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    tell = partial(on_video, "frozen network")
    seen, held_out = (_predict(model, read, videos, settings, tell) for videos in (training, validation))
    truth = labels[list(validation)]
    head, frozen_error = _fit_head(seen, labels[list(training)], held_out, truth)
    crops = keras.Input((None, None, 3))
    network = keras.Model(crops, head(model(crops)))
    network.compile(keras.optimizers.Adam(settings.learning_rate), "mse", jit_compile=False)
    errors: list[float] = []
    best_weights, best_epoch = model.get_weights(), 0
    generator = np.random.default_rng(settings.seed)
    for epoch in range(1, settings.epochs + 1):
        state = f"epoch {epoch}, error {min([frozen_error, *errors]):.5f}"
        tell = partial(on_video, state)
        for batch, owners in _batches(read, training, settings, generator, tell):
            network.train_on_batch(_prepared(batch), labels[owners])
        error = float(np.mean((_predict(network, read, validation, settings, tell) - truth) ** 2))
        if error < min([frozen_error, *errors]):
            best_weights, best_epoch = model.get_weights(), epoch
        errors.append(error)
        if epoch - best_epoch >= settings.patience:
            break
    model.set_weights(best_weights)
    constant = labels[list(training)].mean(axis=0)
    constant_error = float(np.mean((truth - constant) ** 2))
    return FinetuneReport(constant_error, frozen_error, errors, best_epoch)


def _prepared(crops: np.ndarray) -> np.ndarray:
    import keras

    return np.asarray(keras.applications.resnet.preprocess_input(crops.astype(np.float32)))


def _predict(
    network: keras.Model,
    read: Callable[[int], np.ndarray],
    videos: Sequence[int],
    settings: FinetuneSettings,
    on_video: Callable[[], None],
) -> np.ndarray:
    """Return the network's outputs, averaged over each video's crops: [videos, outputs]."""
    means = []
    for video in videos:
        crops = read(video)
        batches = np.array_split(crops, range(settings.batch_size, len(crops), settings.batch_size))
        means.append(np.concatenate([network.predict_on_batch(_prepared(batch)) for batch in batches]).mean(axis=0))
        on_video()
    return np.stack(means)


def _fit_head(
    seen: np.ndarray, labels: np.ndarray, held_out: np.ndarray, truth: np.ndarray
) -> tuple[keras.Model, float]:
    """Fit a linear head by ridge regression; return it with its error on the validation videos.

    Args:
        seen: features of the training videos, [n, D].
        labels: of the same videos.
        held_out: features of the validation videos, which choose the penalty.
        truth: their labels.
    """
    import keras
    from sklearn.linear_model import Ridge

    centre, scale = seen.mean(axis=0), seen.std(axis=0)
    scale = scale + 0.1 * scale.mean() + 1e-6  # features that hardly vary must not be amplified
    fits = []
    for penalty in RIDGE_PENALTIES:
        ridge = Ridge(alpha=penalty).fit((seen - centre) / scale, labels)
        predicted = ridge.predict((held_out - centre) / scale).reshape(truth.shape)
        fits.append((float(np.mean((predicted - truth) ** 2)), ridge))
    best_error, best = min(fits, key=lambda fit: fit[0])
    dense = keras.layers.Dense(labels.shape[1])
    dense.build((None, len(centre)))
    dense.set_weights([np.atleast_2d(best.coef_).T.astype(np.float32), np.ravel(best.intercept_).astype(np.float32)])
    # Features are not negative: without centring, one small step of all of a head's weights would move every output.
    return keras.Sequential([keras.layers.Rescaling(1 / scale, -centre / scale), dense]), best_error


def _batches(
    read: Callable[[int], np.ndarray],
    videos: Sequence[int],
    settings: FinetuneSettings,
    generator: np.random.Generator,
    on_video: Callable[[], None],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield batches of crops, uint8 [n, side, side, 3], with the video of each crop; a thread reads ahead."""
    order = generator.permutation(np.asarray(videos))
    groups = [order[start : start + MIXED_VIDEOS] for start in range(0, len(order), MIXED_VIDEOS)]

    def gather(group: np.ndarray) -> list[np.ndarray]:
        return [read(video) for video in group.tolist()]

    with ThreadPoolExecutor(1) as reader:
        waiting = reader.submit(gather, groups[0])
        for group, following in zip(groups, [*groups[1:], None], strict=True):
            parts = waiting.result()
            if following is not None:
                waiting = reader.submit(gather, following)
            crops, owners = np.concatenate(parts), np.repeat(group, [len(part) for part in parts])
            mixed = generator.permutation(len(crops))
            for start in range(0, len(crops), settings.batch_size):
                chosen = mixed[start : start + settings.batch_size]
                mirrored = generator.random(len(chosen)) < 0.5
                batch = crops[chosen]
                batch[mirrored] = batch[mirrored, :, ::-1]
                yield batch, owners[chosen]
            for _ in group:
                on_video()
