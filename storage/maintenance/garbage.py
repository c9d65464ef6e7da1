"""Finding and removing files that nothing in a store refers to any more.

All functions raise StoreError if a file cannot be read or the operating system refuses.
"""

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
    """Return the families that no model and no score depends on, directly or through another family.

    Args:
        root: the store's folder.
        idle_s: families written to within this many seconds count as used, because a run may be filling them.
    """
    store = FeatureStore(root)
    keys = ScoreStore(root).feature_keys() | _keys_of_models(ModelSerializer(root))
    families = store.families()
    used = [family for family in families if family.key in keys]
    # The settings of a family contain those of its source.
    sources = [family for family in families if any(_holds(user.settings, family.settings) for user in used)]
    kept = {family.key for family in used + sources}
    unused = [family for family in families if family.key not in kept]
    # A folder's time changes whenever a shard is added or removed.
    return [family for family in unused if time.time() - store.folder(family).stat().st_mtime >= idle_s]


def remove_family(root: str | StorePath, family: Family) -> None:
    """Remove all shards and the claims of a family."""
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
    """Remove one of `leftovers`."""
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
