"""What `storage.commit` does, on object storage, where nothing can be renamed.

Work goes on in a local temporary folder. A file is then put at once, or in parts that become an object by one last
request: until then nobody sees anything of it. Parts of an upload that broke off stay invisible, and are paid for until
a rule of the bucket removes them (for S3: AbortIncompleteMultipartUpload).
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

from storage.errors import StoreError, refusal
from storage.remote import RemotePath, delete

CLAIM = ".claim"
"""Object by which a folder belongs to whoever fills it. Without the folder's mark beside it, nothing else counts."""


@contextlib.contextmanager
def put_file(target: RemotePath) -> Iterator[Path]:
    """As `storage.commit.commit_file`."""
    with _local_errors(target), tempfile.TemporaryDirectory(prefix="traitline-") as folder:
        # Below the same names: a shard is checked against those of its folders.
        temporary = Path(folder, target.key)
        temporary.parent.mkdir(parents=True)
        yield temporary
        target.write_bytes(temporary)


@contextlib.contextmanager
def put_folder(target: RemotePath, mark: str) -> Iterator[Path]:
    """As `storage.commit.commit_folder`: claimed first, so that two cannot mix their files, and marked last."""
    if not (target / CLAIM).create(secrets.token_bytes(16)):
        raise FileExistsError(errno.EEXIST, "already there", str(target))
    try:
        with _local_errors(target), tempfile.TemporaryDirectory(prefix="traitline-") as folder:
            yield Path(folder)
            members = {path.relative_to(folder).as_posix(): path for path in Path(folder).rglob("*") if path.is_file()}
            for name in sorted(members, key=lambda name: (name == mark, name)):
                (target / name).write_bytes(members[name])
    except BaseException:
        with contextlib.suppress(StoreError):
            remove_folder(target)
        raise


def move_file(path: RemotePath, target: RemotePath) -> None:
    """As `storage.commit.move_file`: copied and then deleted, so that for a moment it is at both places."""
    try:
        path.copy_to(target)
        path.unlink(missing_ok=True)
    except FileNotFoundError as error:
        raise StoreError(f"cannot move {path} to {target}: {error.strerror}") from error


def remove_folder(folder: RemotePath) -> None:
    """As `storage.commit.remove_folder`, but not at one instant."""
    found = sorted(folder.rglob("*"), reverse=True)
    # What sorts first is what such a folder is found by, a claim or the description of a family: where this breaks off
    # before, it can be done again.
    delete(found[:-1])
    delete(found[-1:])


@contextlib.contextmanager
def _local_errors(target: RemotePath) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot write {target}: {refusal(error)}") from error
