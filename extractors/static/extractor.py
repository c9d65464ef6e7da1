"""Static features: the appearance of a face in one frame, by ResNet-50."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from extractors.assets import catalog
from extractors.assets.files import AssetError
from extractors.assets.own import resolve_own
from extractors.networks import Precision
from extractors.networks.batches import describe_in_batches
from extractors.networks.inference import for_inference
from extractors.networks.precision import computing_in
from extractors.networks.preprocessing import check_crops
from extractors.static.settings import ASSET, FEATURES


class StaticFeatureExtractor:
    """ResNet-50 v1 without its head: 2048 numbers per face crop, by global average pooling.

    The first `frozen_layers` convolutional layers are marked as not trainable: fine-tuning keeps these general edge
    and colour filters from ImageNet. Extraction changes no weight, so that features do not depend on it. With
    the default of 4 these are conv1_conv, conv2_block1_1_conv, conv2_block1_2_conv and conv2_block1_0_conv (the
    projection beside the first block), in keras.applications' names and order.

    Args:
        weights: "pretrained" (ImageNet; fetched once), "random" (seeded; for trials only), or the name of a fine-tuned
            asset, such as "faces-1".
        frozen_layers: number of first convolutional layers that are not trainable.
        precision: of weights and activations during extraction; see `extractors.networks.inference.for_inference`.
            "tf32" is for GPUs.
        seed: seed of random weights.
        batch_size: crops in one pass, at most; halved if the device's memory runs out.
        asset_folder: folder with the weight file, in place of the usual places.

    Attributes:
        model: the Keras model in float32 for training, float32 [N, 224, 224, 3] (Caffe's BGR minus means) to float32
            [N, 2048]. Extraction uses a copy: call `refresh` after its weights change.

    Raises:
        extractors.assets.AssetError: pretrained weights are unavailable.
        extractors.errors.DeviceError: this machine does not support that precision.

    Sources:
        He et al., "Deep Residual Learning for Image Recognition", CVPR 2016; keras.applications.resnet.
    """

    def __init__(
        self,
        weights: str = "pretrained",
        *,
        frozen_layers: int = 4,
        precision: Precision = "float32",
        seed: int = 0,
        batch_size: int = 16,
        asset_folder: Path | None = None,
    ) -> None:
        import keras

        if weights == "pretrained":
            (file,) = catalog.known_assets()[ASSET].files
            weight_file = catalog.resolve(ASSET, folder=asset_folder) / file.name
        elif weights != "random":
            weight_file = resolve_own(weights, asset_folder.parent if asset_folder is not None else None)
        self.batch_size = batch_size
        self.precision = precision
        self.model = keras.applications.ResNet50(include_top=False, weights=None, pooling="avg")
        convolutions = [layer for layer in self.model.layers if isinstance(layer, keras.layers.Conv2D)]
        for layer in convolutions[:frozen_layers]:
            layer.trainable = False
        self._preprocess = keras.applications.resnet.preprocess_input
        if weights == "random":
            _draw_weights(self.model, seed)
            self.refresh()
        else:
            self.load_weights(weight_file)

    def refresh(self) -> None:
        """Use the current weights of `model` for extraction."""
        self._network = for_inference(self.model, self.precision)

    def load_weights(self, path: Path) -> None:
        """Load a file of `model.save_weights`, or of keras.applications without head. Raises AssetError if unfit."""
        try:
            self.model.load_weights(path)
        except (OSError, ValueError, KeyError) as error:
            raise AssetError(f"{path} holds no weights of a ResNet-50 without its head") from error
        self.refresh()

    def extract(self, crops: np.ndarray) -> np.ndarray:
        """Describe face crops.

        Args:
            crops: uint8, RGB, (N, 224, 224, 3).

        Returns:
            float32, (N, 2048), not negative.

        Raises:
            ValueError: the crops have another dtype or shape.
        """
        check_crops(crops)
        if not len(crops):
            return np.empty((0, FEATURES), np.float32)
        features, self.batch_size = describe_in_batches(self._describe, crops, self.batch_size, noun="face crop")
        return features

    __call__ = extract

    def _describe(self, batch: np.ndarray) -> np.ndarray:
        # oneDNN sums in another order for a single picture: with a copy beside it, its bits match those of any batch.
        filled = batch.repeat(2, axis=0) if len(batch) == 1 else batch
        with computing_in(self.precision):
            features: np.ndarray = self._network.predict_on_batch(self._preprocess(filled.astype(np.float32)))
        return features[: len(batch)]


def _draw_weights(model: Any, seed: int) -> None:
    # keras.applications takes no seed, but He initialization drawn in the order of the layers is repeatable. The last
    # BatchNorm of each block is scaled down; otherwise 16 residual additions would double the features' scale 16 times.
    generator = np.random.default_rng(seed)
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            spread = np.sqrt(2.0 / np.prod(layer.kernel.shape[:-1]))
            layer.kernel.assign(generator.normal(0.0, spread, layer.kernel.shape).astype(np.float32))
        elif layer.name.endswith("_3_bn"):
            layer.gamma.assign(np.full(layer.gamma.shape, 0.25, np.float32))
