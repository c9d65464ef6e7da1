"""The engine that the settings name, which the steps of a run share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar

from flows.config.settings import RunConfig
from flows.engine.engine import Engine, LocalEngine
from flows.session.errors import UserError


class _Steps(ExitStack):
    """Steps that share an engine, once the first of them has opened it."""

    engine: Engine | None = None


_steps: ContextVar[_Steps | None] = ContextVar("steps", default=None)


@contextmanager
def one_engine() -> Iterator[None]:
    """Let the steps in the block share an engine, which the first one that needs it opens and the block closes."""
    with _Steps() as steps:
        steps.callback(_steps.reset, _steps.set(steps))
        yield


@contextmanager
def open_engine(config: RunConfig) -> Iterator[Engine]:
    """Open the engine that the settings name, or use the shared one.

    Raises:
        UserError: the Dask cluster cannot be used.
    """
    if (steps := _steps.get()) is None:
        with _opened(config) as engine:
            yield engine
        return
    if steps.engine is None:
        steps.engine = steps.enter_context(_opened(config))
    yield steps.engine


def _opened(config: RunConfig) -> AbstractContextManager[Engine]:
    if config.runner == "local":
        return nullcontext(LocalEngine())
    try:
        from flows.engine.dask import open_dask  # takes a second to import
    except ValueError as error:  # of Dask's own
        raise UserError(f"Dask cannot read its configuration: {' '.join(str(error).split())}") from error
    return open_dask(config.dask)
