"""Runners extract shards outside this process: in worker processes of this machine, or on a Dask cluster.

Prefect's task runners carry the tasks; a shard task calls `Worker.extract` in both.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prefect import State, Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas import TaskRun
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_API_URL
from prefect.task_runners import ThreadPoolTaskRunner

from flows.config.settings import ExtractSettings
from flows.extraction import cores
from flows.extraction.dask import StopAskedError, extract_here, release_worker
from flows.extraction.jobs import Job, ShardReport
from flows.extraction.pool import PoolClosedError, Tally, WorkerPool
from flows.extraction.worker import MakeWorker
from flows.session import console, stopping
from flows.session.errors import USER_ERRORS, UserError
from flows.session.server import is_loopback
from storage.errors import UnreachableError

CONNECT_S = 10


def worth_retrying(_task: Task[..., Any], _run: TaskRun, state: State) -> bool:
    """Return whether to retry a shard. A store that refuses, for example for a full disk, will refuse again."""
    error = state.result(raise_on_failure=False)
    if stopping.asked() or isinstance(error, StopAskedError | PoolClosedError):
        return False
    return not isinstance(error, USER_ERRORS) or isinstance(error, UnreachableError)


shard_task = task(
    retries=2,
    retry_delay_seconds=10,
    retry_jitter_factor=0.5,
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
)


@shard_task
def extract_in_pool(pool: WorkerPool, jobs: list[Job], tally: Tally) -> ShardReport:
    """Extract and commit one shard in a worker process of this machine."""
    return pool.extract(jobs, tally)


@shard_task
def extract_on_dask(make: MakeWorker, jobs: list[Job], stop: str, own_cluster: bool) -> ShardReport:
    """Extract and commit one shard in the Dask worker that runs this."""
    return extract_here(make, jobs, stop, own_cluster)


@dataclass(frozen=True)
class Runner:
    """Takes shards.

    Args:
        capacity: returns how many shards it can currently process at a time.
        submit: submits a shard.
    """

    capacity: Callable[[], int]
    submit: Callable[[list[Job], Tally], PrefectFuture[ShardReport]]


@contextmanager
def open_runner(settings: ExtractSettings, make: MakeWorker) -> Iterator[Runner]:
    """Open the runner that the settings name, other than "local". Closing it drops unfinished shards.

    Raises:
        UserError: the Dask cluster cannot be used.
    """
    with _in_processes(settings, make) if settings.runner == "processes" else _on_dask(settings, make) as runner:
        yield runner


@contextmanager
def _in_processes(settings: ExtractSettings, make: MakeWorker) -> Iterator[Runner]:
    count = settings.workers if settings.workers is not None else cores.default_workers()
    # In this order: the threads that wait for workers end once these have.
    threads: ThreadPoolTaskRunner[ShardReport] = ThreadPoolTaskRunner(max_workers=count)
    with threads as tasks, WorkerPool(make, count) as pool:
        yield Runner(
            lambda: count,
            lambda jobs, tally: tasks.submit(extract_in_pool, {"pool": pool, "jobs": jobs, "tally": tally}),
        )


@contextmanager
def _on_dask(settings: ExtractSettings, make: MakeWorker) -> Iterator[Runner]:
    from dask.base import annotate
    from distributed import Event
    from prefect_dask.task_runners import DaskTaskRunner

    if settings.address is not None:
        _warn_without_tls(settings.address)
        options = {"timeout": CONNECT_S, "security": _certificates(settings, settings.address)}
        where: dict[str, Any] = {"address": settings.address, "client_kwargs": options}
    else:
        count = settings.workers if settings.workers is not None else cores.default_workers()
        # Dask's memory limit would count the networks and kill workers; `limits.*` bound the memory of videos.
        local: dict[str, Any] = {
            "n_workers": count,
            "threads_per_worker": 1,
            "memory_limit": 0,
            "dashboard_address": None,
        }
        # Dask runs the code of whoever connects; with TLS, only processes that have this cluster's own certificate can.
        local |= {"security": True, "resources": settings.resources}
        where = {"cluster_class": "distributed.LocalCluster", "cluster_kwargs": local}
    with DaskTaskRunner(**where) as tasks:
        try:
            client = tasks.client
            workers = client.scheduler_info()["workers"]
        except (OSError, ValueError) as error:
            raise UserError(f"no Dask scheduler answers at {settings.address} (extract.address): {error}") from error
        _check_prefect({worker["host"] for worker in workers.values()})
        _check_resources(settings, [worker["resources"] for worker in workers.values()])
        stop = f"traitline-stop-{secrets.token_hex(8)}"

        def submit(jobs: list[Job], _: Tally) -> PrefectFuture[ShardReport]:
            with annotate(resources=settings.resources):
                parameters = {"make": make, "jobs": jobs, "stop": stop, "own_cluster": settings.address is None}
                future: PrefectFuture[ShardReport] = tasks.submit(extract_on_dask, parameters)
            return future

        try:
            yield Runner(lambda: max(1, len(client.nthreads())), submit)
        finally:
            with suppress(OSError):  # raised if the scheduler has ended
                event = Event(stop, client=client)  # type: ignore[no-untyped-call]  # distributed has few annotations
                event.set()  # type: ignore[no-untyped-call]  # likewise
                if settings.address is not None:
                    client.run(release_worker)


def _certificates(settings: ExtractSettings, address: str) -> Any:
    """Return the certificates for a cluster that the settings name; without any, those of Dask's own configuration."""
    from distributed import Security

    files = {"tls_ca_file": settings.tls_ca_file, "tls_client_cert": settings.tls_cert}
    files["tls_client_key"] = settings.tls_key
    named = {name: str(file) for name, file in files.items() if file is not None}
    if named and not {"tls_ca_file", "tls_client_cert"} <= named.keys():
        raise UserError("extract.tls_ca_file and extract.tls_cert belong together; give both")
    if missing := [file for file in named.values() if not Path(file).is_file()]:
        raise UserError(f"there is no certificate {missing[0]} (extract.tls_...)")
    security: Any = Security(**named)  # type: ignore[no-untyped-call]  # distributed has few annotations
    if address.startswith("tls://") and security.tls_ca_file is None:
        raise UserError(f"{address} asks for certificates: name them in extract.tls_ca_file, tls_cert and tls_key")
    return security


def _warn_without_tls(address: str) -> None:
    scheme, _, rest = address.rpartition("://")
    host = urlsplit(f"//{rest}").hostname
    if scheme in ("", "tcp", "ws") and host is not None and not is_loopback(host):
        console.say(
            f"{address} (extract.address) has no TLS: whoever can reach that scheduler or its workers can run code on "
            "them and read what they send; start them with certificates, and name them in extract.tls_ca_file, "
            "tls_cert and tls_key",
            style="yellow",
        )


def _check_prefect(hosts: Set[str]) -> None:
    """Check that workers on these machines, given by address, can report their tasks to Prefect."""
    api = urlsplit(PREFECT_API_URL.value()).hostname
    if api in ("127.0.0.1", "localhost") and not all(map(_is_here, hosts)):
        raise UserError(
            "Dask's workers on other machines report to Prefect: name a server that they can reach in PREFECT_API_URL"
        )


def _is_here(host: str) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


def _check_resources(settings: ExtractSettings, offered: list[dict[str, float]]) -> None:
    """Check that some worker has the resources for a shard, unless the cluster has no workers yet."""
    wanted = settings.resources
    if offered and not any(all(has.get(name, 0) >= much for name, much in wanted.items()) for has in offered):
        words = " ".join(f"{name}={much:g}" for name, much in wanted.items())
        raise UserError(
            f"no worker of the Dask cluster has the resources {words} (extract.resources): "
            f'start workers with dask worker --resources "{words}"'
        )
