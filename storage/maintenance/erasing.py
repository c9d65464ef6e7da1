"""Erasing people: what a store knows of some videos goes, from every file and from old versions of tables.

Before anything goes, STORE/leases/erasing.json notes the videos, so that the next call finishes after a kill.

What cannot be told apart goes as a whole: pages, exports and logs that mention one of the videos, kept results of
evaluations, searches and trainings, whose numbers have no names, and pictures of features, which show people as points.
Commands make them again.
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import chain
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import DamagedError, StoreError, UnreachableError, reading
from storage.files.commit import commit_file, remove_files, remove_folder
from storage.files.paths import (
    StorePath,
    everything_below,
    exists,
    folders,
    in_order,
    is_folder,
    parquet_source,
    relative_name,
)
from storage.layout import open_store
from storage.leases.claims import ClaimLog
from storage.leases.leases import Leases
from storage.maintenance.garbage import live_claims, store_time, tables_of, unfinished
from storage.maintenance.rewriting import rewrite
from storage.models.provenance import clip_marks
from storage.models.serializer import ModelSerializer
from storage.shards.formats import format_of, shards_in
from storage.shards.header import ShardHeader, read_header
from storage.shards.store import FeatureStore
from storage.tables.table import Table

_NOTE = "leases/erasing.json"
_OF_ALL = re.compile("(runs/(evaluation|search|training)|reports/features)-[^/]*")  # folders
# All other files are made for people, or can be made again.
_DATA = re.compile(r"(manifest|failures|seen|scores|models)/|features/.*/(_family\.json|shard-[^/]*\.(parquet|h5))$")
_CHUNK, _OVERLAP = 2**24, 2**16  # bytes
_ESCAPED = re.compile(r"\\+(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2}))")
_QUOTING = re.compile(r"[\s\\\"']")


@dataclass(slots=True)
class Traces:
    """What a store knows of some videos.

    Args:
        videos: the ids of those that the store holds, with those of copies: files of the same bytes.
        digests: SHA-256 of all files that these ids had or have.
        unheld: ids of which no table and no shard holds anything. Files that mention them stay, since any name may be
            a part of another one.
        rows: number of rows by the folder of the table.
        shards: files with features of these videos, whether the manifest names them or not, and files whose list of
            videos is damaged.
        files: that mention the videos, or were left behind by killed processes.
        of_all: folders of results of all clips, which have no names.
        trained: models that were trained on one of the videos.
        unknown: models that do not say which clips they were trained on.
    """

    videos: set[str]
    digests: set[str]
    unheld: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    shards: list[StorePath] = field(default_factory=list)
    files: list[StorePath] = field(default_factory=list)
    of_all: set[StorePath] = field(default_factory=set)
    trained: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.rows or self.shards or self.files)


def known_videos(root: str | StorePath) -> list[str]:
    """Return the ids of all videos in any table, sorted."""
    columns = (rows["video_id"].unique() for table in tables_of(root) for rows in table.scan(columns=["video_id"]))
    return sorted({str(name) for column in columns for name in column.to_pylist()})


def interrupted(root: str | StorePath) -> bool:
    """Return whether an erasure has begun and not ended."""
    return exists(open_store(root) / _NOTE)


def find_traces(root: str | StorePath, videos: Collection[str]) -> Traces:
    """Find what goes with some videos, and with those of an interrupted erasure.

    Raises:
        StoreError: a file is damaged or cannot be read.
    """
    store = open_store(root)
    noted: dict[str, list[str]] = {"videos": [], "digests": []}
    if interrupted(store):
        with reading(store / _NOTE):
            noted = json.loads((store / _NOTE).read_text(encoding="utf-8"))
    wanted = {*videos, *noted["videos"]}
    traces = Traces({*noted["videos"]}, {*noted["digests"]})
    tables = tables_of(store)
    _add_copies(tables, wanted, traces)
    for folder in folders(store, "features/*/*"):
        traces.shards += _shards(folder, wanted, traces)
    traces.unheld = sorted(wanted - traces.videos)
    if not traces.videos:
        return traces
    for table in tables:
        if count := sum(map(len, table.scan({"video_id": traces.videos}, ["video_id"]))):
            traces.rows[relative_name(table.folder, store)] = count
    names = {_plain(name) for name in traces.videos | traces.digests}
    for path in everything_below(store):
        name = relative_name(path, store)
        if of_all := _OF_ALL.match(name):
            traces.of_all.add(store / of_all[0])
        elif not _DATA.match(name) and name != _NOTE and _mentions(path, name, names):
            traces.files.append(path)
    left = [path for path in unfinished(store) if relative_name(path, store).split("/")[0] != "models"]
    traces.files = sorted({*traces.files, *left})
    traces.trained, traces.unknown = _models(store, traces.videos)
    return traces


def erase(root: str | StorePath, traces: Traces) -> None:
    """Remove what `find_traces` found, while no other process writes to the store.

    Raises:
        StoreError: a run works on the store, or something was written meanwhile; or a file cannot be read or removed.
            The same call later finishes.
    """
    store = open_store(root)
    _end_claims(store)
    with commit_file(store / _NOTE) as temporary:
        temporary.write_text(json.dumps({"videos": sorted(traces.videos), "digests": sorted(traces.digests)}))
    for table in tables_of(store):
        table.delete({"video_id": traces.videos})
    features = FeatureStore(store)
    for path in traces.shards:
        key = path.parent.name
        try:
            rewrite(features, read_header(path, format_of(path)).family, [path.name])
        except DamagedError:  # the next run makes the features of the others again
            features.manifest.remove(key, shard=[path.name])
        if not features.manifest.rows(key, shard=[path.name]):
            remove_files([path])
    for table in tables_of(store):
        table.drop_history()
    doomed = {path for path in traces.files if is_folder(path)} | traces.of_all
    files = [path for path in traces.files if path not in doomed]
    remove_files([*files, *(path.with_name(f"{path.name}.datapackage.json") for path in files)])
    for folder in sorted(doomed, reverse=True):  # those within others first
        remove_folder(folder)
    left = find_traces(store, traces.videos)
    if left:
        raise StoreError(f"something wrote to {store} meanwhile: run the command again when nothing else runs")
    remove_files([store / _NOTE])


def _add_copies(tables: list[Table], wanted: set[str], traces: Traces) -> None:
    """Add the videos that tables hold, their digests, and the videos with these digests, until there are no more."""
    known = -1
    while known != len(traces.videos) + len(traces.digests):
        known = len(traces.videos) + len(traces.digests)
        for table in tables:
            for where in ({"video_id": wanted | traces.videos}, {"video_sha256": traces.digests}):
                for rows in table.scan(where, ["video_id", "video_sha256"]):
                    traces.videos.update(map(str, rows["video_id"].to_pylist()))
                    traces.digests.update(map(str, rows["video_sha256"].to_pylist()))
                    traces.digests.discard("")  # of files that could not be read


def _shards(folder: StorePath, wanted: set[str], traces: Traces) -> Iterator[StorePath]:
    """Yield the shards that hold any of the videos, or do not tell, and add the videos that only shards hold."""
    paths = shards_in(folder)
    for path, header in zip(paths, in_order(_header, paths, folder), strict=True):
        if header is None:
            yield path
            continue
        videos = wanted | traces.videos
        own = [entry for entry in header.videos if entry.video_id in videos or entry.video_sha256 in traces.digests]
        traces.videos.update(entry.video_id for entry in own)
        traces.digests.update(entry.video_sha256 for entry in own)
        if own:
            yield path


def _header(path: StorePath) -> ShardHeader | None:
    try:
        return read_header(path, format_of(path))
    except DamagedError:
        return None


def _models(store: StorePath, videos: set[str]) -> tuple[list[str], list[str]]:
    """Return the models that were trained on any of these videos, and those that do not tell."""
    serializer = ModelSerializer(store)
    trained, unknown = [], []
    for name in serializer.names():
        for version in serializer.versions(name):
            try:
                facts = serializer.metadata(name, version)
            except UnreachableError:
                raise
            except StoreError:  # damaged
                facts = {}
            if "clip_marks" not in facts:
                unknown.append(f"{name}/{version}")
            elif not clip_marks(facts["recipe"], videos).isdisjoint(facts["clip_marks"].split()):
                trained.append(f"{name}/{version}")
    return trained, unknown


def _end_claims(store: StorePath) -> None:
    """End the claims of dead runs. Raises StoreError if one lives."""
    keys = [folder.name for folder in folders(store, "leases/*")]
    for key in keys:
        Leases(store, key).others()  # ends those of processes of this machine that are gone
    if live_claims(store, store_time(store)):
        raise StoreError(f"a run works on {store}, or was killed on another machine in the last hour: try again later")
    for key in keys:
        log = ClaimLog(store, key)
        for number in log.list().live:
            log.end(number, "erase")


def _mentions(path: StorePath, name: str, wanted: Collection[str]) -> bool:
    """Return whether a file of any kind or its name mentions any plain text; True if that cannot be told."""
    try:
        with reading(path):
            texts = chain([_plain(name)], _texts(path))
            return path.is_file() and any(one in text for text in texts for one in wanted)
    except FileNotFoundError:
        return False
    except DamagedError:
        return True


def _texts(path: StorePath) -> Iterator[str]:
    """Yield the plain text of a file in parts that overlap."""
    if path.suffix == ".parquet":
        with pq.ParquetFile(parquet_source(path)) as table:
            yield _plain(str(table.metadata.metadata))
            for batch in table.iter_batches():
                for column in batch.columns:
                    if pa.types.is_binary(column.type):  # paths, as in the cache of digests
                        yield _plain(b"\0".join(filter(None, column.to_pylist())).decode(errors="replace"))
                    elif pa.types.is_string(column.type) or pa.types.is_dictionary(column.type):
                        yield _plain("\0".join(str(text) for text in column.to_pylist()))
    elif path.suffix == ".h5":  # in quarantine, because it cannot be read
        raise ValueError("it is damaged")
    else:
        with path.open("rb") as file:
            tail = b""
            while data := file.read(_CHUNK):
                yield _plain((tail + data).decode(errors="replace"))
                tail = data[-_OVERLAP:]


def _plain(text: str) -> str:
    """Remove escapes of HTML, JSON, YAML and addresses, quotes, and white space, at which lines are broken."""
    escaped = ""
    while text != escaped:
        escaped = text
        text = unquote(html.unescape(_ESCAPED.sub(lambda match: chr(int(match[1] or match[2], 16)), text)))
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _QUOTING.sub("", unicodedata.normalize("NFC", whole))
