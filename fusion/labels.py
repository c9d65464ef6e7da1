"""Labels: five numbers per clip and the person in it, from CSV, Parquet or First Impressions pickles."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fusion.errors import LabelError, one_line, some_of
from fusion.first_impressions import annotation_files, part_of_file, read_first_impressions
from fusion.parts import PARTS, Part, part_named
from fusion.traits import TRAITS

ID_COLUMNS = ("video_id", "name", "clip")
SUBJECT_COLUMN = "subject"
SPLIT_COLUMN = "split"
_NEUROTICISM = TRAITS.index("neuroticism")


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """A label file in memory.

    Attributes:
        names: N clip names as the file has them, each once.
        values: float32 [N, 5] in [0, 1], trait order.
        subjects: the person in each clip. Where the file does not say, the clip's own name: then nothing keeps two
            clips of one person from lying on both sides of a split.
        subjects_known: whether the file says who is in a clip.
        neuroticism_inverted: whether neuroticism is 1 minus what the file says.
        parts: the part of the official split that each clip is in; None where the file does not say.
    """

    names: tuple[str, ...]
    values: np.ndarray
    subjects: tuple[str, ...]
    subjects_known: bool
    neuroticism_inverted: bool
    parts: tuple[Part, ...] | None = None

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """What one file says: names, values float64 [N, 5], and what it says beside."""

    names: list[str]
    values: np.ndarray
    subjects: list[str] | None
    parts: list[Part] | None


def read_labels(path: str | Path, *, invert_neuroticism: bool | None = None) -> Labels:
    """Read a label file, whose ending says what it is, or the folder of First Impressions' annotation files.

    `.csv`, `.parquet`: a column `video_id` (or `name`, or `clip`), the five traits in any order, and if possible
    `subject` and `split` (training, validation or test); other columns are ignored. `.pkl`: First Impressions V2, whose
    subject is the YouTube id. A folder: all its `annotation_*.pkl`, flat or each in a folder of its own; the file's
    name says the part of the official split.

    Args:
        path: the file or the folder.
        invert_neuroticism: take 1 - x for neuroticism. None, the default, does so for First Impressions pickles only:
            what they call "neuroticism" rises with the other four traits, that is, it is emotional stability, while
            our column must mean what its name says to whoever reads the CSV. The error measures, correlations and R2
            in use with that set do not change. Tables are taken at their word; pass True for a table made from First
            Impressions, and False to keep the pickles' own direction.

    Raises:
        LabelError: an unknown ending, an unreadable file, missing columns, no rows, values that are no number in
            [0, 1], or names that appear twice, be it in two files.
    """
    path = Path(path)
    files = annotation_files(path) if path.is_dir() else [path]
    pickled = files[0].suffix.lower() == ".pkl"
    tables = [_read(file) for file in files]
    names = [name for table in tables for name in table.names]
    values = np.concatenate([table.values for table in tables])
    _check(path, names, values)
    if invert_neuroticism is None:
        invert_neuroticism = pickled
    if invert_neuroticism:
        values[:, _NEUROTICISM] = 1 - values[:, _NEUROTICISM]
    subjects = _joined(table.subjects for table in tables)
    return Labels(
        names=tuple(names),
        values=values.astype(np.float32),
        subjects=tuple(names) if subjects is None else subjects,
        subjects_known=subjects is not None,
        neuroticism_inverted=invert_neuroticism,
        parts=_joined(table.parts for table in tables),
    )


def _read(path: Path) -> _Table:
    if not path.suffix and not path.exists():  # most likely a folder that was mistyped
        raise LabelError(f"cannot read the labels {path}: there is no such file or folder")
    reader = {".csv": _read_csv, ".parquet": _read_parquet, ".pkl": _read_pickle}.get(path.suffix.lower())
    if reader is None:
        raise LabelError(f"{path}: labels are read from .csv, .parquet or .pkl (First Impressions V2) files")
    try:
        table = reader(path)
    except OSError as error:
        raise LabelError(f"cannot read the labels {path}: {error.strerror or one_line(error)}") from error
    if not table.names:
        raise LabelError(f"{path} holds no labels: add one row per clip")
    return table


def _check(path: Path, names: Sequence[str], values: np.ndarray) -> None:
    """Refuse names and values that cannot be meant."""
    nameless = sum(name == "" for name in names)
    if nameless:
        raise LabelError(f"{path}: {nameless} rows have no clip name: fill the column or remove the rows")
    double = [name for name, count in Counter(names).items() if count > 1]
    if double:
        raise LabelError(f"{path}: {len(double)} clips appear more than once, keep one row each: {some_of(double)}")
    inside = np.asarray(((values >= 0) & (values <= 1)).all(axis=1))
    outside = [name for name, fits in zip(names, inside, strict=True) if not fits]
    if outside:
        raise LabelError(
            f"{path}: {len(outside)} clips have an empty trait or one outside [0, 1], rescale or remove them: "
            f"{some_of(outside)}"
        )


def _joined(columns: Iterable[list[Any] | None]) -> tuple[Any, ...] | None:
    """One column of all files, or None where a file lacks it."""
    columns = list(columns)
    present = [column for column in columns if column is not None]
    return tuple(chain.from_iterable(present)) if len(present) == len(columns) else None


def _read_pickle(path: Path) -> _Table:
    names, values, subjects = read_first_impressions(path)
    part = part_of_file(path)
    return _Table(names, values, subjects, None if part is None else [part] * len(names))


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where the clip name, the traits, the subject and the split stand; the last two may be missing."""

    name: int
    traits: list[int]
    subject: int | None
    split: int | None


def _columns(path: Path, header: Sequence[str]) -> _Columns:
    """Find the columns; their names are compared without case."""
    found = [name.strip().lower() for name in header]
    wanted = [*ID_COLUMNS, *TRAITS, SUBJECT_COLUMN, SPLIT_COLUMN]
    double = [name for name in wanted if found.count(name) > 1]
    if double:
        raise LabelError(f"{path}: column {', '.join(double)} appears more than once")
    ids = [name for name in ID_COLUMNS if name in found]
    missing = [trait for trait in TRAITS if trait not in found]
    if not ids:
        missing.insert(0, " or ".join(ID_COLUMNS))
    if missing:
        word = "column" if len(missing) == 1 else "columns"
        raise LabelError(f"{path} lacks the {word} {', '.join(missing)}; it has {some_of(found, 12)}")
    subject, split = (found.index(name) if name in found else None for name in (SUBJECT_COLUMN, SPLIT_COLUMN))
    return _Columns(found.index(ids[0]), [found.index(trait) for trait in TRAITS], subject, split)


def _read_csv(path: Path) -> _Table:
    names: list[str] = []
    values: list[list[float]] = []
    subjects: list[str] = []
    splits: list[str] = []
    try:
        # utf-8-sig: spreadsheets put a byte order mark in front
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            header = next(rows, None)
            if header is None:
                raise LabelError(f"{path} is empty: it needs a header and one row per clip")
            at = _columns(path, header)
            for row in rows:
                if not row:
                    continue
                if len(row) != len(header):
                    raise LabelError(
                        f"{path}, line {rows.line_num}: {len(row)} cells where the header has {len(header)}"
                    )
                try:
                    values.append([float(row[column]) for column in at.traits])
                except ValueError as error:
                    raise LabelError(
                        f"{path}, line {rows.line_num} ({row[at.name]}): a trait is no number ({error})"
                    ) from error
                names.append(row[at.name] if row[at.name].strip() else "")
                subjects.append("" if at.subject is None else row[at.subject].strip())
                splits.append("" if at.split is None else row[at.split].strip())
    except (csv.Error, UnicodeDecodeError) as error:
        raise LabelError(f"{path} is not a CSV file in UTF-8 ({error})") from error
    return _table(path, at, names, np.array(values, np.float64).reshape(len(names), len(TRAITS)), subjects, splits)


def _read_parquet(path: Path) -> _Table:
    try:
        header = pq.read_schema(path).names
        at = _columns(path, header)
        wanted = [column for column in (at.name, *at.traits, at.subject, at.split) if column is not None]
        table = pq.read_table(path, columns=[header[column] for column in wanted])

        def text(column: int | None) -> list[str]:
            if column is None:
                return []
            return [value or "" for value in table[header[column]].cast(pa.string()).to_pylist()]

        names, subjects, splits = text(at.name), text(at.subject), text(at.split)
        values = np.column_stack(
            [table.column(header[column]).cast(pa.float64()).to_numpy(zero_copy_only=False) for column in at.traits]
        )
    except OSError:
        raise
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise LabelError(f"{path} is not a Parquet table of labels ({one_line(error)})") from error
    return _table(path, at, names, values, subjects, splits)


def _table(
    path: Path, at: _Columns, names: list[str], values: np.ndarray, subjects: list[str], splits: list[str]
) -> _Table:
    """Put a table's columns together; a column that is there must be filled."""
    if at.subject is not None:
        lacking = [name for name, subject in zip(names, subjects, strict=True) if subject == ""]
        if lacking:
            raise LabelError(f"{path}: {len(lacking)} clips have an empty subject: {some_of(lacking)}")
    named = [part_named(split) for split in splits] if at.split is not None else []
    parts = [part for part in named if part is not None]
    if len(parts) < len(named):
        odd = [name for name, part in zip(names, named, strict=True) if part is None]
        raise LabelError(
            f"{path}: {len(odd)} clips have a split other than {', '.join(PARTS)}; correct it or rename that column: "
            f"{some_of(odd)}"
        )
    return _Table(names, values, subjects if at.subject is not None else None, parts if at.split is not None else None)
