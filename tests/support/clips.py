"""Cuts recordings short, so that tests need not wait for pictures that show nothing new."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import av


def cut_clip(source: Path, target: Path, frames: int) -> Path:
    """Copy the first frames of a video, in the order of decoding, without encoding them again; return the target."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        (video,) = reader.streams.video
        stream = writer.add_stream_from_template(video)
        for packet in islice(reader.demux(video), frames):
            packet.stream = stream
            writer.mux(packet)
    return target
