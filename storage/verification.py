"""Finding what is damaged among the features of a store, and moving it aside.

What was moved lies in STORE/quarantine/<family>/<key>/, for people to look at. Its videos are no longer there for
readers, so that the next run makes just those anew.
"""

from __future__ import annotations

from storage.commit import move_file
from storage.errors import StoreError, UnreachableError
from storage.families import Family
from storage.feature_store import FeatureStore, read_family
from storage.formats import SUFFIXES, check_shard, format_of
from storage.layout import open_store
from storage.parts import list_parts
from storage.paths import StorePath
from storage.shard import read_header

DESCRIPTION = "family.json"


def feature_files(root: str | StorePath) -> list[StorePath]:
    """All shards and family descriptions of a store, folder by folder.

    Raises:
        StoreError: the folder is not a store.
    """
    folders = sorted(path for path in (open_store(root) / "features").glob("*/*") if not path.name.startswith("."))
    descriptions = [folder / DESCRIPTION for folder in folders if (folder / DESCRIPTION).exists()]
    return descriptions + [shard for folder in folders for shard in list_parts(folder, "shard", SUFFIXES)]


def find_damage(path: StorePath) -> str | None:
    """Read all of a file from `feature_files`; returns one line that says what is wrong, or None."""
    try:
        if path.name == DESCRIPTION:
            read_family(path)
        else:
            check_shard(path)
    except FileNotFoundError:
        return None  # merged or converted just now
    except UnreachableError:
        raise
    except StoreError as error:
        return str(error)
    return None


def quarantine(root: str | StorePath, path: StorePath) -> StorePath:
    """Move a damaged file aside; a family's description is written anew from its shards.

    Returns:
        Where the file is now.

    Raises:
        StoreError: the operating system refused.
    """
    store = open_store(root)
    target = store / "quarantine" / path.relative_to(store / "features")
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


def _family_of_shards(folder: StorePath) -> Family | None:
    for shard in list_parts(folder, "shard", SUFFIXES):
        try:
            return read_header(shard, format_of(shard)).family
        except (FileNotFoundError, StoreError):
            continue
    return None
