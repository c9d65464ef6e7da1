"""Files and folders that appear as a whole or not at all, even if the writer is interrupted.

The work happens under a temporary name in the same folder, so that the rename stays within one file system. A killed
process leaves such a name behind; all readers ask for exact names and therefore never open it.

All functions also work on object storage, see `storage.files.remote_commit`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from storage.errors import StoreError, refusal
from storage.files import remote_commit
from storage.files.paths import StorePath
from storage.files.remote import RemotePath, delete

TEMPORARY_PREFIX = ".tmp-"


@contextlib.contextmanager
def commit_file(target: StorePath) -> Iterator[Path]:
    """Provide a temporary path to write to; if the block succeeds, that file becomes `target`, replacing any older one.

    After a failure `target` is unchanged. The one exception is the very last step: if the folder cannot be synced after
    the rename, `target` is already in place, as a whole, but might not survive a power cut.

    Raises:
        StoreError: the operating system refused (disk full, no permission ...), within the block or here.
    """
    if isinstance(target, RemotePath):
        with remote_commit.put_file(target) as temporary:
            yield temporary
        return
    make_folder(target.parent)
    temporary = _temporary_path(target)
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, target)
        _sync(target.parent)
    except OSError as error:
        raise StoreError(f"cannot write {target}: {refusal(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def commit_folder(target: StorePath, *, mark: str) -> Iterator[Path]:
    """Provide a temporary folder to fill; if the block succeeds, it becomes `target` by one rename.

    On object storage its files appear one by one, `mark` last: readers must treat a folder without its mark as absent.

    Args:
        target: the folder to create.
        mark: name of a file that the folder will contain.

    Raises:
        FileExistsError: `target` exists already, or another process is filling it; it is left alone.
        StoreError: the operating system refused (disk full, no permission ...), within the block or here.
    """
    if isinstance(target, RemotePath):
        with remote_commit.put_folder(target, mark) as temporary:
            yield temporary
        return
    make_folder(target.parent)
    temporary = _temporary_path(target)
    try:
        temporary.mkdir()
        yield temporary
        for path in [*temporary.rglob("*"), temporary]:
            _sync(path)
        os.rename(temporary, target)
        _sync(target.parent)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise FileExistsError(error.errno, "already there", str(target)) from error
        raise StoreError(f"cannot write {target}: {refusal(error)}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def create_file(target: StorePath, data: bytes) -> bool:
    """Create a file with this content, safely on disk on return, unless something already has that name.

    If several processes try, exactly one of them creates the file. No process ever sees a part of it.

    Args:
        target: the file to create.
        data: its bytes, which must differ from those of every other process that tries: on object storage an answer may
            be lost, and then the bytes show whose file it is.

    Returns:
        Whether this call created the file; an existing file is unchanged.

    Raises:
        StoreError: the operating system refused.
    """
    if isinstance(target, RemotePath):
        return target.create(data)
    make_folder(target.parent)
    temporary = _temporary_path(target)
    try:
        temporary.write_bytes(data)
        _sync(temporary)
        os.link(temporary, target)  # unlike a rename, never replaces
        _sync(target.parent)
    except FileExistsError:
        return False
    except OSError as error:
        raise StoreError(f"cannot write {target}: {refusal(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return True


def remove_files(paths: Sequence[StorePath]) -> None:
    """Remove files durably; files that are already gone are skipped.

    Raises:
        StoreError: the operating system refused.
    """
    delete([path for path in paths if isinstance(path, RemotePath)])
    local = [path for path in paths if isinstance(path, Path)]
    try:
        for path in local:
            path.unlink(missing_ok=True)
        for path in {path.parent for path in local}:
            _sync(path)
    except OSError as error:
        raise StoreError(f"cannot remove {path}: {refusal(error)}") from error


def move_file(path: StorePath, target: StorePath) -> None:
    """Move a file durably within one file system or one bucket.

    Raises:
        ValueError: only one of the paths is on object storage.
        StoreError: the operating system refused.
    """
    if isinstance(path, RemotePath) and isinstance(target, RemotePath):
        remote_commit.move_file(path, target)
        return
    if isinstance(path, RemotePath) or isinstance(target, RemotePath):
        raise ValueError(f"cannot move {path} to {target}: only one of them is on object storage")
    make_folder(target.parent)
    try:
        os.rename(path, target)
        _sync(target.parent)
        _sync(path.parent)
    except OSError as error:
        raise StoreError(f"cannot move {path} to {target}: {refusal(error)}") from error


def remove_folder(folder: StorePath) -> None:
    """Remove a folder and its contents: one rename hides it from every reader, then it is deleted.

    On object storage it is deleted file by file; if that is interrupted, it can be repeated.

    Raises:
        StoreError: the operating system refused.
    """
    if isinstance(folder, RemotePath):
        remote_commit.remove_folder(folder)
        return
    doomed = folder if folder.name.startswith(TEMPORARY_PREFIX) else _temporary_path(folder)
    try:
        if doomed != folder:
            os.rename(folder, doomed)
            _sync(folder.parent)
        shutil.rmtree(doomed)
    except OSError as error:
        raise StoreError(f"cannot remove {folder}: {refusal(error)}") from error


def check_writable(target: StorePath) -> None:
    """Check before the work whether `commit_file` will be allowed to write its result.

    Raises:
        StoreError: `target` is a folder, or its folder is not writable. For object storage this only checks that the
            storage answers.
    """
    if isinstance(target, RemotePath):
        target.is_file()
        return
    if target.is_dir():
        raise StoreError(f"cannot write {target}: it is a folder; name a file")
    folder = target.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise StoreError(f"cannot write {target}: {folder} is not a writable folder; choose another place")


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents, each synced into its own parent.

    Raises:
        StoreError: the operating system refused, or a file has that name.
    """
    try:
        if folder.is_dir():
            return
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)
    except FileExistsError as error:
        raise StoreError(f"cannot make the folder {folder}: a file with that name is in its place") from error
    except OSError as error:
        raise StoreError(f"cannot make the folder {folder}: {refusal(error)}") from error


def _temporary_path(target: Path) -> Path:
    # The target's name comes last because some writers choose the format by the suffix.
    return target.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(6)}-{target.name}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
