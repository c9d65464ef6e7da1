"""Files and folders that appear whole or not at all, whatever interrupts the writer.

The work goes on under a temporary name in the same folder, so that the rename stays within one file system. A process
that is killed leaves such a name behind; every reader here asks for exact names and so never opens one.

All of this works on object storage as well, see `storage.remote_commit`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from storage import remote_commit
from storage.errors import StoreError, refusal
from storage.paths import StorePath
from storage.remote import RemotePath, delete

TEMPORARY_PREFIX = ".tmp-"


@contextlib.contextmanager
def commit_file(target: StorePath) -> Iterator[Path]:
    """Give a temporary path to write; where the block ends well, that file becomes `target`, replacing an older one.

    After a failure `target` is as it was. The one exception is the very last step: if the folder cannot be synced after
    the rename, `target` is already there, whole, but might not survive a power cut.

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
    """Give a temporary folder to fill; where the block ends well, it becomes `target` by one rename.

    On object storage its files come one by one, `mark` last: readers must take a folder without its mark for absent.

    Args:
        target: the folder that is to be.
        mark: name of a file that will be in it.

    Raises:
        FileExistsError: `target` is there already, or another process is filling it; it is left alone.
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
    """Create a whole file, on the disk when this returns, unless something has that name already.

    Of any number of processes that try, exactly one creates it. Nobody ever sees a part of it.

    Args:
        target: the file that is to be.
        data: its bytes, unlike those of anybody else who tries: on object storage an answer may get lost, and then the
            bytes tell whose file it is.

    Returns:
        Whether it was created; what was there before stays as it was.

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
        os.link(temporary, target)  # which, unlike a rename, never replaces
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
    """Remove files for good; those that are gone already are passed over.

    Raises:
        StoreError: the operating system refused.
    """
    if paths and isinstance(paths[0], RemotePath):
        delete(paths)
        return
    try:
        for path in paths:
            path.unlink(missing_ok=True)
        for path in {path.parent for path in paths}:
            _sync(path)
    except OSError as error:
        raise StoreError(f"cannot remove {path}: {refusal(error)}") from error


def move_file(path: StorePath, target: StorePath) -> None:
    """Move a file within one file system, for good.

    Raises:
        StoreError: the operating system refused.
    """
    if isinstance(path, RemotePath):
        remote_commit.move_file(path, target)
        return
    make_folder(target.parent)
    try:
        os.rename(path, target)
        _sync(target.parent)
        _sync(path.parent)
    except OSError as error:
        raise StoreError(f"cannot move {path} to {target}: {refusal(error)}") from error


def remove_folder(folder: StorePath) -> None:
    """Remove a folder with all that is in it: first gone for every reader by one rename, then for good.

    On object storage it goes file by file; where that breaks off, it can be done again.

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
    """Find out before the work whether `commit_file` will be allowed to put its result there.

    Raises:
        StoreError: `target` is a folder, or nothing may be written where it is to lie. Of object storage it is only
            found out whether it can be asked.
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
        raise StoreError(f"cannot write {target}: {folder} is not a folder that may be written to; name another place")


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each of them synced into its parent.

    Raises:
        StoreError: the operating system refused, or a file is in the way.
    """
    try:
        if folder.is_dir():
            return
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)
    except FileExistsError as error:
        raise StoreError(f"cannot make the folder {folder}: a file is in its place") from error
    except OSError as error:
        raise StoreError(f"cannot make the folder {folder}: {refusal(error)}") from error


def _temporary_path(target: Path) -> Path:
    # The target's name comes last: some writers go by the suffix.
    return target.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(6)}-{target.name}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
