"""Labels: five numbers per clip and the person in it, from CSV, Parquet or First Impressions pickles."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fusion.errors import LabelError, some_of
from fusion.first_impressions import read_first_impressions
from fusion.traits import TRAITS

ID_COLUMNS = ("video_id", "name", "clip")
SUBJECT_COLUMN = "subject"
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
    """

    names: tuple[str, ...]
    values: np.ndarray
    subjects: tuple[str, ...]
    subjects_known: bool
    neuroticism_inverted: bool

    def __len__(self) -> int:
        return len(self.names)


def read_labels(path: str | Path, *, invert_neuroticism: bool | None = None) -> Labels:
    """Read a label file; its ending says what it is.

    `.csv`, `.parquet`: a column `video_id` (or `name`, or `clip`), the five traits in any order, and if possible
    `subject`; other columns are ignored. `.pkl`: First Impressions V2, whose subject is the YouTube id.

    Args:
        path: the file.
        invert_neuroticism: take 1 - x for neuroticism. None, the default, does so for First Impressions pickles only:
            what they call "neuroticism" rises with the other four traits, that is, it is emotional stability, while
            our column must mean what its name says to whoever reads the CSV. The error measures, correlations and R2
            in use with that set do not change. Tables are taken at their word; pass True for a table made from First
            Impressions, and False to keep the pickles' own direction.

    Raises:
        LabelError: an unknown ending, an unreadable file, missing columns, no rows, values that are no number in
            [0, 1], or names that appear twice.
    """
    path = Path(path)
    reader = {".csv": _read_csv, ".parquet": _read_parquet, ".pkl": read_first_impressions}.get(path.suffix.lower())
    if reader is None:
        raise LabelError(f"{path}: labels are read from .csv, .parquet or .pkl (First Impressions V2) files")
    try:
        names, values, subjects = reader(path)
    except OSError as error:
        raise LabelError(f"cannot read the labels {path}: {error.strerror or error}") from error
    if not names:
        raise LabelError(f"{path} holds no labels: add one row per clip")
    nameless = sum(name == "" for name in names)
    if nameless:
        raise LabelError(f"{path}: {nameless} rows have no clip name: fill the column or remove the rows")
    double = [name for name, count in Counter(names).items() if count > 1]
    if double:
        raise LabelError(f"{path}: {len(double)} clips appear more than once, keep one row each: {some_of(double)}")
    outside = [name for name, fits in zip(names, ((values >= 0) & (values <= 1)).all(axis=1), strict=True) if not fits]
    if outside:
        raise LabelError(
            f"{path}: {len(outside)} clips have an empty trait or one outside [0, 1], rescale or remove them: "
            f"{some_of(outside)}"
        )
    if invert_neuroticism is None:
        invert_neuroticism = reader is read_first_impressions
    if invert_neuroticism:
        values[:, _NEUROTICISM] = 1 - values[:, _NEUROTICISM]
    return Labels(
        names=tuple(names),
        values=values.astype(np.float32),
        subjects=tuple(names if subjects is None else subjects),
        subjects_known=subjects is not None,
        neuroticism_inverted=invert_neuroticism,
    )


def _columns(path: Path, header: Sequence[str]) -> tuple[int, list[int], int | None]:
    """Where the clip name, the traits and the subject stand; names of columns are compared without case."""
    found = [name.strip().lower() for name in header]
    wanted = [*ID_COLUMNS, *TRAITS, SUBJECT_COLUMN]
    double = [name for name in wanted if found.count(name) > 1]
    if double:
        raise LabelError(f"{path}: column {', '.join(double)} appears more than once")
    ids = [name for name in ID_COLUMNS if name in found]
    missing = [trait for trait in TRAITS if trait not in found]
    if not ids:
        missing.insert(0, " or ".join(ID_COLUMNS))
    if missing:
        raise LabelError(f"{path} lacks the column {', '.join(missing)}; it has {some_of(found, 12)}")
    subject = found.index(SUBJECT_COLUMN) if SUBJECT_COLUMN in found else None
    return found.index(ids[0]), [found.index(trait) for trait in TRAITS], subject


def _read_csv(path: Path) -> tuple[list[str], np.ndarray, list[str] | None]:
    names: list[str] = []
    values: list[list[float]] = []
    subjects: list[str] = []
    try:
        # utf-8-sig: spreadsheets put a byte order mark in front
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            header = next(rows, None)
            if header is None:
                raise LabelError(f"{path} is empty: it needs a header and one row per clip")
            name_at, traits_at, subject_at = _columns(path, header)
            for row in rows:
                if not row:
                    continue
                if len(row) != len(header):
                    raise LabelError(
                        f"{path}, line {rows.line_num}: {len(row)} cells where the header has {len(header)}"
                    )
                try:
                    values.append([float(row[at]) for at in traits_at])
                except ValueError as error:
                    raise LabelError(
                        f"{path}, line {rows.line_num} ({row[name_at]}): a trait is no number ({error})"
                    ) from error
                names.append(row[name_at].strip())
                if subject_at is not None:
                    subjects.append(row[subject_at].strip())
    except (csv.Error, UnicodeDecodeError) as error:
        raise LabelError(f"{path} is not a CSV file in UTF-8 ({error})") from error
    return (
        names,
        np.array(values, np.float64).reshape(len(names), len(TRAITS)),
        _known(path, names, subjects, subject_at),
    )


def _read_parquet(path: Path) -> tuple[list[str], np.ndarray, list[str] | None]:
    try:
        header = pq.read_schema(path).names
        name_at, traits_at, subject_at = _columns(path, header)
        table = pq.read_table(path, columns=[header[at] for at in (name_at, *traits_at, subject_at) if at is not None])
        names = table.column(header[name_at]).cast(pa.string()).fill_null("").to_pylist()
        values = np.column_stack(
            [table.column(header[at]).cast(pa.float64()).to_numpy(zero_copy_only=False) for at in traits_at]
        )
        subjects = []
        if subject_at is not None:
            subjects = table.column(header[subject_at]).cast(pa.string()).fill_null("").to_pylist()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise LabelError(f"{path} is not a Parquet table of labels ({str(error).splitlines()[0]})") from error
    return names, values, _known(path, names, subjects, subject_at)


def _known(path: Path, names: list[str], subjects: list[str], subject_at: int | None) -> list[str] | None:
    """The subjects; None where the file has no such column."""
    if subject_at is None:
        return None
    lacking = [name for name, subject in zip(names, subjects, strict=True) if subject == ""]
    if lacking:
        raise LabelError(f"{path}: {len(lacking)} clips have an empty subject: {some_of(lacking)}")
    return subjects
