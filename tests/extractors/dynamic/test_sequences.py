from __future__ import annotations

import struct
import tracemalloc
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from extractors.dynamic.sequences import OpticalFlowSequenceLoader
from extractors.errors import VideoError
from extractors.optical_flow.computer import OpticalFlowComputer


def numbered(count: int, height: int = 224, width: int = 224) -> np.ndarray:
    """Optical flow whose field t has dx = t px and dy = -t / 2 px everywhere: float32 [count, height, width, 2]."""
    lengths = np.arange(count, dtype=np.float32)[:, None] * np.array([1.0, -0.5], np.float32)
    return np.ascontiguousarray(np.broadcast_to(lengths[:, None, None], (count, height, width, 2)))


def numbers(window: np.ndarray) -> list[int]:
    """Which field of `numbered` each field of a window is."""
    assert window.dtype == np.float32
    assert window.shape[1:] == (224, 224, 2)
    return np.rint(window[:, 100, 100, 0] * 20).astype(int).tolist()


def write_flo(path: Path, field: np.ndarray) -> None:
    """Middlebury's format: the tag 202021.25, width, height, then dx and dy of each pixel, row by row."""
    height, width = field.shape[:2]
    path.write_bytes(struct.pack("<fii", 202021.25, width, height) + field.astype("<f4").tobytes())


def test_a_longer_sequence_is_trimmed_to_its_middle():
    assert numbers(OpticalFlowSequenceLoader(fields=4).load(numbered(9))) == [2, 3, 4, 5]


def test_a_shorter_sequence_starts_over():
    assert numbers(OpticalFlowSequenceLoader(fields=7).load(numbered(3))) == [0, 1, 2, 0, 1, 2, 0]


def test_a_shorter_sequence_can_be_padded_with_fields_without_motion():
    window = OpticalFlowSequenceLoader(fields=5, shorter="pad").load(numbered(4)[2:])
    assert numbers(window) == [2, 3, 0, 0, 0]
    assert not window[2:].any()


def test_pixels_are_clipped_at_20_and_divided_by_20():
    motion = np.zeros((1, 224, 224, 2), np.float32)
    motion[0, 0, :4] = [(5, -10), (20, -20), (35, -35), (1e9, -1e9)]
    window = OpticalFlowSequenceLoader(fields=1).load(motion)
    np.testing.assert_allclose(window[0, 0, :4], [(0.25, -0.5), (1, -1), (1, -1), (1, -1)])


def test_another_bound_and_other_floats_are_taken_as_they_are_meant():
    motion = np.full((1, 224, 224, 2), 4.0, np.float64)
    window = OpticalFlowSequenceLoader(fields=1, bound_px=8).load(motion)
    assert window.dtype == np.float32
    assert (window == 0.5).all()


def test_the_middle_of_larger_fields_is_taken():
    motion = np.zeros((1, 300, 321, 2), np.float32)
    motion[0, 38:262, 48:272] = 1.0  # (300 - 224) / 2 = 38; (321 - 224) // 2 = 48
    assert (OpticalFlowSequenceLoader(fields=1).load(motion) == 0.05).all()


@pytest.mark.parametrize("kind", ["npy", "npz", "batch of one", "array"])
def test_arrays_are_read_from_every_form_of_file(kind, tmp_path):
    motion = numbered(3)
    source = tmp_path / ("motion.npz" if kind == "npz" else "motion.npy")
    if kind == "npz":
        np.savez_compressed(source, motion=motion)
    else:
        np.save(source, motion[None] if kind == "batch of one" else motion)
    window = OpticalFlowSequenceLoader(fields=3).load(motion if kind == "array" else source)
    np.testing.assert_allclose(window, motion / 20, rtol=1e-6)


def test_values_in_range_already_are_left_alone():
    scaled = numbered(3) / 20
    window = OpticalFlowSequenceLoader(fields=3, values="scaled").load(scaled)
    np.testing.assert_array_equal(window, scaled)


def test_a_folder_of_flo_files_is_a_sequence_in_the_order_of_names_and_one_file_is_one_field(tmp_path):
    for number, field in enumerate(numbered(3, 240, 230)):
        write_flo(tmp_path / f"frame{number}.flo", field)
    loader = OpticalFlowSequenceLoader(fields=3)
    np.testing.assert_allclose(loader.load(tmp_path), numbered(3) / 20, rtol=1e-6)
    assert numbers(loader.load(tmp_path / "frame2.flo")) == [2, 2, 2]


def test_unknown_motion_in_a_flo_file_counts_as_none(tmp_path):
    field = np.full((224, 224, 2), 3.0, np.float32)
    field[10, 10] = 1.6666666e9  # Middlebury's mark
    write_flo(tmp_path / "a.flo", field)
    window = OpticalFlowSequenceLoader(fields=1).load(tmp_path / "a.flo")
    assert (window[0, 10, 10] == 0).all()
    assert window[0, 10, 11, 0] == pytest.approx(0.15)


def test_optical_flow_of_a_video_is_computed_on_the_way(drawing):
    """A texture that moves 3 px right and 1 px up per frame, with the size at which nothing is scaled."""
    noise = np.random.default_rng(0).uniform(0, 255, (320, 340)).astype(np.float32)
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    pictures = (
        np.ascontiguousarray(texture[20 + t : 276 + t, 40 - 3 * t : 296 - 3 * t, None].repeat(3, axis=2))
        for t in range(6)
    )
    video = drawing.write("moving.mp4", pictures, options={"crf": "10"})
    window = OpticalFlowSequenceLoader(fields=5).load(video)
    dx, dy = np.median(window[:, 30:-30, 30:-30], axis=(0, 1, 2)) * 20
    assert dx == pytest.approx(3.0, abs=0.1)
    assert dy == pytest.approx(-1.0, abs=0.1)


def test_only_the_middle_of_a_longer_video_is_computed(drawing):
    """Pictures without motion but for one step in the middle, which the one field wanted lies on."""
    still = np.zeros((256, 256, 3), np.uint8)
    cv2.circle(still, (128, 128), 60, (255, 255, 255), -1)
    moved = np.roll(still, 4, axis=1)
    video = drawing.write("step.mp4", [still] * 3 + [moved] * 3)
    assert OpticalFlowSequenceLoader(fields=1).load(video).max() > 0.1
    assert OpticalFlowSequenceLoader(fields=1).load(drawing.write("still.mp4", [still] * 6)).max() < 0.01


def test_memory_does_not_grow_with_the_length_of_a_video(drawing):
    video = drawing.write("long.mp4", drawing.pictures(400, width=256, height=256), options={"preset": "ultrafast"})
    loader = OpticalFlowSequenceLoader(fields=2, optical_flow=OpticalFlowComputer("cpu", threads=1))
    loader.load(video)
    tracemalloc.start()  # NumPy reports its arrays, and OpenCV allocates its pictures as such
    loader.load(video)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * 224 * 224  # of 400 grey frames


def test_batches_keep_the_order_and_the_last_one_has_the_rest(tmp_path):
    sources: list[Path | np.ndarray] = [numbered(k + 1)[k:] for k in range(4)]
    np.save(tmp_path / "four.npy", numbered(5)[4:])
    batches = list(OpticalFlowSequenceLoader(fields=2, batch_size=2).batches([*sources, tmp_path / "four.npy"]))
    assert [batch.shape for batch in batches] == [(2, 2, 224, 224, 2)] * 2 + [(1, 2, 224, 224, 2)]
    assert [numbers(window)[0] for batch in batches for window in batch] == [0, 1, 2, 3, 4]


def test_sources_are_loaded_no_further_than_the_batch_that_is_asked_for():
    batches = OpticalFlowSequenceLoader(fields=1, batch_size=1).batches([numbered(1), Path("absent.npy")])
    next(batches)
    with pytest.raises(FileNotFoundError, match=r"absent\.npy"):
        next(batches)


@pytest.mark.parametrize(
    ("motion", "words"),
    [
        (np.zeros((3, 224, 224, 3), np.float32), r"\(3, 224, 224, 3\)"),
        (np.zeros((3, 112, 112, 2), np.float32), "224"),
        (np.zeros((0, 224, 224, 2), np.float32), "T at least 1"),
        (np.zeros((2, 3, 224, 224, 2), np.float32), "got"),
        (np.zeros((3, 224, 224, 2), np.uint8), "uint8"),
        (np.full((3, 224, 224, 2), np.nan, np.float32), "NaN"),
    ],
)
def test_what_is_no_optical_flow_is_refused_with_what_was_expected(motion, words, tmp_path):
    loader = OpticalFlowSequenceLoader(fields=3)
    with pytest.raises(ValueError, match=words):
        loader.load(motion)
    np.save(tmp_path / "wrong.npy", motion)
    with pytest.raises(ValueError, match=rf"wrong\.npy: .*{words}"):
        loader.load(tmp_path / "wrong.npy")


def test_pixels_are_not_taken_for_scaled_values():
    with pytest.raises(ValueError, match=r"\[-1, 1\]"):
        OpticalFlowSequenceLoader(fields=3, values="scaled").load(numbered(3))


@pytest.mark.parametrize("name", ["damaged.npy", "damaged.npz", "damaged.flo"])
def test_files_that_are_not_what_their_names_say_are_refused_by_name(name, tmp_path):
    for content in (b"", b"no optical flow at all"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            OpticalFlowSequenceLoader().load(tmp_path / name)


def test_an_archive_of_several_arrays_and_a_folder_without_flo_files_are_refused(tmp_path):
    np.savez(tmp_path / "two.npz", a=np.zeros(1), b=np.zeros(1))
    with pytest.raises(ValueError, match="a, b"):
        OpticalFlowSequenceLoader().load(tmp_path / "two.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"\.flo"):
        OpticalFlowSequenceLoader().load(tmp_path / "empty")


def test_npz_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("arr_0.npy", b"no array")
    with pytest.raises(ValueError, match=r"other\.npz"):
        OpticalFlowSequenceLoader().load(tmp_path / "other.npz")


def test_an_array_file_that_would_run_code_is_refused(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"objects\.npy"):
        OpticalFlowSequenceLoader().load(tmp_path / "objects.npy")


def test_a_video_that_shows_no_motion_or_cannot_be_read_is_a_video_error(drawing):
    with pytest.raises(VideoError) as caught:
        OpticalFlowSequenceLoader().load(drawing.write("one.mp4", drawing.pictures(1)))
    assert caught.value.reason == "too_short"
    (drawing.folder / "text.mp4").write_text("no video")
    with pytest.raises(VideoError):
        OpticalFlowSequenceLoader().load(drawing.folder / "text.mp4")


@pytest.mark.parametrize(
    "settings",
    [{"fields": 0}, {"batch_size": 0}, {"bound_px": 0}, {"fps": -1}, {"shorter": "trim"}, {"values": "metres"}],
)
def test_a_setting_out_of_range_is_refused_by_its_name(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=name):
        OpticalFlowSequenceLoader(**settings)
