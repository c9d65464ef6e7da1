"""The networks of keras.applications, without their heads, as describers of face crops.

Keras downloads their weights into ~/.keras/models or $KERAS_HOME/models.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from extractors.assets.files import AssetError, digest_of
from extractors.devices import has_gpu
from extractors.errors import first_line
from extractors.networks.backbone import Describer
from extractors.networks.batches import describe_in_batches
from extractors.networks.precision import settle_precision
from extractors.networks.preprocessing import CROP_SHAPE, check_crops, preprocess
from extractors.static.applications import APPLICATIONS, SOURCE, Application

if TYPE_CHECKING:
    import keras

REVISION = 1  # part of the cache key: raise it if this code's results change


@dataclass(frozen=True)
class ApplicationBackbone:
    """A network of keras.applications. See `extractors.networks.backbone.Backbone`.

    Args:
        name: a key of `APPLICATIONS`.
        weights: "pretrained" (ImageNet), "random" (seeded; for trials only), or a file that Keras' `save_weights` wrote
            for this network without its head and with an average pool (.weights.h5).
        seed: of random weights.
        batch_size: face crops in one pass on a GPU, at most.
    """

    name: str
    weights: Literal["pretrained", "random"] | Path
    seed: int = 0
    batch_size: int = 16

    @property
    def dim(self) -> int:
        """Numbers in each vector."""
        return self._known.dim

    @cached_property
    def numerics(self) -> dict[str, Any]:
        """Everything that changes the numbers."""
        match self.weights:
            case "pretrained":
                origin: dict[str, Any] = {"weights": "pretrained", "digest": self._known.digest}
            case "random":
                origin = {"weights": "random", "seed": self.seed}
            case path:
                origin = {"weights": "own", "digest": self._digest_of(Path(path))}
        return {"network": self.name, "revision": REVISION, "precision": "float32", **origin}

    @property
    def _known(self) -> Application:
        return APPLICATIONS[self.name]

    def fetch(self) -> None:
        """Ensure that the weights are on this machine and intact; ImageNet's are downloaded if they are missing."""
        _ = self.numerics
        if self.weights != "pretrained":
            return
        import keras

        known = self._known
        algorithm, _, digest = known.digest.partition(":")
        try:
            keras.utils.get_file(
                known.file_name,
                f"{SOURCE}{known.weights}",
                cache_subdir="models",
                file_hash=digest,
                hash_algorithm=algorithm,
            )
        except Exception as error:  # Keras raises just that if the network fails
            folder = Path(os.environ.get("KERAS_HOME", "~/.keras")) / "models"
            raise AssetError(
                f"the ImageNet weights of {self.name} are not on this machine and cannot be fetched "
                f"({first_line(error)}); put {known.file_name} into {folder}"
            ) from error

    def build(self) -> Describer:
        """Build the network."""
        import keras

        self.fetch()
        settle_precision("float32")
        constructor = getattr(keras.applications, self._known.constructor)
        form = {"include_top": False, "pooling": "avg", "input_shape": CROP_SHAPE}
        if self.weights == "random":
            model = constructor(**form, weights=None)
            draw_weights(model, self.seed)
        elif self.weights == "pretrained":
            # The constructor itself must load them: for some weights it adds a layer to the network.
            model = constructor(**form, weights="imagenet")
        else:
            model = constructor(**form, weights=None)
            if self._digest_of(self.weights) != self.numerics["digest"]:
                raise AssetError(f"{self.weights} has changed while it was in use; run the command again")
            try:
                model.load_weights(self.weights)
            except (OSError, ValueError, KeyError) as error:
                raise AssetError(f"{self.weights} holds no weights of {self.name} without its head") from error
        model.jit_compile = False  # slower on a CPU
        # On a CPU one by one: layers add up in another order in batches of other sizes.
        return _ApplicationNetwork(model, self._known, self.batch_size if has_gpu() else 1)

    def _digest_of(self, path: Path) -> str:
        try:
            return digest_of(path, "sha256")
        except OSError as error:
            raise AssetError(f"cannot read the weights {path}: {error.strerror or error}") from error


@dataclass
class _ApplicationNetwork:
    model: keras.Model
    known: Application
    batch_size: int

    def extract(self, crops: np.ndarray) -> np.ndarray:
        check_crops(crops)
        if not len(crops):
            return np.empty((0, self.known.dim), np.float32)
        vectors, self.batch_size = describe_in_batches(self._describe, crops, self.batch_size, noun="face crop")
        return vectors

    def _describe(self, batch: np.ndarray) -> np.ndarray:
        return np.asarray(self.model.predict_on_batch(preprocess(batch, self.known.preprocessing)))


def draw_weights(model: keras.Model, seed: int) -> None:
    """Draw all kernels of a network by He initialization, in the order of the layers, so that it is repeatable."""
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        shape = tuple(variable.shape)
        if len(shape) < 2:
            continue  # biases and norms start with constants
        inputs = np.prod(shape[:2]) if "depthwise" in variable.path else np.prod(shape[:-1])
        variable.assign(generator.normal(0.0, np.sqrt(2.0 / inputs), shape).astype(np.float32))
