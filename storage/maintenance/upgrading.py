"""Bringing over a store of before the manifest, whose listings of files were the truth.

Shards, tables and the keys of families are written again, beside the old files: shards under the names that their old
names determine, so that a rerun goes on where a killed one ended. Tables are built from the start each time. Only when
everything is complete do the old files go. Until then STORE/upgrade.json keeps all other commands off the store. Models
stay as they are: commands know the old keys that are in them.

All functions raise StoreError if a file cannot be read or the operating system refuses.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import DamagedError, StoreError, reading
from storage.files.commit import commit_file, move, remove_files, remove_folder
from storage.files.paths import StorePath, exists, fetched, is_folder, listing, matching, relative_name
from storage.layout import UPGRADE, old_parts, open_store
from storage.maintenance.garbage import live_claims, store_time
from storage.models.serializer import METADATA_FILE
from storage.shards.family import Family, key_before_manifest
from storage.shards.formats import check_shard, format_of
from storage.shards.header import ShardHeader, read_header, read_videos
from storage.shards.store import DESCRIPTION, manifest_rows, write_family
from storage.tables import failures, scores, seen
from storage.tables.manifest import Manifest, as_table
from storage.tables.table import Table

_SHARD = re.compile(r"shard-\d{8}T\d{12}-[0-9a-f]{12}\.(parquet|h5)")
_KEY = re.compile(r"\b[0-9a-f]{16}\b")
_MOST_ROWS_PER_BYTE = 4  # of an old table: no two rows are the same
_OLD_TYPES = {
    scores.SCORE_SCHEMA.field("traits").type: pa.list_(pa.field("element", pa.float32(), nullable=False), 5),
    pa.timestamp("us", tz="UTC"): pa.timestamp("ms", tz="UTC"),
}
_NEW_COLUMNS = ("failed_at", "manifest_version")


class OldFamily(NamedTuple):
    """A family of the old layout: the folder of its shards, and the shards, oldest first."""

    family: Family
    folder: StorePath
    shards: tuple[StorePath, ...]


@dataclass(frozen=True)
class OldStore:
    """What a store of the old layout holds.

    Args:
        families: with their shards.
        tables: folder of a table -> its parts, oldest first.
        models: the metadata of all versions of models.
    """

    families: tuple[OldFamily, ...]
    tables: Mapping[StorePath, Sequence[StorePath]]
    models: Sequence[StorePath]

    @property
    def keys(self) -> dict[str, str]:
        """The new key of each old one."""
        return {old.folder.name: old.family.key for old in self.families}

    @property
    def shards(self) -> list[StorePath]:
        """All shards, by family."""
        return [shard for old in self.families for shard in old.shards]


def find(root: str | StorePath) -> OldStore | None:
    """Return what is to be brought over; None if the store has the present layout.

    Raises:
        StoreError: also if an extraction of the old version may be running.
    """
    store = open_store(root, upgrading=True)
    if not exists(store / UPGRADE) and (exists(store / "manifest") or not old_parts(store)):
        return None
    if _in_use(store):
        raise StoreError(
            f"a run works on {store}, or was killed within the last hour: let it end, or wait, then run this again"
        )
    return _look(store)


def upgrade(root: str | StorePath, old: OldStore, advance: Callable[[], None]) -> list[StorePath]:
    """Bring a store over, or go on with it.

    Args:
        old: from `find`.
        advance: called after each shard.

    Returns:
        Damaged shards and parts of tables, now in STORE/quarantine; everything else has come over.
    """
    store = open_store(root, upgrading=True)
    state = json.loads((store / UPGRADE).read_text(encoding="utf-8")) if exists(store / UPGRADE) else {}
    if not state:
        _save(store, {})
        try:
            bad = _build(store, old, advance)
            changed = _look(store) != old or _in_use(store)
        except FileNotFoundError:
            changed = True
        if changed:
            raise StoreError(f"an older version has just written to {store}: end it, then run this again")
        state = {"keys": old.keys, "damaged": [relative_name(path, store) for path in bad]}
        _save(store, state)
    _finish(store, state)
    return [store / "quarantine" / name for name in state["damaged"]]


def _in_use(store: StorePath) -> bool:
    return is_folder(store / "leases") and bool(live_claims(store, store_time(store)))


def _look(store: StorePath) -> OldStore:
    families = []
    parts = old_parts(store)
    for path in (part for part in parts if part.name == "family.json"):
        named = {name.rpartition(".")[0]: name for name in sorted(listing(path.parent)) if _SHARD.fullmatch(name)}
        shards = tuple(path.parent / named[stem] for stem in sorted(named))  # one of two that differ in the format only
        families.append(OldFamily(_family(path, shards), path.parent, shards))
    tables: dict[StorePath, list[StorePath]] = {}
    for part in parts:
        if part.name != "family.json":
            tables.setdefault(part.parent, []).append(part)
    models = matching(store, f"models/*/*/{METADATA_FILE}")
    return OldStore(tuple(families), tables, models)


def _family(path: StorePath, shards: Sequence[StorePath]) -> Family:
    """Read the description of a family; if it is damaged, one of its shards has it too."""
    try:
        with reading(path):
            values = json.loads(path.read_text(encoding="utf-8"))
            key, version = values.pop("key"), values.pop("schema_version")
            family = Family.from_dict(values)
            if version != 1 or not key == path.parent.name == key_before_manifest(family):
                raise ValueError(f"its key {key} differs from that of its settings or from its folder's name")
        return family
    except DamagedError as error:
        for shard in shards:
            with contextlib.suppress(DamagedError):
                return _header(shard).family
        raise StoreError(f"{path} and all shards beside it are damaged: move {path.parent} out of the store") from error


def _header(shard: StorePath) -> ShardHeader:
    """Read the header of an old shard."""
    with reading(shard):
        header = format_of(shard).read_header(shard)
        if key_before_manifest(header.family) != shard.parent.name:
            raise ValueError("it holds features of another kind than its folder")
    return header


def _build(store: StorePath, old: OldStore, advance: Callable[[], None]) -> list[StorePath]:
    """Write everything new beside the old files; return the old ones that are damaged."""
    bad, new = [], []
    for family, _, sources in old.families:
        folder = store / "features" / family.name / family.key
        write_family(folder / DESCRIPTION, family)
        for source in sources:
            target = folder / f"shard-{0:012d}-{source.name.removeprefix('shard-').lower()}"
            try:
                if not exists(target):
                    _rewrite(source, target)
                new.append((_since(source), target))
            except DamagedError:
                bad.append(source)
            advance()
    for folder in [store / "manifest", *old.tables]:
        _clear(folder)
    events = [*new, *((_since(part), part) for part in old.tables.get(store / failures.FOLDER, []))]
    _table(store, store / failures.FOLDER).append_in_turn(_failures(store, sorted(events), old.keys, bad))
    for folder, parts in old.tables.items():
        if folder != store / failures.FOLDER:
            schema = _schema(store, folder)
            rows = (rows for part in parts if (rows := _read(part, schema, old.keys, bad)) is not None)
            _table(store, folder).append_in_turn(map(_last_of_each, rows))
    return bad


def _rewrite(source: StorePath, target: StorePath) -> None:
    header, format = _header(source), format_of(source)
    source = fetched(source)
    videos = list(read_videos(source, format, header, range(len(header.videos))))
    with commit_file(target) as temporary:
        format.write(temporary, ShardHeader.of(header.family, videos, header.dtype), videos)
        check_shard(temporary)


def _failures(
    store: StorePath, events: Sequence[tuple[str, StorePath]], keys: Mapping[str, str], bad: list[StorePath]
) -> Iterator[pa.Table]:
    """Commit shards and yield failures in the order of their times, so that it stays known which came first."""
    manifest = Manifest(store).table
    for are_failures, some in groupby(events, lambda event: event[1].parent.name == failures.FOLDER):
        if not are_failures:
            headers = ((path, read_header(path, format_of(path))) for _, path in some)
            manifest.append_in_turn(as_table(manifest_rows(header, path.name, "")) for path, header in headers)
            continue
        for since, path in some:
            if (failed := _read(path, failures.SCHEMA, keys, bad)) is not None:
                when = datetime.strptime(since, "%Y%m%dT%H%M%S%f").replace(tzinfo=UTC)
                for name, value in (("failed_at", when), ("manifest_version", manifest.version())):
                    field = failures.SCHEMA.field(name)
                    failed = failed.append_column(field, pa.array([value] * len(failed), field.type))
                yield failed


def _last_of_each(rows: pa.Table) -> pa.Table:
    last = {video_id: number for number, video_id in enumerate(rows["video_id"].to_pylist())}
    return rows.take(pa.array(sorted(last.values()), pa.int64()))


def _read(path: StorePath, schema: pa.Schema, keys: Mapping[str, str], bad: list[StorePath]) -> pa.Table | None:
    """Read a part of an old table, with the new keys and types; note it as damaged and return None if it is."""
    expected = pa.schema(
        [field.with_type(_OLD_TYPES.get(field.type, field.type)) for field in schema if field.name not in _NEW_COLUMNS]
    )
    try:
        with reading(path):
            data = path.read_bytes()
        with reading(path), pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
            present = [field for field in expected if field.name in file.schema_arrow.names]
            if not file.schema_arrow.equals(pa.schema(present)):  # before pyarrow makes room for what they claim
                raise ValueError("its columns differ from those of the older version")
            if file.metadata.num_rows > _MOST_ROWS_PER_BYTE * len(data):
                raise ValueError("it claims more rows than a file of its size can hold")
            rows = file.read()
            checksum = (rows.schema.metadata or {}).get(b"traitline_rows_sha256")
            if checksum is not None and checksum.decode("ascii", "replace") != _checksum(rows):
                raise ValueError("its rows do not match their checksum")
            rows.validate(full=True)
    except (DamagedError, pa.ArrowException):
        bad.append(path)
        return None
    for field in expected:
        if field.name not in rows.schema.names:
            rows = rows.append_column(field, pa.nulls(len(rows), field.type))
    for name in {"key", "static_key", "dynamic_key"} & {*rows.schema.names}:
        column = pa.array([_renamed(str(text), keys) for text in rows[name].to_pylist()], pa.string())
        rows = rows.set_column(rows.schema.get_field_index(name), schema.field(name), column)
    wanted = pa.schema([field for field in schema if field.name not in _NEW_COLUMNS])
    return rows.select(wanted.names).replace_schema_metadata(None).cast(wanted)


def _finish(store: StorePath, state: Mapping[str, Any]) -> None:
    """Remove the old files."""
    keys = state["keys"]
    for name in state["damaged"]:
        if exists(store / name):
            move(store / name, store / "quarantine" / name)
    remove_files([part for part in old_parts(store) if part.name != "family.json"])
    for folder in [*matching(store, "features/*/*"), *matching(store, "leases/*")]:
        if folder.name.rpartition("-")[2] in keys:  # also one whose removal was interrupted
            remove_folder(folder)
    remove_files([store / UPGRADE])


def _save(store: StorePath, state: Mapping[str, Any]) -> None:
    with commit_file(store / UPGRADE) as temporary:
        temporary.write_text(json.dumps(state), encoding="utf-8")


def _clear(folder: StorePath) -> None:
    """Remove a table that is not complete."""
    remove_folder(folder / "_delta_log")
    if folder.name == "manifest":
        remove_folder(folder)
    remove_files([folder / name for name in listing(folder) if name.startswith("part-")])


def _table(store: StorePath, folder: StorePath) -> Table:
    return Table(folder, _schema(store, folder), indexed=("key",) if folder == store / failures.FOLDER else ())


def _schema(store: StorePath, folder: StorePath) -> pa.Schema:
    return {failures.FOLDER: failures.SCHEMA, seen.FOLDER: seen.SCHEMA}.get(
        relative_name(folder, store), scores.SCORE_SCHEMA
    )


def _since(part: StorePath) -> str:
    """Return the UTC time in an old name, to the microsecond, as text that sorts by time."""
    return part.name.split("-")[1]


def _renamed(text: str, keys: Mapping[str, str]) -> str:
    return _KEY.sub(lambda match: keys.get(match[0], match[0]), text)


def _checksum(rows: pa.Table) -> str:
    """Return the SHA-256 of the rows as one Arrow record batch without metadata."""
    sink = io.BytesIO()
    plain = rows.replace_schema_metadata(None).combine_chunks()
    with pa.ipc.new_stream(sink, plain.schema) as writer:
        writer.write_table(plain)
    return hashlib.sha256(sink.getbuffer()).hexdigest()
