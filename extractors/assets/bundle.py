"""One archive of assets for machines without a network, see `extractors.assets.plain_tar`.

After `SHA256SUMS`, a bundle has a folder for each asset with its files and `LICENCE.txt`. Nothing else is accepted:
only files with the names, sizes and digests of `assets.toml`.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from extractors.assets.files import LICENCE_NAME, Asset, AssetError, AssetFile, OnBytes, digest_of
from extractors.assets.plain_tar import MAX_TEXT_BYTES, check_size, read_headers, read_member, read_sums, write_tar


def write_bundle(folders: Mapping[str, tuple[Asset, Path]], goal: Path, on_bytes: OnBytes) -> None:
    """Write a bundle; the same assets give the same bytes.

    Args:
        folders: name -> the asset, and the folder of its files, already checked.

    Raises:
        OSError: a file cannot be read, or the bundle cannot be written.
    """
    texts: dict[str, bytes] = {}
    files: dict[str, tuple[AssetFile, Path]] = {}
    for name, (asset, folder) in sorted(folders.items()):
        texts[f"{name}/{LICENCE_NAME}"] = asset.licence_text.encode()
        files |= {f"{name}/{file.name}": (file, folder / file.name) for file in asset.files}

    def on_file(name: str) -> None:
        if name in files:
            on_bytes(files[name][0], files[name][0].size)

    paths = {name: path for name, (_, path) in sorted(files.items())}
    write_tar(goal, {**texts, **paths}, on_file)


def unpack_bundle(bundle: Path, assets: Mapping[str, Asset], goal: Path, on_bytes: OnBytes) -> list[Asset]:
    """Unpack a bundle completely, or not at all if anything is wrong with it; return the unpacked assets.

    Names, types and sizes of all members are checked before a byte is written, and all digests before the first file
    gets its final name.

    Args:
        bundle: a file that `write_bundle` wrote, here or elsewhere.
        assets: name -> the asset that is expected.
        goal: folder of asset folders, created if necessary; existing files are replaced.

    Raises:
        AssetError: the file is not a bundle, is damaged or malicious, or cannot be read or unpacked.
    """
    try:
        with bundle.open("rb") as stream:
            members = read_headers(stream, lambda member: _check_header(member, assets))
            _check_completeness(members, assets)
            sums = read_sums(stream, members)
            goal.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=goal, prefix=".unpack-") as scratch:
                for member in members[1:]:
                    _extract(stream, member, sums[member.name], _file_of(member.name, assets), Path(scratch), on_bytes)
                for member in members[1:]:
                    (goal / member.name).parent.mkdir(exist_ok=True)
                    os.replace(Path(scratch) / member.name, goal / member.name)
    except AssetError as error:
        raise AssetError(f"{bundle} is rejected: {error}; nothing of it was unpacked") from error
    except OSError as error:
        reason = error.strerror or error
        if not bundle.is_file():
            raise AssetError(f"cannot read the bundle {bundle}: {reason}") from error
        raise AssetError(f"cannot unpack {bundle} into {goal}: {reason}") from error
    return [asset for name, asset in assets.items() if f"{name}/{LICENCE_NAME}" in sums]


def _check_completeness(members: Sequence[tarfile.TarInfo], assets: Mapping[str, Asset]) -> None:
    present = {member.name for member in members}
    for name, asset in assets.items():
        wanted = {f"{name}/{file.name}" for file in asset.files} | {f"{name}/{LICENCE_NAME}"}
        if wanted & present and not wanted <= present:
            raise AssetError(f"it lacks {', '.join(sorted(wanted - present))}")
    if len(members) < 2:
        raise AssetError("it holds no asset")


def _check_header(header: tarfile.TarInfo, assets: Mapping[str, Asset]) -> None:
    file = _file_of(header.name, assets)
    if file is None:
        if header.name not in {f"{name}/{LICENCE_NAME}" for name in assets}:
            raise AssetError(f"{header.name!r} is not a file of an asset that this version knows")
        check_size(header, MAX_TEXT_BYTES)
    elif header.size != file.size:
        raise AssetError(f"{header.name!r} has {header.size:,} bytes, not the published {file.size:,}")


def _file_of(name: str, assets: Mapping[str, Asset]) -> AssetFile | None:
    asset_name, _, file_name = name.partition("/")
    asset = assets.get(asset_name)
    return next((file for file in asset.files if file.name == file_name), None) if asset is not None else None


def _extract(
    stream: BinaryIO, member: tarfile.TarInfo, sha256: str, file: AssetFile | None, scratch: Path, on_bytes: OnBytes
) -> None:
    """Copy one member, and check it against both of its known digests."""
    path = scratch / member.name  # a name from assets.toml
    path.parent.mkdir(exist_ok=True)
    done = 0
    with path.open("xb") as copy:
        for chunk in read_member(stream, member):
            done += len(chunk)
            copy.write(chunk)
            if file is not None:
                on_bytes(file, done)
        copy.flush()
        os.fsync(copy.fileno())
    for wanted in {f"sha256:{sha256}", file.digest if file is not None else f"sha256:{sha256}"}:
        found = digest_of(path, wanted.partition(":")[0])
        if found != wanted:
            raise AssetError(f"{member.name!r} has digest {found}, not {wanted}")
