"""Reads single videos in a child process, so that no video can crash or hang the process that draws or trains."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from extractors.errors import VideoError
from extractors.faces.settings import FaceModels
from extractors.faces.track import FaceTrack
from extractors.preparation.pool import Again, Finished, PreparerPool
from extractors.preparation.preparer import FaceCrop, Frame, Motion, Part, PreparationSettings, Request
from flows.archive.families import face_models
from flows.config.settings import RunConfig
from flows.session.errors import UserError


def preparation_of(config: RunConfig, models: FaceModels | None, *, engine: str) -> PreparationSettings:
    """Return the settings for child processes that prepare videos.

    Args:
        config: the settings of the run.
        models: files of the networks for faces; None if no faces are to be found.
        engine: of the optical flow, not "auto".
    """
    return PreparationSettings(
        face_models=models,
        video=config.video,
        faces=config.faces,
        crops=config.crops,
        optical_flow=config.optical_flow.model_copy(update={"engine": engine}),
        limits=config.limits,
    )


class VideoReader:
    """Reads one video after the other, each within `limits.*`. Use it as a context manager.

    Args:
        config: its settings of faces, crops and limits apply.
        finds_faces: whether `parts` is called without a track. This needs the face detector's files.
    """

    def __init__(self, config: RunConfig, *, finds_faces: bool = False) -> None:
        # With the engine "gpu" the child sends grey frames. The callers need optical flow in pixels, and compute it.
        settings = preparation_of(config, face_models(config) if finds_faces else None, engine="gpu")
        self._pool = PreparerPool(settings, 1, config.extract.stall_s)

    def __enter__(self) -> VideoReader:
        self._pool.__enter__()
        return self

    def __exit__(self, *reason: object) -> None:
        self._pool.__exit__(*reason)

    def parts(self, request: Request) -> list[Part]:
        """Return what `extractors.preparation.preparer.Preparer.prepare` yields; windows of motion are grey frames.

        Raises:
            UserError: the video cannot be used, or exceeds a limit, or the child process crashed.
        """
        found: list[Part] = []
        for _, part in self._pool.prepare([request]):
            match part:
                case VideoError():
                    raise _unusable(request.path, part) from part
                case Again():
                    found.clear()
                case Motion():
                    found.append(replace(part, fields=part.fields.copy()))
                case Finished():
                    pass
                case _:
                    found.append(part)
        return found

    def each_frame(self, path: Path, numbers: Collection[int], sha256: str | None = None) -> Iterator[Frame]:
        """Yield some frames of the grid in order, one at a time, so that a long video fits into the memory.

        Args:
            sha256: digest that the file must have, in hex; None if any will do.

        Raises:
            UserError: as `parts`.
        """
        last = -1  # if the child process breaks off, another one begins again with the first frame
        for _, part in self._pool.prepare([Request(path, frames=frozenset(numbers), sha256=sha256)]):
            if isinstance(part, VideoError):
                raise _unusable(path, part) from part
            if isinstance(part, Frame) and part.number > last:
                last = part.number
                yield part

    def frames(self, path: Path, numbers: Collection[int]) -> dict[int, np.ndarray]:
        """Return some frames of the grid: number -> uint8 RGB [H, W, 3]. A still picture has frame 0 only.

        Raises:
            UserError: as `parts`.
        """
        return {frame.number: frame.pixels for frame in self.each_frame(path, numbers)}

    def crops(self, path: Path, track: FaceTrack) -> np.ndarray:
        """Return the face crops that static tokens are made of, uint8 RGB [n, 224, 224, 3].

        Raises:
            UserError: as `parts`.
        """
        parts = self.parts(Request(path, track, static=True))
        return np.stack([part.pixels for part in parts if isinstance(part, FaceCrop)])


def _unusable(path: Path, error: VideoError) -> UserError:
    return UserError(f"{path} cannot be used: {error.message}")
