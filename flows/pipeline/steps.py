"""Steps of a run: Prefect flows if the user has a server, otherwise plain calls."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import ParamSpec, TypeVar

from prefect import Flow
from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_API_URL, temporary_settings

P = ParamSpec("P")
R = TypeVar("R")

# Prefect tries six times to say how a run has ended, and then six times that it has crashed. If the line to its server
# is dead, each try takes this long, by default 60 s.
REQUEST_LIMIT_S = 20.0


class Step(Flow[P, R]):
    """A flow that calls its function directly if there is no Prefect API.

    A temporary server would take seconds to start, and end with the command before anyone could open its pages.
    """

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:  # type: ignore[override]  # no step returns its state
        """Run it, and return its result."""
        if not PREFECT_API_URL.value():
            return self.fn(*args, **kwargs)
        with temporary_settings(set_defaults={PREFECT_API_REQUEST_TIMEOUT: REQUEST_LIMIT_S}):
            return super().__call__(*args, **kwargs)


def step(name: str) -> Callable[[Callable[P, R]], Step[P, R]]:
    """Turn a function into a step whose parameters Prefect does not validate; see `flows.archive.videos.Archive`."""
    return lambda function: Step(function, name=name, flow_run_name=named_by_time(name), validate_parameters=False)


def named_by_time(name: str) -> Callable[[], str]:
    """Return a function that names a run by its local time, as in "extract 2026-11-27 14:05"."""
    return lambda: f"{name} {datetime.now():%Y-%m-%d %H:%M}"
