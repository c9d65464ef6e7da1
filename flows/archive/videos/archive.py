"""The archive: the videos of a folder or a list, each with an id and the digest of its bytes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, overload

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from extractors.video.digests import sha256_of
from flows.archive.families import Families, lacking_features
from flows.archive.videos.folder import Found, find_videos
from flows.archive.videos.listed import LIST_ENDINGS, Listed, videos_of_list
from flows.config.settings import RunConfig
from flows.session import console
from flows.session.errors import UserError
from fusion.errors import some_of
from storage.files.commit import commit_file
from storage.files.paths import StorePath, fetched, parquet_source
from storage.shards.store import FeatureStore
from storage.tables.failures import FailureLog
from storage.tables.seen import SeenVideos

_STATE = ("size", "mtime_ns", "ctime_ns")
_FIELDS: list[pa.Field[Any]] = [
    pa.field("path", pa.binary()),
    *(pa.field(name, pa.int64()) for name in _STATE),
    pa.field("sha256", pa.string()),
]
_DIGESTS = pa.schema(_FIELDS)
_SHA256 = "^[0-9a-f]{64}$"
_COLUMNS = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("video_id", "video_sha256")])
VIDEOS_AT_A_TIME = 2**16  # of a large archive


@dataclass(frozen=True, slots=True)
class VideoFile:
    """One video of the archive.

    Args:
        video_id: POSIX path relative to the videos folder, with its extension.
        sha256: SHA-256 of its bytes, in hex; empty if they cannot be read, as behind a broken link.
    """

    video_id: str
    path: Path
    sha256: str


class Archive(Sequence[VideoFile]):
    """The videos to work on, sorted by id, as flows pass them to each other: at about 110 bytes of memory a video.

    Prefect keeps a flow's parameters as text in its database and refuses more than 512 KiB, about 3,000 videos. Of an
    object that it cannot serialise, it keeps the name only.

    Args:
        videos: sorted by id.
        unread: unreadable folders and links that may hold more videos: id -> reason.
        passed_over: number of other files, by kind.

    Attributes:
        columns: "video_id" and "video_sha256", both text, `VIDEOS_AT_A_TIME` videos in each batch but the last.
    """

    __slots__ = ("_folder", "_paths", "columns", "passed_over", "unread")

    def __init__(
        self,
        videos: Iterable[VideoFile],
        unread: Mapping[str, str] = MappingProxyType({}),
        passed_over: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.columns: list[pa.RecordBatch] = []
        # Most paths are a folder and the id, so that only the others are kept.
        self._folder: bytes | None = None
        self._paths: dict[int, bytes] = {}
        self.unread, self.passed_over = unread, passed_over
        rest = iter(videos)
        while some := list(islice(rest, VIDEOS_AT_A_TIME)):
            for row, video in enumerate(some, start=len(self)):
                path, video_id = os.fsencode(video.path), video.video_id.encode()
                if self._folder is None:
                    self._folder = path.removesuffix(video_id)
                if path != self._folder + video_id:
                    self._paths[row] = path
            texts = [video.video_id for video in some], [video.sha256 for video in some]
            self.columns.append(pa.record_batch([pa.array(text, pa.string()) for text in texts], schema=_COLUMNS))

    @overload
    def __getitem__(self, index: int) -> VideoFile: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[VideoFile]: ...

    def __getitem__(self, index: int | slice) -> VideoFile | Sequence[VideoFile]:
        rows = range(len(self))[index]
        if isinstance(rows, range):
            return [self[row] for row in rows]
        batch, place = divmod(rows, VIDEOS_AT_A_TIME)
        video_id, sha256 = (column[place].as_py() for column in self.columns[batch].columns)
        return VideoFile(video_id, self._path(rows, video_id), sha256)

    def __iter__(self) -> Iterator[VideoFile]:
        row = count()
        for batch in self.columns:
            for video_id, sha256 in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield VideoFile(video_id, self._path(next(row), video_id), sha256)

    def __len__(self) -> int:
        return sum(map(len, self.columns))

    def _path(self, row: int, video_id: str) -> Path:
        path = self._paths.get(row)
        return Path(os.fsdecode((self._folder or b"") + video_id.encode() if path is None else path))

    def check_whole(self) -> None:
        """Raise UserError if a part of the archive could not be read. Call it after everything else."""
        if self.unread:
            raise UserError(
                f"the archive could not be read completely: {_named(self.unread)}; videos that were seen there before "
                "fail as unreadable, and others are missing from the results"
            )


def videos_of(settings: RunConfig, on_digest: Callable[[int, int], None] | None = None) -> Archive:
    """Find the videos of the folder or list that the settings name, report the others, and record the digests.

    The archive includes videos that an earlier run saw in a folder that is unreadable now, without a digest.

    Args:
        on_digest: called with (files digested, files in all).

    Raises:
        UserError: the settings name no videos; or as `check_videos`, `scan_videos` and `videos_of_list`.
    """
    place = named_videos(settings)
    check_videos(settings)
    seen = SeenVideos(settings.store.path)
    if place.is_dir():
        found = find_videos(place)
        if found.unread:
            for video_id in seen.current():
                if not found.unread.keys().isdisjoint([".", video_id, *map(str, PurePosixPath(video_id).parents)]):
                    found.videos.setdefault(video_id, place / video_id)
        _say_found(found)
    else:
        listed = videos_of_list(place, videos_folder(settings))
        _say_listed(place, listed)
        found = Found(videos=listed.videos)
    archive = _archive(place, found, settings.store.path / "runs" / "digests.parquet", on_digest)
    seen.note({video.video_id: video.sha256 for video in archive})
    return archive


def check_videos(settings: RunConfig) -> None:
    """Check that the videos folder or list exists, if the settings name one. Raises UserError if it does not."""
    videos, root = settings.videos, settings.videos_root
    if videos is None:
        return
    try:
        is_folder = videos.is_dir()
    except OSError as error:
        raise UserError(f"cannot look at {videos}: {error.strerror}; check the path given as --videos") from error
    if is_folder:
        if root is not None:
            raise UserError(f"{videos} is a folder: its videos are relative to it, and not to videos_root {root}")
        return
    if not videos.is_file():
        raise UserError(f"there is no videos folder {videos}; check the path given as --videos")
    if videos.suffix.lower() not in LIST_ENDINGS:
        raise UserError(
            f"{videos} is neither a folder nor a list of videos ({', '.join(LIST_ENDINGS)}); check the path given as "
            "--videos"
        )
    if root is not None and not root.is_dir():
        raise UserError(f"there is no folder {root}; check the path given as --videos-root")


def videos_folder(settings: RunConfig) -> Path:
    """Return the folder that the ids of videos are relative to.

    Raises:
        UserError: the settings name no videos.
    """
    place = named_videos(settings)
    if place.is_dir():
        return place
    return settings.videos_root if settings.videos_root is not None else place.parent


def named_videos(settings: RunConfig) -> Path:
    """Return the folder or list that the settings name. Raises UserError if they name none."""
    if settings.videos is None:
        raise UserError("which videos? give their folder with --videos DIR, or as 'videos: DIR' in the settings file")
    return settings.videos


def scan_videos(folder: Path, digests: StorePath, on_digest: Callable[[int, int], None] | None = None) -> Archive:
    """List the videos below a folder, sorted by id; see `find_videos`.

    A file's digest is taken from the last scan if its size and times have not changed, so that a second run over a
    large archive does not read every byte again.

    Args:
        on_digest: called with (files digested, files in all).

    Raises:
        UserError: the folder does not exist or holds no video, or two files would have the same id.
    """
    if not folder.is_dir():
        raise UserError(f"there is no videos folder {folder}; check the path given as --videos")
    return _archive(folder, find_videos(folder), digests, on_digest)


def _archive(
    place: Path, found: Found, digests: StorePath, on_digest: Callable[[int, int], None] | None = None
) -> Archive:
    if found.doubled:
        raise UserError(f"two files would both be the video {found.doubled[0]!r}: rename one of them")
    if not found.videos:
        unread = f"; cannot read {_named(found.unread)}" if found.unread else ""
        passed = f"; passed over: {console.tally(found.passed_over)}" if found.passed_over else ""
        raise UserError(f"{place} holds no video files (.mp4, .mov, .avi and similar){unread}{passed}; check the path")
    known = _read_digests(digests)
    remembered, videos = {}, []
    for number, (video_id, path) in enumerate(sorted(found.videos.items()), start=1):
        sha256 = ""
        with contextlib.suppress(OSError):  # extraction says why it cannot be read
            status = path.stat()
            # A copy can keep the old modification time, but no program can set the time of the last status change.
            state = (os.fsencode(path.absolute()), status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            sha256 = remembered[state] = known.get(state) or sha256_of(path)
        videos.append(VideoFile(video_id, path, sha256))
        if on_digest is not None:
            on_digest(number, len(found.videos))
    if remembered.keys() - known.keys():
        _write_digests(digests, known | remembered)
    return Archive(videos, found.unread, found.passed_over)


def _named(reasons: Mapping[str, str]) -> str:
    names = [f"{name} ({reason})" for name, reason in sorted(reasons.items())]
    return some_of(names)


def _say_found(found: Found) -> None:
    if found.unread:
        console.say(f"Cannot read {_named(found.unread)}", style="yellow")
    if found.linked_twice:
        twice = some_of([f"{name} (a link to {real})" for name, real in sorted(found.linked_twice.items())])
        count = console.counted(len(found.linked_twice), "linked folder")
        console.say(f"Passed over {count} whose targets are read under another name: {twice}")
    if found.passed_over:
        console.say(console.one_line(f"Passed over: {console.tally(found.passed_over)}"))


def _say_listed(path: Path, listed: Listed) -> None:
    if listed.repeated:
        names = some_of([f"{name} ({places})" for name, places in listed.repeated.items()])
        count = console.counted(len(listed.repeated), "video")
        console.say(f"{path} names {count} more than once; each is taken once: {names}", style="yellow")
    if listed.missing:
        names = some_of([f"{name} ({place})" for name, place in listed.missing.items()])
        count = console.counted(len(listed.missing), "video")
        console.say(f"{path} names {count} that cannot be found, rejected as unreadable: {names}", style="yellow")


def known_videos(root: StorePath, families: Families) -> Archive:
    """List the videos that a store has features of, or refused, with these settings, sorted by id.

    Each has the digest of its file when a run last saw it, or else that of its features or refusal.

    Raises:
        UserError: there are none.
    """
    digests = {video_id: sha256 for video_id, sha256 in FailureLog(root).refused(families.features)}
    digests |= FeatureStore(root).done(families.static)
    if not digests:
        raise UserError(f"there are no {lacking_features(root, families)}")
    seen = SeenVideos(root).current()
    return Archive(
        VideoFile(video_id, Path(video_id), seen.get(video_id, sha256)) for video_id, sha256 in sorted(digests.items())
    )


def _read_digests(path: StorePath) -> dict[tuple[bytes, int, int, int], str]:
    if not path.is_file():
        return {}
    try:
        with pq.ParquetFile(parquet_source(fetched(path))) as file:  # `read_table` imports pandas
            table = file.read()
        table.validate(full=True)
        if not table.schema.equals(_DIGESTS) or not pc.all(pc.match_substring_regex(table["sha256"], _SHA256)).as_py():
            return {}
        return {tuple(state): sha256 for *state, sha256 in zip(*table.to_pydict().values(), strict=True)}
    except (OSError, ValueError, pa.ArrowException):
        return {}  # the file is only a cache: all videos are read again, and it is rewritten


def _write_digests(path: StorePath, digests: dict[tuple[bytes, int, int, int], str]) -> None:
    columns: list[tuple[Any, ...]] = [*zip(*digests, strict=True), tuple(digests.values())]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, _DIGESTS, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=_DIGESTS)
    with commit_file(path) as temporary:
        pq.write_table(table, temporary)
