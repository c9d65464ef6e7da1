"""Leases on videos, which let any number of runs on any number of machines share one store.

The claims form a log that all runs agree on, see `storage.leases.claims`: a run that claims has seen every earlier
claim. There is no lock to hold, so no lock can be left behind.

- A run looks at the store only after it has looked at the log, so that it sees the results of every ended claim.
- While a run works, every beat costs it two requests: it rewrites its own sign of life, and lists the log. Claims of
  others are read once each, when it claims or waits.
- A holder counts as dead if its sign of life has not changed for `timeout_s` while the observer watched: clocks are
  never compared, and time during which the observer itself was suspended does not count. On the holder's own machine,
  a process that has gone counts as dead at once. Any run may then end the claim.
- A holder that was suspended for that long learns that its claim has ended when it checks before its commit
  (`confirm`), and commits nothing. If it is suspended just after the check, it commits features that exist already;
  readers still see each video once, and `traitline store compact` reclaims the room.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import TypeVar

from storage.errors import StoreError
from storage.files.paths import StorePath, store_path
from storage.leases.claims import Claim, ClaimLog, Listing
from storage.leases.processes import is_gone, this_process

BEAT_S = 5.0
TIMEOUT_S = 40.0  # from the last observed change: at most 50 s from a death

Job = TypeVar("Job")


class LeaseLostError(Exception):
    """Another run took this one for dead and has taken over its videos. None of their results may be committed."""


@dataclass
class _Pulse:
    """The last observed beat of a claim, and for how long it has been watched without a change."""

    beat: object
    seen_at: float
    silent_s: float = 0.0


class Leases:
    """The claims of one run, at most one at a time.

    Use it as a context manager: a thread then keeps the claim alive and ends the claims of dead holders. All methods
    raise StoreError if the folder is not a store, a claim is damaged, or the operating system refuses.

    Args:
        key: purpose of the claims: runs that compute different things from the same video use different keys.
        beat_s: seconds between two signs of life, and between two looks at those of others.
        timeout_s: seconds without a sign of life after which a holder counts as dead; many times `beat_s`.
    """

    def __init__(
        self, root: str | StorePath, key: str, *, beat_s: float = BEAT_S, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._log = ClaimLog(store_path(root), key)
        self._beat_s, self._timeout_s = beat_s, timeout_s
        self._holder = secrets.token_hex(8)
        self._process = this_process()
        self._pulses: dict[int, _Pulse] = {}
        self._held: Claim | None = None
        self._lost: int | None = None
        self._beats = 0
        self._kept_at = time.monotonic()
        self._fault: Exception | None = None
        self._looking = threading.Lock()
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="leases", daemon=True)

    def __enter__(self) -> Leases:
        self._keeper.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._closing.set()
        self._keeper.join()
        with contextlib.suppress(StoreError):  # the claim then times out, and users see the block's own error
            self.release()

    def claim(self, choose: Callable[[Set[str]], Mapping[str, Job]]) -> Mapping[str, Job]:
        """Claim videos that no live claim holds.

        Args:
            choose: receives the ids of all videos in live claims; looks at the store and returns the remaining work by
                video id, without those ids. May be called several times.

        Returns:
            The last result of `choose`. If it is empty, nothing was claimed.
        """
        while True:
            live, highest = self._look()
            jobs = choose(frozenset().union(*(claim.videos for claim in live)))
            if not jobs:
                return jobs
            claim = Claim(self._holder, self._process, frozenset(jobs), highest + 1)
            with self._looking:  # the keeping thread must not see a claim that is not held yet
                created = self._log.create(claim)
                if created:
                    self._kept_at, self._held = time.monotonic(), claim
            if created:
                self._log.remove_ended(claim.number)
                return jobs

    def release(self) -> None:
        """End the claim that this run holds, if any: its videos are done or given up."""
        claim, self._held = self._held, None
        if claim is not None:
            self._log.end(claim.number, self._holder)

    def others(self) -> list[Claim]:
        """Return the live claims of other runs."""
        return [claim for claim in self._look()[0] if claim.holder != self._holder]

    def check(self) -> None:
        """Check whether to continue, from the findings of the keeping thread so far. Costs nothing.

        Raises:
            LeaseLostError: another run has taken over.
            StoreError: also if the claim could not be kept alive, and will soon be taken over.
        """
        held = self._held
        if held is not None and self._lost == held.number:
            raise LeaseLostError(f"claim {held.number} was taken over")
        if self._fault is not None and time.monotonic() - self._kept_at > self._timeout_s / 2:
            raise StoreError(f"cannot keep the lease on the videos at work: {self._fault}") from self._fault

    def confirm(self) -> None:
        """Check, directly before a commit, that the videos still belong to this run.

        Raises:
            LeaseLostError: another run has taken over.
        """
        held = self._held
        if held is None:
            raise LeaseLostError("nothing is claimed")
        if self._log.is_over(held.number):
            raise LeaseLostError(f"claim {held.number} was taken over")

    def _keep(self) -> None:
        while not self._closing.wait(self._beat_s):
            try:
                held = self._held
                if held is not None:
                    self._beats += 1
                    self._log.beat(held.number, self._beats)
                with self._looking:
                    self._watch(self._log.list())
                self._kept_at, self._fault = time.monotonic(), None
            except Exception as error:  # `check` raises it in the working thread
                self._fault = error

    def _look(self) -> tuple[list[Claim], int]:
        """Read the log and end the claims of dead holders; return the live claims and the highest number."""
        with self._looking:
            files = self._log.list()
            self._watch(files)
            live = []
            for claim in self._log.read(files.live):
                if self._is_abandoned(claim):
                    self._log.end(claim.number, self._holder)
                else:
                    live.append(claim)
            return live, files.highest

    def _watch(self, files: Listing) -> None:
        """Note which signs of life have changed, and whether the own claim still lives."""
        now = time.monotonic()
        pulses = {}
        for number in files.live:
            beat, pulse = files.beats.get(number), self._pulses.get(number)
            if pulse is None or pulse.beat != beat:
                pulse = _Pulse(beat, now)
            else:
                pulse.silent_s += min(now - pulse.seen_at, 2 * self._beat_s)
                pulse.seen_at = now
            pulses[number] = pulse
        self._pulses = pulses
        held = self._held
        if held is not None and held.number not in files.live:
            self._lost = held.number

    def _is_abandoned(self, claim: Claim) -> bool:
        if claim.holder == self._holder:
            # Withdrawn, or created although the answer was lost.
            return self._held is None or claim.number != self._held.number
        if is_gone(claim.process, self._process):
            return True
        pulse = self._pulses.get(claim.number)
        return pulse is not None and pulse.silent_s >= self._timeout_s


@contextlib.contextmanager
def at_work(root: str | StorePath, key: str) -> Iterator[None]:
    """Show while the block runs that a command reads features: `gc` then removes none, and `erase` waits.

    Args:
        key: the command; several may be at work with the same key.
    """
    with Leases(root, key) as leases:
        leases.claim(lambda _: {secrets.token_hex(8): None})
        yield
