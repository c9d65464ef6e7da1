"""Extraction of one shard of videos, from files to committed features."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np

from extractors.devices import has_gpu, usable_cores
from extractors.dynamic.extractor import DynamicFeatureExtractor
from extractors.errors import TRANSIENT, Fault, VideoError
from extractors.faces.crops import Window
from extractors.faces.quality import QUALITY, Quality
from extractors.faces.track import FaceTrack
from extractors.networks.backbone import Backbone, Describer
from extractors.optical_flow.computer import DeviceArray, OpticalFlowComputer, engine_of, loop_to, scale_for_i3d
from extractors.preparation.pool import Again, Finished, PreparerPool
from extractors.preparation.preparer import FaceCrop, Motion, Request
from extractors.preparation.stopwatch import Stopwatch
from flows.archive.families import Families, Kind, backbones_of, check_same_networks, face_models
from flows.archive.reader import preparation_of
from flows.archive.videos import VideoFile
from flows.config.settings import RunConfig
from flows.extraction.jobs import Job, ShardReport
from flows.session.errors import UserError
from storage.shards.family import Family
from storage.shards.features import VideoFeatures
from storage.shards.store import FeatureStore
from storage.tables.failures import Failure, FailureLog

log = logging.getLogger(__name__)


class _Batcher:
    """Collects items of any number of videos and runs a network on full batches."""

    def __init__(self, extract: Callable[[Any], np.ndarray], size: int, watch: Stopwatch, stage: str) -> None:
        self._extract, self._size, self._watch, self._stage = extract, size, watch, stage
        self._goals: list[list[np.ndarray]] = []
        self._batch: np.ndarray | list[Any] | None = None

    def add(self, item: np.ndarray | DeviceArray, goal: list[np.ndarray]) -> None:
        """Queue a copy of an array, or an array on a device, which is passed on in a list.

        Its vector is appended to `goal` later, in the order of the items.

        Call `flush_if_full` afterwards.
        """
        if self._batch is None:
            on_host = isinstance(item, np.ndarray)
            self._batch = np.empty((self._size, *item.shape), item.dtype) if on_host else [None] * self._size
        self._batch[len(self._goals)] = item
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


@dataclass(frozen=True)
class _Fields:
    """The optical flow of one window, for the dynamic network: on the GPU, or in memory that must be copied."""

    window: Window
    fields: np.ndarray | DeviceArray


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
        """Refuse only this video, and not its shard, if the block raises an exception."""
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


def _facts(track: FaceTrack) -> dict[str, float]:
    """Return the quality facts of a video; all tracks that are made or read here have them."""
    if track.quality is None:
        raise RuntimeError("the face track has no facts of quality")
    return asdict(track.quality)


class Extractor:
    """Extracts shards with child processes that prepare videos, both networks and the store, all built once.

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
    def _describe_on_gpu(self) -> Callable[[Sequence[DeviceArray]], np.ndarray] | None:
        """Describes windows whose optical flow is on the GPU; None if it is not left there."""
        # TensorFlow without CUDA's libraries sees no GPU, and then reads no memory of it.
        if isinstance(self._dynamic, DynamicFeatureExtractor) and self._optical_flow.engine == "gpu" and has_gpu():
            return partial(self._dynamic.extract_on_device, fields=self._config.crops.window_fields)
        return None

    def _build_networks(self) -> None:
        """Build the networks, unless that is done: it takes seconds, in which the child processes work already."""
        _ = self._static, self._dynamic, self._describe_on_gpu

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
    ) -> ShardReport:
        """Extract one shard and commit it: faces, static tokens and dynamic tokens, and a row for each refused video.

        Args:
            on_video: called after each video with its id and whether it was accepted.
            check: called with each part of a video that arrives; an exception from it stops the shard.
        """
        watch = Stopwatch()
        with watch.measure("write"):
            known = self._known_tracks(jobs)
        intakes = [_Intake(job, known.get(job.video.video_id)) for job in jobs]
        self._fill(intakes, watch, on_video, check)
        with watch.measure("write"):
            self._commit(intakes)
        failed = sum(intake.error is not None for intake in intakes)
        return ShardReport(extracted=len(intakes) - failed, failed=failed, seconds=dict(watch.seconds))

    def features(self, video: VideoFile) -> dict[Kind, VideoFeatures]:
        """Extract one video, and keep nothing in the store.

        Raises:
            VideoError: the video is refused.
        """
        intake = _Intake(Job(video, static=True, dynamic=True), None)
        self._fill([intake], Stopwatch())
        with intake.isolating_faults():
            found = self._finished(intake)
        if intake.error is not None:
            raise intake.error
        return found

    def _fill(
        self,
        intakes: Sequence[_Intake],
        watch: Stopwatch,
        on_video: Callable[[str, bool], None] | None = None,
        check: Callable[[], None] | None = None,
    ) -> None:
        sizes = self._config.static.batch_size, self._config.dynamic.batch_size
        static_batches = _Batcher(lambda crops: self._static.extract(crops), sizes[0], watch, "static network")
        dynamic_batches = _Batcher(self._describe_windows, sizes[1], watch, "dynamic network")
        for number, part in self._pool.prepare(self._requests(intakes), self._build_networks):
            intake = intakes[number]
            if check is not None:
                check()
            match part:
                case FaceTrack() | FaceCrop() | Motion():
                    taken = self._with_optical_flow(part, watch) if isinstance(part, Motion) else part
                    if intake.error is None:
                        with intake.isolating_faults():
                            self._take(taken, intake, static_batches, dynamic_batches)
                    # A batch has several videos, so an error of a network is not the fault of one of them.
                    static_batches.flush_if_full()
                    dynamic_batches.flush_if_full()
                case Again():
                    intake.begin()
                case Finished():
                    watch.add(part.seconds)
                case VideoError():
                    intake.error = part
                    log.info("%s rejected: %s", intake.job.video.video_id, part)
            if on_video is not None and isinstance(part, Finished | VideoError):
                on_video(intake.job.video.video_id, intake.error is None)
        static_batches.flush()
        dynamic_batches.flush()

    def _describe_windows(self, windows: Any) -> np.ndarray:
        return (self._describe_on_gpu or self._dynamic.extract)(windows)

    def _useful_processes(self) -> int:
        """Return how many videos can be prepared at once: even an idle process takes 170 MiB."""
        in_a_shard = self._config.extract.shard_size
        return min(self._cores, in_a_shard if self._videos is None else min(in_a_shard, self._videos))

    def _requests(self, intakes: Sequence[_Intake]) -> Iterator[Request]:
        """Yield requests to the child processes; the last videos of a shard share the idle cores."""
        for position, intake in enumerate(intakes):
            sharing = min(self._processes, len(intakes) - position)
            threads = self._config.optical_flow.threads or max(1, self._cores // sharing)
            job = intake.job
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

    def _with_optical_flow(self, motion: Motion, watch: Stopwatch) -> _Fields:
        """Compute the optical flow here if the child process sent grey frames. For I3D, it stays on the GPU."""
        frames, bound_px = motion.fields, self._config.optical_flow.bound_px
        if frames.dtype != np.uint8:
            return _Fields(motion.window, frames)
        with watch.measure("optical flow"):
            if self._describe_on_gpu is not None:
                return _Fields(motion.window, self._optical_flow.compute_scaled(frames, bound_px=bound_px))
            return _Fields(motion.window, scale_for_i3d(self._optical_flow.compute(frames), bound_px=bound_px))

    def _take(
        self, part: FaceTrack | FaceCrop | _Fields, intake: _Intake, static_batches: _Batcher, dynamic_batches: _Batcher
    ) -> None:
        match part:
            case FaceTrack():
                intake.known, intake.track = part, self._faces_row(intake.job.video, part)
            case FaceCrop():
                self._add_face(part, *_expected(intake.known, intake.static), static_batches)
            case _Fields():
                self._add_window(part, *_expected(intake.known, intake.dynamic), dynamic_batches)

    def _add_face(self, face: FaceCrop, track: FaceTrack, tokens: _Tokens, batches: _Batcher) -> None:
        fps = self._config.video.fps
        tokens.start_s.append(face.frame / fps)
        tokens.end_s.append((face.frame + 1) / fps)
        tokens.quality.append((*_facts(track).values(), track.scores[face.frame]))
        batches.add(face.pixels, tokens.vectors)

    def _add_window(self, motion: _Fields, track: FaceTrack, tokens: _Tokens, batches: _Batcher) -> None:
        fps, window = self._config.video.fps, motion.window
        last = window.first_frame + window.fields
        tokens.start_s.append(window.first_frame / fps)
        tokens.end_s.append(last / fps)
        score = track.scores[window.first_frame : last + 1].mean()
        tokens.quality.append((*_facts(track).values(), score, window.fields))
        fields = motion.fields
        if isinstance(fields, np.ndarray):
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

    def _commit(self, intakes: Sequence[_Intake]) -> None:
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
        failures = [self._failure(intake.job, intake.error) for intake in intakes if intake.error is not None]
        commit_shard(self._store, self._failures, rows, failures)


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
