"""What the readers of network files, .onnx and .keras, return: a signature, or the reason to refuse the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Shape = tuple[int | None, ...]
"""The sizes of the axes, batch axis first; None for a size that is free."""

Run = Callable[[np.ndarray], np.ndarray]


class FileRefusedError(Exception):
    """The reason why a network's file is not used."""


@dataclass(frozen=True)
class Signature:
    """What a network takes and gives: shapes of its one input and, by name, of its outputs, all float32."""

    input: Shape
    outputs: Mapping[str, Shape]
