"""Distributes the cores and GPUs of a machine among its workers."""

from __future__ import annotations

import os

from extractors.devices import has_cuda_device, visible_gpus

WORKERS_WITHOUT_GPU = 2


def default_workers() -> int:
    """Return the default number of workers on this machine: one per GPU."""
    # A login profile or an image may name GPUs where there is none.
    return (len(visible_gpus()) if has_cuda_device() else 0) or WORKERS_WITHOUT_GPU


def cores_of(number: int, count: int) -> set[int]:
    """Return the cores of worker `number` of `count`; workers share cores only if they outnumber them."""
    cores = sorted(os.sched_getaffinity(0))
    if count >= len(cores):
        return {cores[number % len(cores)]}
    return set(cores[number * len(cores) // count : (number + 1) * len(cores) // count])


def is_restricted() -> bool:
    """Return whether this process is restricted to some of the machine's cores."""
    return hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) < (os.cpu_count() or 1)


def take_share(number: int, count: int) -> None:
    """Restrict the calling thread, and all threads and processes that it starts, to one worker's cores and GPU.

    TensorFlow, OpenCV, Numba, FFmpeg and `extractors.devices.usable_cores` then count these cores, so that `count`
    workers together start no more threads than one would. Call it before any of them starts threads.
    """
    if hasattr(os, "sched_setaffinity"):  # Linux; elsewhere every worker takes all cores
        os.sched_setaffinity(0, cores_of(number, count))
    gpus = visible_gpus()
    if len(gpus) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
