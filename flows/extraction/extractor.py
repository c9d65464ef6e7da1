"""Extraction of videos, from files to committed features."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from extractors.devices import has_gpu, usable_cores
from extractors.dynamic.extractor import DynamicFeatureExtractor
from extractors.errors import TRANSIENT, Fault, VideoError
from extractors.faces.quality import QUALITY, Quality
from extractors.faces.track import FaceTrack
from extractors.networks.backbone import Backbone, Describer
from extractors.optical_flow.computer import OpticalFlowComputer, engine_of, loop_to, scale_for_i3d
from extractors.preparation.pool import Again, Finished, PreparerPool
from extractors.preparation.preparer import FaceCrop, Motion, Request
from extractors.preparation.stopwatch import Stopwatch
from flows.archive.families import Families, Kind, backbones_of, check_same_networks, face_models
from flows.archive.reader import preparation_of
from flows.archive.videos import VideoFile
from flows.config.settings import RunConfig
from flows.extraction.jobs import Committed, Job
from flows.session.errors import UserError
from storage.shards.family import Family
from storage.shards.features import VideoFeatures
from storage.shards.store import FeatureStore
from storage.tables.failures import Failure, FailureLog

log = logging.getLogger(__name__)

# Finished videos are committed after this time, even if a shard is not full: the end of a machine then costs less of
# the work on long videos.
COMMIT_S = 600.0
# Windows whose optical flow a GPU computes in one call. More gain little: 256 pairs of frames keep it busy.
WINDOWS_TOGETHER = 4


class _Batcher:
    """Collects items of any number of videos and runs a network on full batches.

    Args:
        ragged: whether items may differ in length, and come as a list.
    """

    def __init__(
        self, extract: Callable[[Any], np.ndarray], size: int, watch: Stopwatch, stage: str, *, ragged: bool = False
    ) -> None:
        self._extract, self._size, self._watch, self._stage = extract, size, watch, stage
        self._goals: list[list[np.ndarray]] = []
        self._batch: list[np.ndarray] | np.ndarray | None = [np.empty(0)] * size if ragged else None

    def add(self, item: np.ndarray, goal: list[np.ndarray]) -> None:
        """Queue a copy of an item. Its vector is appended to `goal` later, in the order of the items.

        Call `flush_if_full` afterwards.
        """
        if self._batch is None:
            self._batch = np.empty((self._size, *item.shape), item.dtype)
        self._batch[len(self._goals)] = item.copy() if isinstance(self._batch, list) else item
        self._goals.append(goal)

    def flush_if_full(self) -> None:
        """Run the network if the queue fills a batch."""
        if len(self._goals) == self._size:
            self.flush()

    def flush(self) -> None:
        """Run the network on the queue."""
        if self._batch is None or not self._goals:
            return
        goals, self._goals = self._goals, []
        with self._watch.measure(self._stage):
            for goal, vector in zip(goals, self._extract(self._batch[: len(goals)]), strict=True):
                goal.append(vector)


@dataclass(frozen=True)
class _Batches:
    """The batches of both networks."""

    static: _Batcher
    dynamic: _Batcher

    def flush(self) -> None:
        """Run both networks on what waits."""
        self.static.flush()
        self.dynamic.flush()


@dataclass
class _Tokens:
    """Tokens of one video and family. Their vectors arrive later than the rest, batch by batch."""

    vectors: list[np.ndarray] = field(default_factory=list)
    start_s: list[float] = field(default_factory=list)
    end_s: list[float] = field(default_factory=list)
    quality: list[tuple[float, ...]] = field(default_factory=list)

    def finish(self, video: VideoFile, names: Sequence[str]) -> VideoFeatures:
        columns = np.asarray(self.quality, np.float32).T
        return VideoFeatures(
            video.video_id,
            video.sha256,
            np.stack(self.vectors),
            np.asarray(self.start_s, np.float64),
            np.asarray(self.end_s, np.float64),
            dict(zip(names, columns, strict=True)),
        )


@dataclass
class _Intake:
    """The results of one job so far.

    Args:
        known: the face track, from the store or from the child process.
        track: the face track's row for the store, if it was not there yet.
        static, dynamic: tokens, if they are wanted.
        error: why the video was refused.
    """

    job: Job
    known: FaceTrack | None
    track: VideoFeatures | None = None
    static: _Tokens | None = None
    dynamic: _Tokens | None = None
    error: VideoError | None = None

    def begin(self) -> None:
        """Start over with the video's first part."""
        self.static, self.dynamic = _Tokens() if self.job.static else None, _Tokens() if self.job.dynamic else None

    @contextmanager
    def isolating_faults(self) -> Iterator[None]:
        """Refuse only this video if the block raises an exception."""
        try:
            yield
        except Exception as error:
            fault = Fault.of(error)
            log.error("a fault of the program at %s:\n%s", self.job.video.path, fault.trace)
            self.error = fault.refusal()


def _expected(track: FaceTrack | None, tokens: _Tokens | None) -> tuple[FaceTrack, _Tokens]:
    if track is None or tokens is None:
        raise RuntimeError("the child process sent a part that was not asked for, or before the face track")
    return track, tokens


def _size_of(path: Path) -> int:
    """Return the size of a file in bytes; 0 if it cannot be read, which the child process will report."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _facts(track: FaceTrack) -> dict[str, float]:
    """Return the quality facts of a video; all tracks that are made or read here have them."""
    if track.quality is None:
        raise RuntimeError("the face track has no facts of quality")
    return asdict(track.quality)


class Extractor:
    """Extracts videos with child processes that prepare them, both networks and the store, all built once.

    Use it as a context manager, which starts and ends the child processes. The networks are built when these have the
    first videos.

    Args:
        confirm: called before each commit, as by `FeatureStore`; an exception from it prevents the commit.
        videos: maximum number of videos to extract; None if it is unknown.
    """

    def __init__(
        self,
        config: RunConfig,
        families: Families,
        confirm: Callable[[], None] | None = None,
        *,
        videos: int | None = None,
    ) -> None:
        self._config, self._families, self._videos = config, families, videos
        self._confirm = confirm
        self._resources = ExitStack()

    @cached_property
    def _store(self) -> FeatureStore:
        kept = self._config.store
        return FeatureStore(kept.path, kept.format, kept.dtype, self._confirm)

    @cached_property
    def _failures(self) -> FailureLog:
        return FailureLog(self._config.store.path, self._confirm)

    def __enter__(self) -> Extractor:
        config = self._config
        self._optical_flow = self._engine()
        preparation = preparation_of(config, face_models(config), engine=self._optical_flow.engine)
        check_same_networks(self._backbones, self._families)
        self._cores = usable_cores()
        self._processes = config.extract.processes or self._useful_processes()
        pool = PreparerPool(preparation, self._processes, config.extract.stall_s)
        self._pool = self._resources.enter_context(pool)
        return self

    def __exit__(self, *reason: object) -> None:
        self._resources.close()

    @cached_property
    def _backbones(self) -> dict[Kind, Backbone]:
        return backbones_of(self._config)

    @cached_property
    def _static(self) -> Describer:
        return self._backbones["static"].build()

    @cached_property
    def _dynamic(self) -> Describer:
        return self._backbones["dynamic"].build()

    @cached_property
    def _network_on_gpu(self) -> DynamicFeatureExtractor | None:
        """The dynamic network if it reads optical flow where the GPU left it."""
        # TensorFlow without CUDA's libraries sees no GPU, and then reads no memory of it.
        if isinstance(self._dynamic, DynamicFeatureExtractor) and self._optical_flow.engine == "gpu" and has_gpu():
            return self._dynamic
        return None

    def _build_networks(self) -> None:
        """Build the networks, unless that is done: it takes seconds, in which the child processes work already."""
        _ = self._static, self._dynamic, self._network_on_gpu

    def _engine(self) -> OpticalFlowComputer:
        """Return a computer of optical flow with the engine of the key: "auto" may be another engine elsewhere."""
        engine = engine_of(self._families.dynamic.settings["optical_flow"])
        settings = self._config.optical_flow.model_copy(update={"engine": engine})
        computer = OpticalFlowComputer.from_settings(settings)
        computer.check()
        if computer.engine != engine:
            raise UserError(f"the engine {engine} of optical flow, which this run uses, cannot run here")
        return computer

    def extract(
        self,
        jobs: Sequence[Job],
        on_video: Callable[[str, bool], None] | None = None,
        check: Callable[[], None] | None = None,
    ) -> Iterator[Committed]:
        """Extract videos, and commit them in shards: face tracks, tokens, and a row for each refused video.

        Large files come first, so that none of them keeps the others waiting at the end.

        Args:
            on_video: called after each video with its id and whether it was accepted.
            check: called with each part of a video that arrives; an exception from it stops the extraction. What has
                been committed stays.

        Yields:
            What has been committed just now.
        """
        watch = Stopwatch()
        ordered = sorted(jobs, key=lambda job: _size_of(job.video.path), reverse=True)
        batches = self._batches(watch)
        finished: list[_Intake] = []
        since = time.monotonic()
        for intake in self._fill(ordered, self._known_tracks, batches, watch, check):
            finished.append(intake)
            if on_video is not None:
                on_video(intake.job.video.video_id, intake.error is None)
            if len(finished) == self._config.extract.shard_size or time.monotonic() - since > COMMIT_S:
                yield self._commit(finished, batches, watch)
                finished, since = [], time.monotonic()
        if finished:
            yield self._commit(finished, batches, watch)

    def features(self, video: VideoFile) -> dict[Kind, VideoFeatures]:
        """Extract one video, and keep nothing in the store.

        Raises:
            VideoError: the video is refused.
        """
        watch = Stopwatch()
        batches = self._batches(watch)
        (intake,) = self._fill([Job(video, static=True, dynamic=True)], lambda _: {}, batches, watch)
        batches.flush()
        with intake.isolating_faults():
            found = self._finished(intake)
        if intake.error is not None:
            raise intake.error
        return found

    def _batches(self, watch: Stopwatch) -> _Batches:
        sizes = self._config.static.batch_size, self._config.dynamic.batch_size
        faces = _Batcher(lambda crops: self._static.extract(crops), sizes[0], watch, "static network")
        if self._optical_flow.engine == "gpu":
            describe, size = partial(self._describe_frames, watch), max(sizes[1], WINDOWS_TOGETHER)
            return _Batches(faces, _Batcher(describe, size, watch, "dynamic network", ragged=True))
        return _Batches(
            faces, _Batcher(lambda windows: self._dynamic.extract(windows), sizes[1], watch, "dynamic network")
        )

    def _fill(
        self,
        jobs: Sequence[Job],
        known_tracks: Callable[[Sequence[Job]], Mapping[str, FaceTrack]],
        batches: _Batches,
        watch: Stopwatch,
        check: Callable[[], None] | None = None,
    ) -> Iterator[_Intake]:
        """Prepare videos and run the networks on full batches; yield each that has no more parts to come."""
        at_work: dict[int, _Intake] = {}
        requests = self._requests(jobs, known_tracks, at_work, watch)
        for number, part in self._pool.prepare(requests, self._build_networks):
            intake = at_work[number]
            if check is not None:
                check()
            match part:
                case FaceTrack() | FaceCrop() | Motion():
                    if intake.error is None:
                        with intake.isolating_faults():
                            self._take(part, intake, batches)
                    # A batch has several videos, so an error of a network is not the fault of one of them.
                    batches.static.flush_if_full()
                    batches.dynamic.flush_if_full()
                case Again():
                    intake.begin()
                case Finished():
                    watch.add(part.seconds)
                    yield at_work.pop(number)
                case VideoError():
                    intake.error = part
                    log.info("%s rejected: %s", intake.job.video.video_id, part)
                    yield at_work.pop(number)

    def _useful_processes(self) -> int:
        """Return how many videos can be prepared at once: even an idle process takes 170 MiB."""
        return self._cores if self._videos is None else min(self._cores, self._videos)

    def _requests(
        self,
        jobs: Sequence[Job],
        known_tracks: Callable[[Sequence[Job]], Mapping[str, FaceTrack]],
        at_work: dict[int, _Intake],
        watch: Stopwatch,
    ) -> Iterator[Request]:
        """Yield requests to the child processes, and note their videos; the last ones share the idle cores."""
        known: Mapping[str, FaceTrack] = {}
        for number, job in enumerate(jobs):
            if number % self._config.extract.shard_size == 0:
                with watch.measure("write"):
                    known = known_tracks(jobs[number : number + self._config.extract.shard_size])
            sharing = min(self._processes, len(jobs) - number)
            threads = self._config.optical_flow.threads or max(1, self._cores // sharing)
            at_work[number] = intake = _Intake(job, known.get(job.video.video_id))
            intake.begin()
            yield Request(
                job.video.path,
                intake.known,
                static=job.static,
                dynamic=job.dynamic,
                threads=threads,
                sha256=job.video.sha256,
            )

    def _known_tracks(self, jobs: Sequence[Job]) -> dict[str, FaceTrack]:
        sha256 = {job.video.video_id: job.video.sha256 for job in jobs}
        return {
            row.video_id: FaceTrack.from_rows(
                row.vectors, Quality(**{name: float(row.quality[name][0]) for name in QUALITY})
            )
            for row in self._store.read(self._families.faces, sha256)
            if row.video_sha256 == sha256[row.video_id]
        }

    def _faces_row(self, video: VideoFile, track: FaceTrack) -> VideoFeatures:
        start_s = np.arange(len(track.scores)) / self._config.video.fps
        detected = (track.scores > 0).astype(np.float32)
        end_s = start_s + 1 / self._config.video.fps
        facts = {name: np.full(len(start_s), value, np.float32) for name, value in _facts(track).items()}
        quality = {"detected": detected, **facts}
        return VideoFeatures(video.video_id, video.sha256, track.to_rows(), start_s, end_s, quality)

    def _describe_frames(self, watch: Stopwatch, windows: Sequence[np.ndarray]) -> np.ndarray:
        """Describe windows of grey frames. For I3D on the GPU, their optical flow is computed in one call there."""
        fields, bound_px = self._config.crops.window_fields, self._config.optical_flow.bound_px
        if self._network_on_gpu is None:
            with watch.measure("optical flow"):
                found = [scale_for_i3d(self._optical_flow.compute(window), bound_px=bound_px) for window in windows]
            return self._dynamic.extract(np.stack([loop_to(motion, fields) for motion in found]))
        with watch.measure("optical flow"):
            # The last frame stands still in a shorter window, which takes no time.
            filled = np.stack([window[np.minimum(np.arange(fields + 1), len(window) - 1)] for window in windows])
            scaled = self._optical_flow.compute_scaled(filled, bound_px=bound_px)
        return self._network_on_gpu.extract_on_device(scaled, [len(window) - 1 for window in windows])

    def _take(self, part: FaceTrack | FaceCrop | Motion, intake: _Intake, batches: _Batches) -> None:
        match part:
            case FaceTrack():
                intake.known, intake.track = part, self._faces_row(intake.job.video, part)
            case FaceCrop():
                self._add_face(part, *_expected(intake.known, intake.static), batches.static)
            case Motion():
                self._add_window(part, *_expected(intake.known, intake.dynamic), batches.dynamic)

    def _add_face(self, face: FaceCrop, track: FaceTrack, tokens: _Tokens, batches: _Batcher) -> None:
        fps = self._config.video.fps
        tokens.start_s.append(face.frame / fps)
        tokens.end_s.append((face.frame + 1) / fps)
        tokens.quality.append((*_facts(track).values(), track.scores[face.frame]))
        batches.add(face.pixels, tokens.vectors)

    def _add_window(self, motion: Motion, track: FaceTrack, tokens: _Tokens, batches: _Batcher) -> None:
        fps, window = self._config.video.fps, motion.window
        last = window.first_frame + window.fields
        tokens.start_s.append(window.first_frame / fps)
        tokens.end_s.append(last / fps)
        score = track.scores[window.first_frame : last + 1].mean()
        tokens.quality.append((*_facts(track).values(), score, window.fields))
        fields = motion.fields
        if fields.dtype != np.uint8:
            fields = loop_to(fields, self._config.crops.window_fields)
        batches.add(fields, tokens.vectors)

    def _failure(self, job: Job, error: VideoError) -> Failure:
        return Failure(
            job.video.video_id,
            job.video.sha256,
            self._families.features,
            error.stage,
            error.reason,
            error.message,
            job.attempts + 1,
        )

    def _finished(self, intake: _Intake) -> dict[Kind, VideoFeatures]:
        """Return the tokens of a video, once the networks have answered; nothing if it is refused."""
        if intake.error is not None:
            return {}
        tokens: dict[Kind, _Tokens | None] = {"static": intake.static, "dynamic": intake.dynamic}
        return {
            kind: found.finish(intake.job.video, getattr(self._families, kind).quality)
            for kind, found in tokens.items()
            if found is not None
        }

    def _commit(self, intakes: Sequence[_Intake], batches: _Batches, watch: Stopwatch) -> Committed:
        """Commit videos that have no more parts to come."""
        batches.flush()
        with watch.measure("write"):
            rows, failures = self._rows(intakes)
            commit_shard(self._store, self._failures, rows, failures)
        return Committed(1, len(intakes) - len(failures), len(failures), watch.take())

    def _rows(self, intakes: Sequence[_Intake]) -> tuple[dict[Family, list[VideoFeatures]], list[Failure]]:
        families = self._families
        rows: dict[Family, list[VideoFeatures]] = {families.faces: [], families.static: [], families.dynamic: []}
        for intake in intakes:
            if intake.error is None:
                with intake.isolating_faults():
                    for kind, features in self._finished(intake).items():
                        rows[getattr(families, kind)].append(features)
            # Keep the face track of a video that was refused at a later stage, for example for lack of motion, unless
            # it is unknown which bytes it was made from.
            if intake.track is not None and (intake.error is None or intake.error.reason not in TRANSIENT):
                rows[families.faces].append(intake.track)
        return rows, [self._failure(intake.job, intake.error) for intake in intakes if intake.error is not None]


def commit_shard(
    store: FeatureStore,
    log: FailureLog,
    rows: Mapping[Family, Sequence[VideoFeatures]],
    failures: Sequence[Failure],
) -> None:
    """Commit a shard's features in one commit, then its failures, except those that the store has by now.

    Args:
        failures: all for the same features.

    Raises:
        StoreError: the operating system refused. Features that were committed stay.
    """
    digests = {video.video_id: video.video_sha256 for videos in rows.values() for video in videos}
    known = {family: store.has(family, digests) for family in rows}
    new = {
        family: [video for video in videos if video.video_id not in known[family]] for family, videos in rows.items()
    }
    if lacking := {family: videos for family, videos in new.items() if videos}:
        store.write_all(lacking)
    if failures:
        digests = {failure.video_id: failure.video_sha256 for failure in failures}
        attempts = log.attempts(digests, failures[0].key)
        log.add([failure for failure in failures if attempts.get(failure.video_id, 0) < failure.attempts])
