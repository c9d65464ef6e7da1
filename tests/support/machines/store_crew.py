"""Processes that write to, read and look after one store, to be killed: each forked on request by one with its clock.

A writer notes what it has committed; the features follow from names alone, so that what must be in the store is known
without any store. Whatever goes wrong in a process is a line in a file of faults, except that a server on a busy
machine may answer too late: then the process begins again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import deltalake  # noqa: F401, or each process would import it
import numpy as np
import pandas  # noqa: F401, or pyarrow would import it in each process

from storage import Family, FeatureStore, VideoFeatures
from storage.errors import UnreachableError
from storage.leases.leases import Leases
from storage.maintenance.garbage import clean_tables, leftovers, remove_leftover, unused_families
from storage.maintenance.rewriting import plan_merges, rewrite
from storage.maintenance.verification import find_problem, parts, repair

LIMIT_S = 30  # to wait for the first round of a process beside all others
# In a round, after which a process begins again: a round ends in some seconds however large the store has become.
MOST_COMMITS, MOST_MERGES, MOST_PARTS = 10, 2, 100
FAMILIES = (Family("static", 8, {"drawn": "static"}, ("face_score",)), Family("dynamic", 6, {"drawn": "dynamic"}))
_CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long ahead(void) { return atol(getenv("CLOCK_AHEAD_S")); }
int clock_gettime(clockid_t clock, struct timespec *now) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (!failed && clock == CLOCK_REALTIME) now->tv_sec += ahead();
    return failed;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int (*real)(struct timeval *, void *) = dlsym(RTLD_NEXT, "gettimeofday");
    int failed = real(now, zone);
    if (!failed) now->tv_sec += ahead();
    return failed;
}
time_t time(time_t *now) {
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (now) *now = found.tv_sec;
    return found.tv_sec;
}
"""


def drawn(video_id: str, content: str, family: Family) -> VideoFeatures:
    """Features that follow from these names alone."""
    digest = hashlib.sha256(f"{video_id} {content}".encode())
    rng = np.random.default_rng([*digest.digest(), family.dim])
    tokens = int(rng.integers(1, 5))
    start_s = np.cumsum(rng.random(tokens))
    quality = {name: rng.random(tokens).astype(np.float32) for name in family.quality}
    vectors = rng.normal(size=(tokens, family.dim)).astype(np.float32)
    return VideoFeatures(video_id, digest.hexdigest(), vectors, start_s, start_s + 0.64, quality)


def write(root: str, notes: Path, rng: random.Random) -> None:
    """Commit new videos, and new contents of earlier ones, under claims; note each commit before and after."""
    me = f"{os.getpid()}-{time.monotonic_ns()}"
    store = FeatureStore(root, rng.choice(["parquet", "hdf5"]))
    with Leases(root, FAMILIES[0].key, beat_s=0.2) as lease, (notes / f"write-{me}").open("a", buffering=1) as log:
        for number in range(rng.randint(1, MOST_COMMITS)):
            names = [f"{me}/{number}.mp4", *([f"{me}/{rng.randrange(number)}.mp4"] if number else [])]
            contents = dict.fromkeys(names, str(number))
            lease.claim(lambda _, contents=contents: contents)
            log.write(f"begin {json.dumps(contents)}\n")
            store.write_all({family: [drawn(*both, family) for both in contents.items()] for family in FAMILIES})
            log.write("end\n")
            lease.release()


def compact(root: str, _: Path, rng: random.Random) -> None:
    """Merge shards."""
    store = FeatureStore(root)
    for family in FAMILIES:
        planned = plan_merges(store, family, target_bytes=rng.randrange(500, 5000))
        for sources in planned[:MOST_MERGES]:
            rewrite(store, family, sources)


def convert(root: str, _: Path, rng: random.Random) -> None:
    """Convert a shard."""
    store, family = FeatureStore(root), rng.choice(FAMILIES)
    if shards := store.shards(family):
        shard = rng.choice(shards)
        rewrite(store, family, [shard.name], "hdf5" if shard.suffix == ".parquet" else "parquet")


def mend(root: str, notes: Path, rng: random.Random) -> None:
    """Verify and repair: at most something was gone for a moment, as another process had just replaced it."""
    found = parts(root)
    for part in rng.sample(found, min(len(found), MOST_PARTS)):
        if problem := find_problem(part):
            if problem.trouble != "gone" and not (problem.trouble == "unreachable" and "://" in root):
                fault(notes, problem.message)
            repair(problem)


def collect(root: str, notes: Path, _: random.Random) -> None:
    """Collect garbage as `traitline store gc --yes` does."""
    for family in unused_families(root):
        fault(notes, f"{family} is in use")
    for path in leftovers(root):
        remove_leftover(path)
    clean_tables(root)


def read(root: str, notes: Path, _: random.Random) -> None:
    """Read everything: each video comes once, and those that were committed before do come."""
    store, before = FeatureStore(root), contents(notes).keys()
    for family in FAMILIES:
        names = [video.video_id for video in store.read(family)]
        if len(names) != len(set(names)):
            fault(notes, f"doubled: {len(names) - len(set(names))}")
        if before - set(names):
            fault(notes, f"lost: {before - set(names)}")


ROLES: dict[str, Callable[[str, Path, random.Random], None]] = {
    role.__name__: role for role in (write, compact, convert, mend, collect, read)
}


def fault(notes: Path, text: str) -> None:
    """Note that something is wrong."""
    with (notes / "faults").open("a") as file:
        file.write(f"{text}\n")


def note_round(notes: Path, how: str, role: str) -> None:
    """Note that this process has come to the end of a round, or has met a late server."""
    with (notes / f"{how}-{role}-{os.getpid()}").open("a") as file:
        file.write(".")


def rounds(notes: Path) -> Counter[str]:
    """Return how many rounds of each role ended, as "done-ROLE", and met a late server, as "late-ROLE"."""
    found: Counter[str] = Counter()
    for path in sorted([*notes.glob("done-*"), *notes.glob("late-*")]):
        found[path.name.rpartition("-")[0]] += path.stat().st_size
    return found


def contents(notes: Path) -> dict[str, set[str]]:
    """Return for each video that must be there the contents that it may have."""
    found: dict[str, set[str]] = {}
    for path in notes.glob("write-*"):
        begun: dict[str, str] = {}
        for line in path.read_text().splitlines():
            if line == "end":
                found |= {name: {content} for name, content in begun.items()}
                begun = {}
            elif line.startswith("begin "):
                begun = json.loads(line[6:])
        for name, content in begun.items():  # killed: committed or not
            if name in found:
                found[name].add(content)
    return found


class Crew:
    """A process that forks others, all of which have its clock, seen from the test."""

    def __init__(self, process: subprocess.Popen[str], root: str, notes: Path) -> None:
        self._process, self._notes, self._root = process, notes, root

    def start(self, role: str, seed: int) -> int:
        """Start a process that does one thing again and again; return its id."""
        return self._ask(f"{role}\t{seed}\t{self._notes}\t{self._root}")

    def await_round(self, pid: int) -> None:
        """Wait until a process has come to the end of its first round, but not for ever."""
        deadline = time.monotonic() + LIMIT_S
        while not list(self._notes.glob(f"done-*-{pid}")) and time.monotonic() < deadline:
            time.sleep(0.02)

    def kill(self, pid: int) -> None:
        """Kill a process with SIGKILL."""
        self._ask(f"kill\t{pid}")

    def _ask(self, line: str) -> int:
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextmanager
def open_crew(root: str, notes: Path, *, ahead_s: int = 0) -> Iterator[Crew]:
    """Start the process that forks others, with a clock that is ahead, and end it with all of them.

    Raises:
        FileNotFoundError: there is no C compiler.
    """
    environment = dict(os.environ)
    if ahead_s:
        if (compiler := shutil.which("gcc")) is None:
            raise FileNotFoundError("there is no gcc")
        library, source = notes / "clock.so", notes / "clock.c"
        source.write_text(_CLOCK)
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        environment |= {"LD_PRELOAD": str(library), "CLOCK_AHEAD_S": str(ahead_s)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, __file__], start_new_session=True, env=environment, **pipes) as process:
        try:
            yield Crew(process, root, notes)
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def main() -> None:
    """Fork a process for each line, or kill one."""
    for line in sys.stdin:
        word, *values = line.rstrip("\n").split("\t")
        if word == "kill":
            os.kill(int(values[0]), signal.SIGKILL)
            os.waitpid(int(values[0]), 0)
            print(values[0], flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            seed, notes, root = values
            rng = random.Random(int(seed))
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    try:
                        ROLES[word](root, Path(notes), rng)
                        note_round(Path(notes), "done", word)
                    except Exception as error:
                        if isinstance(error, UnreachableError) and "://" in root:
                            note_round(Path(notes), "late", word)
                        else:
                            fault(Path(notes), f"{word}: {traceback.format_exc()}")
                    time.sleep(0.02)
            os._exit(0)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
