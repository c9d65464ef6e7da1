"""Extraction of one shard of videos: from files to committed features. Plain code; `flows.extract` makes it a flow."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from extractors import assets, dynamic, static
from extractors.crops import CropWindow, iter_crops, plan_static, plan_windows
from extractors.dynamic import DynamicFeatureExtractor
from extractors.errors import VideoError
from extractors.faces import FaceDetector
from extractors.optical_flow import OpticalFlowComputer, loop_to, scale_for_i3d
from extractors.static import StaticFeatureExtractor
from extractors.track import FaceTrack, track_faces
from flows.config import RunConfig
from flows.families import FACE_ASSET, Families, asset_folder
from flows.manifest import VideoFile
from flows.stopwatch import Stopwatch
from storage.failures import Failure, FailureLog
from storage.feature_store import FeatureStore
from storage.features import VideoFeatures

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """One video and what it still needs.

    Args:
        video: the file.
        static: whether its static tokens are missing.
        dynamic: whether its dynamic tokens are missing.
        attempts: how often it was refused before with the same settings.
    """

    video: VideoFile
    static: bool
    dynamic: bool
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class ShardReport:
    """What came of one shard: counts, and seconds by stage."""

    extracted: int
    failed: int
    seconds: dict[str, float]


class _Batcher:
    """Collects items of any number of videos and sends them through a network a batch at a time."""

    def __init__(self, extract: Callable[[np.ndarray], np.ndarray], size: int, watch: Stopwatch, stage: str) -> None:
        self._extract, self._size, self._watch, self._stage = extract, size, watch, stage
        self._waiting: list[tuple[list[np.ndarray], np.ndarray]] = []

    def add(self, item: np.ndarray, goal: list[np.ndarray]) -> None:
        """Queue an item; its vector will be appended to `goal`, in the order of the items."""
        self._waiting.append((goal, item))
        if len(self._waiting) == self._size:
            self.flush()

    def flush(self) -> None:
        """Send what waits."""
        if not self._waiting:
            return
        goals = [goal for goal, _ in self._waiting]
        batch = np.stack([item for _, item in self._waiting])
        self._waiting.clear()  # before the network runs: a window of optical flow takes 26 MB
        with self._watch.measure(self._stage):
            for goal, vector in zip(goals, self._extract(batch), strict=True):
                goal.append(vector)


class _MeasuredDetector:
    """A face detector whose time is counted."""

    def __init__(self, detector: FaceDetector, watch: Stopwatch) -> None:
        self._detector, self._watch = detector, watch

    def detect(self, image: np.ndarray) -> np.ndarray:
        with self._watch.measure("faces"):
            return self._detector.detect(image)


@dataclass
class _Tokens:
    """Tokens of one video and family as they come in: the vectors follow later than the rest, batch by batch."""

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


class Extractor:
    """Everything that a worker needs to extract shards, built once: detector, optical flow, both networks, the store.

    Use it as a context manager; the detector must be closed.
    """

    def __init__(self, config: RunConfig, families: Families) -> None:
        self._config, self._families = config, families
        self._store = FeatureStore(config.store.path, config.store.format, config.store.dtype)
        self._failures = FailureLog(config.store.path)
        self._resources = ExitStack()

    def __enter__(self) -> Extractor:
        config = self._config
        (model,) = assets.known_assets()[FACE_ASSET].files
        folder = assets.resolve(FACE_ASSET, folder=asset_folder(config, FACE_ASSET))
        self._detector = self._resources.enter_context(FaceDetector(folder / model.name, config.faces))
        self._optical_flow = OpticalFlowComputer.from_settings(config.optical_flow)
        self._static = StaticFeatureExtractor(
            config.weights,
            frozen_layers=config.static.frozen_layers,
            seed=config.seed,
            batch_size=config.static.batch_size,
            asset_folder=asset_folder(config, static.ASSET),
        )
        self._dynamic = DynamicFeatureExtractor(
            config.weights,
            seed=config.seed,
            batch_size=config.dynamic.batch_size,
            asset_folder=asset_folder(config, dynamic.ASSET),
        )
        return self

    def __exit__(self, *reason: object) -> None:
        self._resources.close()

    def extract(self, jobs: Sequence[Job], on_video: Callable[[str, bool], None] | None = None) -> ShardReport:
        """Extract one shard and commit it: faces, static tokens and dynamic tokens, and a row for each refused video.

        Args:
            jobs: the shard's videos.
            on_video: called after each video with its id and whether it was accepted.
        """
        watch = Stopwatch()
        static_batches = _Batcher(self._static.extract, self._config.static.batch_size, watch, "ResNet-50")
        dynamic_batches = _Batcher(self._dynamic.extract, self._config.dynamic.batch_size, watch, "I3D")
        with watch.measure("write"):
            known = self._known_tracks(jobs)
        tracks: list[VideoFeatures] = []
        tokens: list[tuple[VideoFile, _Tokens | None, _Tokens | None]] = []
        failures: list[Failure] = []
        for job in jobs:
            try:
                track = known.get(job.video.video_id)
                if track is None:
                    track = self._track(job.video.path, watch)
                    tracks.append(self._faces_row(job.video, track))
                tokens.append((job.video, *self._tokens(job, track, static_batches, dynamic_batches, watch)))
            except VideoError as error:
                failures.append(self._failure(job, error))
                log.info("%s refused: %s", job.video.video_id, error)
            if on_video is not None:
                on_video(job.video.video_id, not failures or failures[-1].video_id != job.video.video_id)
        static_batches.flush()
        dynamic_batches.flush()
        with watch.measure("write"):
            self._commit(tracks, tokens, failures)
        return ShardReport(extracted=len(tokens), failed=len(failures), seconds=dict(watch.seconds))

    def _known_tracks(self, jobs: Sequence[Job]) -> dict[str, FaceTrack]:
        sha256 = {job.video.video_id: job.video.sha256 for job in jobs}
        return {
            row.video_id: FaceTrack.from_rows(row.vectors)
            for row in self._store.read(self._families.faces, sha256)
            if row.video_sha256 == sha256[row.video_id]
        }

    def _track(self, path: Path, watch: Stopwatch) -> FaceTrack:
        # Whatever is not the detector's time is the decoder's.
        with watch.measure("decode"):
            detector = _MeasuredDetector(self._detector, watch)
            return track_faces(path, detector, self._config.video, self._config.faces)

    def _faces_row(self, video: VideoFile, track: FaceTrack) -> VideoFeatures:
        start_s = np.arange(len(track.scores)) / self._config.video.fps
        detected = (track.scores > 0).astype(np.float32)
        end_s = start_s + 1 / self._config.video.fps
        return VideoFeatures(video.video_id, video.sha256, track.to_rows(), start_s, end_s, {"detected": detected})

    def _tokens(
        self, job: Job, track: FaceTrack, static_batches: _Batcher, dynamic_batches: _Batcher, watch: Stopwatch
    ) -> tuple[_Tokens | None, _Tokens | None]:
        """Queue everything that the video still needs; only the vectors are not there yet when this returns."""
        settings = self._config.crops
        windows = plan_windows(track, settings)
        static_tokens = _Tokens() if job.static else None
        dynamic_tokens = _Tokens() if job.dynamic else None
        static_frames = plan_static(windows, settings) if job.static else []
        crops = iter_crops(job.video.path, windows, static_frames, fps=self._config.video.fps)
        for cut in watch.iterate("decode", crops):
            if static_tokens is not None:
                for frame, crop in cut.static:
                    self._add_face(frame, crop, track, static_tokens, static_batches)
            if dynamic_tokens is not None:
                self._add_window(cut, track, dynamic_tokens, dynamic_batches, watch)
        return static_tokens, dynamic_tokens

    def _add_face(self, frame: int, crop: np.ndarray, track: FaceTrack, tokens: _Tokens, batches: _Batcher) -> None:
        fps = self._config.video.fps
        tokens.start_s.append(frame / fps)
        tokens.end_s.append((frame + 1) / fps)
        tokens.quality.append((track.coverage, track.scores[frame]))
        batches.add(crop, tokens.vectors)

    def _add_window(
        self, cut: CropWindow, track: FaceTrack, tokens: _Tokens, batches: _Batcher, watch: Stopwatch
    ) -> None:
        fps, window = self._config.video.fps, cut.window
        with watch.measure("optical flow"):
            fields = self._optical_flow.compute(cut.grey)
            fields = scale_for_i3d(fields, bound_px=self._config.optical_flow.bound_px)
        last = window.first_frame + window.fields
        tokens.start_s.append(window.first_frame / fps)
        tokens.end_s.append(last / fps)
        score = track.scores[window.first_frame : last + 1].mean()
        tokens.quality.append((track.coverage, score, window.fields))
        batches.add(loop_to(fields, self._config.crops.window_fields), tokens.vectors)

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

    def _commit(
        self,
        tracks: Sequence[VideoFeatures],
        tokens: Sequence[tuple[VideoFile, _Tokens | None, _Tokens | None]],
        failures: Sequence[Failure],
    ) -> None:
        families = self._families
        static = [row.finish(video, families.static.quality) for video, row, _ in tokens if row is not None]
        dynamic = [row.finish(video, families.dynamic.quality) for video, _, row in tokens if row is not None]
        for family, rows in ((families.faces, tracks), (families.static, static), (families.dynamic, dynamic)):
            if rows:
                self._store.write(family, rows)
        self._failures.add(failures)
