"""TV-L1 optical flow by OpenCV: the reference that the other engines are measured against."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from extractors.optical_flow.parameters import TVL1Parameters


def tvl1_opencv(frames: np.ndarray, parameters: TVL1Parameters, *, threads: int) -> np.ndarray:
    """Do as `OpticalFlowComputer.compute`, on two frames or more, with `cv2.optflow`.

    OpenCV releases the GIL. Its own threads gain little on one pair, so several pairs are computed at the same time.
    The number of its own threads is a setting of the whole process, and is therefore left as it is.
    """
    pairs = len(frames) - 1
    workers = min(threads, pairs)
    displacement_px = np.empty((pairs, *frames.shape[1:], 2), np.float32)

    waiting = iter(range(pairs))  # shared by the threads: a slow pair or a busy core does not hold up the others

    def take_pairs(_: int) -> None:
        # The object keeps its buffers between pairs and is not safe to share between threads.
        solver = cv2.optflow.DualTVL1OpticalFlow_create(  # type: ignore[attr-defined]  # OpenCV's stubs lack it
            tau=parameters.tau,
            lambda_=parameters.lambda_,
            theta=parameters.theta,
            nscales=parameters.scales,
            warps=parameters.warps,
            epsilon=parameters.epsilon,
            innnerIterations=parameters.inner,
            outerIterations=parameters.outer,
            scaleStep=parameters.step,
            medianFiltering=parameters.median,
        )
        for pair in waiting:
            displacement_px[pair] = solver.calc(frames[pair], frames[pair + 1], None)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(take_pairs, range(workers)))
    return displacement_px
