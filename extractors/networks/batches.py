"""Batches that fit into a device's memory, found by trial."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from extractors.errors import DeviceError

log = logging.getLogger(__name__)

# If no algorithm of cuDNN gets memory for its work, TensorFlow finds "No algorithm" and lists why each of them failed.
_NO_MEMORY_FOR_CUDNN = ("RESOURCE_EXHAUSTED", "CUDNN_STATUS_ALLOC_FAILED")


def describe_in_batches(
    describe: Callable[[Any], np.ndarray], items: Any, size: int, *, noun: str
) -> tuple[np.ndarray, int]:
    """Send items through a network, as many at a time as memory allows.

    If memory runs out, the batch is halved and sent again.

    Args:
        describe: the network: (n, ...) to (n, features), n at least 1 and at most `size`.
        items: array, tensor or list of N items, N at least 1.
        size: items in the first batch.
        noun: name of an item in messages.

    Returns:
        The features of all items, (N, features), and the batch size that fits: `size`, or less after halving.

    Raises:
        DeviceError: not even one item fits.
    """
    from tensorflow.errors import NotFoundError, ResourceExhaustedError

    parts: list[np.ndarray] = []
    start = 0
    while start < len(items):
        batch = items[start : start + size]
        try:
            parts.append(describe(batch))
        except (ResourceExhaustedError, NotFoundError) as error:
            if isinstance(error, NotFoundError) and not any(cause in str(error) for cause in _NO_MEMORY_FOR_CUDNN):
                raise
            if len(batch) == 1:
                raise DeviceError(
                    f"not even one {noun} fits into the memory of the device: end other programs that use it"
                ) from error
            size = len(batch) // 2
            log.warning("%d %ss at a time do not fit into memory: from now on %d", len(batch), noun, size)
        else:
            start += len(batch)
    return np.concatenate(parts), size
