"""Child processes that prepare videos: the same numbers as without them, and no harm from one that dies or hangs."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from face_tracks import track_of

from extractors.errors import VideoError
from extractors.faces.settings import CropSettings
from extractors.faces.track import FaceTrack
from extractors.optical_flow.parameters import OpticalFlowSettings
from extractors.preparation.pool import HEAD_BYTES, SENT_AHEAD_BYTES, SLOTS, Finished, PreparerPool
from extractors.preparation.preparer import FaceCrop, Motion, Preparer, Request
from extractors.preparation.stopwatch import Stopwatch
from extractors.video.grid import grid_frames


@pytest.fixture(scope="module")
def pool(settings) -> Iterator[PreparerPool]:
    """One child for many tests: whatever they do to it, the next one must be served."""
    with PreparerPool(settings, 1, stall_s=60) as pool:
        yield pool


def request(path: Path, **changes: object) -> Request:
    return Request(**{"path": path, "track": None, "static": True, "dynamic": True, **changes})


def copied(part: object) -> object:
    return Motion(part.window, part.fields.copy()) if isinstance(part, Motion) else part


def gathered(pool: PreparerPool, *requests: Request) -> list[list[object]]:
    """All parts of each request."""
    parts: list[list[object]] = [[] for _ in requests]
    for number, part in pool.prepare(requests):
        parts[number].append(copied(part))
    return parts


def child_of(pool: PreparerPool) -> int:
    return pool._children[0]._process.pid


def end_child(pool: PreparerPool, reason: signal.Signals) -> None:
    """Kill the child, and wait until it is dead (a zombie: the pool has not asked for it yet)."""
    child = child_of(pool)
    os.kill(child, reason)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)


def disturb(pool: PreparerPool, clip: Path, harm: Callable[[int], None]) -> list[object]:
    """Prepare a clip while `harm` is done to the child process at the first part of each try."""
    parts = []
    for _, part in pool.prepare([request(clip)]):
        parts.append(part)
        if isinstance(part, FaceTrack):
            harm(child_of(pool))
    # Whatever was done, the next video is prepared.
    (after,) = gathered(pool, request(clip, dynamic=False))
    assert isinstance(after[-1], Finished)
    return parts


def test_parts_are_those_of_the_same_code_without_child_processes(settings, clip, drawing):
    lying = [np.ascontiguousarray(np.rot90(picture)) for picture in grid_frames(clip, 25.0)]
    paths = [clip, drawing.write("turned.mp4", lying, turn={"degrees": -90})]
    alone = []
    with Preparer(settings, lambda: None) as preparer:
        for path in paths:
            alone.append(list(preparer.prepare(request(path), Stopwatch())))
    with PreparerPool(settings, 1, stall_s=60) as pool:  # so that one child has both
        results = gathered(pool, *map(request, paths))
    for expected, (*found, end) in zip(alone, results, strict=True):
        assert isinstance(end, Finished)
        assert {"decode", "faces", "optical flow"} == set(end.seconds)
        assert [type(part) for part in found] == [type(part) for part in expected]
        for one, other in zip(found, expected, strict=True):
            match one:
                case FaceTrack():
                    np.testing.assert_array_equal(one.to_rows(), other.to_rows())
                case FaceCrop():
                    assert one.frame == other.frame
                    np.testing.assert_array_equal(one.pixels, other.pixels)
                case Motion():
                    assert one.window == other.window
                    np.testing.assert_array_equal(one.fields, other.fields)


def test_more_windows_than_slots_come_in_order(settings, corpus):
    short = replace(settings, crops=CropSettings(window_fields=9, min_fields=9))
    with PreparerPool(short, 1, stall_s=60) as pool:
        (parts,) = gathered(pool, request(corpus / "plain" / "single_face.mp4", static=False))
    windows = [part.window.index for part in parts if isinstance(part, Motion)]
    assert windows == list(range(6))
    assert len(windows) > SLOTS
    assert not any(isinstance(part, FaceCrop) for part in parts)


def test_a_video_is_decoded_once_if_its_frames_fit_into_memory(settings, clip, monkeypatch):
    """And the parts are the same bits if they do not."""
    request = Request(clip, static=True, dynamic=True)
    with Preparer(settings, lambda: None) as preparer:
        with monkeypatch.context() as patch:
            patch.setattr("extractors.preparation.preparer.KEPT_SHARE", 0.0)
            twice = list(preparer.prepare(request, Stopwatch()))
        monkeypatch.setattr("extractors.preparation.preparer.grid_frames", None)  # the second pass
        once = list(preparer.prepare(request, Stopwatch()))
    assert [type(part) for part in once] == [type(part) for part in twice]
    assert {FaceTrack, FaceCrop, Motion} == {type(part) for part in once}
    for part, other in zip(once, twice, strict=True):
        for name, value in vars(part).items():
            np.testing.assert_array_equal(value, vars(other)[name])


def test_an_engine_of_the_parent_gets_grey_frames(settings, clip):
    with PreparerPool(replace(settings, optical_flow=OpticalFlowSettings(engine="gpu")), 1, stall_s=60) as pool:
        (parts,) = gathered(pool, request(clip))
    motion = next(part for part in parts if isinstance(part, Motion))
    assert motion.fields.dtype == np.uint8
    assert motion.fields.shape == (motion.window.fields + 1, 224, 224)
    assert motion.fields.std() > 10


def test_a_known_track_is_not_looked_for_again(pool, clip):
    (first,) = gathered(pool, request(clip))
    (second,) = gathered(pool, request(clip, track=first[0]))
    assert not any(isinstance(part, FaceTrack) for part in second)
    assert "faces" not in second[-1].seconds


def test_bad_videos_are_refused_with_their_reasons_among_good_ones(pool, clip, corpus):
    paths = [corpus / "hard" / "empty.mp4", clip, corpus / "hard" / "crashes_decoder_qcif_rgb.avi", Path("missing.mp4")]
    empty, good, crashing, missing = gathered(pool, *map(request, paths))
    assert (empty[-1].stage, empty[-1].reason) == ("decode", "not_a_video")
    assert isinstance(good[-1], Finished)
    assert isinstance(crashing[-1], VideoError)
    assert (missing[-1].stage, missing[-1].reason) == ("decode", "unreadable")


def test_a_child_has_no_network(pool, clip):
    gathered(pool, request(clip, dynamic=False))
    status = Path(f"/proc/{child_of(pool)}/status").read_text()
    assert "Seccomp:\t2\n" in status  # filtered; `OfflineThread`'s tests say what that filter does


def test_a_crash_is_the_videos_fault_and_the_next_one_is_served(pool, clip):
    parts = disturb(pool, clip, lambda child: os.kill(child, signal.SIGSEGV))
    assert (parts[-1].stage, parts[-1].reason) == ("decode", "decoder_crashed")
    assert "SIGSEGV" in parts[-1].message


def test_a_child_killed_from_outside_gets_a_second_try(pool, clip):
    killed = []

    def kill_once(child: int) -> None:
        if not killed:
            killed.append(child)
            os.kill(child, signal.SIGKILL)

    parts = disturb(pool, clip, kill_once)
    assert len(killed) == 1
    assert sum(isinstance(part, FaceTrack) for part in parts) == 2
    assert isinstance(parts[-1], Finished)


def test_a_video_on_which_children_get_killed_again_and_again_is_refused(pool, clip):
    parts = disturb(pool, clip, lambda child: os.kill(child, signal.SIGKILL))
    assert parts[-1].reason == "decoder_crashed"


def test_a_child_that_hangs_is_given_up(settings, clip):
    """The short wait holds only while the child is stopped: a working one may need seconds on a busy machine."""
    with PreparerPool(settings, 1, stall_s=60) as pool:

        def stop(child: int) -> None:
            os.kill(child, signal.SIGSTOP)
            pool._stall_s = 1

        parts = []
        for _, part in pool.prepare([request(clip)]):
            parts.append(part)
            if isinstance(part, FaceTrack):
                stop(child_of(pool))
        assert (parts[-1].stage, parts[-1].reason) == ("decode", "timeout")
        pool._stall_s = 60
        (after,) = gathered(pool, request(clip, dynamic=False))
        assert isinstance(after[-1], Finished)


def test_a_fault_of_the_program_costs_one_video_and_the_log_says_where_it_was(pool, clip, caplog):
    track = track_of(np.zeros((3, 2)))
    faulty, good = gathered(pool, request(clip, track=track), request(clip, dynamic=False))
    assert (faulty[-1].stage, faulty[-1].reason) == ("extract", "internal_error")
    assert "ValueError: " in faulty[-1].message
    assert "broadcast" in faulty[-1].message
    assert isinstance(good[-1], Finished)
    (record,) = caplog.records
    assert "extractors/faces/crops.py" in record.getMessage()
    assert clip.name in record.getMessage()


def test_a_child_that_cannot_start_is_no_fault_of_any_video(settings, face_models, clip, tmp_path):
    broken = replace(settings, face_models=replace(face_models, short_range=tmp_path / "missing.tflite"))
    with PreparerPool(broken, 1, stall_s=60) as pool, pytest.raises(RuntimeError, match=r"cannot start: .*missing"):
        list(pool.prepare([request(clip)]))


def test_a_child_that_cannot_be_created_leaves_none_behind(settings, monkeypatch):
    started = []

    def popen(*args, **options):
        if started:
            raise OSError("no more processes")
        started.append(start(*args, **options))
        return started[0]

    start = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(OSError, match="no more"), PreparerPool(settings, 2, stall_s=60):
        pass
    assert started[0].returncode is not None


def test_a_child_that_died_before_its_first_video_could_not_start(settings, clip):
    with PreparerPool(settings, 1, stall_s=60) as pool:
        end_child(pool, signal.SIGABRT)
        with pytest.raises(RuntimeError, match=r"cannot start .*SIGABRT"):
            list(pool.prepare([request(clip)]))


def test_children_prepare_their_first_videos_while_the_caller_does_something_else(settings, clip):
    """Such as building networks: the child counts pictures before anybody listens to it."""
    with PreparerPool(settings, 2, stall_s=60) as pool:
        seen: list[int] = []

        def wait_for_pictures() -> None:
            for child in pool._children:
                deadline = time.monotonic() + 60
                while not (count := int.from_bytes(child._memory[:8], sys.byteorder)):
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                seen.append(count)

        ends = [part for _, part in pool.prepare([request(clip)] * 3, wait_for_pictures) if isinstance(part, Finished)]
    assert len(seen) == 2  # it was called once
    assert len(ends) == 3


def allowed_ahead() -> int:
    """Bytes that a connection of a child can hold on this system."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENT_AHEAD_BYTES)
        return theirs.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)


@pytest.mark.skipif(allowed_ahead() < SENT_AHEAD_BYTES, reason="net.core.wmem_max is too small")
def test_face_crops_do_not_keep_a_child_from_the_first_window_while_nobody_listens(settings, clip):
    with PreparerPool(settings, 1, stall_s=60) as pool:
        (child,) = pool._children

        def wait_for_motion() -> None:
            slots = np.frombuffer(child._memory, np.uint64, offset=HEAD_BYTES)
            deadline = time.monotonic() + 60
            while not slots.any():
                assert time.monotonic() < deadline
                time.sleep(0.05)

        parts = [type(part) for _, part in pool.prepare([request(clip)], wait_for_motion)]
    assert parts == [FaceTrack, *[FaceCrop] * 16, Motion, Finished]


def test_time_in_which_nobody_listens_counts_against_no_video(settings, clip, monkeypatch):
    clock, waited_s = time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock() + waited_s[0])
    with PreparerPool(settings, 1, stall_s=60) as pool:

        def wait_long() -> None:
            waited_s[0] = 2 * settings.limits.wall_s

        *_, (_, end) = pool.prepare([request(clip, dynamic=False)], wait_long)
    assert isinstance(end, Finished)


def test_an_exception_of_the_caller_leaves_no_video_with_the_children(pool, clip, corpus):
    def fail() -> None:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        next(pool.prepare([request(corpus / "plain" / "single_face.mp4")], fail))
    (parts,) = gathered(pool, request(clip, dynamic=False))
    assert len(parts[0].scores) == 20
    assert isinstance(parts[-1], Finished)


def test_the_death_of_an_idle_child_is_no_fault_of_the_next_video(pool, clip):
    gathered(pool, request(clip, dynamic=False))
    end_child(pool, signal.SIGSEGV)
    (parts,) = gathered(pool, request(clip, dynamic=False))
    assert isinstance(parts[-1], Finished)


def test_a_child_that_could_not_be_started_again_is_started_for_the_next_video(pool, clip, monkeypatch):
    def full(*_: object) -> None:
        raise OSError("no memory")

    parts = pool.prepare([request(clip)])
    next(parts)
    monkeypatch.setattr("extractors.preparation.pool.mmap.mmap", full)
    with pytest.raises(OSError, match="no memory"):
        parts.close()
    monkeypatch.undo()
    (again,) = gathered(pool, request(clip))
    assert isinstance(again[-1], Finished)


def test_all_children_are_told_to_end_before_the_first_is_waited_for(settings, monkeypatch):
    with PreparerPool(settings, 2, stall_s=60) as pool:
        wait, told = subprocess.Popen.wait, []

        def note(process, timeout=None):
            told.append([child.connection.closed for child in pool._children])
            return wait(process, timeout)

        monkeypatch.setattr(subprocess.Popen, "wait", note)
    assert told[0] == [True, True]


def test_no_child_starts_after_the_end_of_the_pool(settings, clip):
    """Such as by a generator that lives as long as an exception."""
    with PreparerPool(settings, 1, stall_s=60) as pool:
        parts = pool.prepare([request(clip)])
        next(parts)
    parts.close()
    assert not Path(f"/proc/{child_of(pool)}").exists()


def test_no_child_outlives_the_pool_even_if_its_parent_is_killed(settings, clip):
    with PreparerPool(settings, 1, stall_s=60) as pool:
        child = child_of(pool)
        gathered(pool, request(clip, dynamic=False))
    assert not Path(f"/proc/{child}").exists()
    code = f"""
import pickle, sys
from extractors.preparation.pool import PreparerPool
with PreparerPool(pickle.loads({pickle.dumps(settings)!r}), 2, 60) as pool:
    for part in pool.prepare(pickle.loads({pickle.dumps([request(clip)] * 50)!r})):
        print("going", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "going\n"
        listed = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
        process.kill()
    orphans = [int(word) for word in listed.stdout.split()]
    assert len(orphans) == 2
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{child}").exists() for child in orphans):
        assert time.monotonic() < deadline
        time.sleep(0.1)
