"""One archive of assets for machines without a network, written reproducibly and unpacked with care.

A bundle is a plain tar file (USTAR, uncompressed, because weights do not compress): `SHA256SUMS` first, for
`sha256sum -c` after unpacking with tar, then a folder for each asset with its files and `LICENCE.txt`. Nothing else is
accepted: only regular files with the names, sizes and digests of `assets.toml`.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from extractors.assets.files import CHUNK_BYTES, LICENCE_NAME, Asset, AssetError, AssetFile, OnBytes, digest_of

SUMS_NAME = "SHA256SUMS"
MAX_TEXT_BYTES = 1 << 16  # in SHA256SUMS and in a licence


def write_bundle(folders: Mapping[str, tuple[Asset, Path]], goal: Path, on_bytes: OnBytes) -> None:
    """Write a bundle; the same assets give the same bytes.

    Args:
        folders: name -> the asset, and the folder of its files, already checked.
        goal: file to write.
        on_bytes: called with the progress.

    Raises:
        OSError: a file cannot be read, or the bundle cannot be written.
    """
    texts: dict[str, bytes] = {}
    files: dict[str, tuple[AssetFile, Path]] = {}
    for name, (asset, folder) in sorted(folders.items()):
        texts[f"{name}/{LICENCE_NAME}"] = asset.licence_text.encode()
        files |= {f"{name}/{file.name}": (file, folder / file.name) for file in asset.files}
    sums = {name: hashlib.sha256(text).hexdigest() for name, text in texts.items()}
    sums |= {name: digest_of(path, "sha256").partition(":")[2] for name, (_, path) in files.items()}
    head = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())).encode()
    with tarfile.open(goal, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, text in ((SUMS_NAME, head), *sorted(texts.items())):
            archive.addfile(_plain(name, len(text)), io.BytesIO(text))
        for name, (file, path) in sorted(files.items()):
            with path.open("rb") as stream:
                archive.addfile(_plain(name, file.size), stream)
            on_bytes(file, file.size)


def unpack_bundle(bundle: Path, assets: Mapping[str, Asset], goal: Path, on_bytes: OnBytes) -> list[Asset]:
    """Unpack a bundle completely, or not at all if anything is wrong with it.

    Names, types and sizes of all members are checked before a byte is written, and all digests before the first file
    gets its final name.

    Args:
        bundle: a file that `write_bundle` wrote, here or elsewhere.
        assets: name -> the asset that is expected.
        goal: folder of asset folders, created if necessary; existing files are replaced.
        on_bytes: called with the progress.

    Returns:
        The unpacked assets.

    Raises:
        AssetError: the file is not a bundle, is damaged or malicious, or cannot be read or unpacked.
    """
    try:
        with bundle.open("rb") as stream:
            members = _members(stream, assets)
            sums = _sums(stream, members)
            goal.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=goal, prefix=".unpack-") as scratch:
                for member in members[1:]:
                    _extract(stream, member, sums[member.name], _file_of(member.name, assets), Path(scratch), on_bytes)
                for member in members[1:]:
                    (goal / member.name).parent.mkdir(exist_ok=True)
                    os.replace(Path(scratch) / member.name, goal / member.name)
    except AssetError as error:
        raise AssetError(f"{bundle} is refused: {error}; nothing of it was unpacked") from error
    except OSError as error:
        reason = error.strerror or error
        if not bundle.is_file():
            raise AssetError(f"cannot read the bundle {bundle}: {reason}") from error
        raise AssetError(f"cannot unpack {bundle} into {goal}: {reason}") from error
    return [asset for name, asset in assets.items() if f"{name}/{LICENCE_NAME}" in sums]


def _plain(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)  # defaults: mode 0644, no owner, no time
    member.size = size
    return member


def _members(stream: BinaryIO, assets: Mapping[str, Asset]) -> list[tarfile.TarInfo]:
    """Read and check only the headers.

    tarfile's own reader follows headers that a bundle does not have (long names, extended attributes, sparse files),
    however much memory they demand.
    """
    members: list[tarfile.TarInfo] = []
    end = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    while True:
        try:
            member = tarfile.TarInfo.frombuf(stream.read(tarfile.BLOCKSIZE), "utf-8", "strict")
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # typeshed lacks it
            break
        except (tarfile.HeaderError, ValueError) as error:
            raise AssetError("it is not a bundle, or it is incomplete") from error
        member.offset_data = stream.tell()
        _check_header(member, members, assets)
        members.append(member)
        blocks = -(-member.size // tarfile.BLOCKSIZE)
        if stream.seek(blocks * tarfile.BLOCKSIZE, os.SEEK_CUR) > end:
            raise AssetError(f"it ends within {member.name!r}")
    present = {member.name for member in members}
    for name, asset in assets.items():
        wanted = {f"{name}/{file.name}" for file in asset.files} | {f"{name}/{LICENCE_NAME}"}
        if wanted & present and not wanted <= present:
            raise AssetError(f"it lacks {', '.join(sorted(wanted - present))}")
    if len(members) < 2:
        raise AssetError("it holds no asset")
    return members


def _check_header(header: tarfile.TarInfo, before: Sequence[tarfile.TarInfo], assets: Mapping[str, Asset]) -> None:
    if header.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        raise AssetError(f"{header.name!r} is not a regular file")
    if (header.name == SUMS_NAME) == bool(before):
        raise AssetError(f"{SUMS_NAME} must be the first member, and occur once")
    file = _file_of(header.name, assets)
    if header.name != SUMS_NAME and file is None and header.name not in {f"{name}/{LICENCE_NAME}" for name in assets}:
        raise AssetError(f"{header.name!r} is not a file of an asset that this version knows")
    if any(member.name == header.name for member in before):
        raise AssetError(f"{header.name!r} occurs twice")
    if file is not None and header.size != file.size:
        raise AssetError(f"{header.name!r} has {header.size:,} bytes, not the published {file.size:,}")
    if file is None and not 0 <= header.size <= MAX_TEXT_BYTES:
        raise AssetError(
            f"{header.name!r} has {header.size:,} bytes, more than the {MAX_TEXT_BYTES:,} allowed for a text"
        )


def _file_of(name: str, assets: Mapping[str, Asset]) -> AssetFile | None:
    asset_name, _, file_name = name.partition("/")
    asset = assets.get(asset_name)
    return next((file for file in asset.files if file.name == file_name), None) if asset is not None else None


def _sums(stream: BinaryIO, members: Sequence[tarfile.TarInfo]) -> dict[str, str]:
    """Read the first member: name -> SHA-256 of all the others."""
    stream.seek(members[0].offset_data)
    sums = {}
    for line in stream.read(members[0].size).decode("utf-8", "replace").splitlines():
        digest, _, name = line.partition("  ")
        sums[name] = digest
    if set(sums) != {member.name for member in members[1:]}:
        raise AssetError(f"{SUMS_NAME} lists other files than the bundle holds")
    return sums


def _extract(
    stream: BinaryIO, member: tarfile.TarInfo, sha256: str, file: AssetFile | None, scratch: Path, on_bytes: OnBytes
) -> None:
    """Copy one member, and check it against both of its known digests."""
    path = scratch / member.name  # a name from assets.toml
    path.parent.mkdir(exist_ok=True)
    stream.seek(member.offset_data)
    left = member.size
    with path.open("xb") as copy:
        while chunk := stream.read(min(left, CHUNK_BYTES)):
            left -= len(chunk)
            copy.write(chunk)
            if file is not None:
                on_bytes(file, member.size - left)
        copy.flush()
        os.fsync(copy.fileno())
    if left:
        raise AssetError(f"it ends within {member.name!r}")
    for wanted in {f"sha256:{sha256}", file.digest if file is not None else f"sha256:{sha256}"}:
        found = digest_of(path, wanted.partition(":")[0])
        if found != wanted:
            raise AssetError(f"{member.name!r} has digest {found}, not {wanted}")
