"""Finding damaged files in a store and moving them aside.

A moved file lies below STORE/quarantine at the same relative path, for people to examine. Readers no longer see it, so
the next run recomputes its contents. A damaged model stays in place, because no run can reproduce it.
"""

from __future__ import annotations

from collections.abc import Callable

from storage.errors import StoreError, UnreachableError
from storage.files.commit import move_file
from storage.files.parts import list_parts
from storage.files.paths import StorePath, relative_name
from storage.layout import open_store
from storage.models.serializer import METADATA_FILE, ModelSerializer
from storage.shards.family import Family
from storage.shards.formats import SUFFIXES, check_shard, format_of
from storage.shards.header import read_header
from storage.shards.store import DESCRIPTION, FeatureStore, read_family
from storage.tables.failures import check_failures
from storage.tables.scores import check_scores
from storage.tables.seen import check_seen
from storage.tables.table import SUFFIX

# The check of each kind of file, and what happens to the contents of one that was moved aside.
_KINDS: dict[str, tuple[Callable[[StorePath], object], str]] = {
    "family": (read_family, "it is rewritten from the shards"),
    "shard": (check_shard, "the next extraction recomputes its videos"),
    "failures": (check_failures, "the next extraction tries its videos again"),
    "scores": (check_scores, "the next scoring scores its videos again"),
    "seen": (check_seen, "the next run looks at its videos again"),
}


def store_files(root: str | StorePath) -> list[StorePath]:
    """List all files that a store must not lose: families, shards, tables and the metadata of models.

    Raises:
        StoreError: the folder is not a store.
    """
    store = open_store(root)
    families = _folders(store / "features")
    descriptions = [folder / DESCRIPTION for folder in families if (folder / DESCRIPTION).exists()]
    shards = [shard for folder in families for shard in list_parts(folder, "shard", SUFFIXES)]
    failures = list_parts(store / "failures", "failures", {SUFFIX})
    scores = [part for folder in _folders(store / "scores") for part in list_parts(folder, "scores", {SUFFIX})]
    seen = list_parts(store / "seen", "seen", {SUFFIX})
    models = ModelSerializer(store)
    versions = [(name, version) for name in models.names() for version in models.versions(name)]
    return [
        *(descriptions + shards + failures + scores + seen),
        *(store / "models" / name / version / METADATA_FILE for name, version in versions),
    ]


def find_damage(path: StorePath) -> str | None:
    """Read a whole file of `store_files`; return one line that describes the damage, or None.

    Raises:
        storage.errors.UnreachableError: object storage cannot be reached.
    """
    if is_model(path):
        name, version = path.parent.parent.name, path.parent.name
        return ModelSerializer(path.parent.parent.parent.parent).verify(name, version)
    check, _ = _KINDS[_kind(path)]
    try:
        check(path)
    except FileNotFoundError:
        return None  # merged or converted in the meantime
    except UnreachableError:
        raise
    except StoreError as error:
        return str(error)
    return None


def is_model(path: StorePath) -> bool:
    """Return whether a file of `store_files` stands for a model."""
    return path.name == METADATA_FILE


def what_is_lost(path: StorePath) -> str:
    """Describe what happens to the contents of a file that `quarantine` has moved aside."""
    return _KINDS[_kind(path)][1]


def quarantine(root: str | StorePath, path: StorePath) -> StorePath:
    """Move a damaged file aside. It must not belong to a model; a family's description is rewritten from its shards.

    Returns:
        The new path of the file.
    """
    store = open_store(root)
    target = store / "quarantine" / relative_name(path, store)
    number = 1
    while target.exists():
        number += 1
        target = target.with_name(f"{path.name}.{number}")
    move_file(path, target)
    if path.name == DESCRIPTION:
        family = _family_of_shards(path.parent)
        if family is not None:
            FeatureStore(root).describe(family)
    return target


def _folders(parent: StorePath) -> list[StorePath]:
    return sorted(path for path in parent.glob("*/*") if not path.name.startswith("."))


def _kind(path: StorePath) -> str:
    return path.stem.partition("-")[0]


def _family_of_shards(folder: StorePath) -> Family | None:
    for shard in list_parts(folder, "shard", SUFFIXES):
        try:
            return read_header(shard, format_of(shard)).family
        except UnreachableError:
            raise
        except (FileNotFoundError, StoreError):
            continue
    return None
