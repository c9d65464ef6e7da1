"""Seeds of Keras that other threads of the process do not disturb."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import keras
from keras.src.random import seed_generator


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Set the global seeds, and let only Keras draw the seeds of layers and initializers that are made in the block.

    Keras draws them from Python's global generator. Dask's heartbeats and other threads also draw from that, so that a
    network would depend on when they do. The numbers are those of `keras.utils.set_random_seed` alone without them.
    """
    keras.utils.set_random_seed(seed)
    shared = seed_generator.python_random
    seed_generator.python_random = random.Random(seed)
    try:
        yield
    finally:
        seed_generator.python_random = shared
