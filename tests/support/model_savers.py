"""Processes that save models, forked from one that has imported TensorFlow once."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["fusion.model.model", "storage.models.serializer"])


def start_saver(count: int, *roots: object) -> tuple[BaseProcess, Connection]:
    """Start a process that, once it is sent anything, saves a model so often in each store, and sends each version."""
    ours, theirs = _FORKS.Pipe()
    process = _FORKS.Process(target=_save, args=(theirs, count, [str(root) for root in roots], dict(os.environ)))
    process.start()
    theirs.close()
    assert ours.recv() == "ready"
    return process, ours


def _save(connection: Connection, count: int, roots: Sequence[str], environment: dict[str, str]) -> None:
    os.environ.update(environment)  # the server that forks has an older one
    from fusion import CompletePersonalityModel
    from storage import ModelSerializer

    model = CompletePersonalityModel(64, 64, form="vector")
    connection.send("ready")
    connection.recv()
    for root in roots:
        for _ in range(count):
            connection.send(ModelSerializer(root).save(model, "main", {"process": os.getpid()}, {}))
