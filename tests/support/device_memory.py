"""A stand-in for arrays in the memory of a GPU."""

from __future__ import annotations

import numpy as np

ALIGNMENT_BYTES = 64  # TensorFlow copies what begins elsewhere


class OnDevice:
    """float32 numbers that are read through DLPack only. NumPy cannot, and so nothing can copy them on the host."""

    def __init__(self, numbers: np.ndarray) -> None:
        memory = np.empty(numbers.nbytes + ALIGNMENT_BYTES, np.uint8)
        start = -memory.ctypes.data % ALIGNMENT_BYTES
        self._numbers = memory[start : start + numbers.nbytes].view(np.float32).reshape(numbers.shape)
        self._numbers[:] = numbers
        self.shape, self.dtype, self.address = numbers.shape, numbers.dtype, self._numbers.ctypes.data

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise AssertionError("the fields are copied to the host")

    __len__ = __iter__ = __getitem__ = __array__

    def __dlpack__(self, *, stream: int | None = None) -> object:
        return self._numbers.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._numbers.__dlpack_device__()
