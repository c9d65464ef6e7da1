"""Where things lie in a store, and which folders are taken for one."""

from __future__ import annotations

import re

from storage.errors import StoreError
from storage.paths import StorePath, store_path

SUBFOLDERS = ("features", "failures", "seen", "leases", "models", "scores", "exports", "reports", "runs", "quarantine")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def open_store(root: str | StorePath) -> StorePath:
    """Take a folder as a store; it may be absent or empty as yet, the first write makes what it needs.

    Args:
        root: a local folder, or an address on object storage such as s3://bucket/folder.

    Raises:
        StoreError: it is an address of a kind that is not known, a file, unreadable, or holds other things than a store
            does; or object storage cannot be reached.
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
        raise StoreError(f"{folder} is not a store: it holds other files, such as {min(names)}; name a new folder")
    return folder


def path_name(word: str, text: str) -> str:
    """Return `text` if it can be one part of a path below the store; `word` says what it names.

    Raises:
        ValueError: it has other characters than letters, digits, dot, dash and underscore, or begins with one of those.
    """
    if not _NAME.fullmatch(text):
        raise ValueError(f"{word} must begin with a letter or digit and go on with those and . _ -, not {text!r}")
    return text
