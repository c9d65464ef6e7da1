"""The operations of `storage.files.commit` on object storage, where nothing can be renamed.

The work happens in a local temporary folder. A file is then put in one request, or in parts that a last request turns
into an object: until then nothing of it is visible. Parts of an interrupted upload stay invisible, and cost money until
a rule of the bucket removes them (for S3: AbortIncompleteMultipartUpload).
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

from storage.errors import StoreError, reporting
from storage.files.remote import RemotePath, delete

CLAIM = ".claim"
"""Object that gives a folder to the process that fills it. Before the folder's mark exists, other objects are void."""


@contextlib.contextmanager
def put_file(target: RemotePath) -> Iterator[Path]:
    """Do what `storage.files.commit.commit_file` does."""
    with reporting(f"write {target}"), tempfile.TemporaryDirectory(prefix="traitline-") as folder:
        # Under the same folder names, because a shard is checked against the names of its folders.
        temporary = Path(folder, target.key)
        temporary.parent.mkdir(parents=True)
        yield temporary
        target.write_bytes(temporary)


@contextlib.contextmanager
def put_folder(target: RemotePath, mark: str) -> Iterator[Path]:
    """Do what `storage.files.commit.commit_folder` does: claim first, so that processes cannot mix files; mark last."""
    if not (target / CLAIM).create(secrets.token_bytes(16)):
        raise FileExistsError(errno.EEXIST, "already there", str(target))
    try:
        with reporting(f"write {target}"), tempfile.TemporaryDirectory(prefix="traitline-") as folder:
            yield Path(folder)
            members = {path.relative_to(folder).as_posix(): path for path in Path(folder).rglob("*") if path.is_file()}
            for name in sorted(members, key=lambda name: (name == mark, name)):
                (target / name).write_bytes(members[name])
    except BaseException:
        with contextlib.suppress(StoreError):
            remove_folder(target)
        raise


def move_file(path: RemotePath, target: RemotePath) -> None:
    """Do what `storage.files.commit.move_file` does: copy, then delete, so that both exist for a moment."""
    try:
        path.copy_to(target)
        path.unlink(missing_ok=True)
    except FileNotFoundError as error:
        raise StoreError(f"cannot move {path} to {target}: {error.strerror}") from error


def remove_folder(folder: RemotePath) -> None:
    """Do what `storage.files.commit.remove_folder` does, but not at one instant."""
    found = sorted(folder.rglob("*"), reverse=True)
    # The object that sorts first identifies such a folder: a claim or the description of a family. It is deleted last,
    # so that an interrupted removal can be repeated.
    delete(found[:-1])
    delete(found[-1:])
