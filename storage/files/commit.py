"""Files and folders that appear as a whole or not at all, even if the writer is interrupted.

The work happens under a temporary name in the same folder, so that the rename stays within one file system. A killed
process leaves its temporary file behind; readers ask for exact names and never open it.

On object storage nothing can be renamed, so the work happens in a local temporary folder. A file is then put in one
request, or in parts that a last request turns into an object: until then nothing of it is visible. Parts of an
interrupted upload stay invisible, and cost money until a rule of the bucket removes them (for S3:
AbortIncompleteMultipartUpload).

All functions raise StoreError if the operating system or the storage refuses (disk full, no permission, not reachable
...).
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from storage.errors import StoreError, refusal, reporting
from storage.files.paths import StorePath, is_folder
from storage.files.remote import RemotePath, delete

TEMPORARY_PREFIX = ".tmp-"
CLAIM = ".claim"
"""Object that gives a folder to the process that fills it. Before the folder's mark exists, other objects are void."""


@contextlib.contextmanager
def commit_file(target: StorePath) -> Iterator[Path]:
    """Provide a temporary path to write to; if the block succeeds, that file becomes `target`, replacing any older one.

    After a failure, also an OSError in the block, `target` is unchanged. The one exception is the very last step: if
    the folder cannot be synced after the rename, `target` is already complete but might not survive a power cut.
    """
    if isinstance(target, RemotePath):
        with reporting(f"write {target}"), tempfile.TemporaryDirectory(prefix="traitline-") as folder:
            # Under the same folder names, because a shard is checked against the names of its folders.
            temporary = Path(folder, target.key)
            temporary.parent.mkdir(parents=True)
            yield temporary
            target.write_bytes(temporary)
        return
    make_folder(target.parent)
    temporary = _temporary_path(target)
    try:
        with reporting(f"write {target}"):
            yield temporary
            sync(temporary)
            os.replace(temporary, target)
            sync(target.parent)
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
        FileExistsError: `target` exists already, or another process is filling it; it stays unchanged.
    """
    if isinstance(target, RemotePath):
        if not (target / CLAIM).create(secrets.token_bytes(16)):
            raise FileExistsError(errno.EEXIST, "already there", str(target))
        try:
            with reporting(f"write {target}"), tempfile.TemporaryDirectory(prefix="traitline-") as folder:
                yield Path(folder)
                files = [path for path in Path(folder).rglob("*") if path.is_file()]
                for path in sorted(files, key=lambda path: (path.name == mark, path)):
                    (target / path.relative_to(folder).as_posix()).write_bytes(path)
        except BaseException:
            with contextlib.suppress(StoreError):
                remove_folder(target)
            raise
        return
    make_folder(target.parent)
    temporary = _temporary_path(target)
    try:
        temporary.mkdir()
        yield temporary
        for path in [*temporary.rglob("*"), temporary]:
            sync(path)
        os.rename(temporary, target)
        sync(target.parent)
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
        data: its bytes, which must differ from those of every other process that tries: if object storage's answer is
            lost, the bytes show who created the file.

    Returns:
        Whether this call created the file; an existing file is unchanged.
    """
    if isinstance(target, RemotePath):
        return target.create(data)
    make_folder(target.parent)
    temporary = _temporary_path(target)
    try:
        with reporting(f"write {target}"):
            temporary.write_bytes(data)
            sync(temporary)
            try:
                os.link(temporary, target)  # unlike a rename, never replaces
            except FileExistsError:
                return False
            sync(target.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return True


def remove_files(paths: Sequence[StorePath]) -> None:
    """Remove files durably; files that are already gone are skipped."""
    delete([path for path in paths if isinstance(path, RemotePath)])
    local = [path for path in paths if isinstance(path, Path)]
    try:
        for path in local:
            if path.is_symlink() and path.is_file() and (real := path.resolve()).name == path.name:
                real.unlink()  # a shard that was put onto another disk; files of other names are not the store's
            path.unlink(missing_ok=True)
        for path in {path.parent for path in local}:
            sync(path)
    except OSError as error:
        raise StoreError(f"cannot remove {path}: {refusal(error)}") from error


def move(path: StorePath, target: StorePath) -> None:
    """Move a file or folder durably, within one bucket or this machine.

    On object storage, between file systems, and from behind a link, it is copied first and removed then: an interrupted
    move can be repeated. Of a linked folder and of a mount point, only the contents move.
    """
    if isinstance(path, RemotePath) and isinstance(target, RemotePath):
        with reporting(f"move {path} to {target}"):
            for part in sorted(path.rglob("*")) or [path]:
                part.copy_to(target / part.relative_to(path))
                part.unlink(missing_ok=True)
        return
    if isinstance(path, RemotePath) or isinstance(target, RemotePath):
        raise ValueError(f"cannot move {path} to {target}: only one of them is on object storage")
    make_folder(target.parent)
    with reporting(f"move {path} to {target}"):
        try:
            if path.is_symlink():  # a relative link would lead elsewhere from there
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
            os.rename(path, target)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EBUSY):  # EBUSY: a mount point
                raise
            _copy(path, target)
            if path.is_symlink() and path.is_dir():
                empty_folder(path)
            elif path.is_dir():
                remove_folder(path)
            else:
                remove_files([path])
        sync(target.parent)
        sync(path.parent)


def remove_folder(folder: StorePath) -> None:
    """Remove a folder, if there is one, and its contents: one rename hides it from every reader, then it is deleted.

    On object storage it is deleted file by file; if that is interrupted, it can be repeated. Of a link to a folder,
    only the link goes; a mount point is emptied and stays.
    """
    if isinstance(folder, RemotePath):
        found = sorted(folder.rglob("*"), reverse=True)
        # The object that sorts first identifies such a folder: a claim or the description of a family. It is deleted
        # last, so that an interrupted removal can be repeated.
        delete(found[:-1])
        delete(found[-1:])
        return
    if folder.is_symlink():
        remove_files([folder])
        return
    if folder.is_mount():
        empty_folder(folder)
        return
    if not is_folder(folder):
        return
    doomed = folder if folder.name.startswith(TEMPORARY_PREFIX) else _temporary_path(folder)
    with reporting(f"remove {folder}"):
        if doomed != folder:
            os.rename(folder, doomed)
            sync(folder.parent)
        shutil.rmtree(doomed)


def empty_folder(folder: Path) -> None:
    """Remove what is in a folder, which may be a link to one on another disk."""
    doomed = folder / f"{TEMPORARY_PREFIX}{secrets.token_hex(6)}"
    with reporting(f"empty {folder}"):
        # What makes a folder a table or a family begins with _ and goes last: an interrupted removal can be repeated.
        names = sorted(os.listdir(folder), reverse=True)
        doomed.mkdir()
        for name in names:
            os.rename(folder / name, doomed / name)
        sync(folder)
        shutil.rmtree(doomed)


def check_writable(target: StorePath) -> None:
    """Check before the work whether `commit_file` will be allowed to write its result.

    Raises StoreError if `target` is a folder or its folder is not writable. For object storage, this only checks that
    the storage answers.
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
    """Create a folder and its missing parents, each synced into its own parent."""
    with reporting(f"make the folder {folder}"):
        if folder.is_dir():
            return
        make_folder(folder.parent)
        try:
            folder.mkdir(exist_ok=True)
        except FileExistsError as error:
            raise StoreError(f"cannot make the folder {folder}: a file has that name") from error
        sync(folder.parent)


def _copy(path: Path, target: Path) -> None:
    temporary = _temporary_path(target)
    try:
        if path.is_dir():
            shutil.copytree(path, temporary)
        else:
            shutil.copyfile(path, temporary)
        for copied in [*temporary.rglob("*"), temporary]:
            sync(copied)
        os.rename(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _temporary_path(target: Path) -> Path:
    # The target's name comes last because some writers choose the format by the suffix.
    return target.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(6)}-{target.name}")


def sync(path: Path) -> None:
    """Bring a file or the entries of a folder to the disk. Raises OSError if the system refuses."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
