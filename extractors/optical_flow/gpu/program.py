"""The kernels' source, and its compilation at run time by NVRTC, which needs no GPU."""

from __future__ import annotations

import logging
from pathlib import Path

from cuda.bindings import nvrtc
from cuda.core import ObjectCode, Program, ProgramOptions
from cuda.core.utils import FileStreamProgramCache

from extractors.optical_flow.gpu.shapes import MARGIN_PX, PITCH, Shape

logger = logging.getLogger(__name__)

# Each kernel's files in the order in which they make up its source. Tests replace the first.
PYRAMID = ("device.cuh", "resize.cuh", "pyramid.cu")
LEVEL = ("device.cuh", "resize.cuh", "median.cuh", "warp.cuh", "level.cu")

PYRAMID_MACROS = {"MARGIN": MARGIN_PX}  # compile-time constants of `pyramid.cu`

_CACHE_BYTES = 256 * 2**20


def source(files: tuple[str, ...], folder: Path = Path(__file__).parent) -> str:
    """Join files of source code; the compiler's messages name the file and line."""
    return "".join(f'#line 1 "{name}"\n{(folder / name).read_text(encoding="utf-8")}' for name in files)


def architecture_for(major: int, minor: int) -> str | None:
    """Return what to compile for on a GPU of this compute capability, such as "sm_90"; None if NVRTC does not know it.

    Machine code also runs on later GPUs of the same major version.

    Raises:
        RuntimeError: NVRTC is not installed.
    """
    _, known = nvrtc.nvrtcGetSupportedArchs()
    fitting = [number for number in known if 10 * major <= number <= 10 * major + minor]
    return f"sm_{max(fitting)}" if fitting else None


def level_macros(height: int, width: int, shape: Shape, median: int) -> dict[str, int]:
    """Compile-time constants of `level.cu`."""
    return {
        **PYRAMID_MACROS,
        "HEIGHT": height,
        "WIDTH": width,
        "ROWS": shape.rows,
        "WARPS": shape.warps,
        "GROUP": shape.group,
        "MEDIAN": median,
        "PITCH": PITCH,
    }


def compile_kernels(
    files: tuple[str, ...],
    macros: dict[str, int],
    architecture: str,
    *,
    registers: int | None = None,
    cache: Path | None = None,
) -> ObjectCode:
    """Compile kernels to machine code, or load what an earlier process compiled.

    Args:
        files: `PYRAMID` or `LEVEL`.
        macros: compile-time constants.
        architecture: such as "sm_90".
        registers: most for one thread.
        cache: folder of compiled code, shared by all processes; a file's name is a digest of the source, the options
            and the version of NVRTC. Without one, nothing is kept.

    Returns:
        The machine code; it is loaded into the GPU when a kernel is asked for.
    """
    options = ProgramOptions(
        name=files[-1],
        std="c++17",
        arch=architecture,
        max_register_count=registers,
        define_macro=[(name, str(value)) for name, value in macros.items()],
    )
    program = Program(source(files), "c++", options=options)
    if cache is None:
        return program.compile("cubin")
    try:
        with FileStreamProgramCache(cache, max_size_bytes=_CACHE_BYTES) as kept:
            return program.compile("cubin", cache=kept)
    except OSError as error:
        logger.warning("compiled kernels cannot be kept in %s: %s", cache, error)
        return program.compile("cubin")
