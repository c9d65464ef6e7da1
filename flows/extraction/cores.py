"""One machine's cores and GPUs, dealt out to the workers on it."""

from __future__ import annotations

import os

from extractors.devices import visible_gpus

WORKERS_WITHOUT_GPU = 2


def default_workers() -> int:
    """How many workers this machine gets where nobody says: one for each GPU."""
    return len(visible_gpus()) or WORKERS_WITHOUT_GPU


def cores_of(number: int, count: int) -> set[int]:
    """The cores of worker `number` of `count`: cores that no other has, unless there are more workers than cores."""
    cores = sorted(os.sched_getaffinity(0))
    if count >= len(cores):
        return {cores[number % len(cores)]}
    return set(cores[number * len(cores) // count : (number + 1) * len(cores) // count])


def is_restricted() -> bool:
    """Whether somebody has kept this process to some of the machine's cores."""
    return hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) < (os.cpu_count() or 1)


def take_share(number: int, count: int) -> None:
    """Keep the calling thread, and all threads and processes that it will start, to one worker's cores and GPU.

    All that counts cores (TensorFlow, OpenCV, Numba, FFmpeg, `extractors.devices.usable_cores`) counts these, so
    that `count` workers start no more threads than one would. Call it before any of them starts threads.
    """
    if hasattr(os, "sched_setaffinity"):  # Linux; elsewhere every worker takes all cores
        os.sched_setaffinity(0, cores_of(number, count))
    gpus = visible_gpus()
    if len(gpus) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
