"""TV-L1 optical flow in batches, compiled by XLA: for GPU workers, on Keras's TensorFlow or JAX backend.

Pairs need very different numbers of iterations. The batch therefore consists of slots that advance on their own: each
has its own place in the loops over warps, rounds and iterations, and when its pair is done at this level of the
pyramid, the next waiting pair takes the slot. All slots move in ticks: warp where it is due, median filter where it is
due, then a few iterations in which finished slots are masked.
"""

from __future__ import annotations

import functools
import itertools
import subprocess
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from extractors.tvl1_parameters import TVL1Parameters, pyramid_sizes
from extractors.tvl1_xla_steps import DataTerm, Motion, gradient, iterate, median_filter, resize, warp, with_margin

# Compiled programs have fixed shapes: shorter runs are padded to this many pairs, longer ones are cut.
PAIRS = 64
# Enough work to keep a GPU's memory busy; beyond it, more slots only wait for the slowest.
PIXELS_IN_FLIGHT = 2_000_000
# A round has up to 30 iterations, 15 on average; a longer tick leaves slots idle, a shorter one filters more often.
ITERATIONS_PER_TICK = 10
TICKS_PER_CALL = 4
SLOTS_WITHOUT_GPU = 2
# State and XLA's temporaries, measured in float32 pictures.
_PICTURES_PER_SLOT = 48


class Slots(NamedTuple):
    """The state of every slot; counters are int32 [slots], flags bool [slots]."""

    pair: object
    motion: Motion
    data: DataTerm
    warps: object  # finished at this level
    rounds: object  # finished since the last warp
    steps: object  # iterations since the last median filter
    change: object  # float32 [slots], the last sum of squared changes of u, pixels^2
    warp_due: object
    median_due: object
    idle: object


def tvl1_xla(frames: np.ndarray, parameters: TVL1Parameters) -> np.ndarray:
    """Compute the optical flow from each frame to the next.

    Args:
        frames: uint8, (T, H, W), grey; T at least 2, H and W at least 16.
        parameters: of the algorithm.

    Returns:
        float32, (T - 1, H, W, 2), pixels; channel 0 is dx (rightwards), channel 1 is dy (down).
    """
    runs = []
    for first in range(0, len(frames) - 1, PAIRS):
        run = frames[first : first + PAIRS + 1]
        padded = np.concatenate([run, np.repeat(run[-1:], PAIRS + 1 - len(run), axis=0)])
        runs.append(_solve(padded, len(run) - 1, parameters))
    return np.concatenate(runs)


def has_gpu() -> bool:
    """Whether Keras's backend computes on a GPU."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() == "gpu"
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def _solve(frames: np.ndarray, pairs: int, parameters: TVL1Parameters) -> np.ndarray:
    levels = [ops.cast(ops.convert_to_tensor(frames), "float32")]
    sizes = pyramid_sizes(*frames.shape[1:], parameters)
    for old, size in itertools.pairwise(sizes):
        shrink = _compiled(resize, old, size=size, scale=(1 / parameters.step, 1 / parameters.step))
        levels.append(shrink(levels[-1]))
    start = ops.zeros((PAIRS + 1, *sizes[-1]), "float32")
    displacement = _solve_level(levels[-1], (start, start), pairs, parameters)
    for level, (size, old) in zip(reversed(levels[:-1]), reversed(list(itertools.pairwise(sizes))), strict=True):
        enlarge = _compiled(resize, old, size=size, scale=(old[0] / size[0], old[1] / size[1]))
        displacement = tuple(enlarge(u) / parameters.step for u in displacement)
        displacement = _solve_level(level, displacement, pairs, parameters)
    return np.stack([ops.convert_to_numpy(u)[:pairs] for u in displacement], axis=-1)


def _solve_level(frames, displacement, pairs: int, parameters: TVL1Parameters):
    """Improve the displacement, two float32 [PAIRS + 1, H, W] whose last item is waste, of the first `pairs` pairs."""
    height, width = frames.shape[1:]
    count = _slot_count(height, width)
    shape = (count, height, width)
    exchange = _compiled(_exchange, shape)
    advance = _compiled(_advance, shape, parameters=parameters)
    taps = _compiled(_lay_out_taps, shape)(frames)
    slots = _empty_slots(count, height, width)
    waiting = 0
    while True:
        idle = ops.convert_to_numpy(slots.idle)
        held = ops.convert_to_numpy(slots.pair)
        newcomers = min(int(idle.sum()), pairs - waiting)
        if newcomers == 0 and idle.all() and (held == PAIRS).all():
            return displacement
        # Slots without a newcomer hold the waste pair.
        successors = np.full(count, PAIRS, np.int32)
        successors[np.flatnonzero(idle)[:newcomers]] = np.arange(waiting, waiting + newcomers)
        waiting += newcomers
        slots, displacement = exchange(slots, displacement, ops.convert_to_tensor(successors))
        slots = advance(slots, frames, taps)


def _lay_out_taps(frames):
    return tuple(with_margin(pictures) for pictures in (frames, *gradient(frames)))


def _empty_slots(count: int, height: int, width: int) -> Slots:
    picture = ops.zeros((count, height, width), "float32")
    counter = ops.zeros((count,), "int32")
    flag = ops.ones((count,), "bool")
    return Slots(
        pair=ops.full((count,), PAIRS, "int32"),
        motion=Motion(*[picture] * len(Motion._fields)),
        data=DataTerm(*[picture] * len(DataTerm._fields)),
        warps=counter,
        rounds=counter,
        steps=counter,
        change=ops.zeros((count,), "float32"),
        warp_due=flag,
        median_due=flag,
        idle=flag,
    )


def _exchange(slots: Slots, displacement, successors):
    """Store what idle slots have found, and give them the next pair (or the waste pair, and they stay idle)."""
    where = slots.idle
    # Busy slots write to the waste item.
    target = ops.reshape(ops.where(where, slots.pair, PAIRS), (-1, 1))
    u1, u2 = (
        ops.scatter_update(found, target, u)
        for found, u in zip(displacement, (slots.motion.u1, slots.motion.u2), strict=True)
    )
    starts = [ops.take(u, successors, axis=0) for u in (u1, u2)]
    fresh = Motion(*starts, *[ops.zeros_like(starts[0])] * 4)
    zero = ops.zeros_like(slots.warps)
    renewed = Slots(
        pair=ops.where(where, successors, slots.pair),
        motion=_choose(where, fresh, slots.motion),
        data=slots.data,
        warps=ops.where(where, zero, slots.warps),
        rounds=ops.where(where, zero, slots.rounds),
        steps=ops.where(where, zero, slots.steps),
        change=slots.change,
        warp_due=ops.logical_or(where, slots.warp_due),
        median_due=ops.logical_or(where, slots.median_due),
        idle=ops.logical_and(where, ops.equal(successors, PAIRS)),
    )
    return renewed, (u1, u2)


def _advance(slots: Slots, frames, taps, *, parameters: TVL1Parameters) -> Slots:
    """Move all slots by `TICKS_PER_CALL` ticks."""
    return ops.fori_loop(0, TICKS_PER_CALL, lambda _, state: _tick(state, frames, taps, parameters), slots)


def _tick(slots: Slots, frames, taps, parameters: TVL1Parameters) -> Slots:
    _, height, width = frames.shape
    limit = parameters.epsilon**2 * height * width
    first = ops.take(frames, ops.minimum(slots.pair, PAIRS - 1), axis=0)
    second_index = ops.minimum(slots.pair + 1, PAIRS)
    warped = warp(first, taps, second_index, slots.motion.u1, slots.motion.u2)
    data = _choose(slots.warp_due, warped, slots.data)
    # Both components at once halve the time that XLA takes to compile the filter.
    both = ops.concatenate([slots.motion.u1, slots.motion.u2], axis=0)
    u1, u2 = ops.split(median_filter(both, parameters.median), 2, axis=0)
    motion = _choose(slots.median_due, slots.motion._replace(u1=u1, u2=u2), slots.motion)

    def step(_, state):
        motion, steps, change, active = state
        moved, moved_change = iterate(
            motion,
            data,
            bound=parameters.lambda_ * parameters.theta,
            tau=parameters.tau,
            inverse_theta=1 / parameters.theta,
        )
        change = ops.where(active, moved_change, change)
        steps = steps + ops.cast(active, "int32")
        motion = _choose(active, moved, motion)
        active = ops.logical_and(active, ops.logical_and(change > limit, steps < parameters.inner))
        return motion, steps, change, active

    busy = ops.logical_not(slots.idle)
    state = (motion, slots.steps, slots.change, busy)
    motion, steps, change, active = ops.fori_loop(0, ITERATIONS_PER_TICK, step, state)

    round_over = ops.logical_and(busy, ops.logical_not(active))
    rounds = slots.rounds + ops.cast(round_over, "int32")
    warp_over = ops.logical_and(round_over, ops.logical_or(change <= limit, rounds >= parameters.outer))
    warps = slots.warps + ops.cast(warp_over, "int32")
    idle = ops.logical_or(slots.idle, warps >= parameters.warps)
    # What an idle slot has found waits, untouched, to be stored.
    busy = ops.logical_not(idle)
    return Slots(
        pair=slots.pair,
        motion=motion,
        data=data,
        warps=warps,
        rounds=ops.where(warp_over, 0, rounds),
        steps=ops.where(round_over, 0, steps),
        change=change,
        warp_due=ops.logical_and(busy, warp_over),
        median_due=ops.logical_and(busy, round_over),
        idle=idle,
    )


def _choose(where, new, old):
    """Per slot, pictures from `new` where the flag is set, else from `old`."""
    where = ops.reshape(where, (-1, 1, 1))
    return type(old)(*(ops.where(where, n, o) for n, o in zip(new, old, strict=True)))


def _slot_count(height: int, width: int) -> int:
    """Slots for pictures of this size: it must not depend on the number of pairs, nor may the results."""
    if not has_gpu():
        return SLOTS_WITHOUT_GPU
    fitting = _free_bytes() // 2 // (_PICTURES_PER_SLOT * 4 * height * width)
    return max(1, min(PAIRS, PIXELS_IN_FLIGHT // (height * width), fitting))


@functools.lru_cache(maxsize=1)
def _free_bytes() -> int:
    """Free memory of the GPU when this engine first ran."""
    if keras.backend.backend() == "jax":
        import jax

        stats = jax.local_devices()[0].memory_stats()
        return stats["bytes_limit"] - stats["bytes_in_use"]
    import tensorflow as tf

    # TensorFlow knows what it has taken, not what there is.
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits", "--id=0"]
    total_mib = int(subprocess.run(query, check=True, capture_output=True, text=True).stdout)
    return total_mib * 2**20 - tf.config.experimental.get_memory_info("GPU:0")["current"]


@functools.cache
def _compiled(function: Callable, shape: tuple[int, ...], **constants: object) -> Callable:
    """Compile `function` for pictures of one shape with XLA: the only place where the backends differ.

    TensorFlow warns of one function that is compiled for many shapes, so that each shape gets its own.
    """
    program = functools.partial(function, **constants)
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(program)
    import tensorflow as tf

    return tf.function(program, jit_compile=True)
