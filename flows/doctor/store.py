"""Checks of a store's folder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from flows.doctor.machine import Finding, disk
from storage.errors import StoreError
from storage.files.commit import create_file, remove_files
from storage.files.paths import StorePath
from storage.layout import open_store

# No decision depends on the dates of files, but people and `ls -t` rely on them.
SKEW_S = 5.0


def check_store(root: str | StorePath) -> Iterator[Finding]:
    """Check that a store can be read, written, and shared by several runs. Leaves nothing behind."""
    try:
        folder = open_store(root)
        there = folder.is_dir()
    except (StoreError, OSError) as error:
        yield Finding("store", "fault", str(error), "name another folder with --store DIR")
        return
    yield Finding("store", "ok", f"{folder} can be read" if there else f"{folder} does not exist yet; a run creates it")
    if isinstance(folder, Path):
        yield disk("disk of the store", folder, "name another folder with --store DIR")
    yield from _check_writing(folder)


def _check_writing(folder: StorePath) -> Iterator[Finding]:
    place = folder
    while isinstance(place, Path) and not place.is_dir():
        place = place.absolute().parent
    probe = place / f".doctor-{uuid4().hex}"
    try:
        created, again = create_file(probe, b"first"), create_file(probe, b"second")
        skew = probe.stat().st_mtime - time.time()
        remove_files([probe])
    except (StoreError, OSError) as error:
        cure = "give this user write permission; the file system must support hard links"
        yield Finding("writing there", "fault", str(error), cure)
        return
    if created and not again:
        yield Finding("writing there", "ok", "works, and several runs can share it")
    else:
        cure = "keep the store on another file system, or start one run at a time"
        yield Finding("writing there", "fault", "two runs could take the same work", cure)
    if abs(skew) > SKEW_S:
        found = f"differs from this machine's by {skew:+.0f} s"
        yield Finding("clock there", "warning", found, "synchronise both clocks with NTP")
