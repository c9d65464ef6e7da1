"""The videos of an archive: a folder or a list, read into ids, files and digests."""

from flows.archive.videos.archive import (
    Archive,
    VideoFile,
    check_videos,
    known_videos,
    named_videos,
    scan_videos,
    videos_folder,
    videos_of,
)

__all__ = [
    "Archive",
    "VideoFile",
    "check_videos",
    "known_videos",
    "named_videos",
    "scan_videos",
    "videos_folder",
    "videos_of",
]
