"""An export: a table in a file, described by a Frictionless data package beside it that states its origin."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from storage.exports.columns import TIME, Column
from storage.exports.csv import CSV_NOTE, GUARD, GUARD_REPLACEMENT, write_csv_tables
from storage.exports.parquet import write_parquet_tables
from storage.files.commit import commit_file, remove_files
from storage.files.paths import StorePath, store_path

FORMATS = {".csv": write_csv_tables, ".parquet": write_parquet_tables}
_MEDIA_TYPES = {".csv": "text/csv", ".parquet": "application/vnd.apache.parquet"}
_TYPES = {
    pa.string(): "string",
    pa.float32(): "number",
    pa.float64(): "number",
    pa.int32(): "integer",
    TIME: "datetime",
}
# Version 1 of the specification, as all readers know it.
_DIALECT = {"delimiter": ",", "lineTerminator": "\r\n", "quoteChar": '"', "doubleQuote": True, "header": True}


def package_path(path: str | StorePath) -> StorePath:
    """Return the path of an export's description: traits.csv.datapackage.json beside traits.csv."""
    target = store_path(path)
    return target.with_name(f"{target.name}.datapackage.json")


def write_export(
    path: str | StorePath,
    tables: Iterable[pa.Table],
    columns: Sequence[Column[Any]],
    about: Callable[[], Mapping[str, Any]],
    key: Sequence[str] = ("video_id",),
) -> int:
    """Write an export and its description, in bounded memory.

    Both are written in full under temporary names. Then an older description is removed, the data are put in place, and
    the new description follows. An interruption at any point never leaves a description beside data of another export.

    Args:
        path: of the data, ending in one of `FORMATS`; older files there are replaced.
        tables: the rows, a part at a time.
        columns: of the tables, in this order.
        about: called when all rows are written; returns facts about the whole export, such as its origin.
        key: columns that tell rows apart; ignored if one of them is not among the columns.

    Returns:
        The number of rows.

    Raises:
        StoreError: the operating system refused.
    """
    target, description = store_path(path), package_path(path)
    suffix = target.suffix.lower()
    with commit_file(description) as draft, commit_file(target) as temporary:
        count = FORMATS[suffix](temporary, tables, columns)
        resource = _resource(target.name, suffix, temporary, columns, key, count)
        package = {"profile": "tabular-data-package", "name": resource["name"], **about(), "resources": [resource]}
        draft.write_text(json.dumps(package, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        if description.exists():
            remove_files([description])
    return count


def _resource(
    name: str, suffix: str, file: Path, columns: Sequence[Column[Any]], key: Sequence[str], count: int
) -> dict[str, Any]:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    resource = {
        "profile": "tabular-data-resource",
        "name": re.sub(r"[^a-z0-9._-]", "-", name.lower()),
        "path": name,
        "format": suffix.removeprefix("."),
        "mediatype": _MEDIA_TYPES[suffix],
        "bytes": file.stat().st_size,
        "hash": f"sha256:{digest}",
        "rows": count,
        "schema": {
            "fields": [_field(column) for column in columns],
            "missingValues": [""],
            **({"primaryKey": list(key)} if set(key) <= {column.name for column in columns} else {}),
        },
    }
    if suffix == ".csv":
        texts = [column.name for column in columns if column.type == pa.string()]
        guard = {"fields": texts, "pattern": GUARD, "replacement": GUARD_REPLACEMENT}
        resource |= {"encoding": "utf-8", "dialect": _DIALECT, "description": CSV_NOTE, "formulaGuard": guard}
    return resource


def _field(column: Column[Any]) -> dict[str, Any]:
    limits = {
        "required": column.filled or None,
        "minimum": column.minimum,
        "maximum": column.maximum,
        "enum": None if column.values is None else list(column.values),
    }
    constraints = {name: value for name, value in limits.items() if value is not None}
    return {
        "name": column.name,
        "type": _TYPES[column.type],
        "description": column.description,
        **({"unit": column.unit} if column.unit is not None else {}),
        **({"constraints": constraints} if constraints else {}),
    }
