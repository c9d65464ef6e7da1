"""Imports what commands of traitline import once they work, as they do: after the environment is settled.

A command that would start a temporary Prefect server uses the one of the tests, in the way that it uses its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from prefect_machine import named_server

from flows.session.environment import settle_environment

settle_environment()
for module in (
    *("flows.cli.app", "flows.session.server", "flows.pipeline.run", "flows.evaluation.evaluate"),
    *("flows.evaluation.features", "flows.report.page", "flows.visualize.networks", "keras", "tensorflow"),
):
    import_module(module)

extract, server = import_module("flows.pipeline.extract"), import_module("flows.session.server")
api = os.environ["API_OF_TESTS"]


@contextmanager
def server_of_tests() -> Iterator[str]:
    """Stand in for `flows.session.server.prefect_api`."""
    if (known := server.named_server()) is not None:
        yield known
        return
    with named_server(api):
        yield api


extract.prefect_api = server_of_tests
