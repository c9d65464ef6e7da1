"""Makes processes believe that a machine has another number of cores: a library to preload, built by gcc."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int cores(void) { return atoi(getenv("PRETENDED_CORES")); }
int sched_getaffinity(pid_t pid, size_t size, cpu_set_t *set) {
    memset(set, 0, size);
    for (int core = 0; core < cores(); core++) CPU_SET_S(core, size, set);
    return 0;
}
int pthread_getaffinity_np(unsigned long thread, size_t size, cpu_set_t *set) {
    return sched_getaffinity(0, size, set);
}
int get_nprocs(void) { return cores(); }
int get_nprocs_conf(void) { return cores(); }
long sysconf(int name) {
    long (*real)(int) = dlsym(RTLD_NEXT, "sysconf");
    return name == _SC_NPROCESSORS_ONLN || name == _SC_NPROCESSORS_CONF ? cores() : real(name);
}
"""
# What people and batch systems set for whole machines.
THREAD_VARIABLES = (
    *("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
    *("NUMBA_NUM_THREADS", "OPENCV_FOR_THREADS_NUM", "GOTO_NUM_THREADS"),
)


def pretend_cores(count: int, folder: Path) -> dict[str, str]:
    """Environment of a process that is to see so many cores, and is told to use them all.

    Raises:
        FileNotFoundError: there is no C compiler.
    """
    library, source = folder / "many_cores.so", folder / "many_cores.c"
    if (compiler := shutil.which("gcc")) is None:
        raise FileNotFoundError("there is no gcc")
    source.write_text(_SOURCE)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    told = dict.fromkeys(THREAD_VARIABLES, str(count))
    return {"LD_PRELOAD": str(library), "PRETENDED_CORES": str(count), **told}
