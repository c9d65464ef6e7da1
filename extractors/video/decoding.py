"""Decoding with FFmpeg: open a local file, decode its intact frames, and compute when each is shown."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from extractors.errors import undecodable
from extractors.memory import not_enough_for, refusing_lack_of_memory
from extractors.video.deinterlacing import deinterlaced
from extractors.video.digests import sha256_of
from extractors.video.main_stream import main_video
from extractors.video.packet_order import PacketOrder
from extractors.video.settings import DEFAULT_LIMITS, Limits

# A clock that jumps back by more than this was restarted (joined broadcast recordings). A smaller jump is disorder,
# which spans no more frames than a decoder holds back.
RESTART_S, RESTART_FRAMES = 1.0, 16
# Key frames are at most 10 s apart (250 frames with common encoders); a longer lead means missing video.
MAX_LEAD_S = 10.0
# Only these, by FFmpeg's names, begin in mid-stream by design; in others, such packets are damage.
BROADCASTS = ("mpegts", "mpeg")
# FFmpeg detects formats by content, not by name. Playlists (HLS, concat, DASH, image patterns) would make it read other
# files, so only formats that contain their video are opened. These are FFmpeg's names.
FORMATS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,live_flv,ogg,asf,mxf,dv,nut,"
    "ivf,wtv,rm,m4v,h264,hevc,obu,mjpeg,jpeg_pipe,yuv4mpegpipe"
)


@dataclass(slots=True)
class Tally:
    """Counts of the frames decoded from a file.

    Args:
        good: intact frames.
        broken: packets that do not decode and frames that the decoder marks as damaged, after the first good frame
            (a recording that begins in mid-stream has some before it).
        shown_s: end of the last frame, from the start of the first.
        others_s: end of the last packet of any other stream, by the file's clock.
        lead_s: time before the first key frame of a broadcast recording that begins in mid-stream; it depends on
            pictures that the file lacks.
        share: decoded share of the promised frames or duration, once known; NaN if the file promises neither.
    """

    good: int = 0
    broken: int = 0
    shown_s: float = 0.0
    others_s: float = 0.0
    lead_s: float = 0.0
    share: float = math.nan

    @property
    def total(self) -> int:
        """Frames that the file contains, intact or broken."""
        return self.good + self.broken


@contextmanager
def opened(path: Path | str, limits: Limits = DEFAULT_LIMITS) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a local video file and its main video stream; FFmpeg's complaints become `VideoError`.

    Raises:
        VideoError: stage "decode"; reason "unreadable", "not_a_video", "no_video", "unsupported" or "too_large".
        OSError: the disk failed, which is not the fault of the video.
    """
    name = Path(path).name
    try:
        # A name is never treated as an address, and only files are opened.
        options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
        reopen = partial(av.open, f"file:{path}", options=options, metadata_errors="replace")
        container = reopen()
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise undecodable("unreadable", f"cannot open {name}: {error.strerror}") from error
    except av.FFmpegError as error:
        if error.errno in (errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR):
            raise undecodable("unreadable", f"cannot open {name}: {error.strerror}") from error
        _raise_unless_the_video_is_to_blame(error, path, sha256_of)
        size = Path(path).stat().st_size
        message = f"{name} ({size} bytes) cannot be read as a video: {error.strerror}"
        raise undecodable("not_a_video", message) from error
    with refusing_lack_of_memory(path), container:
        stream = main_video(container, reopen)
        if stream is None:
            raise undecodable("no_video", f"{name} has no video stream")
        if stream.codec_context is None:
            raise undecodable("unsupported", f"no decoder supports the video stream of {name}")
        codec = stream.codec_context
        if codec.width * codec.height > limits.pixels:
            size_px = f"{codec.width} x {codec.height} px"
            message = f"{name} has pictures of {size_px}, more than limits.pixels allows ({limits.pixels:,})"
            raise undecodable("too_large", message)
        # Pictures may grow later; those that are too large then fail to decode.
        codec.options = {"max_pixels": str(limits.pixels)}
        # Frame threads decode ahead while the caller works on a frame.
        stream.thread_type = "AUTO"
        yield container, stream


def pictures(container: InputContainer, stream: VideoStream, tally: Tally) -> Iterator[VideoFrame]:
    """Yield the intact frames in presentation order, and count the others.

    Interlaced video is deinterlaced.
    """
    return deinterlaced(_whole_frames(container, stream, tally))


def shown(frames: Iterator[VideoFrame], stream: VideoStream) -> Iterator[tuple[VideoFrame, float, float]]:
    """Yield each frame with its start time and its end time.

    The first frame starts at 0. A frame without a time follows its predecessor at the usual interval, as does the first
    frame after a restart of the clock. A frame slightly out of order replaces its predecessor immediately.

    Yields:
        (frame, start in seconds, end in seconds), end >= start.
    """
    held: VideoFrame | None = None
    start_s = usual_s = offset_s = 0.0
    for frame in frames:
        clock_s = None if frame.pts is None else seconds(frame.pts, frame.time_base)
        if held is None:
            offset_s = 0.0 if clock_s is None else -clock_s
            next_s = 0.0
        elif clock_s is None:
            next_s = start_s + usual_s
        else:
            if clock_s + offset_s < start_s - min(RESTART_S, RESTART_FRAMES * usual_s):
                offset_s = start_s + usual_s - clock_s
            next_s = max(start_s, clock_s + offset_s)
        if held is not None:
            yield held, start_s, next_s
        held, start_s, usual_s = frame, next_s, _duration_s(frame, stream)
    if held is not None:
        yield held, start_s, start_s + usual_s


def promised_s(container: InputContainer, stream: VideoStream) -> float:
    """Return the duration that the file promises, including its lead, in seconds; 0 if it promises nothing."""
    if stream.duration is not None:
        return seconds(stream.duration, stream.time_base)
    # Matroska and Flash Video state one duration for all streams together.
    return 0.0 if container.duration is None else container.duration / av.time_base


def reached_s(stream: VideoStream, tally: Tally) -> float:
    """Return how much of `promised_s` was found, including the lead, in seconds."""
    if stream.duration is not None:
        # ASF counts the time for which the decoder holds back the first frame.
        held = stream.codec_context.reorder_depth if stream.container.format.name == "asf" else 0
        return tally.lead_s + tally.shown_s * (1 + held / max(1, tally.good))
    start_s = 0.0 if stream.start_time is None else seconds(stream.start_time, stream.time_base)
    return max(start_s + tally.lead_s + tally.shown_s, tally.others_s)


def promised_frames(stream: VideoStream) -> int:
    """Return the number of visible frames in the file's index; 0 without an index."""
    # The number in the header includes frames hidden by an edit list and, in AVI, each tick for which a frame lasts.
    if not stream.frames:
        return 0
    return sum(1 for entry in stream.index_entries if entry.size and not entry.is_discard)


def seconds(ticks: int, unit: Fraction | None) -> float:
    """Convert a time in a stream's unit; 0 if FFmpeg knows no unit."""
    return ticks * unit.numerator / unit.denominator if unit is not None else 0.0


def _raise_unless_the_video_is_to_blame(
    error: av.FFmpegError, path: Path | str, read_through: Callable[[Path], object]
) -> None:
    """Raise disk errors as they are, because the video may be good; lack of memory becomes too_large."""
    if isinstance(error, MemoryError):
        raise not_enough_for(path) from error
    if isinstance(error, OSError):
        # FFmpeg reports "input/output error" for damaged files as well. Reading the whole file shows if the disk fails.
        read_through(Path(path))


def _duration_s(frame: VideoFrame, stream: VideoStream) -> float:
    if frame.duration:
        return seconds(frame.duration, frame.time_base)
    return float(1 / stream.average_rate) if stream.average_rate else 0.04


class _Lead:
    """Packets before the first key frame."""

    def __init__(self) -> None:
        self._start_s = math.inf
        self._key_s: float | None = None

    def sent(self, packet: Packet[Stream]) -> None:
        if self._key_s is not None or packet.pts is None:
            return
        time_s = float(packet.pts * packet.time_base)
        if packet.is_keyframe:
            self._key_s = time_s
        else:
            self._start_s = min(self._start_s, time_s)

    def before(self, first: VideoFrame) -> float:
        """Return the length of the lead, in seconds, given the first good frame."""
        if self._key_s is None or first.pts is None:
            return 0.0
        lead_s = self._key_s - self._start_s
        decodes = seconds(first.pts, first.time_base) < self._key_s
        return 0.0 if decodes or not 0 < lead_s <= MAX_LEAD_S else lead_s


def _whole_frames(container: InputContainer, stream: VideoStream, tally: Tally) -> Iterator[VideoFrame]:
    # If the file promises a duration only for all streams together, the ends of all streams count.
    streams = [stream] if stream.duration is not None else list(container.streams)
    packets = container.demux(streams)
    order, lead = PacketOrder(stream), _Lead()
    read_through_once = cache(sha256_of)  # a damaged video may raise such an error for each of its packets
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            if packet.stream is not stream:
                if packet.pts is not None:
                    end = packet.pts + (packet.duration if packet.duration is not None else 0)
                    tally.others_s = max(tally.others_s, float(end * packet.time_base))
                continue
            order.sent(packet)
            lead.sent(packet)
            frames = stream.decode(packet)
        except IndexError:
            # The end: PyAV flushes the streams in order, and fails on those that appeared during the file.
            return
        except av.FFmpegError as error:
            _raise_unless_the_video_is_to_blame(error, container.name.removeprefix("file:"), read_through_once)
            tally.broken += tally.good > 0
            continue
        for frame in frames:
            order.correct(frame)
            if frame.is_corrupt:
                tally.broken += tally.good > 0
            else:
                if not tally.good and container.format.name in BROADCASTS:
                    tally.lead_s = lead.before(frame)
                tally.good += 1
                yield frame
