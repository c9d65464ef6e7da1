"""Batches of padded clips for `fit`."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from fusion.tokens import ClipTokens, pad_batch


class ClipBatches(keras.utils.PyDataset):
    """Padded batches with their labels, in a new order each epoch that depends on the seed alone.

    Every batch is padded to the longest clip of the whole set, because Keras takes the shape of all batches from the
    first two. Clips are dealt out evenly: 65 clips in batches of 32 at most are 22 + 22 + 21, not 32 + 32 + 1, since
    a batch of one clip would teach BatchNorm a variance of zero.
    """

    def __init__(
        self, clips: Sequence[ClipTokens], labels: np.ndarray, *, batch_size: int, seed: int, shuffle: bool
    ) -> None:
        """Take N clips and their labels, float32 [N, 5]."""
        super().__init__()
        self._clips = clips
        self._labels = labels
        self._seed = seed
        self._shuffle = shuffle
        self._epoch = 0
        self._batch_count = -(-len(clips) // batch_size)
        self._static_length = max(len(clip.static) for clip in clips)
        self._dynamic_length = max(len(clip.dynamic) for clip in clips)
        self._deal()

    @property
    def num_batches(self) -> int:
        """How many batches make an epoch."""
        return self._batch_count

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Batch `index` of this epoch: the model's inputs and the labels, float32 [B, 5]."""
        rows = self._rows[index]
        inputs = pad_batch(
            [self._clips[row] for row in rows],
            static_length=self._static_length,
            dynamic_length=self._dynamic_length,
        )
        return inputs, self._labels[rows]

    def on_epoch_end(self) -> None:
        """Called by Keras between epochs."""
        self._epoch += 1
        self._deal()

    def _deal(self) -> None:
        order = np.arange(len(self._clips))
        if self._shuffle:
            order = np.random.default_rng((self._seed, self._epoch)).permutation(order)
        self._rows = np.array_split(order, self._batch_count)
