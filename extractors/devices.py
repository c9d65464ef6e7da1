"""What this machine computes with: the cores that this process may use, and whether there is a GPU."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# Where Linux shows control groups: one tree for version 2; for version 1 a tree for each controller.
_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_CGROUPS_V1 = ("cpu", "cpu,cpuacct", "cpuacct,cpu")

# Device files of GPUs in /dev: NVIDIA's driver, the Windows Subsystem for Linux, AMD's driver.
GPU_DEVICES = ("nvidia[0-9]*", "dxg", "kfd")


def usable_cores() -> int:
    """How many cores this process may use, at least 1.

    That is the number of cores that it may run on, or fewer if its control group (a container, a service, a batch job)
    gets less processor time than they have. Part of a core counts as one.
    """
    # os.cpu_count() is None if the system does not tell.
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _cpu_quota())))


def _cpu_quota() -> float:
    """Cores' worth of processor time that control groups grant this process; infinite without a limit."""
    # The limit of every group above counts as well. A container may see only part of the tree: what is missing is no
    # limit, and the container's own group then stands at the root.
    shares = (_share(folder) for group in _groups() for folder in (group, *group.parents))
    return min((share for share in shares if share is not None), default=math.inf)


def _groups() -> Iterator[Path]:
    """Folders of the control groups that this process is in, if they limit processor time."""
    try:
        lines = _MEMBERSHIP.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        inner = PurePosixPath(group).relative_to("/")
        if not controllers:
            yield _CGROUPS / inner
        elif "cpu" in controllers.split(","):
            yield from (_CGROUPS / name / inner for name in _CGROUPS_V1)


def _share(folder: Path) -> float | None:
    """The limit that one group's files state, in cores; None without one."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):  # ValueError: "max"
        return None


def visible_gpus() -> list[str]:
    """NVIDIA GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them. Loads no library."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name not in ("", "-1")]
    numbers = (path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))
    return sorted((number for number in numbers if number.isdigit()), key=int)


def has_gpu() -> bool:
    """Whether Keras's backend computes on a GPU."""
    # Keras and its backend take seconds to load, which is wasted if the machine has no GPU at all.
    if not any(device for pattern in GPU_DEVICES for device in Path("/dev").glob(pattern)):
        return False
    import keras

    if keras.backend.backend() == "jax":
        import jax

        return bool(jax.default_backend() == "gpu")
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))
