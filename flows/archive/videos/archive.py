"""The archive: the videos of a folder or a list, each with an id and the digest of its bytes."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flows.archive.families import Families, lacking_features
from flows.archive.videos.digests import with_digests
from flows.archive.videos.folder import VIDEOS_AT_A_TIME, Found, Names, find_videos
from flows.archive.videos.listed import LIST_ENDINGS, Listed, videos_of_list
from flows.config.settings import RunConfig
from flows.session import console
from flows.session.errors import UserError
from fusion.errors import some_of
from storage.files.paths import StorePath
from storage.shards.store import FeatureStore
from storage.tables.failures import FailureLog
from storage.tables.in_step import VIDEOS, InStep, digests_of
from storage.tables.seen import SeenVideos


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
        columns: ids and digests with the schema `VIDEOS`, in parts.
    """

    __slots__ = ("_elsewhere", "_folder", "_starts", "columns", "passed_over", "unread")

    def __init__(
        self,
        videos: Iterable[VideoFile],
        unread: Mapping[str, str] = MappingProxyType({}),
        passed_over: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.columns: list[pa.RecordBatch] = []
        self._starts: list[int] = []
        # Most paths are a folder and the id, so that only the others are kept.
        self._folder: bytes | None = None
        self._elsewhere: dict[str, bytes] = {}
        self.unread, self.passed_over = unread, passed_over
        rest = iter(videos)
        while some := list(islice(rest, VIDEOS_AT_A_TIME)):
            for video in some:
                path, video_id = os.fsencode(video.path), video.video_id.encode()
                if self._folder is None:
                    self._folder = path.removesuffix(video_id)
                if path != self._folder + video_id:
                    self._elsewhere[video.video_id] = path
            self._add(pa.array([video.video_id for video in some]), pa.array([video.sha256 for video in some]))

    @classmethod
    def of_columns(
        cls,
        folder: Path,
        columns: Iterable[tuple[pa.Array[Any], pa.Array[Any]]],
        spelled: Mapping[str, str] = MappingProxyType({}),
        unread: Mapping[str, str] = MappingProxyType({}),
        passed_over: Mapping[str, int] = MappingProxyType({}),
    ) -> Archive:
        """Make an archive of columns.

        Args:
            folder: that the ids are relative to.
            columns: ids, sorted, and digests, both text, in parts that are not empty.
            spelled: see `Names`.
            unread, passed_over: as above.
        """
        archive = cls((), unread, passed_over)
        archive._folder = os.path.join(os.fsencode(folder), b"")
        archive._elsewhere = {video_id: os.fsencode(folder / path) for video_id, path in spelled.items()}
        for ids, digests in columns:
            archive._add(ids, digests)
        return archive

    def _add(self, ids: pa.Array[Any], digests: pa.Array[Any]) -> None:
        self._starts.append(len(self))
        self.columns.append(pa.record_batch([ids, digests], schema=VIDEOS))

    @overload
    def __getitem__(self, index: int) -> VideoFile: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[VideoFile]: ...

    def __getitem__(self, index: int | slice) -> VideoFile | Sequence[VideoFile]:
        rows = range(len(self))[index]
        if isinstance(rows, range):
            return [self[row] for row in rows]
        part = bisect_right(self._starts, rows) - 1
        return self._file(*(column[rows - self._starts[part]].as_py() for column in self.columns[part].columns))

    def ids(self, rows: np.ndarray) -> list[str]:
        """Return the ids of some videos, by their numbers, in the order given."""
        parts = np.searchsorted(self._starts, rows, side="right") - 1
        ids = np.empty(len(rows), dtype=object)
        for part in np.unique(parts).tolist():
            chosen = np.flatnonzero(parts == part)
            places = pa.array(rows[chosen] - self._starts[part])
            ids[chosen] = self.columns[part]["video_id"].take(places).to_pylist()
        return [str(video_id) for video_id in ids]

    def __iter__(self) -> Iterator[VideoFile]:
        for batch in self.columns:
            yield from map(self._file, *(column.to_pylist() for column in batch.columns))

    def __len__(self) -> int:
        return self._starts[-1] + len(self.columns[-1]) if self.columns else 0

    def _file(self, video_id: str, sha256: str) -> VideoFile:
        path = self._elsewhere.get(video_id)
        return VideoFile(
            video_id, Path(os.fsdecode((self._folder or b"") + video_id.encode() if path is None else path)), sha256
        )

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
    digests = settings.store.path / "runs" / "digests.parquet"
    if place.is_dir():
        archive = scan_videos(place, digests, on_digest, seen)
    else:
        root = videos_folder(settings)
        listed = videos_of_list(place, root)
        _say_listed(place, listed)
        columns = with_digests(root, listed.videos, listed.spelled, digests, on_digest)
        archive = Archive.of_columns(root, columns, listed.spelled)
    seen.note(archive.columns)
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


def scan_videos(
    folder: Path,
    digests: StorePath,
    on_digest: Callable[[int, int], None] | None = None,
    seen: SeenVideos | None = None,
) -> Archive:
    """List the videos below a folder, sorted by id, and report the other files; see `find_videos`.

    A file's digest is taken from the last scan if its size and times have not changed, so that a second run over a
    large archive does not read every byte again.

    Args:
        on_digest: called with (files digested, files in all).
        seen: earlier runs' videos, which the archive includes if their folder is unreadable now.

    Raises:
        UserError: the folder holds no video, or two files would have the same id.
    """
    found = find_videos(folder)
    _say_found(found)
    ids, doubled = found.videos.ascending()
    if doubled:
        raise UserError(f"two files would both be the video {doubled[0]!r}: rename one of them")
    if found.unread and seen is not None:
        names = Names()
        for part in ids:
            names.add_ids(part)
        for rows in seen.table.newest(columns=["video_id"]):
            earlier = map(str, rows["video_id"].to_pylist())
            names.add_ids(pa.array([name for name in earlier if _is_unread(name, found.unread)], pa.string()))
        ids, _ = names.ascending()
    if not ids:
        unread = f"; cannot read {_named(found.unread)}" if found.unread else ""
        passed = f"; passed over: {console.tally(found.passed_over)}" if found.passed_over else ""
        raise UserError(f"{folder} holds no video files (.mp4, .mov, .avi and similar){unread}{passed}; check the path")
    columns = with_digests(folder, ids, found.videos.spelled, digests, on_digest)
    return Archive.of_columns(folder, columns, found.videos.spelled, found.unread, found.passed_over)


def _is_unread(video_id: str, unread: Mapping[str, str]) -> bool:
    return not unread.keys().isdisjoint([".", video_id, *map(str, PurePosixPath(video_id).parents)])


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
    refused = dict(sorted(FailureLog(root).last(families.features)))
    failed = InStep(iter([pa.table([list(refused), list(refused.values())], schema=VIDEOS)]), VIDEOS)
    seen = SeenVideos(root).in_step()

    def joined(extracted: pa.Table, failed: pa.Table) -> tuple[pa.Array[Any], pa.Array[Any]]:
        names = pa.concat_tables([extracted, failed])["video_id"].combine_chunks().unique()
        ids = names.take(pc.sort_indices(names))
        return ids, pc.coalesce(*(digests_of(ids, known) for known in (seen.up_to(ids[-1]), extracted, failed)))

    columns = [
        joined(rows, failed.up_to(rows["video_id"][-1]))
        for rows in FeatureStore(root).manifest.current(families.static.key)
    ]
    columns += [joined(VIDEOS.empty_table(), rows) for rows in failed.rest() if len(rows)]
    if not columns:
        raise UserError(f"there are no {lacking_features(root, families)}")
    return Archive.of_columns(Path(), columns)
