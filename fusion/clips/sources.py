"""Sources of clips for training: memory, or a store that is read again in every epoch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from fusion.clips.tokens import ClipTokens


class ClipSource(Protocol):
    """N clips, numbered from 0, that can be read any number of times."""

    def __len__(self) -> int:
        """Return the number of clips."""

    def groups(self) -> list[np.ndarray]:
        """Return all numbers, each once, in groups of clips that are stored together and are best read at once."""

    def read(self, rows: np.ndarray) -> Sequence[ClipTokens]:
        """Read some clips of one group, in the order of `rows`. Called from one thread at a time."""


class ClipsInMemory:
    """Clips in memory, by number.

    Args:
        clips: in the order of their numbers, or by number.
        groups: of the numbers; by default a single group.
    """

    def __init__(
        self, clips: Sequence[ClipTokens] | Mapping[int, ClipTokens], groups: list[np.ndarray] | None = None
    ) -> None:
        self._clips = clips
        self._groups = [np.arange(len(clips))] if groups is None else groups

    def __len__(self) -> int:
        return len(self._clips)

    def groups(self) -> list[np.ndarray]:
        """Return the groups."""
        return self._groups

    def read(self, rows: np.ndarray) -> list[ClipTokens]:
        """Look the clips up."""
        return [self._clips[row] for row in rows.tolist()]


class RowsOf:
    """Some clips of a source, under the source's numbers."""

    def __init__(self, source: ClipSource, rows: np.ndarray) -> None:
        self._source = source
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def groups(self) -> list[np.ndarray]:
        """Return the selected clips of each group, without empty groups."""
        wanted = np.zeros(len(self._source), bool)
        wanted[self._rows] = True
        left = [group[wanted[group]] for group in self._source.groups()]
        return [group for group in left if len(group)]

    def read(self, rows: np.ndarray) -> Sequence[ClipTokens]:
        """Read from the source."""
        return self._source.read(rows)


def clips_of(source: ClipSource) -> Iterator[tuple[int, ClipTokens]]:
    """Yield all clips with their numbers, in the source's own order; one group is in memory at a time."""
    for group in source.groups():
        yield from zip(group.tolist(), source.read(group), strict=True)


def bytes_of(clip: ClipTokens) -> int:
    """Return the memory that a clip's vectors take, in bytes."""
    return clip.static.nbytes + clip.dynamic.nbytes


class KeptClips:
    """Keeps clips of a source, unless they exceed a memory limit; then it keeps none."""

    def __init__(self, limit_bytes: int) -> None:
        self._left = limit_bytes
        self._clips: dict[int, ClipTokens] | None = {}

    def pass_on(self, clips: Iterable[tuple[int, ClipTokens]]) -> Iterator[ClipTokens]:
        """Keep the clips and pass them on."""
        for row, clip in clips:
            self._left -= bytes_of(clip)
            if self._left < 0:
                self._clips = None
            if self._clips is not None:
                self._clips[row] = clip
            yield clip

    def instead_of(self, source: ClipSource) -> ClipSource:
        """Return the same source in memory if all its clips passed and fitted; otherwise the source itself."""
        return source if self._clips is None else ClipsInMemory(self._clips, source.groups())
