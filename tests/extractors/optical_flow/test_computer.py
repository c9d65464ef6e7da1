"""Optical flow against motion that the test drew itself, and the laws that every engine keeps."""

from __future__ import annotations

import json
import logging
import sys
from functools import partial
from typing import get_args

import cv2
import numpy as np
import pytest
from gpu import NEEDS_GPU

from extractors.errors import DeviceError
from extractors.optical_flow import computer
from extractors.optical_flow.computer import OpticalFlowComputer, engine_of, loop_to, scale_for_i3d
from extractors.optical_flow.gpu import HIDDEN, NO_GPU
from extractors.optical_flow.parameters import EXACT, PRESETS, OpticalFlowSettings, Preset, TVL1Parameters

GPU = pytest.param("gpu", marks=NEEDS_GPU)
ENGINES = ("opencv", "cpu", GPU)
OWN_ENGINES = ("cpu", GPU)
SIDE = 64
PARAMETERS = TVL1Parameters(scales=2)


def drawn_texture(x: np.ndarray, y: np.ndarray, longest_px: float = 30) -> np.ndarray:
    """A smooth texture of waves of 6 to `longest_px` pixels that can be drawn at any real position: uint8."""
    rng = np.random.default_rng(0)
    value = np.zeros(np.broadcast(x, y).shape)
    for _ in range(40):
        angle, phase = rng.uniform(0, 2 * np.pi, 2)
        frequency = 2 * np.pi / rng.uniform(6, longest_px)
        value += np.sin(frequency * (x * np.cos(angle) + y * np.sin(angle)) + phase)
    return np.clip(np.rint(128 + 18 * value), 0, 255).astype(np.uint8)


def frames_moved_by(displacement_px: np.ndarray, longest_px: float = 30) -> np.ndarray:
    """Two frames: the point at (x, y) in the first is at (x + dx, y + dy) in the second."""
    height, width = displacement_px.shape[:2]
    y, x = np.mgrid[:height, :width].astype(float)
    # Drawn backwards, so that the truth is exact: the second frame is the plain texture.
    moved = x + displacement_px[..., 0], y + displacement_px[..., 1]
    return np.stack([drawn_texture(*moved, longest_px), drawn_texture(x, y, longest_px)])


def end_point_error(field: np.ndarray, truth: np.ndarray, border: int = 8) -> float:
    inside = (slice(border, -border), slice(border, -border))
    return float(np.linalg.norm(field - truth, axis=-1)[inside].mean())


def shift(dx: float, dy: float, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    return np.broadcast_to(np.float32([dx, dy]), (height, width, 2))


def zoom_and_turn(height: int = SIDE, width: int = SIDE) -> np.ndarray:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x -= width / 2
    y -= height / 2
    return np.stack([0.03 * x - 0.04 * y, 0.04 * x + 0.03 * y], axis=-1)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "truth", [shift(3, 0), shift(-0.4, 1.3), zoom_and_turn()], ids=["3 px right", "sub-pixel", "zoom and turn"]
)
def test_drawn_motion_is_recovered(engine, truth):
    field = OpticalFlowComputer(engine, parameters=PARAMETERS).compute(frames_moved_by(truth))
    assert field.shape == (1, SIDE, SIDE, 2)
    assert field.dtype == np.float32
    assert end_point_error(field[0], truth) < 0.1


LARGE_MOTIONS = {
    "20 px right": shift(20, 0, 160, 160),
    "20 px aslant": shift(-12, 16, 160, 160),
    "zoom and turn by up to 22 px": 4 * zoom_and_turn(160, 160),
}


@pytest.mark.parametrize(
    ("engine", "motion"),
    [("opencv", "20 px aslant")]
    + [("cpu", motion) for motion in LARGE_MOTIONS]
    + [pytest.param("gpu", motion, marks=NEEDS_GPU) for motion in LARGE_MOTIONS],
)
def test_large_motion_is_recovered_by_the_preset_for_it(engine, motion):
    truth = LARGE_MOTIONS[motion]
    frames = frames_moved_by(truth, longest_px=120)
    assert end_point_error(OpticalFlowComputer(engine, "large_motion").compute(frames)[0], truth, border=24) < 0.2


@pytest.mark.parametrize("motion", LARGE_MOTIONS)
def test_the_preset_with_opencvs_five_scales_loses_large_motion(motion):
    truth = LARGE_MOTIONS[motion]
    frames = frames_moved_by(truth, longest_px=120)
    assert end_point_error(OpticalFlowComputer("cpu", "exact").compute(frames)[0], truth, border=24) > 2


@pytest.mark.parametrize("engine", OWN_ENGINES)
@pytest.mark.parametrize("truth", [shift(2, -1), zoom_and_turn()], ids=["shift", "zoom and turn"])
def test_error_on_drawn_motion_is_within_a_hundredth_of_opencv(engine, truth):
    frames = frames_moved_by(truth)
    reference = end_point_error(OpticalFlowComputer("opencv", parameters=PARAMETERS).compute(frames)[0], truth)
    field = OpticalFlowComputer(engine, parameters=PARAMETERS).compute(frames)[0]
    assert end_point_error(field, truth) <= 1.01 * reference


@pytest.mark.parametrize("engine", ENGINES)
def test_frames_that_do_not_change_have_exactly_no_motion(engine):
    computer = OpticalFlowComputer(engine, parameters=PARAMETERS)
    assert not computer.compute(np.full((3, SIDE, SIDE), 200, np.uint8)).any()
    assert not computer.compute(np.repeat(frames_moved_by(shift(0, 0))[:1], 2, axis=0)).any()


@pytest.mark.parametrize("engine", ["opencv", "cpu", GPU])
def test_the_smallest_picture_gives_the_motion(engine):
    truth = shift(1, 0, 16, 33)
    field = OpticalFlowComputer(engine, parameters=PARAMETERS).compute(frames_moved_by(truth))
    assert field.shape == (1, 16, 33, 2)
    assert end_point_error(field[0], truth, border=4) < 0.2


@pytest.mark.parametrize("size", [(16, 300), (300, 17), (40, 256), (33, 257), (20, 600)])
def test_pictures_wider_than_one_panel_of_memory_match_opencv(size):
    frames = frames_moved_by(shift(0.7, -0.3, *size))
    reference = OpticalFlowComputer("opencv").compute(frames)
    field = OpticalFlowComputer("cpu").compute(frames)
    assert np.linalg.norm(field - reference, axis=-1).mean() < 0.01


@pytest.mark.parametrize("engine", ["cpu", GPU])
def test_levels_of_equal_size_match_opencv(engine):
    parameters = TVL1Parameters(step=0.98, scales=2)  # 16 x 0.98 is rounded to 16
    frames = frames_moved_by(shift(0.5, 0.2, 16, 16))
    reference = OpticalFlowComputer("opencv", parameters=parameters).compute(frames)
    field = OpticalFlowComputer(engine, parameters=parameters).compute(frames)
    assert np.linalg.norm(field - reference, axis=-1).mean() < 0.01


def test_order_in_memory_does_not_matter():
    frames = frames_moved_by(zoom_and_turn())
    computer = OpticalFlowComputer("cpu", parameters=PARAMETERS)
    turned = np.ascontiguousarray(frames.transpose(0, 2, 1)).transpose(0, 2, 1)
    np.testing.assert_array_equal(computer.compute(turned), computer.compute(frames))


@pytest.mark.parametrize("median", [1, 3])
@pytest.mark.parametrize("engine", ["cpu", GPU])
def test_other_median_filters_match_opencv(engine, median):
    parameters = TVL1Parameters(median=median, scales=1)
    frames = frames_moved_by(0.3 * zoom_and_turn())
    reference = OpticalFlowComputer("opencv", parameters=parameters).compute(frames)
    field = OpticalFlowComputer(engine, parameters=parameters).compute(frames)
    assert np.linalg.norm(field - reference, axis=-1).mean() < 0.01


@pytest.mark.parametrize("engine", ENGINES)
def test_result_does_not_depend_on_threads_nor_on_the_neighbours_in_the_batch(engine):
    moving = frames_moved_by(zoom_and_turn())
    frames = np.concatenate([moving, frames_moved_by(shift(1, 1)), moving[:1]])
    together = OpticalFlowComputer(engine, threads=3, parameters=PARAMETERS).compute(frames)
    one_thread = OpticalFlowComputer(engine, threads=1, parameters=PARAMETERS)
    alone = [one_thread.compute(frames[i : i + 2])[0] for i in range(len(frames) - 1)]
    np.testing.assert_array_equal(together, np.stack(alone))


def test_opencvs_own_number_of_threads_stays_as_it_is():
    """It belongs to the whole process, and may be set by others while optical flow is computed."""
    set_meanwhile = []

    class Frames(np.ndarray):
        def __getitem__(self, pair):
            if not set_meanwhile:
                set_meanwhile.append(cv2.getNumThreads())
                cv2.setNumThreads(3)
            return np.asarray(self)[pair]

    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(2)
        OpticalFlowComputer("opencv", parameters=PARAMETERS).compute(frames_moved_by(shift(1, 0)).view(Frames))
        assert set_meanwhile == [2]
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)


def test_one_frame_has_no_motion_field():
    assert OpticalFlowComputer("cpu").compute(np.zeros((1, 20, 24), np.uint8)).shape == (0, 20, 24, 2)


@pytest.mark.parametrize(
    ("frames", "rule"),
    [
        (np.zeros((2, 32, 32), np.float32), "uint8"),
        (np.zeros((2, 32, 32, 3), np.uint8), "uint8"),
        (np.zeros((0, 32, 32), np.uint8), "a frame"),
        (np.zeros((2, 15, 32), np.uint8), "at least 16 px"),
    ],
)
def test_unusable_frames_are_refused_with_the_rule(frames, rule):
    with pytest.raises(ValueError, match=rule):
        OpticalFlowComputer("opencv").compute(frames)


def test_key_holds_what_changes_the_numbers_and_nothing_else():
    exact = OpticalFlowComputer("cpu", "exact", threads=1).numerics
    assert json.loads(json.dumps(exact)) == exact
    assert OpticalFlowComputer("cpu", "exact", threads=2).numerics == exact
    assert OpticalFlowComputer("cpu", parameters=EXACT).numerics == exact
    assert OpticalFlowComputer("cpu", "fast").numerics != exact
    assert OpticalFlowComputer("opencv", "exact").numerics != exact
    assert OpticalFlowComputer("gpu", "exact").numerics == exact | {"engine": "gpu"}  # also where there is no GPU


@pytest.mark.parametrize("engine", ["cpu", "gpu", "opencv"])
def test_the_engine_is_found_from_its_key(engine):
    assert engine_of(OpticalFlowComputer(engine).numerics) == engine


@pytest.mark.parametrize("preset", get_args(Preset))
def test_every_preset_has_parameters_of_its_own(preset):
    assert OpticalFlowComputer("opencv", preset).parameters == PRESETS[preset]
    assert len({parameters.model_dump_json() for parameters in PRESETS.values()}) == len(get_args(Preset))


def test_parameters_replace_a_preset():
    settings = OpticalFlowSettings(engine="opencv", preset="fast", parameters=TVL1Parameters(warps=2), threads=1)
    computer = OpticalFlowComputer.from_settings(settings)
    assert computer.parameters == TVL1Parameters(warps=2)
    assert computer.threads == 1


def test_opencv_takes_over_with_a_warning_where_numba_is_missing(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "extractors.optical_flow.cpu.engine", None)
    with caplog.at_level(logging.WARNING, logger="extractors.optical_flow.computer"):
        assert OpticalFlowComputer("cpu").engine == "opencv"
    assert "OpenCV" in caplog.text


@pytest.mark.parametrize("shown", [False, True], ids=["none", "hidden"])
def test_the_gpu_engine_is_never_replaced_by_one_with_other_numbers_unless_the_choice_is_left_open(
    monkeypatch, caplog, shown
):
    monkeypatch.setattr(computer, "has_cuda_device", lambda: shown)
    monkeypatch.setattr(computer, "why_unusable", lambda: HIDDEN)
    with caplog.at_level(logging.WARNING, logger="extractors.optical_flow"):
        assert OpticalFlowComputer("auto").engine == "cpu"
    assert not caplog.text
    chosen = OpticalFlowComputer("gpu")
    frames = np.zeros((2, 32, 32), np.uint8)
    for call in (chosen.check, partial(chosen.compute, frames), partial(chosen.compute_scaled, frames)):
        with pytest.raises(DeviceError, match=HIDDEN.found if shown else NO_GPU.found):
            call()


def test_a_gpu_without_cuda_core_is_left_idle_with_what_to_install(monkeypatch, caplog):
    monkeypatch.setattr(computer, "has_cuda_device", lambda: True)
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    with caplog.at_level(logging.WARNING, logger="extractors.optical_flow"):
        assert OpticalFlowComputer("auto").engine == "cpu"
    assert "pip install 'traitline[gpu]'" in caplog.text


def test_windows_are_computed_and_scaled_together():
    windows = np.stack([frames_moved_by(shift(3, 0)), frames_moved_by(zoom_and_turn())])
    computer = OpticalFlowComputer("cpu", parameters=PARAMETERS)
    scaled = computer.compute_scaled(windows, bound_px=2)
    expected = [scale_for_i3d(computer.compute(window), bound_px=2) for window in windows]
    np.testing.assert_array_equal(np.from_dlpack(scaled), np.stack(expected))
    np.testing.assert_array_equal(computer.compute_scaled(windows[0], bound_px=2), scaled[0])


@pytest.mark.parametrize(
    ("frames", "bound_px", "rule"),
    [
        (np.zeros((1, 32, 32), np.uint8), 20, "2 frames"),
        (np.zeros((2, 32, 32), np.uint8), 0, "bound_px"),
        (np.zeros((32, 32), np.uint8), 20, "uint8"),
        (np.zeros((0, 2, 32, 32), np.uint8), 20, "a frame"),
    ],
)
def test_unusable_windows_are_refused_with_the_rule(frames, bound_px, rule):
    with pytest.raises(ValueError, match=rule):
        OpticalFlowComputer("opencv").compute_scaled(frames, bound_px=bound_px)


def test_displacements_are_clipped_and_scaled_for_i3d():
    scaled = scale_for_i3d(np.float32([[-40, 10], [0, 20]]), bound_px=20)
    np.testing.assert_array_equal(scaled, np.float32([[-1, 0.5], [0, 1]]))
    assert scaled.dtype == np.float32
    with pytest.raises(ValueError, match="bound_px"):
        scale_for_i3d(np.zeros((2, 2), np.float32), bound_px=0)
    with pytest.raises(ValueError, match="last axis"):
        scale_for_i3d(np.zeros((2, 3), np.float32))


@pytest.mark.parametrize(("count", "expected"), [(3, [0, 1, 2]), (4, [0, 1, 2, 0]), (7, [0, 1, 2, 0, 1, 2, 0])])
def test_short_runs_start_over(count, expected):
    assert loop_to(np.arange(3), count).tolist() == expected


@pytest.mark.parametrize(("fields", "count"), [(0, 3), (4, 3)])
def test_nothing_and_too_much_cannot_be_looped(fields, count):
    with pytest.raises(ValueError, match="looped"):
        loop_to(np.arange(fields), count)
