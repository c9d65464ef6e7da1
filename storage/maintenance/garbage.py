"""Finding and removing objects that nothing in a store refers to any more."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from storage.files.commit import TEMPORARY_PREFIX, remove_files, remove_folder
from storage.files.paths import StorePath
from storage.files.remote import RemotePath
from storage.files.remote_commit import CLAIM
from storage.layout import open_store
from storage.models.serializer import METADATA_FILE, ModelSerializer
from storage.shards.family import Family
from storage.shards.store import FeatureStore
from storage.tables.scores import ScoreStore

DAY_S = 86_400.0


def unused_families(root: str | StorePath, *, idle_s: float = DAY_S) -> list[Family]:
    """Return families that no model was trained on, no score was computed from, and no such family was made from.

    Args:
        root: the store's folder.
        idle_s: families written to within this many seconds count as used, because a run may be filling them.

    Raises:
        StoreError: a file that may refer to a family cannot be read.
    """
    store = FeatureStore(root)
    keys = ScoreStore(root).feature_keys() | _keys_of_models(ModelSerializer(root))
    families = store.families()
    used = [family for family in families if family.key in keys]
    # The settings of a family contain those of the family that it was made from.
    sources = [family for family in families if any(_holds(user.settings, family.settings) for user in used)]
    kept = {family.key for family in used + sources}
    return [
        family for family in families if family.key not in kept and time.time() - _last_write(store, family) >= idle_s
    ]


def remove_family(root: str | StorePath, family: Family) -> None:
    """Remove all shards and the claims of a family. Raises StoreError if the operating system refuses."""
    remove_folder(FeatureStore(root).folder(family))
    log = open_store(root) / "leases" / family.key
    if log.is_dir():
        remove_folder(log)


def leftovers(root: str | StorePath, *, idle_s: float = DAY_S) -> list[StorePath]:
    """Return temporary files and folders that killed writers left, unchanged for at least `idle_s` seconds."""
    found = []
    store = open_store(root)
    for path in _unfinished(store):
        with contextlib.suppress(FileNotFoundError):  # its writer has just committed it
            if time.time() - path.stat().st_mtime >= idle_s:
                found.append(path)
    return sorted(found)


def _unfinished(store: StorePath) -> Iterator[StorePath]:
    if isinstance(store, RemotePath):
        claimed = (claim.parent for claim in store.glob(f"models/*/*/{CLAIM}"))
        yield from (folder for folder in claimed if not (folder / METADATA_FILE).exists())
        return
    for path in store.rglob(f"{TEMPORARY_PREFIX}*"):
        if not any(part.startswith(TEMPORARY_PREFIX) for part in path.relative_to(store).parent.parts):
            yield path


def remove_leftover(path: StorePath) -> None:
    """Remove one of `leftovers`. Raises StoreError if the operating system refuses."""
    if path.is_dir():
        remove_folder(path)
    else:
        remove_files([path])


def _keys_of_models(models: ModelSerializer) -> set[str]:
    metadata = [models.metadata(name, version) for name in models.names() for version in models.versions(name)]
    return {values[key] for values in metadata for key in ("static_key", "dynamic_key") if key in values}


def _holds(settings: Any, part: Mapping[str, Any]) -> bool:
    if settings == part:
        return True
    return isinstance(settings, Mapping) and any(_holds(value, part) for value in settings.values())


def _last_write(store: FeatureStore, family: Family) -> float:
    # A folder's time changes whenever a shard is added or removed.
    return store.folder(family).stat().st_mtime
