"""A stand-in for a GPU in this process: `use` makes `cuda.core` find it, so that the engine gpu itself runs on a CPU.

NVIDIA's driver is `cuda_driver_on_cpu.cpp`, and the kernels are compiled by g++. Call `use` before anything asks CUDA;
there is no way back, so that a process of its own is needed.
"""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest
from tvl1_on_cpu import SHIM

SOURCE = Path(__file__).with_name("cuda_driver_on_cpu.cpp")

_PREPARE = """
#include <tuple>
#include <utility>
template <class... A, size_t... I>
static std::function<void()> bound(void (*kernel)(A...), void** values, std::index_sequence<I...>, unsigned grid,
                                   int group, unsigned block, unsigned shared) {
    auto arguments = std::make_tuple(*(A*)values[I]...);
    return [=] { emulated::launch(grid, group, block, shared, 0, [&] { std::apply(kernel, arguments); }); };
}
template <class... A>
static std::function<void()> bound(void (*kernel)(A...), void** values, unsigned grid, int group, unsigned block,
                                   unsigned shared) {
    return bound(kernel, values, std::index_sequence_for<A...>(), grid, group, block, shared);
}
#define PREPARE(KERNEL, GROUP_OF) \\
    extern "C" void prepare_##KERNEL(std::function<void()>* to, void** values, unsigned grid, unsigned block, \\
                                     unsigned shared) { \\
        *to = bound(KERNEL, values, grid, GROUP_OF, block, shared); \\
    }
"""


def use(folder: Path) -> ctypes.CDLL:
    """Make CUDA find the stand-in. Returns it; compiled code goes into the folder."""
    library = folder / "libcuda.so.1"
    if not library.exists():
        _gxx(SOURCE, library, "-Wl,-soname,libcuda.so.1")
    stand_in = ctypes.CDLL(str(library))  # found by its name from now on
    for name in ("held", "most_held", "pinned"):
        getattr(stand_in, f"stand_in_{name}").restype = ctypes.c_size_t
    stand_in.stand_in_room.argtypes = [ctypes.c_size_t]

    from cuda.core import ObjectCode

    from extractors.optical_flow.gpu import program, solver

    def compiled(
        files: tuple[str, ...], macros: dict[str, int], architecture: str, *, registers: int | None = None, cache: Path
    ) -> ObjectCode:
        assert architecture == "sm_90"
        name = "_".join([Path(files[-1]).stem, *map(str, macros.values())])
        code, library = folder / f"{name}.cpp", folder / f"{name}.so"
        if not library.exists():
            kernels = (
                [("solve_level", "GROUP")]
                if files is program.LEVEL
                else [(kernel, "1") for kernel in ("to_float", "shrink", "difference", "longest_first")]
            )
            prepared = "\n".join(f"PREPARE({kernel}, {group})" for kernel, group in kernels)
            code.write_text(f'#include "{SHIM}"\n{program.source(files[1:])}\n{_PREPARE}{prepared}\n')
            defined = [f"-D{name}={value}" for name, value in macros.items()]
            _gxx(code, library, "-ffp-contract=off", "-fno-strict-aliasing", *defined)
        return ObjectCode.from_cubin(f"{library}\0".encode())

    pytest.MonkeyPatch().setattr(solver, "compile_kernels", compiled)
    return stand_in


def _gxx(source: Path, library: Path, *options: str) -> None:
    command = ["g++", "-O1", "-std=c++17", "-shared", "-fPIC", "-w", *options, "-o", library, source, "-ldl"]
    subprocess.run(command, check=True)
