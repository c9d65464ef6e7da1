"""Finding what is wrong in a store, and taking damaged files out of use.

Only what a parser or a checksum finds is damage. A file that is gone is told apart from one that the operating system
does not let us read: of the latter, and of files of newer versions, nothing is known, and they stay as they are.

A damaged file is moved below STORE/quarantine, to the same relative path, for people to examine. Readers no longer see
it, so the next run recomputes its contents. A damaged model stays in place, because no run can reproduce it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from storage.errors import DamagedError, NewerVersionError, StoreError, UnreachableError
from storage.files.commit import move
from storage.files.paths import StorePath, check_link, exists, folders, matching, relative_name
from storage.models.serializer import METADATA_FILE, ModelSerializer
from storage.shards.formats import check_shard, format_of, shards_in
from storage.shards.header import ShardHeader, read_header
from storage.shards.store import DESCRIPTION, FeatureStore, manifest_rows, read_family
from storage.tables.failures import FailureLog
from storage.tables.manifest import as_table
from storage.tables.scores import ScoreStore
from storage.tables.seen import SeenVideos
from storage.tables.table import Table

Trouble = Literal["damaged", "gone", "unreachable", "newer"]


@dataclass(frozen=True)
class Part:
    """A part of a store that can be checked and repaired on its own.

    Args:
        path: file or folder.
        check: raises FileNotFoundError or StoreError if something is wrong.
        repair: takes the part out of use, given the kind of trouble, and says in a line what it did; None if people
            have to.
    """

    path: StorePath
    check: Callable[[], object]
    repair: Callable[[Trouble], str] | None


@dataclass(frozen=True)
class Problem:
    """What is wrong with a part of a store, in one line."""

    part: Part
    trouble: Trouble
    message: str

    @property
    def stays(self) -> bool:
        """Whether people have to mend it, or to let the program read it."""
        return self.trouble in ("unreachable", "newer") or self.part.repair is None


def parts(root: str | StorePath) -> list[Part]:
    """List all parts that a store must not lose: tables, descriptions of families, shards and models.

    Raises:
        StoreError: the folder is not a store, or cannot be listed.
    """
    store = FeatureStore(root)
    found = [*_tables(store), *_descriptions(store)]
    with contextlib.suppress(DamagedError):  # the manifest itself is among the parts
        found += _shards(store)
    models = ModelSerializer(store.root)
    for name in models.names():
        for version in models.versions(name):
            path = store.root / "models" / name / version / METADATA_FILE
            found.append(Part(path, partial(models.verify, name, version), None))
    return found


def find_problem(part: Part) -> Problem | None:
    """Read a whole part; return what is wrong with it, if anything."""
    try:
        part.check()
    except FileNotFoundError as error:
        return Problem(part, "gone", f"{error.filename} is gone")
    except UnreachableError as error:
        return Problem(part, "unreachable", str(error))
    except NewerVersionError as error:
        return Problem(part, "newer", str(error))
    except StoreError as error:
        return Problem(part, "damaged", str(error))
    return None


def repair(problem: Problem) -> str:
    """Take a part out of use if it is damaged or gone; return one line that says what was done."""
    if problem.stays or problem.part.repair is None:
        cure = "; train the model again, or put a copy there" if problem.trouble in ("damaged", "gone") else ""
        return f"left in place: {problem.message}{cure}"
    return problem.part.repair(problem.trouble)


def rebuild_manifest(store: FeatureStore) -> int:
    """Write a manifest from the headers of all readable shards, oldest first; return the number of its rows."""
    rows = (manifest_rows(header, path.name, "rebuilt") for header, path in _headers(store))
    return store.manifest.table.append_in_turn(map(as_table, rows))


def _tables(store: FeatureStore) -> Iterator[Part]:
    def part(table: Table, lost: str) -> Part:
        def repair(_: Trouble) -> str:
            return f"moved to {_put_aside(store, table.folder)}; {lost}"

        return Part(table.folder, table.check, repair)

    def rebuild(_: Trouble) -> str:
        folder = store.manifest.table.folder
        done = f"moved to {_put_aside(store, folder)}" if exists(folder) else "was gone"
        count = rebuild_manifest(FeatureStore(store.root))
        return f"manifest: {done}; {count:,} videos were listed again from the headers of the shards"

    def check_manifest() -> None:
        store.manifest.table.check()
        if store.manifest.table.version() < 0 and next(_headers(store), None) is not None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(store.manifest.table.folder))

    yield Part(store.manifest.table.folder, check_manifest, rebuild)
    yield part(FailureLog(store.root).table, "the next extraction tries its videos again")
    yield part(SeenVideos(store.root).table, "the next run looks at its videos again")
    for table in ScoreStore(store.root).tables():
        yield part(table, "the next scoring scores its videos again")


def _descriptions(store: FeatureStore) -> Iterator[Part]:
    for path in matching(store.root, f"features/*/*/{DESCRIPTION}"):

        def repair(_: Trouble, path: StorePath = path) -> str:
            aside = _put_aside(store, path)
            family = next((header.family for header, shard in _headers(store) if shard.parent == path.parent), None)
            if family is not None:
                FeatureStore(store.root).describe(family)
            return f"moved to {aside}; it is rewritten from the shards"

        yield Part(path, partial(read_family, path), repair)


def _shards(store: FeatureStore) -> Iterator[Part]:
    families = {path.name: path for path in folders(store.root, "features/*/*")}
    for key, name in sorted(store.manifest.shards()):
        path = families.get(key, store.root / "features" / "unknown" / key) / name

        def check(key: str = key, path: StorePath = path) -> None:
            check_link(path)
            header = check_shard(path)
            rows = {row._replace(run="") for _, row in store.manifest.rows(key, shard=[path.name])}
            if not rows <= set(manifest_rows(header, path.name, "")):
                raise DamagedError(f"{path} is damaged: it holds other videos than the manifest says")

        def repair(trouble: Trouble, key: str = key, path: StorePath = path) -> str:
            count = store.manifest.remove(key, shard=[path.name])
            done = "was gone" if trouble == "gone" else f"moved to {_put_aside(store, path)}"
            return f"{path.name}: {done}; the next extraction recomputes its {count:,} videos"

        yield Part(path, check, repair)


def _headers(store: FeatureStore) -> Iterator[tuple[ShardHeader, StorePath]]:
    """Yield the headers of all readable shards, oldest first."""
    paths = [path for folder in folders(store.root, "features/*/*") for path in shards_in(folder)]
    for path in sorted(paths, key=lambda path: path.name):
        try:
            yield read_header(path, format_of(path)), path
        except UnreachableError:
            raise
        except (FileNotFoundError, StoreError):
            continue


def _put_aside(store: FeatureStore, path: StorePath) -> StorePath:
    target = store.root / "quarantine" / relative_name(path, store.root)
    number = 1
    while exists(target):
        number += 1
        target = target.with_name(f"{path.name}.{number}")
    move(path, target)
    return target
