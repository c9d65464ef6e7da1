"""Features of single videos, for notebooks: the same numbers as in a store, without one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path

from extractors.errors import VideoError
from extractors.video.digests import sha256_of
from flows.archive.families import Kind, families_of, settle_weights
from flows.archive.videos import VideoFile
from flows.config.settings import RunConfig
from flows.extraction.extractor import Extractor
from storage.shards.features import VideoFeatures


def extract_features(
    videos: str | Path | Iterable[str | Path], config: RunConfig | None = None
) -> Iterator[tuple[str, dict[Kind, VideoFeatures] | VideoError]]:
    """Extract the features of videos, one after the other, in a child process with the limits of `limits.*`.

    Building the networks takes seconds, so give all videos to one call. For an archive, use `traitline extract`, which
    works in parallel and keeps what it has done.

    Args:
        videos: paths of the files, or one path.
        config: settings; the defaults need pretrained weights. `store` is not used.

    Yields:
        The path, and the features by kind, "static" with vectors float32 [Ts, 2048] and "dynamic" with vectors float32
        [Td, 1024] (other networks have other lengths), with the times of each token in seconds. For a video that is
        rejected, a `VideoError` with its stage, reason and message.

    Raises:
        extractors.assets.files.AssetError: weights are missing; the message says where to get them.
    """
    if isinstance(videos, str | PathLike):
        videos = [videos]
    config = settle_weights(RunConfig() if config is None else config)
    with Extractor(config, families_of(config), videos=1) as extractor:
        for path in map(Path, videos):
            try:
                sha256 = sha256_of(path) if path.is_file() else ""  # a pipe would be waited for
            except OSError:
                sha256 = ""  # the child process says why
            try:
                yield str(path), extractor.features(VideoFile(path.as_posix(), path.absolute(), sha256))
            except VideoError as error:
                yield str(path), error
