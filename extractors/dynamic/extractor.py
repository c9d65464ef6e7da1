"""Dynamic features: the motion of a face in one window of time, by I3D on optical flow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from extractors.assets import catalog
from extractors.dynamic.settings import ASSET, FEATURES
from extractors.networks import SIDE_PX, Precision
from extractors.networks.batches import describe_in_batches
from extractors.networks.inference import for_inference
from extractors.networks.precision import computing_in

if TYPE_CHECKING:
    import tensorflow as tf

    from extractors.optical_flow.computer import DeviceArray

MIN_FIELDS = 9  # fewer leave less than two steps for the last pool, which spans two


class DynamicFeatureExtractor:
    """I3D's optical-flow stream without its head: 1024 numbers per window, averaged over space and time.

    Args:
        weights: "pretrained" (ImageNet and Kinetics; fetched once) or "random" (seeded; for trials only).
        precision: of weights and activations; see `extractors.networks.inference.for_inference`. "tf32" is for GPUs.
        seed: seed of random weights.
        batch_size: windows in one pass, at most; halved if the device's memory runs out.
        asset_folder: folder with the checkpoint, in place of the usual places.

    Attributes:
        model: the Keras model in float32, see `extractors.dynamic.i3d.build_i3d`; extraction uses a copy of it.

    Raises:
        extractors.assets.AssetError: pretrained weights are unavailable.
        extractors.errors.DeviceError: this machine does not support that precision.
    """

    def __init__(
        self,
        weights: Literal["pretrained", "random"] = "pretrained",
        *,
        precision: Precision = "float32",
        seed: int = 0,
        batch_size: int = 1,
        asset_folder: Path | None = None,
    ) -> None:
        from extractors.dynamic import i3d

        if weights not in ("pretrained", "random"):
            raise ValueError(f"weights must be 'pretrained' or 'random'; got {weights!r}")
        self.batch_size, self.precision = batch_size, precision
        if weights == "pretrained":
            checkpoint = catalog.resolve(ASSET, folder=asset_folder)
        self.model = i3d.build_i3d(seed=seed)
        if weights == "pretrained":
            i3d.load_checkpoint(self.model, checkpoint)
        self._network = for_inference(self.model, precision)

    def extract(self, windows: np.ndarray | tf.Tensor) -> np.ndarray:
        """Describe windows of optical flow.

        Args:
            windows: float32, (N, T, 224, 224, 2), T at least 9 (64 by default in the pipeline), in [-1, 1]: channel 0
                is dx (rightwards), channel 1 is dy (down), as `scale_for_i3d` returns them. A tensor stays on its
                device.

        Returns:
            float32, (N, 1024), not negative.

        Raises:
            ValueError: the windows have another dtype, shape or range.
        """
        _check_shape(windows)
        if not len(windows):
            return np.empty((0, FEATURES), np.float32)
        features, self.batch_size = describe_in_batches(self._describe, windows, self.batch_size, noun="window")
        return features

    __call__ = extract

    def extract_on_device(self, windows: DeviceArray, lengths: Sequence[int]) -> np.ndarray:
        """Describe windows of optical flow that are in a GPU's memory, without copying them to the host.

        Args:
            windows: as of `extract`, N at least 1, complete, as `OpticalFlowComputer.compute_scaled` returns them.
            lengths: N numbers, each from 1 to T: how many fields of the window count. They are repeated in place of
                the others.

        Returns:
            float32, (N, 1024), not negative, in the host's memory.

        Raises:
            ValueError: as `extract`.
        """
        import tensorflow as tf

        # Exporters other than NumPy's expect no arguments, and TensorFlow takes capsules only.
        tensor = tf.experimental.dlpack.from_dlpack(windows.__dlpack__())
        fields = tensor.shape[1]

        def describe(rows: np.ndarray) -> np.ndarray:
            some = tensor if len(rows) == len(tensor) else tensor[rows[0] : rows[-1] + 1]
            counts = [lengths[row] for row in rows]
            if min(counts) < fields:
                parts = zip(some, counts, strict=True)
                some = tf.stack([tf.gather(window, np.arange(fields) % count) for window, count in parts])
            return self._describe(some)

        rows = np.arange(len(lengths))
        features, self.batch_size = describe_in_batches(describe, rows, self.batch_size, noun="window")
        return features

    def _describe(self, windows: np.ndarray | tf.Tensor) -> np.ndarray:
        _check_shape(windows)
        if not _is_scaled(windows):
            raise ValueError("windows must lie in [-1, 1]; scale them with scale_for_i3d")
        with computing_in(self.precision):
            features: np.ndarray = self._network.predict_on_batch(windows)
            return features


def _check_shape(windows: np.ndarray | tf.Tensor) -> None:
    if windows.dtype != np.float32 or windows.ndim != 5 or windows.shape[2:] != (SIDE_PX, SIDE_PX, 2):
        raise ValueError(
            f"windows must be float32 [N, T, {SIDE_PX}, {SIDE_PX}, 2]; got {windows.dtype} {windows.shape}"
        )
    if windows.shape[1] < MIN_FIELDS:
        raise ValueError(f"a window needs at least {MIN_FIELDS} fields of optical flow; got {windows.shape[1]}")


def _is_scaled(windows: np.ndarray | tf.Tensor) -> bool:
    """Return whether all numbers are in [-1, 1]; not if one is NaN."""
    if isinstance(windows, np.ndarray):
        return bool(np.abs(windows).max() <= 1)
    import tensorflow as tf

    return bool(tf.reduce_all(tf.abs(windows) <= 1))
