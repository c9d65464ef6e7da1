"""Memory layout of the CPU engine: ten planes of one pyramid level in one flat float32 array.

LLVM vectorises a loop over many arrays only if it can prove that they do not overlap. Planes of one array whose
distance is a constant of the program need no proof at run time, and unsigned indices cannot wrap around to its end.
Therefore each image row holds one stretch of every plane, `STRIDE` floats apart, and a picture wider than `PANEL`
columns is cut into consecutive panels. Rows above and below, and columns at both sides, are halo:
zero, or a copy of the neighbouring panel's border column, so that no loop needs a branch for borders.

The order of the planes matters as well: stores must be well above the addresses that are read next, or LLVM halves the
vector width to spare the processor's store-to-load forwarding.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

logger = logging.getLogger(__name__)

LANES = 16  # floats in the widest vector (512 bit), and the width of the halo at either side
PANEL = 256
STRIDE = PANEL + 3 * LANES  # an odd number of cache lines spreads the planes over the cache
HALO_ROWS = 2

# Dual variables p1 and p2 (x, y component), displacement u, gradient of the warped frame, constant part of the
# residual rho, and 1 / |gradient|^2.
P1X, P2X, P1Y, P2Y, U1, U2, IX, IY, RHO, INV = (np.uint64(plane * STRIDE) for plane in range(10))
ROW = np.uint64(10 * STRIDE)
ONE = np.uint64(1)

_LINE_BYTES = 64


def _sources_digest() -> int:
    """Return a number that changes with any source file of the CPU engine."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).digest()
    return int.from_bytes(digest[:6], "big")


# Numba recompiles a cached function if its own file changes, but not if a file changes from which it takes functions or
# constants. A default argument is part of the signature that the cache looks up.
SOURCES = _sources_digest()


def kernel(function: Callable[..., Any], *, fastmath: bool = True, cache: bool = False) -> Callable[..., Any]:
    """Compile a function that other kernels call: sums in any order, no GIL, no exceptions from division."""
    compiled: Callable[..., Any] = njit(nogil=True, fastmath=fastmath, error_model="numpy", cache=cache)(function)
    return compiled


def exact_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile likewise, but with every sum rounded as written."""
    return kernel(function, fastmath=False)


def entry_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that Python calls, and keep it on disk; its last argument must be `sources=SOURCES`."""
    try:
        return kernel(function, cache=True)
    except RuntimeError:
        # Neither the package's folder nor the user's cache folder is writable.
        logger.warning("no writable folder for compiled code: every process compiles TV-L1 again")
        return kernel(function)


@kernel
def address(height, panel, row):
    """Flat index of plane 0 at the first column of a panel; two rows above and below the picture are halo."""
    return np.uint64(panel * (height + 2 * HALO_ROWS) + row + HALO_ROWS) * ROW + np.uint64(LANES)


@kernel
def panels(width):
    """Number of panels of a picture."""
    return (width + PANEL - 1) // PANEL


@kernel
def padded_columns(width, panel):
    """Columns of one panel, rounded up to whole vectors; those beyond the picture are zero and stay zero."""
    columns = min(PANEL, width - panel * PANEL)
    return np.uint64((columns + LANES - 1) // LANES * LANES)


def planes_floats(height: int, width: int) -> int:
    """Size of the planes of a picture."""
    return -(-width // PANEL) * (height + 2 * HALO_ROWS) * int(ROW)


def read_plane(planes: np.ndarray, plane: np.uint64, height: int, width: int) -> np.ndarray:
    """Copy one plane out: float32, (H, W)."""
    stretches = _stretches(planes, plane, height, width)
    return np.moveaxis(stretches, 0, 1).reshape(height, -1)[:, :width].copy()


def write_plane(planes: np.ndarray, plane: np.uint64, values: np.ndarray) -> None:
    """Copy float32 (H, W) into one plane."""
    height, width = values.shape
    for panel, stretch in enumerate(_stretches(planes, plane, height, width)):
        columns = values[:, panel * PANEL : (panel + 1) * PANEL]
        stretch[:, : columns.shape[1]] = columns


def _stretches(planes: np.ndarray, plane: np.uint64, height: int, width: int) -> np.ndarray:
    rows = planes[: planes_floats(height, width)].reshape(-1, height + 2 * HALO_ROWS, int(ROW))
    first = int(plane) + LANES
    return rows[:, HALO_ROWS:-HALO_ROWS, first : first + PANEL]


def aligned_zeros(floats: int) -> np.ndarray:
    """float32 zeros, flat, starting on a cache line: a vector that straddles two costs twice."""
    raw = np.zeros(floats + _LINE_BYTES // 4, np.float32)
    start = -raw.ctypes.data % _LINE_BYTES // 4
    return raw[start : start + floats]
