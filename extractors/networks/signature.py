"""What the readers of network files share: what a network takes and gives, and why a file is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

MAX_FILE_BYTES = 2**31  # bytes; a ViT-L has 1.2 GB

Shape = tuple[int | None, ...]
"""The sizes of the axes, batch axis first; None for a size that is free."""

Run = Callable[[np.ndarray], np.ndarray]


class FileRefusedError(Exception):
    """The reason why a network's file is not used."""


@dataclass(frozen=True)
class Signature:
    """What a network takes and what it gives.

    Args:
        input: shape of its one input, float32.
        outputs: name -> shape, float32.
    """

    input: Shape
    outputs: Mapping[str, Shape]
