"""The demo corpus, rendered once, and the command as a person runs it: in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prefect_machine import PrefectServer, postgresql

from flows.demo_corpus import DemoCorpus, render_demo_corpus

if TYPE_CHECKING:
    from report_store import ReportStore


@pytest.fixture(scope="session")
def rendered(tmp_path_factory) -> DemoCorpus:
    """The eight demo clips and their labels; tests must not change them."""
    return render_demo_corpus(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="session")
def report_store(tmp_path_factory) -> ReportStore:
    """A drawn store of which a report can be made; tests may add reports to it and must change nothing else."""
    # Not above: pytest reads this file while it captures nothing. Prefect, when imported, has absl's log handler close
    # the stream that it writes to, which is pytest's where another test file has imported TensorFlow before.
    from report_store import make_report_store

    return make_report_store(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory) -> Iterator[PrefectServer]:
    """Prefect's server on PostgreSQL, which tests may stop and start again; they are skipped where that is missing."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        pytest.skip("no PostgreSQL server (Debian: apt install postgresql)")
    with postgresql(programs[-1]) as database:
        server = PrefectServer(tmp_path_factory.mktemp("server"), database)
        server.start()
        yield server
        server.stop()


@pytest.fixture(scope="session")
def traitline(tmp_path_factory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `traitline ARGUMENTS` from an empty folder or the given one, with a Prefect home of the test session's."""
    folder = tmp_path_factory.mktemp("work")
    environment = {
        **os.environ,
        "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")),
        "COLUMNS": "200",
        # Nothing but this machine is to be reached, and that without these proxies: downloads fail at once.
        **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9"),
        "no_proxy": "example.org",
    }

    def run(*arguments: str | Path, folder: Path = folder, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("traitline")), *map(str, arguments)]
        return subprocess.run(
            command, cwd=folder, env={**environment, **variables}, capture_output=True, text=True, timeout=600
        )

    return run
