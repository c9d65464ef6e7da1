"""The hardware that this process may use: cores and GPUs."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path, PurePosixPath

# Linux shows control groups here: one tree for version 2, one tree per controller for version 1.
_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_CGROUPS_V1 = {"cpu": ("cpu", "cpu,cpuacct", "cpuacct,cpu"), "memory": ("memory",)}

_DEVICE_FILES = Path("/dev")
# Of NVIDIA's driver, also in containers, and the Windows Subsystem for Linux; AMD's driver.
_CUDA_DEVICES = ("nvidiactl", "nvidia[0-9]*", "dxg")
_OTHER_GPU_DEVICES = ("kfd",)
_GPU_NAME = re.compile(r"\d+$|GPU-|MIG-")


def usable_cores() -> int:
    """Return how many cores this process may use, at least 1.

    This is the number of cores that it may run on, or fewer if its control group (a container, a service, a batch job)
    limits its processor time. Part of a core counts as one.
    """
    # os.cpu_count() is None if the number is unknown.
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _cpu_quota())))


def _cpu_quota() -> float:
    """Return the processor time that control groups grant this process, in cores; infinite without a limit."""
    return min((share for folder in _groups("cpu") if (share := _share(folder)) is not None), default=math.inf)


def memory_left() -> float:
    """Return how much memory control groups still grant this process, in bytes; infinite without a limit."""
    return min((left for folder in _groups("memory") if (left := _left(folder)) is not None), default=math.inf)


def _groups(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control groups that may limit processor time or memory, and their parents.

    The limits of all parent groups apply as well. A container may see only part of the tree: a missing group sets no
    limit, and the container's own group is then at the root.
    """
    try:
        lines = _MEMBERSHIP.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        inner = PurePosixPath(group).relative_to("/")
        trees: tuple[str, ...] = ()
        if not controllers:
            trees = (".",)
        elif controller in controllers.split(","):
            trees = _CGROUPS_V1[controller]
        for tree in trees:
            yield from (_CGROUPS / tree / folder for folder in (inner, *inner.parents))


def _share(folder: Path) -> float | None:
    """Return the limit in one group's files, in cores; None without a limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):  # ValueError: "max"
        return None


def _left(folder: Path) -> int | None:
    """Return the memory that is left in one group, in bytes; None without a limit."""
    old = (folder / "memory.limit_in_bytes").exists()
    limit, used = ("limit_in_bytes", "usage_in_bytes") if old else ("max", "current")
    try:
        facts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        # Files that were read lately count as used, but make room.
        files = int(facts["total_inactive_file" if old else "inactive_file"])
        most, now = (int((folder / f"memory.{name}").read_text()) for name in (limit, used))
    except (OSError, ValueError, KeyError):  # ValueError: "max"
        return None
    return max(0, most - now + files)


def visible_gpus() -> list[str]:
    """Return the NVIDIA GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them. Loads no library."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        names = (name.strip() for name in chosen.split(","))
        return list(takewhile(_GPU_NAME.match, names))  # CUDA stops at the first that is no GPU
    # CUDA counts from 0, although a container that was given the second and the third GPU has nvidia1 and nvidia2.
    files = (path.name.removeprefix("nvidia") for path in _DEVICE_FILES.glob("nvidia[0-9]*"))
    return [str(number) for number in range(sum(name.isdigit() for name in files))]


def has_cuda_device() -> bool:
    """Return whether the system shows an NVIDIA GPU. Loads no library."""
    return _exists(*_CUDA_DEVICES)


def has_gpu() -> bool:
    """Return whether TensorFlow computes on a GPU."""
    # It takes seconds to load, which is wasted if the machine has no GPU at all.
    if not _exists(*_CUDA_DEVICES, *_OTHER_GPU_DEVICES):
        return False
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def cuda_capability() -> tuple[int, int] | None:
    """Return the compute capability of the NVIDIA GPU that TensorFlow computes on; None without one."""
    if not has_gpu():
        return None
    import tensorflow as tf

    details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
    capability: tuple[int, int] | None = details.get("compute_capability")  # not of GPUs of other makers
    return capability


def _exists(*patterns: str) -> bool:
    return any(True for pattern in patterns for _ in _DEVICE_FILES.glob(pattern))
