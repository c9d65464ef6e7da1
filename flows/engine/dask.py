"""The engine that has Dask's workers do the work: of a cluster that is there, or of one that it starts."""

from __future__ import annotations

import logging
import pickle
import pkgutil
import queue
import secrets
import tempfile
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dask import config
from distributed import Client, Future, LocalCluster, Security
from distributed.versions import VersionMismatchWarning

from flows.config.settings import DaskSettings
from flows.engine import cores
from flows.engine.engine import POLL_S, Engine, Item, OnProgress, OpenWork, Result
from flows.engine.worker import TOPIC, Resident, check_program, do, running_program
from flows.session import console, stopping
from flows.session.environment import is_loopback
from flows.session.errors import UserError

CONNECT_S = 10
# Dask keeps its latest messages, with the items in them, and transitions for its developers: 1000 of each, for each
# connection. With shorter logs, memory stops growing after the first shards of a run.
_SHORT_LOGS = {"distributed.admin.low-level-log-length": 50, "distributed.admin.system-monitor.log-length": 600}
ITEMS_PER_WORKER = 2  # so that no worker waits for its next one


class DaskEngine(Engine):
    """Keeps a few items for each worker with Dask, however many there are.

    Dask gives the items of a worker that dies to others, and gives up an item after its fourth worker.

    Args:
        own: whether the run started the cluster itself.
    """

    def __init__(self, client: Client, resources: dict[str, float], *, own: bool) -> None:
        self._client, self._resources, self._own = client, resources, own
        self._workers, self._counted_at = 0, 0.0

    def _outcomes(
        self, open_work: OpenWork[Item, Result], items: Iterable[Item | None], on_progress: OnProgress[Item]
    ) -> Generator[tuple[Item, Callable[[], Result]]]:
        name = f"traitline-{secrets.token_hex(8)}"
        heard: queue.SimpleQueue[Any] = queue.SimpleQueue()  # numbers of items that are done, and messages of progress
        at_work: dict[int, tuple[Item, Future[Any]]] = {}
        source, number, ended, ask_at = iter(items), 0, False, 0.0
        with self._resident(name, pickle.dumps(open_work), heard):
            while True:
                stopping.check()
                while not ended and len(at_work) < ITEMS_PER_WORKER * self.workers and time.monotonic() >= ask_at:
                    try:
                        item = next(source)
                    except StopIteration:
                        ended = True
                        break
                    if item is None:
                        ask_at = time.monotonic() + POLL_S
                        break
                    future = self._client.submit(
                        do, name, number, item, key=f"{name}-{number}", resources=self._resources, pure=False
                    )
                    at_work[number] = item, future
                    future.add_done_callback(lambda _, number=number: heard.put(number))
                    number += 1
                if ended and not at_work:
                    return
                message = None
                with suppress(queue.Empty):
                    message = heard.get(timeout=POLL_S)
                if self._client.status != "running":  # all items are lost
                    raise UserError("the connection to Dask's scheduler is lost; run the command again")
                if message is None:
                    continue
                if not isinstance(message, dict):
                    item, future = at_work.pop(message)
                    ask_at = 0.0
                    yield item, future.result  # which raises Dask's own exception if the item's workers died repeatedly
                elif message["item"] in at_work:
                    on_progress(at_work[message["item"]][0], message["done"], message["failed"])

    @contextmanager
    def _resident(self, name: str, open_work: bytes, heard: queue.SimpleQueue[Any]) -> Iterator[None]:
        """Have the workers keep the run's work while the block runs, and pass on what they tell of its progress."""

        def hear(event: tuple[float, dict[str, Any]]) -> None:
            if event[1]["run"] == name:
                heard.put(event[1])

        self._client.register_plugin(Resident(name, open_work, running_program(), own=self._own), name)
        self._client.subscribe_topic(TOPIC, hear)
        try:
            yield
        finally:
            if self._client.status == "running":
                with suppress(OSError, ValueError):  # raised if the scheduler has ended just now
                    self._client.unsubscribe_topic(TOPIC)
                    self._client.unregister_worker_plugin(name)

    @property
    def workers(self) -> int:
        """Return how many processes work at present, at least one."""
        if time.monotonic() - self._counted_at > POLL_S:
            self._workers, self._counted_at = max(1, len(self._client.nthreads())), time.monotonic()
        return self._workers


@contextmanager
def open_dask(settings: DaskSettings) -> Iterator[DaskEngine]:
    """Connect to the cluster that the settings name, or start one, which ends with the block.

    Raises:
        UserError: it cannot be used.
    """
    if settings.address is not None:
        _warn_without_tls(settings.address)
        cluster: AbstractContextManager[Any] = nullcontext(settings.address)
        security = _certificates(settings, settings.address)
    else:
        cluster, security = _started(settings), None
    logging.getLogger("distributed.client").setLevel(logging.ERROR)  # it warns of results that died with a worker
    # Dask warns in a table of many lines; `_check_programs` says in one what matters.
    warnings.simplefilter("ignore", VersionMismatchWarning)
    with cluster as place:
        try:
            with config.set(_SHORT_LOGS):
                client = Client(place, timeout=CONNECT_S, security=security, set_as_default=False)
        except (OSError, ValueError) as error:
            why = " ".join(str(error).split())
            raise UserError(f"no Dask scheduler answers at {settings.address} (dask.address): {why}") from error
        with client:
            _check_programs(client)
            workers = client.scheduler_info()["workers"]
            _check_resources(settings, [worker["resources"] for worker in workers.values()])
            own = settings.address is None and settings.cluster is None
            yield DaskEngine(client, settings.resources, own=own)


@contextmanager
def _started(settings: DaskSettings) -> Iterator[Any]:
    """Provide a cluster that ends with the block, and whose processes here keep their files in a folder of their own.

    By default, Dask uses dask-scratch-space in the folder for temporary files, whoever made it, and imports modules
    from it: another account that made it first could run code as this user, or have files overwritten through links.
    """
    with (
        tempfile.TemporaryDirectory(prefix="traitline-dask-", ignore_cleanup_errors=True) as scratch,
        config.set({"temporary-directory": config.get("temporary-directory") or scratch}),
        _start(settings) as cluster,
    ):
        yield cluster


def _start(settings: DaskSettings) -> Any:
    """Start a cluster, which is a context manager."""
    try:
        if settings.cluster is None:
            return _start_here(settings)
        cluster = pkgutil.resolve_name(settings.cluster)(**settings.cluster_options)
        if settings.workers is not None:
            cluster.scale(settings.workers)
    except Exception as error:  # whatever this class raises
        what = "a Dask cluster here" if settings.cluster is None else f"{settings.cluster} (dask.cluster)"
        raise UserError(f"cannot start {what}: {' '.join(str(error.__cause__ or error).split())}") from error
    return cluster


def _start_here(settings: DaskSettings) -> LocalCluster:
    count = settings.workers if settings.workers is not None else cores.default_workers()
    # What the user's configuration of Dask says about clusters is meant for others. Forked workers, for example, cannot
    # use Arrow's and delta-rs' threads.
    defaults: dict[str, Any] = config.merge(*config.defaults)
    # Dask runs the code of whoever connects; with TLS, only processes that have this cluster's own certificate can. Its
    # pages, which have no such protection, are left out.
    routes: dict[str, Any] = {f"distributed.{kind}.http.routes": [] for kind in ("scheduler", "worker")}
    with config.set({"distributed": defaults["distributed"]}), config.set(routes | _SHORT_LOGS):
        return LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            # Dask's limit would count the networks and kill workers; `limits.*` bound the memory of videos.
            memory_limit=0,
            dashboard_address="127.0.0.1:0",
            security=True,
            resources=settings.resources,
        )


def _certificates(settings: DaskSettings, address: str) -> Any:
    """Return the certificates for a cluster that the settings name; without any, those of Dask's own configuration."""
    files = {"tls_ca_file": settings.tls_ca_file, "tls_client_cert": settings.tls_cert}
    files["tls_client_key"] = settings.tls_key
    named = {name: str(file) for name, file in files.items() if file is not None}
    if named and not {"tls_ca_file", "tls_client_cert"} <= named.keys():
        raise UserError("dask.tls_ca_file and dask.tls_cert belong together; give both")
    if missing := [file for file in named.values() if not Path(file).is_file()]:
        raise UserError(f"there is no certificate {missing[0]} (dask.tls_...)")
    security: Any = Security(**named)
    if address.startswith("tls://") and security.tls_ca_file is None:
        raise UserError(f"{address} asks for certificates: name them in dask.tls_ca_file, tls_cert and tls_key")
    return security


def _warn_without_tls(address: str) -> None:
    scheme, _, rest = address.rpartition("://")
    host = urlsplit(f"//{rest}").hostname
    if scheme in ("", "tcp", "ws") and host is not None and not is_loopback(host):
        console.say(
            f"{address} (dask.address) has no TLS: whoever can reach that scheduler or its workers can run code on "
            "them and read what they send; start them with certificates, and name them in dask.tls_ca_file, "
            "tls_cert and tls_key",
            style="yellow",
        )


def _check_programs(client: Client) -> None:
    """Check that the scheduler, which unpickles items, and all present workers run the same program as this process."""
    here = running_program()
    try:
        at_scheduler: object = client.run_on_scheduler(running_program)
    except Exception as error:
        at_scheduler = error
    found = {f"the scheduler {client.scheduler_info()['address']}": at_scheduler}
    at_workers = client.run(running_program, on_error="return")
    found |= {f"the worker {address}": there for address, there in at_workers.items()}
    for place, there in found.items():
        if not isinstance(there, OSError):  # it has just ended
            check_program(place, there if isinstance(there, str) else None, here)


def _check_resources(settings: DaskSettings, offered: list[dict[str, float]]) -> None:
    """Check that some worker has the resources for an item, unless the cluster has no workers yet."""
    wanted = settings.resources
    if offered and not any(all(has.get(name, 0) >= much for name, much in wanted.items()) for has in offered):
        words = " ".join(f"{name}={much:g}" for name, much in wanted.items())
        raise UserError(
            f"no worker of the Dask cluster has the resources {words} (dask.resources): "
            f'start workers with dask worker --resources "{words}"'
        )
