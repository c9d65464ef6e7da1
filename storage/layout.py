"""The folders of a store, and the check whether a folder is a store."""

from __future__ import annotations

import re
from pathlib import Path

from storage.errors import StoreError
from storage.files.paths import StorePath, check_link, matching, store_path

SUBFOLDERS = (
    "manifest",
    "features",
    "failures",
    "seen",
    "leases",
    "models",
    "scores",
    "exports",
    "reports",
    "runs",
    "quarantine",
)

# Where folders may be links to other disks; of one that is not mounted, nothing must count as gone.
LINKED = ("*", "features/*", "features/*/*")
UPGRADE = "upgrade.json"  # there while a store of an older version is being brought over
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_OLD_PARTS = re.compile(r"family\.json|(failures|seen|scores)-\d{8}T\d{12}-[0-9a-f]{12}\.parquet")


def open_store(root: str | StorePath, *, upgrading: bool = False) -> StorePath:
    """Check that a folder can be used as a store. It may be missing or empty; the first write creates what it needs.

    Args:
        root: a local folder, or an address on object storage such as s3://bucket/folder.
        upgrading: accept a store of before the manifest, and one that is being brought over.

    Returns:
        The path of the store.

    Raises:
        StoreError: the address is of an unknown kind; the path is a file or unreadable; the folder holds files but none
            of a store's subfolders, or is a store of before the manifest; object storage cannot be reached; or one of
            its folders is a link that leads nowhere.
    """
    folder = store_path(root)
    try:
        names = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    except FileNotFoundError:
        return folder
    except NotADirectoryError as error:
        raise StoreError(f"cannot use {folder} as a store: it is a file; name a folder") from error
    except OSError as error:
        raise StoreError(f"cannot open the store {folder}: {error.strerror}") from error
    if names and not any(name in SUBFOLDERS for name in names):
        raise StoreError(f"{folder} is not a store: it holds other files, such as {min(names)}; choose a new folder")
    if not upgrading and (UPGRADE in names or ("manifest" not in names and old_parts(folder))):
        raise StoreError(
            f"{folder} was made by an older version: run `traitline store upgrade --store {folder} --yes` once"
        )
    for pattern in LINKED if isinstance(folder, Path) else ():
        for path in matching(folder, pattern):
            check_link(path)
    return folder


def old_parts(store: StorePath) -> list[StorePath]:
    """Return the descriptions of families and the parts of tables of before the manifest, oldest first."""
    patterns = ("features/*/*/family.json", "failures/*", "seen/*", "scores/*/*/*")
    paths = [path for pattern in patterns for path in matching(store, pattern)]
    return sorted(path for path in paths if _OLD_PARTS.fullmatch(path.name) and path.parent.name[0] != ".")


def path_name(word: str, text: str) -> str:
    """Return `text` if it can be one part of a path below the store; `word` names it in the message.

    Raises:
        ValueError: it contains characters other than letters, digits, dot, dash and underscore, or does not begin with
            a letter or digit.
    """
    if not _NAME.fullmatch(text):
        raise ValueError(f"{word} must begin with a letter or digit, followed by those and . _ -, not {text!r}")
    return text
