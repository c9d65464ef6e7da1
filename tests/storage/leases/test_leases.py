"""Claims of videos, by runs that know of each other from the store's folder alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from storage import FeatureStore, StoreError
from storage.files.commit import create_file
from storage.files.paths import store_path
from storage.leases.claims import Claim, ClaimLog
from storage.leases.leases import LeaseLostError, Leases
from storage.leases.processes import is_gone, this_process
from storage.maintenance import garbage
from storage.maintenance.rewriting import plan_merges, rewrite
from storage.shards.formats import shards_in

KEY = "0123456789abcdef"


def first(count: int, videos: Iterable[str] = "abcdefgh"):
    """Chooses the first free videos."""

    def choose(claimed):
        return dict.fromkeys([video for video in videos if video not in claimed][:count])

    return choose


def elsewhere(leases: Leases) -> Leases:
    """Make it a run on another machine, of which nobody can tell whether its process is gone."""
    leases._process = replace(leases._process, host="elsewhere", kernel="another")
    return leases


@pytest.fixture(params=["local", "s3"])
def root(request):
    """A store's folder, on this machine and on object storage."""
    return store_path(request.getfixturevalue("tmp_path" if request.param == "local" else "s3_folder"))


@pytest.fixture
def open_leases(root):
    """Opens runs' leases of one store, which are closed in the end."""
    opened = []

    def open_(*, beat_s: float = 60.0, timeout_s: float = 600.0, entered: bool = False) -> Leases:
        leases = Leases(root, KEY, beat_s=beat_s, timeout_s=timeout_s)
        if entered:
            opened.append(leases.__enter__())
        return leases

    yield open_
    for leases in opened:
        leases.__exit__()


def test_of_many_who_create_a_file_exactly_one_does_and_its_bytes_stay(root):
    barrier, made = threading.Barrier(8), []

    def create(number: int) -> None:
        barrier.wait()
        if create_file(root / "new" / "file", b"%d" % number):
            made.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = made
    assert (root / "new" / "file").read_bytes() == b"%d" % winner
    assert [path.name for path in (root / "new").iterdir()] == ["file"]


def test_two_runs_claim_different_videos_until_none_is_left(open_leases):
    one, two = open_leases(), open_leases()
    assert list(one.claim(first(5))) == ["a", "b", "c", "d", "e"]
    assert list(two.claim(first(5))) == ["f", "g", "h"]
    assert open_leases().claim(first(5)) == {}
    one.release()
    assert list(open_leases().claim(first(2))) == ["a", "b"]


def test_who_is_late_finds_the_number_taken_and_chooses_anew(open_leases):
    one, two, looks = open_leases(), open_leases(), []

    def choose(claimed):
        if not looks:
            two.claim(first(3))
        looks.append(set(claimed))
        return first(3)(claimed)

    assert list(one.claim(choose)) == ["d", "e", "f"]
    assert looks == [set(), {"a", "b", "c"}]


def test_who_slept_until_a_number_was_free_again_withdraws(open_leases, root):
    """A chooser sees no claim, sleeps; meanwhile four claims come, and the first three are removed as ended."""
    late, two, looks = open_leases(), open_leases(), []

    def choose(claimed):
        if not looks:
            for _ in range(3):
                two.claim(first(3))
                two.release()
            two.claim(first(3))
            assert not (root / "leases" / KEY / "00000001.json").exists()
        looks.append(set(claimed))
        return first(3)(claimed)

    assert list(late.claim(choose)) == ["d", "e", "f"]
    assert looks == [set(), {"a", "b", "c"}]


def test_ended_claims_are_removed_but_never_the_highest(open_leases, root):
    leases = open_leases()
    for _ in range(5):
        leases.claim(first(1))
        leases.release()
    assert {path.name for path in (root / "leases" / KEY).iterdir()} == {"00000005.json", "00000005.end"}


def test_a_process_of_this_machine_that_is_gone_is_dead_at_once(open_leases, root):
    code = f"""
import os, signal, sys
from storage.leases.leases import Leases
leases = Leases({str(root)!r}, {KEY!r})
leases.claim(lambda claimed: dict.fromkeys("abc"))
print("claimed", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"claimed\n"
        assert list(open_leases().claim(first(3))) == ["d", "e", "f"]
        process.kill()
    assert list(open_leases().claim(first(3))) == ["a", "b", "c"]


def test_a_process_is_told_from_another_that_has_its_number_later_or_in_a_container():
    here = this_process()
    assert not is_gone(here, here)
    assert is_gone(replace(here, started=here.started + 1), here)
    for other in ({"host": "other"}, {"kernel": "other"}, {"namespace": "other"}):
        assert not is_gone(replace(here, started=here.started + 1, **other), here)
    with subprocess.Popen(["true"]) as child:
        there = replace(here, pid=child.pid)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, but its parent has not asked yet
        started = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19])
        assert is_gone(replace(there, started=started), here)
    assert is_gone(replace(there, started=started), here)


def test_a_holder_whose_beat_stands_still_is_dead_and_one_that_beats_is_not(open_leases):
    alive, dead = (elsewhere(open_leases(beat_s=0.05, timeout_s=2.0, entered=enter)) for enter in (True, False))
    alive.claim(first(2))
    dead.claim(first(2))
    observer = open_leases(beat_s=0.05, timeout_s=2.0, entered=True)
    died_at = time.monotonic()
    while not (jobs := observer.claim(first(4, "abcd"))):
        assert time.monotonic() - died_at < 120
        time.sleep(0.01)
    assert list(jobs) == ["c", "d"]
    alive.confirm()
    with pytest.raises(LeaseLostError):
        dead.confirm()


def test_time_in_which_the_observer_stood_still_does_not_count(open_leases, monkeypatch):
    """Both were asleep for an hour; the observer wakes up first and must not take the other for dead."""
    holder, observer = elsewhere(open_leases(timeout_s=600.0)), open_leases(timeout_s=600.0)
    holder.claim(first(2))
    now = time.monotonic()
    for wakes_at in (now, now + 3600.0):
        monkeypatch.setattr(time, "monotonic", lambda at=wakes_at: at)
        assert observer.claim(first(2, "ab")) == {}
    assert observer.others()
    holder.confirm()


def test_shards_of_a_holder_that_slept_just_before_the_commit_cost_work_and_double_nothing(
    open_leases, root, draw, static
):
    holder, other = open_leases(), open_leases()
    holder.claim(first(1))

    def fall_asleep() -> None:
        holder.confirm()
        ClaimLog(root, KEY).end(1, "somebody")
        assert list(other.claim(first(1))) == ["a"]
        FeatureStore(root, confirm=other.confirm).write(static, [draw("a")])

    store = FeatureStore(root, confirm=fall_asleep)
    store.write(static, [draw("a")])
    assert [video.video_id for video in store.read(static)] == ["a"]
    for sources in plan_merges(store, static):
        rewrite(store, static, sources)
    assert len(shards_in(store.folder(static))) == 1


def test_a_beat_costs_two_requests_however_many_runs_there_are(open_leases, root, monkeypatch):
    others = [open_leases() for _ in range(6)]
    leases = open_leases()
    for each in (*others, leases):
        each.claim(first(1, "abcdefghij"))
    calls = []
    for name in ("beat", "list", "read", "end"):
        real = getattr(ClaimLog, name)
        monkeypatch.setattr(ClaimLog, name, lambda *values, name=name, real=real: calls.append(name) or real(*values))
    monkeypatch.setattr(leases, "_beat_s", 0.01)
    monkeypatch.setattr(leases._closing, "wait", lambda _: len(calls) >= 2)
    leases._keep()
    assert calls == ["beat", "list"]


def go_on(leases: Leases) -> None:
    """Work until something stops it."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        leases.check()


@pytest.mark.parametrize("root", ["local"], indirect=True)
def test_where_beats_cannot_be_written_the_work_ends_with_the_cause(open_leases, tmp_path, monkeypatch):
    leases = open_leases(beat_s=0.02, timeout_s=0.2, entered=True)
    leases.claim(first(2))

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StoreError, match="No space left on device"):
        go_on(leases)
    monkeypatch.undo()
    leases.confirm()


def test_a_run_that_was_taken_over_learns_it_while_it_works(open_leases, root):
    leases = open_leases(beat_s=0.02, entered=True)
    leases.claim(first(2))
    leases.check()
    ClaimLog(root, KEY).end(1, "somebody")
    with pytest.raises(LeaseLostError):
        go_on(leases)
    leases.release()
    assert list(leases.claim(first(2))) == ["a", "b"]
    leases.check()


def test_a_claim_that_the_run_itself_does_not_know_to_be_its_own_is_given_up(open_leases, root):
    """The answer to a put got lost, and its repetition found the name taken."""
    leases = open_leases()
    ClaimLog(root, KEY).create(Claim(leases._holder, this_process(), frozenset("ab"), 1))
    assert list(leases.claim(first(2))) == ["a", "b"]


def test_leaving_gives_up_what_is_held(open_leases):
    with open_leases() as leases:
        leases.claim(first(2))
        assert list(open_leases().claim(first(1))) == ["c"]
    assert list(open_leases().claim(first(2))) == ["a", "b"]


@pytest.mark.parametrize("root", ["local"], indirect=True)
def test_damaged_claim_is_named(open_leases, tmp_path):
    open_leases().claim(first(2))
    path = tmp_path / "leases" / KEY / "00000001.json"
    path.write_text(json.dumps({"holder": "x"}))
    with pytest.raises(StoreError, match=r"00000001\.json"):
        open_leases().claim(first(2))


def test_family_that_goes_takes_its_log_of_claims_along(root, draw, static):
    FeatureStore(root).write(static, [draw("a")])
    with Leases(root, static.key) as leases, Leases(root, KEY) as others:
        leases.claim(first(1))
        others.claim(first(1))
    garbage.remove_family(root, static)
    assert [path.name for path in (root / "leases").iterdir()] == [KEY]
    assert FeatureStore(root).done(static) == {}
