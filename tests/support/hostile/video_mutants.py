"""Damaged copies of videos: cut, spliced, with flipped bits and with numbers of the header replaced; all by a seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

_ODD = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\0\0\1", b"\0\1\0\0")
_HEAD_BYTES = 2048  # of a container that is not MP4
_BOXES = (b"moov", b"mvhd", b"tkhd", b"mdhd", b"stsd", b"avcC", b"stts", b"ctts", b"stsc", b"stsz", b"stco", b"elst")

Mutation = Callable[[bytes, bytes, np.random.Generator], bytes]


def _cut(data: bytes, other: bytes, draw: np.random.Generator) -> bytes:
    return data[: int(len(data) * draw.uniform(0.05, 0.99))]


def _gap(data: bytes, other: bytes, draw: np.random.Generator) -> bytes:
    begin, end = sorted(draw.integers(0, len(data), 2))
    return data[:begin] + data[end:]


def _few_bits(data: bytes, other: bytes, draw: np.random.Generator) -> bytes:
    return _flipped(data, draw.integers(0, 8 * len(data), 2 ** draw.integers(0, 5)))


def _many_bits(data: bytes, other: bytes, draw: np.random.Generator) -> bytes:
    return _flipped(data, draw.integers(0, 8 * len(data), 2 ** draw.integers(6, 13)))


def _header_bits(data: bytes, other: bytes, draw: np.random.Generator) -> bytes:
    begin, end = _header(data)
    return _flipped(data, draw.integers(8 * begin, 8 * end, 2 ** draw.integers(0, 6)))


def _header_numbers(data: bytes, other: bytes, draw: np.random.Generator) -> bytes:
    """Replace numbers of 32 bits, mostly within the boxes that say how long, how large and where."""
    mutant = bytearray(data)
    begin, end = _header(data)
    boxes = [place for box in _BOXES if (place := data.find(box, begin, end)) >= 0]
    for _ in range(draw.integers(1, 4)):
        near = int(draw.choice(boxes)) + 4 if boxes else begin
        place = near + 4 * int(draw.integers(0, 12 if boxes else (end - begin) // 4))
        new = draw.bytes(4) if draw.random() < 0.3 else _ODD[draw.integers(len(_ODD))]
        mutant[place : place + 4] = new[: max(0, len(mutant) - place)]
    return bytes(mutant)


def _splice(data: bytes, other: bytes, draw: np.random.Generator) -> bytes:
    return data[: int(len(data) * draw.uniform(0.1, 0.9))] + other[int(len(other) * draw.uniform(0.1, 0.9)) :]


def _overwrite(data: bytes, other: bytes, draw: np.random.Generator) -> bytes:
    mutant = bytearray(data)
    size = int(draw.integers(16, max(17, len(data) // 8)))
    place = int(draw.integers(0, len(data)))
    mutant[place : place + size] = draw.bytes(size) if draw.random() < 0.5 else bytes(size)
    return bytes(mutant[: len(data)])


MUTATIONS: dict[str, Mutation] = {
    "cut": _cut,
    "gap": _gap,
    "few bits": _few_bits,
    "many bits": _many_bits,
    "header bits": _header_bits,
    "header numbers": _header_numbers,
    "splice": _splice,
    "overwrite": _overwrite,
}


def write_mutants(sources: Sequence[Path], folder: Path, count: int, seed: int = 0) -> list[tuple[Path, Path, str]]:
    """Write so many mutants, every mutation of every source in turn: (mutant, its source, name of the mutation)."""
    draw = np.random.default_rng(seed)
    contents = {path: path.read_bytes() for path in sources}
    mutants = []
    for number in range(count):
        source = sources[number // len(MUTATIONS) % len(sources)]
        name = list(MUTATIONS)[number % len(MUTATIONS)]
        other = sources[int(draw.integers(len(sources)))]
        path = folder / f"{number:04d} {name}{source.suffix}"
        path.write_bytes(MUTATIONS[name](contents[source], contents[other], draw))
        mutants.append((path, source, name))
    return mutants


def _flipped(data: bytes, bits: np.ndarray) -> bytes:
    mutant = np.frombuffer(data, np.uint8).copy()
    np.bitwise_xor.at(mutant, bits // 8, (1 << bits % 8).astype(np.uint8))
    return mutant.tobytes()


def _header(data: bytes) -> tuple[int, int]:
    """Where the header lies: MP4's index, wherever it is; of other containers the beginning."""
    place = data.find(b"moov")
    if place < 4:
        return 0, min(_HEAD_BYTES, len(data))
    return place - 4, min(len(data), place - 4 + max(8, int.from_bytes(data[place - 4 : place], "big")))
