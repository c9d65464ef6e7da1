"""What steps ask of an engine, and the engine that works in this process.

A step gives its engine a function that opens its work once in each process, such as one that builds networks, and an
iterator of items, which are small: settings, names, numbers of rows. The engine asks for the next item only when it has
room for it, so that memory does not grow with the number of items.
"""

from __future__ import annotations

import logging
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from flows.session import stopping
from flows.session.errors import USER_ERRORS
from storage.errors import UnreachableError

log = logging.getLogger(__name__)

POLL_S = 2.0  # between two looks at items that are not there yet
RETRIES, RETRY_S = 2, 10.0  # of work on shards that raised an exception
_LOOK_S = 0.5

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Course:
    """What work on an item can ask and tell while it lasts.

    Args:
        check: raises an exception if the work is to stop.
        progress: takes how many parts of the item are done, and how many of these failed.
    """

    check: Callable[[], None]
    progress: Callable[[int, int], None]


Work = Callable[[Item, Course], Result]
"""Works on one item, one at a time in each process. The result is small: large results are written to the store."""

OpenWork = Callable[[], AbstractContextManager[Work[Item, Result]]]
"""Opens the work in a process, before its first item; must be picklable."""

OnProgress = Callable[[Item, int, int], None]


class Engine(ABC):
    """Works on the items of a step."""

    @property
    @abstractmethod
    def workers(self) -> int:
        """Return how many processes work at present, at least one."""

    def run(
        self,
        open_work: OpenWork[Item, Result],
        items: Iterable[Item | None],
        on_result: Callable[[Item, Result], None],
        *,
        on_failure: Callable[[Item], None] | None = None,
        on_progress: OnProgress[Item] = lambda *_: None,
        retries: int = 0,
    ) -> None:
        """Work on all items.

        Args:
            items: None stands for "nothing yet": the engine asks again after a result or some time.
            on_result: called in this thread with each item and its result, in the order in which they arrive.
            on_failure: called with each item whose work failed for good. The others are still worked on, unless it is
                the user's mistake. Without it, the first failure ends the run.
            on_progress: called with an item and how many of its parts are done and failed.
            retries: how often work that raised an exception is tried again; never after the user's mistakes, except
                that storage may be reached again.

        Raises:
            Exception: the first one that work raised.
        """
        failure: Exception | None = None
        tried = partial(_open_retrying, open_work, retries)
        with closing(self._outcomes(tried, items, on_progress)) as outcomes:
            for item, outcome in outcomes:
                try:
                    result = outcome()
                except Exception as error:
                    if on_failure is None or ends_all(error):
                        raise
                    on_failure(item)
                    failure = failure or error
                else:
                    on_result(item, result)
        if failure is not None:
            raise failure

    @abstractmethod
    def _outcomes(
        self, open_work: OpenWork[Item, Result], items: Iterable[Item | None], on_progress: OnProgress[Item]
    ) -> Generator[tuple[Item, Callable[[], Result]]]:
        """Yield each item with a function that returns its result or raises what its work raised."""


def ends_all(error: BaseException) -> bool:
    """Return whether an error is a mistake of the user, which work on other items would meet too."""
    return isinstance(error, USER_ERRORS)


@contextmanager
def _open_retrying(open_work: OpenWork[Item, Result], retries: int) -> Iterator[Work[Item, Result]]:
    """Open work that is done up to `retries` times more if it raises an exception that may have passed."""
    with open_work() as work:

        def attempt(item: Item, course: Course) -> Result:
            for left in range(retries, 0, -1):
                try:
                    return work(item, course)
                except Exception as error:
                    course.check()
                    if ends_all(error) and not isinstance(error, UnreachableError):
                        raise
                    log.warning("trying again, at most %d more times, after %s: %s", left, type(error).__name__, error)
                again_at = time.monotonic() + RETRY_S * random.uniform(1, 1.5)
                while time.monotonic() < again_at:
                    course.check()
                    time.sleep(_LOOK_S)
            return work(item, course)

        yield attempt


class LocalEngine(Engine):
    """Works on one item after the other in this process."""

    workers = 1

    def __init__(self, poll_s: float = POLL_S) -> None:
        self._poll_s = poll_s

    def _outcomes(
        self, open_work: OpenWork[Item, Result], items: Iterable[Item | None], on_progress: OnProgress[Item]
    ) -> Generator[tuple[Item, Callable[[], Result]]]:
        with open_work() as work:
            for item in items:
                stopping.check()
                if item is None:
                    time.sleep(self._poll_s)
                else:
                    yield item, partial(work, item, Course(stopping.check, partial(on_progress, item)))
