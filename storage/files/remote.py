"""Files on object storage as paths, so that the rest of the package works with local and remote stores alike.

`RemotePath` implements the part of `pathlib.Path` that this package uses. The differences:

- One put creates an object: as a whole, or not at all. Nothing can be appended, and nothing can be renamed.
- There are no folders. A folder here is the part of a name before a slash; it disappears with its last object.
- Every query is a request and takes milliseconds. `storage.files.paths.in_order` keeps many of them in flight at once.
- Listings show a put or delete immediately: S3, Google Cloud Storage and Azure guarantee that.

Credentials and addresses come from the environment variables of each vendor's own tools, for S3 such as
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, and AWS_ENDPOINT_URL for a server other than Amazon's.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from obstore.exceptions import BaseError
from obstore.store import from_url

from storage.errors import StoreError, UnreachableError
from storage.files.remote_errors import CREDENTIALS, asking, reason
from storage.files.remote_reader import BLOCK_BYTES, Range, RangeReader, Stream

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

SCHEMES = ("s3", "gs", "az")
LISTED_AT_ONCE = 1000  # names in one answer, which shows a single moment

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
# A server that is down is reported after 6 s (if it refuses) or half a minute (if it is silent); a server that is busy
# for a moment gets more time. The limit for a whole request is for a slow line, not for a silent one.
_TIMES = {
    "connect_timeout": timedelta(seconds=5),
    "read_timeout": timedelta(seconds=20),
    "timeout": timedelta(minutes=10),
}
_CLIENT = cast("ClientConfig", {"allow_http": True, **_TIMES})  # http only if the address says so
_RETRY: RetryConfig = {
    "max_retries": 6,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=5), "base": 2},
}


class Status(NamedTuple):
    """The part of `os.stat_result` that is used here: bytes, and seconds since 1970."""

    st_size: int
    st_mtime: float


@dataclass(frozen=True, slots=True, order=True)
class RemotePath:
    """The name of an object, or of a folder of objects. Equal names are equal paths.

    The methods are those of `pathlib.Path`. They raise FileNotFoundError if the object does not exist, and
    `UnreachableError` if the storage cannot be reached or refuses.
    """

    _bucket: str
    _key: PurePosixPath
    _client: Any = field(compare=False, repr=False)
    _data: bytes | None = field(default=None, compare=False, repr=False)

    @classmethod
    def from_address(cls, address: str) -> RemotePath:
        """Parse an address such as s3://bucket/folder, without using the network.

        Raises:
            StoreError: its kind is unknown, it names no bucket, it holds credentials, or an environment variable is
                invalid.
        """
        scheme, _, rest = address.partition("://")
        bucket, _, key = rest.partition("/")
        is_plain = not ("@" in bucket or ":" in bucket or "?" in rest)
        shown = address if is_plain else f"this {scheme}:// address"  # it may hold a secret
        if scheme not in SCHEMES:
            known = ", ".join(f"{name}://" for name in SCHEMES)
            raise StoreError(f"cannot use {shown}: name a local folder, or an address that begins with {known}")
        if not is_plain:
            raise StoreError(
                f"cannot use {shown}: it holds more than a bucket and a folder; write {scheme}://BUCKET/FOLDER, and "
                f"set credentials in the environment, such as {CREDENTIALS[scheme]}"
            )
        if not bucket:
            raise StoreError(f"cannot use {address}: it names no bucket; write {scheme}://BUCKET/FOLDER")
        for variable in _ENDPOINTS:
            if scheme == "s3" and not os.environ.get(variable, "https://").startswith(("http://", "https://")):
                raise StoreError(f"cannot use {address}: {variable} must begin with http:// or https://")
        root = f"{scheme}://{bucket}"
        try:
            client = from_url(root, client_options=_CLIENT, retry_config=_RETRY)
        except BaseError as error:
            raise StoreError(f"cannot use {address}: {reason(error)}; set it in the environment") from error
        return cls(root, PurePosixPath(key.strip("/")), client)

    def __str__(self) -> str:
        return f"{self._bucket}/{self._key}" if self._key.parts else self._bucket

    def __truediv__(self, below: str | PurePosixPath) -> RemotePath:
        return self._at(self._key / below)

    @property
    def name(self) -> str:
        """The last part."""
        return self._key.name

    @property
    def stem(self) -> str:
        """The last part without its suffix."""
        return self._key.stem

    @property
    def suffix(self) -> str:
        """The suffix of the last part, with its dot."""
        return self._key.suffix

    @property
    def parent(self) -> RemotePath:
        """The folder that contains this path."""
        return self._at(self._key.parent)

    def with_name(self, name: str) -> RemotePath:
        """Return the path with another last part."""
        return self._at(self._key.with_name(name))

    def relative_to(self, folder: RemotePath) -> PurePosixPath:
        """Return the parts below a folder. Raises ValueError if this path is not below it."""
        return self._key.relative_to(folder._key)

    def exists(self) -> bool:
        """Return whether this object exists, or an object below it."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Return whether this object exists. One request."""
        try:
            with asking(self):
                self._client.head(self.key)
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Return whether an object exists below this path. One request."""
        return next(self._below(), None) is not None

    def stat(self) -> Status:
        """Return size and time of an object; for a folder, the sum and the latest of all objects below."""
        try:
            with asking(self):
                found = [self._client.head(self.key)]
        except FileNotFoundError:
            found = list(self._below())
            if not found:
                raise
        times = [entry["last_modified"].timestamp() for entry in found]
        return Status(sum(entry["size"] for entry in found), max(times))

    def iterdir(self) -> Iterator[RemotePath]:
        """Yield the objects and folders in a folder, if any. One request per 1000 of them."""
        with asking(self):
            found = self._client.list_with_delimiter(self._prefix)
        names = [*found["common_prefixes"], *(entry["path"] for entry in found["objects"])]
        for name in names:
            if PurePosixPath(name) != self._key:  # some programs put an object that represents the folder
                yield self / name.rpartition("/")[2]

    def listing(self) -> Iterator[tuple[str, tuple[int, float, object]]]:
        """Yield the name, size, time and entity tag of each object directly in a folder. One request per 1000."""
        with asking(self):
            for entry in self._client.list_with_delimiter(self._prefix)["objects"]:
                values = (entry["size"], entry["last_modified"].timestamp(), entry["e_tag"])
                yield PurePosixPath(entry["path"]).name, values

    def rglob(self, pattern: str) -> Iterator[RemotePath]:
        """Yield all objects below whose last part matches. One request per 1000 objects."""
        paths = (self._at(PurePosixPath(entry["path"])) for entry in self._below())
        return (path for path in paths if fnmatchcase(path.name, pattern))

    def open(self, mode: str = "rb", buffering: int = -1) -> Stream:
        """Open for reading bytes, by ranges on demand; unbuffered if `buffering` is 0."""
        if mode != "rb":
            raise ValueError(f"objects are read as bytes and written whole, not opened as {mode!r}")
        if self._data is not None:
            return io.BytesIO(self._data)
        reader = RangeReader(self.read_range)
        return reader if buffering == 0 else io.BufferedReader(reader, BLOCK_BYTES)

    def read_bytes(self) -> bytes:
        """Return the whole object. One request."""
        return self._data if self._data is not None else self.read_range(None)[0]

    def read_range(self, part: Range | None) -> tuple[bytes, int, int]:
        """Return the bytes of the object or a part of it, their offset, and the size of the object. One request."""
        try:
            with asking(self):
                answer = self._client.get(self.key, options={"range": part} if part is not None else None)
                return answer.bytes().to_bytes(), answer.range[0], answer.meta["size"]
        except UnreachableError:
            if part is None:
                raise
            size = self.stat().st_size
            begin = part[0] if isinstance(part, tuple) else 0
            if begin < size:
                raise
            return b"", 0, size  # no server accepts a range that begins at the end or after it

    def read_text(self, encoding: str = "utf-8") -> str:
        """Return the whole object as text."""
        return self.read_bytes().decode(encoding)

    def write_bytes(self, data: bytes | Path) -> None:
        """Put a whole object, replacing an older one; from memory or from a local file."""
        with asking(self):
            self._client.put(self.key, data)

    def create(self, data: bytes) -> bool:
        """Put a whole object unless it exists; return whether the object has these bytes."""
        try:
            with asking(self):
                self._client.put(self.key, data, mode="create")
        except (FileExistsError, UnreachableError) as error:
            # The answer to a successful put may have been lost.
            try:
                return self.read_bytes() == data
            except FileNotFoundError:
                if isinstance(error, UnreachableError):
                    raise error from None
                return False
        return True

    def copy_to(self, target: RemotePath) -> None:
        """Copy an object within the storage, replacing an older one."""
        with asking(self):
            self._client.copy(self.key, target.key)

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete an object. Not all kinds of storage report that it did not exist."""
        try:
            with asking(self):
                self._client.delete(self.key)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def fetched(self) -> RemotePath:
        """Return the same path with the object's bytes in memory, so that reading it takes no more requests."""
        return replace(self, _data=self.read_bytes())

    def delta_options(self) -> dict[str, str]:
        """Return the options with which delta-rs uses the same storage: it reads the same environment variables."""
        times = {name: f"{value.total_seconds():.0f}s" for name, value in _TIMES.items()}
        retry = {"max_retries": str(_RETRY["max_retries"]), "retry_timeout": "30s"}
        return {"allow_http": "true", "conditional_put": "etag", **times, **retry}

    @property
    def key(self) -> str:
        """The object's name within its bucket."""
        return str(self._key)

    @property
    def _prefix(self) -> str | None:
        return self.key if self._key.parts else None

    def _at(self, key: PurePosixPath) -> RemotePath:
        return replace(self, _key=key, _data=None)

    def _below(self) -> Iterator[dict[str, Any]]:
        with asking(self):
            for entries in self._client.list(self._prefix, chunk_size=LISTED_AT_ONCE):
                yield from entries


def delete(paths: Sequence[RemotePath]) -> None:
    """Delete objects of one bucket, 1000 per request; objects that are already gone are skipped."""
    for start in range(0, len(paths), LISTED_AT_ONCE):
        some = paths[start : start + LISTED_AT_ONCE]
        try:
            with asking(some[0]):
                some[0]._client.delete([path.key for path in some])
        except FileNotFoundError:  # some kinds of storage then refuse the rest
            for path in some:
                path.unlink(missing_ok=True)
