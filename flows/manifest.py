"""What there is to do: the videos of a folder, each with an id and the digest of its bytes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flows.config import RunConfig
from flows.errors import UserError
from flows.families import Families
from storage.commit import commit_file
from storage.failures import FailureLog
from storage.feature_store import FeatureStore
from storage.paths import StorePath, fetched, parquet_source

SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"),
)
CHUNK_BYTES = 1 << 20

_DIGESTS = pa.schema({"path": pa.binary(), "size": pa.int64(), "mtime_ns": pa.int64(), "sha256": pa.string()})
_SHA256 = "^[0-9a-f]{64}$"


@dataclass(frozen=True, slots=True)
class VideoFile:
    """One video of the archive.

    Args:
        video_id: POSIX path relative to the videos folder, with its extension.
        path: where the file lies.
        sha256: SHA-256 of its bytes, in hex; empty where they cannot be read, as of a link that leads nowhere.
    """

    video_id: str
    path: Path
    sha256: str


class Archive(Sequence[VideoFile]):
    """The videos that there are to work on, sorted by id: what flows hand to each other.

    Prefect keeps a flow's parameters as text in its database and refuses more than 512 KiB, some 3,000 videos. Of an
    object that is nothing but this, it keeps the name.
    """

    __slots__ = ("_videos",)

    def __init__(self, videos: Iterable[VideoFile]) -> None:
        self._videos = tuple(videos)

    def __getitem__(self, index: int) -> VideoFile:
        return self._videos[index]

    def __len__(self) -> int:
        return len(self._videos)


def scan_videos(folder: Path, digests: StorePath, on_digest: Callable[[int, int], None] | None = None) -> Archive:
    """List the videos below a folder, sorted by id.

    A link to a file, wherever that lies, is a video under the link's own name, for archives are often made of links.
    Hidden files and folders, links to folders, and what is no file (pipes, devices) are passed over.

    A file's digest is taken from the last scan where its size and modification time are still the same, so that a
    second run over a large archive does not read every byte again.

    Args:
        folder: the videos folder.
        digests: Parquet file that remembers digests between scans.
        on_digest: called with (files digested, files in all).

    Raises:
        UserError: the folder is not there or holds no video, or two files would have the same id.
    """
    check_folder(folder)
    paths: dict[str, Path] = {}
    for path in _video_paths(folder):
        if paths.setdefault(_video_id(path, folder), path) is not path:
            raise UserError(f"two files would both be the video {_video_id(path, folder)!r}: rename one of them")
    if not paths:
        raise UserError(f"{folder} holds no video files ({', '.join(SUFFIXES)}); check the path")
    known = _read_digests(digests)
    remembered, videos = {}, []
    for number, (video_id, path) in enumerate(sorted(paths.items()), start=1):
        sha256 = ""
        with contextlib.suppress(OSError):  # extraction says why it cannot be read
            status = path.stat()
            state = (os.fsencode(path.absolute()), status.st_size, status.st_mtime_ns)
            sha256 = remembered[state] = known.get(state) or _sha256(path)
        videos.append(VideoFile(video_id, path, sha256))
        if on_digest is not None:
            on_digest(number, len(paths))
    if remembered.keys() - known.keys():
        _write_digests(digests, known | remembered)
    return Archive(videos)


def check_folder(folder: Path) -> None:
    """Make sure that the videos folder is there; else UserError."""
    if not folder.is_dir():
        raise UserError(f"there is no videos folder {folder}; check the path given as --videos")


def known_videos(config: RunConfig, families: Families) -> Archive:
    """List the videos that a store has features of, or has refused, with these settings, sorted by id.

    Raises:
        UserError: there are none.
    """
    store = FeatureStore(config.store.path)
    digests = {
        row.video_id: row.video_sha256
        for row in FailureLog(config.store.path).current()
        if row.key == families.features
    }
    digests |= store.done(families.static)
    if not digests:
        raise UserError(
            f"{config.store.path} has no features that were made with these settings; run `traitline "
            "extract` first, or give the settings (such as --weights) that it was filled with"
        )
    return Archive(VideoFile(video_id, Path(video_id), sha256) for video_id, sha256 in sorted(digests.items()))


def _video_id(path: Path, folder: Path) -> str:
    # A name that is not UTF-8 cannot stand in a CSV; its odd bytes become visible escapes.
    return os.fsencode(path.relative_to(folder).as_posix()).decode("utf-8", "backslashreplace")


def _video_paths(folder: Path) -> list[Path]:
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(parent, name)
            for name in names
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES
        ]
    return [path for path in found if _may_be_video(path)]


def _may_be_video(path: Path) -> bool:
    """Whether this is a file, or cannot be looked at: to open a pipe or a device can take for ever."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _read_digests(path: StorePath) -> dict[tuple[bytes, int, int], str]:
    if not path.is_file():
        return {}
    try:
        with pq.ParquetFile(parquet_source(fetched(path))) as file:  # `read_table` imports pandas
            table = file.read()
        table.validate(full=True)
        if not table.schema.equals(_DIGESTS) or not pc.all(pc.match_substring_regex(table["sha256"], _SHA256)).as_py():
            return {}
        return {
            (name, size, mtime): sha256 for name, size, mtime, sha256 in zip(*table.to_pydict().values(), strict=True)
        }
    except (OSError, ValueError, pa.ArrowException):
        return {}  # it only saves reading: all videos are read again, and it is written anew


def _write_digests(path: StorePath, digests: dict[tuple[bytes, int, int], str]) -> None:
    names, sizes, mtimes = zip(*digests, strict=True)
    table = pa.table([names, sizes, mtimes, list(digests.values())], _DIGESTS)
    with commit_file(path) as temporary:
        pq.write_table(table, temporary)
