"""Finds the videos in a folder, and counts or names everything else in it."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from mimetypes import MimeTypes
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

# Endings of the formats in `extractors.video.decoding.FORMATS`: those that FFmpeg registers, and those that cameras,
# recorders and players use.
_VIDEO = """
    .3g2 .3gp .3gp2 .3gpp .3gpp2 .f4v .ismv .m4v .mj2 .mov .mp4 .mp4v .psp .qt
    .mk3d .mkv .webm
    .amv .avi .divx .xvid
    .m2t .m2ts .mts .tp .trp .ts
    .evo .m1v .m2p .m2v .mod .mp2v .mpe .mpeg .mpg .mpv .tod .vob .vro
    .asf .dvr-ms .wm .wmv .wtv
    .ogm .ogv .ogx
    .flv .dv .ivf .mxf .nut .rm .rmvb .y4m
    .264 .265 .avc .h264 .h265 .h26l .hevc .mjpeg .mjpg .obu
"""
VIDEO_ENDINGS = frozenset(_VIDEO.split())
# Audio and images in containers that can also hold videos; not every Python's `mimetypes` knows them.
_OTHER = """
    .isma .m4a .m4b .m4p .mka .mks .oga .opus .ra .spx .weba .wma
    .avif .cr3 .heic .heif .jp2 .jxl .mpo
"""
_AUDIO_AND_IMAGES = frozenset(_OTHER.split())
# Unfinished downloads: they begin like the finished video.
_UNFINISHED = frozenset({".crdownload", ".download", ".filepart", ".part", ".partial", ".tmp"})
_SYSTEM_FOLDERS = frozenset({"lost+found", "$RECYCLE.BIN", "System Volume Information"})
_TYPES = MimeTypes().types_map[True]  # Python's own table, the same on every machine
OTHER_ENDINGS = (
    _AUDIO_AND_IMAGES
    | _UNFINISHED
    | {
        ending
        for ending, kind in _TYPES.items()
        # The table lists 3GPP as audio; .ogg can be audio or video.
        if ending not in VIDEO_ENDINGS
        and not kind.startswith("video/")
        and kind not in ("application/octet-stream", "audio/ogg")
    }
)
HEAD_BYTES = 512
# Signatures at the beginning of files, for the formats that have one.
_SIGNATURES = (
    re.compile(rb"\0\0\0.ftyp(?!M4A|M4B|M4P|hei|hev|mif1|msf1|avi|crx)", re.DOTALL),  # but no audio or image
    re.compile(rb"\0...(?:moov|wide|free|skip|pnot)|....mdat", re.DOTALL),
    re.compile(rb"\x1a\x45\xdf\xa3.*(?:matroska|webm)", re.DOTALL),
    re.compile(rb"RIFF....(?:AVI |AMV |CDXA)", re.DOTALL),
    re.compile(rb"G.{187}G.{187}G|.{4}G.{191}G.{191}G", re.DOTALL),  # packets of 188 bytes, or of 192 with a timestamp
    re.compile(rb"\0\0\x01[\xba\xb3]"),
    re.compile(rb"FLV\x01"),
    re.compile(rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),  # ASF
    re.compile(rb"\xb7\xd8\0\x20\x37\x49\xda\x11"),  # WTV
    re.compile(rb"OggS.*(?:\x80theora|\x01video\0|OVP80|BBCD)", re.DOTALL),
    re.compile(rb"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02"),  # MXF
    re.compile(rb"\.RMF"),
    re.compile(rb"DKIF\0\0"),
    re.compile(rb"nut/multimedia container"),
    re.compile(rb"YUV4MPEG2 "),
)
BROKEN_LINK = "a broken link"
VIDEOS_AT_A_TIME = 2**16  # of a large archive


class Names:
    """Ids of videos, at about 40 bytes of memory each, and the few paths that differ from their ids.

    Attributes:
        spelled: id -> path relative to the videos folder, of those whose path is another text.
    """

    def __init__(self) -> None:
        self.spelled: dict[str, str] = {}
        self._latest: list[str] = []
        self._parts: list[pa.Array[Any]] = []

    def add(self, path: str) -> str:
        """Add a video, given its path relative to the videos folder, with / between its parts; return its id."""
        video_id = id_of(path)
        if video_id != path:
            self.spelled[video_id] = path
        self._latest.append(video_id)
        if len(self._latest) == VIDEOS_AT_A_TIME:
            self._pack()
        return video_id

    def add_ids(self, ids: pa.Array[Any]) -> None:
        """Add videos whose paths are their ids, or are known."""
        self._parts.append(ids.cast(pa.large_string()))

    def ascending(self) -> tuple[list[pa.Array[Any]], list[str]]:
        """Give up the ids: each once, in ascending order, in parts; and those that were added more than once."""
        self._pack()
        names = pa.chunked_array(self._parts, pa.large_string()).combine_chunks()
        self._parts.clear()
        order = pc.sort_indices(names)
        parts: list[pa.Array[Any]] = []
        doubled: list[str] = []
        before = ""  # no id is empty
        for start in range(0, len(names), VIDEOS_AT_A_TIME):
            part = names.take(order.slice(start, VIDEOS_AT_A_TIME)).cast(pa.string())
            is_new = pc.not_equal(part, pa.concat_arrays([pa.array([before]), part[:-1]]))
            before = part[-1].as_py()
            if not pc.all(is_new).as_py():
                doubled += texts(part.filter(pc.invert(is_new)).unique())
                part = part.filter(is_new)
            if len(part):
                parts.append(part)
        return parts, doubled

    def _pack(self) -> None:
        self.add_ids(pa.array(self._latest, pa.string()))
        self._latest.clear()


def texts(column: pa.Array[Any]) -> list[str]:
    """Return a column of texts, none of which is null."""
    return list(map(str, column.to_pylist()))


@dataclass
class Found:
    """The contents of a folder.

    Args:
        videos: each is a file, or could not be examined.
        unread: folders and broken links that cannot be read and may hold videos: id -> reason.
        linked_twice: links to folders that are not followed: id -> target.
        passed_over: number of other files, by ending; or "hidden", "unreadable" (with an unknown ending), "special"
            (pipes, devices and sockets).
    """

    videos: Names = field(default_factory=Names)
    unread: dict[str, str] = field(default_factory=dict)
    linked_twice: dict[str, str] = field(default_factory=dict)
    passed_over: Counter[str] = field(default_factory=Counter)


def id_of(path: str) -> str:
    """Return the id of a file, given its path relative to the videos folder, with / between its parts.

    Bytes that are not UTF-8 become visible escapes, because a CSV cannot hold them.
    """
    return path if path.isascii() else os.fsencode(path).decode("utf-8", "backslashreplace")


def find_videos(folder: Path) -> Found:
    """Find the videos in a folder and its subfolders.

    A file is a video if it has the ending of a video format, or an unknown ending and the signature of a video format.
    Hidden files and folders are passed over.

    Links are followed. A linked file is a video with the name of the link. A folder is read only once: under its own
    path if that is below the videos folder, otherwise under the outermost link to it. A link to a folder that contains
    the link is never followed.
    """
    return _Search(folder).found


class _Search:
    def __init__(self, folder: Path) -> None:
        self.found = Found()
        self._root = root = os.path.realpath(folder)
        self._read = {root}
        # Path, real path, and path relative to the videos folder with a trailing slash.
        self._folders: list[tuple[str, str, str]] = [(os.fspath(folder), root, "")]
        self._links: list[tuple[str, str, str]] = []  # real path, relative path, path
        self._walk()
        while self._links:
            # Sorted, so that a folder comes before its subfolders: /disk/a before /disk/a/b.
            links, self._links = sorted(self._links), []
            for real, relative, path in links:
                if real in self._read:
                    self.found.linked_twice[id_of(relative)] = real
                    continue
                self._read.add(real)
                self._folders.append((path, real, f"{relative}/"))
                self._walk()

    def _walk(self) -> None:
        while self._folders:
            path, real, prefix = self._folders.pop()
            try:
                with os.scandir(path) as entries:
                    for entry in entries:
                        self._take(entry, real, prefix)
            except OSError as error:
                self.found.unread[id_of(prefix.rstrip("/")) or "."] = error.strerror or type(error).__name__

    def _take(self, entry: os.DirEntry[str], parent: str, prefix: str) -> None:
        if entry.name.startswith(".") or entry.name in _SYSTEM_FOLDERS:
            self.found.passed_over["hidden"] += 1
            return
        why_lost = BROKEN_LINK
        try:
            is_file, is_folder = entry.is_file(), entry.is_dir()
        except OSError as error:  # no permission, or links in a circle
            is_file, is_folder, why_lost = False, False, error.strerror or BROKEN_LINK
        if is_folder:
            self._take_folder(entry, parent, prefix)
        else:
            self._take_file(entry, prefix, is_file=is_file, why_lost=why_lost)

    def _take_folder(self, entry: os.DirEntry[str], parent: str, prefix: str) -> None:
        relative = prefix + entry.name
        if not entry.is_symlink():
            real = os.path.join(parent, entry.name)
            if real in self._read:  # below a link
                self.found.linked_twice[id_of(relative)] = real
            else:
                self._read.add(real)
                self._folders.append((entry.path, real, f"{relative}/"))
            return
        real = os.path.realpath(entry.path)
        if real in self._read or _holds(real, parent) or _holds(real, self._root):
            self.found.linked_twice[id_of(relative)] = real
        else:
            self._links.append((real, relative, entry.path))

    def _take_file(self, entry: os.DirEntry[str], prefix: str, *, is_file: bool, why_lost: str) -> None:
        relative = prefix + entry.name
        ending = os.path.splitext(entry.name)[1].lower()
        is_lost = not is_file and not os.path.exists(entry.path)
        if not is_file and not is_lost:
            self.found.passed_over["special"] += 1  # opening a pipe or a device can block for ever
        elif ending in VIDEO_ENDINGS:
            self.found.videos.add(relative)
        elif ending in OTHER_ENDINGS:
            self.found.passed_over[ending] += 1
        elif is_lost:
            self.found.unread[id_of(relative)] = why_lost  # perhaps a folder on an unmounted disk
        else:
            try:
                with open(entry.path, "rb", buffering=0) as file:
                    head = file.read(HEAD_BYTES)
            except OSError:
                self.found.passed_over["unreadable"] += 1
                return
            # Only compared: parsing is left to the decoder in its own process.
            if any(signature.match(head) for signature in _SIGNATURES):
                self.found.videos.add(relative)
            else:
                self.found.passed_over[ending or "without an ending"] += 1


def _holds(folder: str, path: str) -> bool:
    return os.path.join(path, "").startswith(os.path.join(folder, ""))
