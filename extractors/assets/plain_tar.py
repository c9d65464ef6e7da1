"""Plain tar files (USTAR, uncompressed) with `SHA256SUMS` first, written reproducibly and read with care.

After unpacking one with tar, `sha256sum -c SHA256SUMS` checks it. The reader accepts regular files only, and only those
that its caller expects.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from extractors.assets.files import CHUNK_BYTES, AssetError, digest_of

SUMS_NAME = "SHA256SUMS"
MAX_TEXT_BYTES = 1 << 16  # in SHA256SUMS and in a licence
_EXTENDED_HEADERS = (  # of the formats pax, GNU and Solaris; the names of their members mean nothing to users
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


def write_tar(goal: Path, files: Mapping[str, bytes | Path], on_file: Callable[[str], None] = lambda _: None) -> None:
    """Write files in the given order; the same content gives the same bytes.

    Args:
        files: name -> its content, or the file that has it.

    Raises:
        OSError: a file cannot be read, or the archive cannot be written.
    """
    sums = {
        name: hashlib.sha256(content).hexdigest()
        if isinstance(content, bytes)
        else digest_of(content, "sha256").partition(":")[2]
        for name, content in files.items()
    }
    head = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())).encode()
    with tarfile.open(goal, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in ((SUMS_NAME, head), *files.items()):
            member = tarfile.TarInfo(name)  # defaults: mode 0644, no owner, no time
            with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as stream:
                member.size = stream.seek(0, os.SEEK_END)
                stream.seek(0)
                archive.addfile(member, stream)
            on_file(name)


def read_headers(stream: BinaryIO, check: Callable[[tarfile.TarInfo], None]) -> list[tarfile.TarInfo]:
    """Read and check only the headers.

    tarfile's own reader follows headers that these files do not have (long names, extended attributes, sparse files),
    however much memory they demand.

    Args:
        check: called with each header but the first; raises AssetError if its name or size is not expected.

    Returns:
        The headers of regular files with different names, `SHA256SUMS` first.

    Raises:
        AssetError: it is not such an archive, or it is incomplete.
    """
    members: dict[str, tarfile.TarInfo] = {}
    end = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    while True:
        try:
            member = tarfile.TarInfo.frombuf(stream.read(tarfile.BLOCKSIZE), "utf-8", "strict")
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # typeshed lacks it
            return list(members.values())
        except (tarfile.HeaderError, ValueError) as error:
            raise AssetError("it is not a bundle, or it is incomplete") from error
        member.offset_data = stream.tell()
        if member.type in _EXTENDED_HEADERS:
            raise AssetError("it has extended tar headers: take the bundle as it was written, and do not repack it")
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            raise AssetError(
                f"{member.name!r} is not a regular file: take the bundle as it was written, and do not repack it"
            )
        if (member.name == SUMS_NAME) == bool(members):
            raise AssetError(f"{SUMS_NAME} must be the first member, and occur once")
        if members:
            check(member)
        else:
            check_size(member, MAX_TEXT_BYTES)
        if member.name in members:
            raise AssetError(f"{member.name!r} occurs twice")
        members[member.name] = member
        blocks = -(-member.size // tarfile.BLOCKSIZE)
        if stream.seek(blocks * tarfile.BLOCKSIZE, os.SEEK_CUR) > end:
            raise AssetError(f"it ends within {member.name!r}")


def check_size(member: tarfile.TarInfo, most: int) -> None:
    """Raise AssetError if a member claims more bytes than are allowed."""
    if not 0 <= member.size <= most:
        raise AssetError(f"{member.name!r} has {member.size:,} bytes, more than the {most:,} allowed for it")


def read_sums(stream: BinaryIO, members: Sequence[tarfile.TarInfo]) -> dict[str, str]:
    """Read the first member: name -> SHA-256 of all the others. Raises AssetError if it lists other files."""
    sums = {}
    for line in b"".join(read_member(stream, members[0])).decode("utf-8", "replace").splitlines():
        digest, _, name = line.partition("  ")
        sums[name] = digest
    if set(sums) != {member.name for member in members[1:]}:
        raise AssetError(f"{SUMS_NAME} lists other files than the bundle holds")
    return sums


def read_member(stream: BinaryIO, member: tarfile.TarInfo) -> Iterator[bytes]:
    """Yield the content of a member in chunks. Raises AssetError if the archive ends within it."""
    stream.seek(member.offset_data)
    left = member.size
    while left:
        chunk = stream.read(min(left, CHUNK_BYTES))
        if not chunk:
            raise AssetError(f"it ends within {member.name!r}")
        left -= len(chunk)
        yield chunk
