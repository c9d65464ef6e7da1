"""The log of claims: which run works on which videos, as files of which exactly one process creates each.

    STORE/leases/<key>/00000042.json   a claim: which run works on which videos; never changed
    STORE/leases/<key>/00000042.beat   rewritten every few seconds while the holder lives; only a listing looks at it
    STORE/leases/<key>/00000042.end    the claim has ended for good: its work is done or given up, or its holder died

Exactly one process creates number n + 1, and only a process that has seen every claim up to n may create it. A process
that is late finds the number taken. Ended claims are removed, except the one with the highest number. A process that
slept through a removal and creates the removed number finds a higher one, and withdraws its claim.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from pydantic import TypeAdapter, ValidationError

from storage.errors import StoreError
from storage.files.commit import commit_file, create_file, remove_files
from storage.files.paths import StorePath, exists, listing
from storage.layout import open_store, path_name
from storage.leases.processes import ProcessIdentity

_KINDS = ("json", "beat", "end")
_NAME = re.compile(r"(?P<number>\d{8,})\.(?P<kind>json|beat|end)")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class Claim:
    """Which run works on which videos.

    Args:
        holder: random name of the run.
        process: the run's process.
        videos: ids of the videos.
        number: position in the log, which the name of its file says.
        since: when it was made, for people.
    """

    holder: str
    process: ProcessIdentity
    videos: frozenset[str]
    number: int = 0
    since: str = field(default_factory=_now)


_CLAIM = TypeAdapter(Claim)


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of the log at one moment, by the numbers of their claims.

    Args:
        beats: of each claim with a sign of life a value that differs from the one before, from the listing.
    """

    claims: frozenset[int] = frozenset()
    beats: Mapping[int, object] = field(default_factory=dict)
    ends: frozenset[int] = frozenset()

    @property
    def highest(self) -> int:
        """The highest number; 0 if the log is empty."""
        return max(self.claims | self.beats.keys() | self.ends, default=0)

    @property
    def live(self) -> frozenset[int]:
        """The numbers of claims that have not ended."""
        return self.claims - self.ends


class ClaimLog:
    """The files of one log. All methods raise StoreError if the operating system refuses or a file is damaged.

    Args:
        key: of the log.
    """

    def __init__(self, root: StorePath, key: str) -> None:
        self._folder = open_store(root) / "leases" / path_name("key", key)
        self._known: dict[int, Claim] = {}

    def list(self) -> Listing:
        """List the files of the log. One request per 1000 of them on object storage."""
        of_kind: dict[str, dict[int, object]] = {kind: {} for kind in _KINDS}
        for name, entry in listing(self._folder).items():
            if (match := _NAME.fullmatch(name)) is not None:
                of_kind[match["kind"]][int(match["number"])] = entry.mark
        return Listing(frozenset(of_kind["json"]), of_kind["beat"], frozenset(of_kind["end"]))

    def read(self, numbers: Iterable[int]) -> Sequence[Claim]:
        """Read claims, leaving out those removed in the meantime. The log remembers these claims and drops others."""
        found = {number: self._known.get(number) or self._read(number) for number in sorted(numbers)}
        self._known = {number: claim for number, claim in found.items() if claim is not None}
        return list(self._known.values())

    def create(self, claim: Claim) -> bool:
        """Add a claim, whose number must be one above the highest seen; return False if a higher one now exists."""
        if not create_file(self._path(claim.number, "json"), _CLAIM.dump_json(claim)):
            return False
        if self.list().highest > claim.number:
            self.end(claim.number, claim.holder)
            return False
        return True

    def end(self, number: int, by: str) -> None:
        """Record that a claim has ended; `by` is the holder or the run that takes over. A claim ends only once."""
        create_file(self._path(number, "end"), json.dumps({"by": by, "since": _now()}).encode())

    def is_over(self, number: int) -> bool:
        """Return whether a claim has ended."""
        # In this order, because a claim's file is removed before its end file.
        return exists(self._path(number, "end")) or not exists(self._path(number, "json"))

    def beat(self, number: int, count: int) -> None:
        """Write a sign of life, with a count that differs from the last one's."""
        with commit_file(self._path(number, "beat")) as temporary:
            temporary.write_text(str(count), encoding="utf-8")

    def remove_ended(self, below: int) -> None:
        """Remove the files of ended claims with numbers lower than `below`, which must exist."""
        files = self.list()
        kinds = {"json": files.claims, "beat": files.beats.keys(), "end": files.ends}
        over = {number for numbers in kinds.values() for number in numbers if number < below}
        over -= files.live
        for kind in _KINDS:  # the end last: a claim with an end file can never look alive
            remove_files([self._path(number, kind) for number in over & kinds[kind]])

    def _read(self, number: int) -> Claim | None:
        path = self._path(number, "json")
        try:
            return replace(_CLAIM.validate_json(path.read_bytes(), strict=True), number=number)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise StoreError(f"{path} is damaged: {reason}; remove it when no run works on the store") from error

    def _path(self, number: int, kind: str) -> StorePath:
        return self._folder / f"{number:08d}.{kind}"
