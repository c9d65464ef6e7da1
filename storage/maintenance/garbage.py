"""Finding and removing files that nothing in a store refers to any more, while runs work on it.

"Now" is the storage's time, not that of this machine, so that a wrong clock removes nothing. What runs may still need
stays: all that is younger than the oldest live claim.

All functions raise StoreError if a file cannot be read or the operating system refuses.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from storage.errors import reading
from storage.files.commit import CLAIM, TEMPORARY_PREFIX, commit_file, empty_folder, remove_files, remove_folder
from storage.files.paths import (
    StorePath,
    everything_below,
    exists,
    folders,
    is_folder,
    listing,
    matching,
    relative_name,
    store_path,
)
from storage.files.remote import RemotePath
from storage.layout import open_store
from storage.models.serializer import METADATA_FILE, ModelSerializer
from storage.shards.family import Family, known_keys
from storage.shards.store import FeatureStore
from storage.tables.failures import FailureLog
from storage.tables.scores import ScoreStore
from storage.tables.seen import SeenVideos
from storage.tables.table import Table

HOUR_S, DAY_S = 3600.0, 86_400.0
_SILENT_S = HOUR_S  # a claim whose sign of life is older than this is that of a killed run


def store_time(root: str | StorePath) -> float:
    """Return the present time by the clock of the storage, in seconds since 1970; for that it writes a file."""
    path = store_path(root) / "leases" / f"clock-{secrets.token_hex(6)}"
    with commit_file(path) as temporary:
        temporary.write_bytes(b"")
    with reading(path):
        now = path.stat().st_mtime
    remove_files([path])
    return now


def live_claims(root: str | StorePath, now: float) -> dict[str, float]:
    """Return the keys of claims whose holders live, each with the time at which its oldest claim began.

    Args:
        now: from `store_time`.
    """
    leases = store_path(root) / "leases"
    found: dict[str, float] = {}
    for folder in folders(leases, "*"):
        files = listing(folder)
        for name, claim in files.items():
            number, _, kind = name.partition(".")
            ended, beat = f"{number}.end" in files, files.get(f"{number}.beat", claim)
            if kind == "json" and not ended and now - beat.modified < _SILENT_S:
                found[folder.name] = min(claim.modified, found.get(folder.name, claim.modified))
    return found


def unused_families(root: str | StorePath, *, idle_s: float = DAY_S) -> list[Family]:
    """Return the families that no model, no score and no live claim depends on, directly or through another family.

    Args:
        idle_s: families written to within this many seconds count as used, because a run may be filling them.
    """
    store = FeatureStore(root)
    now = store_time(root)
    claimed = live_claims(root, now).keys()
    families = store.families()
    if claimed - {family.key for family in families}:  # of a family that is not described yet; its users are unknown
        return []
    keys = ScoreStore(root).feature_keys() | _keys_of_models(ModelSerializer(root))
    used = [family for family in families if not keys.isdisjoint(known_keys(family))]
    filled = [family for family in families if family.key in claimed]
    # The settings of a family contain those of its source, and runs claim the source for all that they make from it.
    sources = [family for family in families if any(_holds(user.settings, family.settings) for user in used)]
    results = [family for family in families if any(_holds(family.settings, source.settings) for source in filled)]
    kept = {family.key for family in [*used, *filled, *sources, *results]}
    unused = [family for family in families if family.key not in kept]
    return [family for family in unused if now - _last_written(store, family) >= idle_s]


def remove_family(root: str | StorePath, family: Family) -> None:
    """Remove a family from the manifest, then its folder and its claims."""
    store = FeatureStore(root)
    store.manifest.remove(family.key)
    folder = store.folder(family)
    if isinstance(folder, Path) and is_folder(folder):
        remove_files([path for path in folder.iterdir() if path.is_symlink()])  # shards on other disks
        if folder.is_symlink():
            empty_folder(folder)
    remove_folder(folder)
    remove_folder(store.root / "leases" / family.key)


def leftovers(root: str | StorePath, *, idle_s: float = DAY_S) -> list[StorePath]:
    """Return shards that the manifest does not name, and temporary files and folders of killed writers.

    Args:
        idle_s: files younger than this, or than the oldest live claim, are left out.
    """
    store = open_store(root)
    now = store_time(root)
    before = min([now - idle_s, *live_claims(root, now).values()])
    found: list[StorePath] = []
    for folder in folders(store, "features/*/*"):
        old = [name for name, entry in listing(folder).items() if entry.modified <= before]
        found += [folder / name for name in old if name.startswith("shard-")]
    if found:  # after the listing, so that no shard of it can be committed unseen
        manifest = FeatureStore(store).manifest
        named = manifest.shards()
        if manifest.table.version() < 0:  # it is gone, and `repair` writes it again from these shards
            found = []
        found = [path for path in found if (path.parent.name, path.name) not in named]
    for path in unfinished(store):
        with contextlib.suppress(FileNotFoundError), reading(path):  # its writer has just committed it
            if path.stat().st_mtime <= before:
                found.append(path)
    return sorted(found)


def remove_leftover(path: StorePath) -> None:
    """Remove one of `leftovers`."""
    if is_folder(path):
        remove_folder(path)
    else:
        remove_files([path])


def clean_tables(root: str | StorePath, *, idle_s: float = DAY_S) -> int:
    """Remove files of tables that only versions older than `idle_s` seconds use; return their number."""
    ahead_s = time.time() - store_time(root)  # the library goes by the clock of this machine
    return sum(table.vacuum(idle_s + max(ahead_s, 0)) for table in tables_of(root))


def tables_of(root: str | StorePath) -> list[Table]:
    """Return all tables of a store."""
    tables = [FeatureStore(root).manifest.table, FailureLog(root).table, SeenVideos(root).table]
    return [*tables, *ScoreStore(root).tables()]


def _last_written(store: FeatureStore, family: Family) -> float:
    return max((entry.modified for entry in listing(store.folder(family)).values()), default=0.0)


def unfinished(store: StorePath) -> Iterator[StorePath]:
    """Yield temporary files and folders, of writers that live or were killed."""
    if isinstance(store, RemotePath):
        claimed = (claim.parent for claim in matching(store, f"models/*/*/{CLAIM}"))
        yield from (folder for folder in claimed if not exists(folder / METADATA_FILE))
        return
    for path in everything_below(store):
        *folders, name = relative_name(path, store).split("/")
        if name.startswith(TEMPORARY_PREFIX) and not any(folder.startswith(TEMPORARY_PREFIX) for folder in folders):
            yield path


def _keys_of_models(models: ModelSerializer) -> set[str]:
    metadata = [models.metadata(name, version) for name in models.names() for version in models.versions(name)]
    return {values[key] for values in metadata for key in ("static_key", "dynamic_key") if key in values}


def _holds(settings: Any, part: Mapping[str, Any]) -> bool:
    if settings == part:
        return True
    return isinstance(settings, Mapping) and any(_holds(value, part) for value in settings.values())
