"""Workers to be killed: each runs the real loop of claims on a real store, and draws the features instead of computing.

Run as a program this is a process that has imported everything and forks a worker for each line on its standard input,
which takes some 10 ms. It answers with the worker's process id. A worker that comes to its end says so in a file.

What a worker draws follows from the video alone, so that what must be in the store is known without any store.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path

import numpy as np

from flows.archive.families import Families
from flows.archive.videos import Archive, VideoFile
from flows.config.load import load_config
from flows.config.settings import RunConfig
from flows.engine.engine import Course, LocalEngine, Work
from flows.extraction.extractor import commit_shard
from flows.extraction.jobs import Committed, Job, Stretch
from flows.extraction.worker import open_extraction
from flows.extraction.worklist import Lookup, WorkList
from flows.session import console
from storage import Failure, FailureLog, Family, FeatureStore, VideoFeatures
from storage.errors import UnreachableError
from storage.files.paths import store_path
from storage.leases import leases

FAMILIES = Families(
    Family("faces", 5, {"drawn": "faces"}, ("detected",)),
    Family("static", 16, {"drawn": "static"}, ("face_coverage", "face_score")),
    Family("dynamic", 8, {"drawn": "dynamic"}, ("face_coverage",)),
)
REASONS = ("no_face", "truncated")


@dataclass(frozen=True)
class Order:
    """What a worker is to do.

    Args:
        store: folder or address.
        notes: folder in which workers say what they do.
        format: of new shards.
        videos: how many there are.
        shard_size: videos in a commit.
        video_s: seconds that each takes.
        beat_s, timeout_s: of the leases.
        name: of the worker; its report and its log of videos are called so.
        elsewhere: pretend to be on another machine.
    """

    store: str
    notes: str
    format: str = "parquet"
    videos: int = 40
    shard_size: int = 4
    video_s: float = 0.0
    beat_s: float = leases.BEAT_S
    timeout_s: float = leases.TIMEOUT_S
    name: str = "worker"
    elsewhere: bool = False

    @property
    def report(self) -> Path:
        """Where the worker says that it came to its end, and how."""
        return Path(self.notes, f"{self.name}.json")

    @property
    def log(self) -> Path:
        """Ids of all videos that workers began with, one a line."""
        return Path(self.notes, "begun.log")

    @property
    def mishaps(self) -> Path:
        """Ids of all videos at which a worker did not reach the storage, one a line."""
        return Path(self.notes, "mishaps.log")

    def config(self) -> RunConfig:
        """The settings of a run that does this."""
        flags = {"store.format": self.format, "extract.shard_size": self.shard_size, "weights": "random"}
        config = load_config(flags=flags)
        return config.model_copy(update={"store": config.store.model_copy(update={"path": store_path(self.store)})})


def drawn_videos(count: int) -> Archive:
    """Videos that are nowhere."""
    names = [f"clips/{number:04d}.mp4" for number in range(count)]
    return Archive(VideoFile(name, Path(name), hashlib.sha256(name.encode()).hexdigest()) for name in names)


def refusal(video: VideoFile) -> Failure | None:
    """Every seventh video is refused."""
    number = int(video.sha256[:8], 16)
    if number % 7:
        return None
    reason = REASONS[number // 7 % 2]
    return Failure(video.video_id, video.sha256, FAMILIES.features, "faces", reason, "drawn so", 1)


def drawn_features(video: VideoFile, family: Family) -> VideoFeatures:
    """Features that follow from the video and the family alone."""
    seed = hashlib.sha256(f"{video.sha256} {family.name}".encode()).digest()
    rng = np.random.default_rng(list(seed))
    tokens = int(rng.integers(1, 6))
    start_s = np.cumsum(rng.random(tokens))
    quality = {name: rng.random(tokens).astype(np.float32) for name in family.quality}
    vectors = rng.normal(size=(tokens, family.dim)).astype(np.float32)
    return VideoFeatures(video.video_id, video.sha256, vectors, start_s, start_s + 0.64, quality)


class DrawingExtractor:
    """In the place of `flows.extraction.extractor.Extractor`: draws, but commits as that does."""

    def __init__(self, order: Order, confirm: Callable[[], None]) -> None:
        self._order = order
        self._store = FeatureStore(order.store, order.format, confirm=confirm)
        self._failures = FailureLog(order.store, confirm)

    def __enter__(self) -> DrawingExtractor:
        return self

    def __exit__(self, *reason: object) -> None:
        pass

    def extract(self, jobs: Sequence[Job], on_video, check) -> Iterator[Committed]:
        size = self._order.shard_size
        for first in range(0, len(jobs), size):
            yield self._shard(jobs[first : first + size], on_video, check)

    def _shard(self, jobs: Sequence[Job], on_video, check) -> Committed:
        good, failures, start = [], [], time.perf_counter()
        for job in jobs:
            check()
            with self._order.log.open("a") as log:
                log.write(f"{job.video.video_id}\n")
            time.sleep(self._order.video_s)
            failure = refusal(job.video)
            if failure is None:
                good.append(job)
            else:
                failures.append(replace(failure, attempts=job.attempts + 1))
            on_video(job.video.video_id, failure is None)
        rows = {
            FAMILIES.faces: [drawn_features(job.video, FAMILIES.faces) for job in good],
            FAMILIES.static: [drawn_features(job.video, FAMILIES.static) for job in good if job.static],
            FAMILIES.dynamic: [drawn_features(job.video, FAMILIES.dynamic) for job in good if job.dynamic],
        }
        commit_shard(self._store, self._failures, rows, failures)
        return Committed(1, len(good), len(failures), {"drawn": time.perf_counter() - start})


@contextmanager
def open_drawing(order: Order, *_: object, **intervals: float) -> Iterator[Work[Stretch, Committed]]:
    """In the place of `flows.extraction.worker.open_stretches`, whose arguments are ignored."""
    config = order.config()
    held = leases.Leases(config.store.path, FAMILIES.faces.key, **intervals)
    extractor, lookup = DrawingExtractor(order, held.confirm), Lookup(config.store.path, FAMILIES)
    with open_extraction(extractor, held, lookup) as extract:

        def noting(stretch: Stretch, course: Course) -> Committed:
            try:
                return extract(stretch, course)
            except UnreachableError:  # the engine tries again
                with order.mishaps.open("a") as file:
                    file.writelines(f"{job.video.video_id}\n" for job in stretch)
                raise

        yield noting


def work(order: Order) -> None:
    """Do what `flows.pipeline.extract.extract` does, without Prefect's server, and write a report at the end."""
    from flows.pipeline.extract import extract_stretches  # not above: Dask's workers do without Prefect

    if order.elsewhere:
        real = leases.this_process()
        leases.this_process = lambda: replace(real, kernel=f"of {order.name}", host=order.name)
    Path(order.notes).mkdir(parents=True, exist_ok=True)
    console.console.file = order.report.with_suffix(".txt").open("w")
    held = leases.Leases(order.store, FAMILIES.faces.key, beat_s=order.beat_s, timeout_s=order.timeout_s)
    todo = WorkList(drawn_videos(order.videos), order.config(), FAMILIES)
    with held, console.stage("Extract", todo.count) as stage:
        engine = LocalEngine(poll_s=min(0.05, order.beat_s))
        intervals = {"beat_s": order.beat_s, "timeout_s": order.timeout_s}
        report = extract_stretches(todo, held, stage, engine, lambda: open_drawing(order, **intervals))
    done = {
        "extracted": report.extracted,
        "failed": report.failed,
        "lost": report.lost,
        "count": todo.count,
        "left": todo.left,
    }
    partial = order.report.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(done))
    partial.replace(order.report)


class Farm:
    """The process that forks workers, seen from the test."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start(self, order: Order) -> int:
        """Start a worker; returns its process id."""
        return self._ask(json.dumps(asdict(order)))

    def kill(self, pid: int) -> None:
        """Kill a worker with SIGKILL; one that has come to its end is none the worse for it."""
        self._ask(f"kill {pid}")

    def finish(self, orders: Sequence[Order], timeout_s: float = 600.0) -> list[dict[str, int]]:
        """Wait for workers' reports."""
        deadline = time.monotonic() + timeout_s
        while not all(order.report.exists() for order in orders):
            missing = [order.name for order in orders if not order.report.exists()]
            assert time.monotonic() < deadline, f"no report of {missing}"
            time.sleep(0.01)
        return [json.loads(order.report.read_text()) for order in orders]

    def _ask(self, line: str) -> int:
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextmanager
def open_farm() -> Iterator[Farm]:
    """Start the process that forks workers, and end it with all of them."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, __file__], start_new_session=True, **pipes) as process:
        try:
            yield Farm(process)
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def main() -> None:
    """Fork a worker for each order, and kill it when asked to."""
    for module in ("pandas", "flows.pipeline.extract"):  # or each worker would import them, pandas for pyarrow
        import_module(module)
    for line in sys.stdin:
        if line.startswith("kill "):
            victim = int(line.split()[1])
            os.kill(victim, signal.SIGKILL)  # which is ours: nobody has its number before it was waited for
            os.waitpid(victim, 0)
            print(victim, flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            try:
                work(Order(**json.loads(line)))
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
