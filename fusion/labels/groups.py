"""Groups of clips supplied by the user, such as age, gender or ethnicity. Traitline never infers them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fusion.errors import LabelError, one_line, some_of
from fusion.labels.matching import match_names
from fusion.labels.read import ID_COLUMNS, SPLIT_COLUMN, SUBJECT_COLUMN, read_labels
from fusion.labels.text_tables import ENDINGS, read_text_table
from fusion.traits import TRAITS

MAX_VALUES = 30
UNKNOWN = "(not given)"


def read_groups(path: Path, video_ids: Sequence[str], subjects: Sequence[str]) -> dict[str, np.ndarray]:
    """Read a table of groups: one row per clip (`video_id`, `name` or `clip`) or per person (`subject`).

    Every other column is a grouping, except traits and `split`, so that a label file with additional columns is also a
    table of groups. Clips are found as those of labels are.

    Args:
        path: `.csv` (`.tsv`, `.txt`) or `.parquet`.
        video_ids: of N clips.
        subjects: of the same clips.

    Returns:
        Column name -> the group of each clip, str [N]; "(not given)" if the table does not give it.

    Raises:
        LabelError: the file is not such a table, lists a clip or person twice, has no grouping, or has a column with
            more than 30 values.
    """
    columns = _read(path)
    names = {name.strip().lower(): name for name in columns}
    key = next((name for name in (*ID_COLUMNS, SUBJECT_COLUMN) if name in names), None)
    if key is None:
        raise LabelError(f"{path} lacks a column video_id or subject, which says whose groups they are")
    rows = columns[names[key]]
    _check_once(path, key, rows)
    if key == SUBJECT_COLUMN:
        row_of = {name: row for row, name in enumerate(rows)}
        found = [row_of.get(subject) for subject in subjects]
    else:
        row_of_video = match_names(rows, video_ids)
        found = [row_of_video.get(video) for video in range(len(video_ids))]
    groupings = [name for name in names if name not in (*ID_COLUMNS, SUBJECT_COLUMN, SPLIT_COLUMN, *TRAITS)]
    if not groupings:
        raise LabelError(f"{path} has no column of groups, such as gender, besides {some_of(list(columns))}")
    groups = {}
    for name in groupings:
        values = columns[names[name]]
        if len(set(values)) > MAX_VALUES:
            raise LabelError(
                f"{path}: column {name} has {len(set(values))} different values; merge them into at most "
                f"{MAX_VALUES} groups, or leave the column out"
            )
        groups[name] = np.array([UNKNOWN if row is None or values[row] == "" else values[row] for row in found])
    return groups


def read_subjects(path: Path) -> dict[str, str]:
    """Return the person in each clip, by the clip's name, from a label file or a table of groups.

    Raises:
        LabelError: the file cannot be read, does not name the people, or lists a clip twice.
    """
    if path.is_dir() or path.suffix.lower() == ".pkl":
        labels = read_labels(path)
        return dict(zip(labels.names, labels.subjects, strict=True))
    columns = {name.strip().lower(): values for name, values in _read(path).items()}
    key = next((name for name in ID_COLUMNS if name in columns), None)
    if key is None or SUBJECT_COLUMN not in columns:
        raise LabelError(f"{path} needs the columns video_id and subject, which say who is in which clip")
    names = columns[key]
    _check_once(path, key, names)
    return dict(zip(names, columns[SUBJECT_COLUMN], strict=True))


def _check_once(path: Path, key: str, rows: Sequence[str]) -> None:
    if double := [name for name, count in Counter(rows).items() if count > 1]:
        raise LabelError(f"{path}: keep one row for each {key}; there are several for {some_of(double)}")


def _read(path: Path) -> dict[str, list[str]]:
    """Return all columns of a table as text."""
    try:
        if path.suffix.lower() in ENDINGS:
            text = read_text_table(path, (*ID_COLUMNS, SUBJECT_COLUMN))
            return {name: [row[column].strip() for row in text.rows] for column, name in enumerate(text.header) if name}
        if path.suffix.lower() != ".parquet":
            raise LabelError(f"{path}: groups are read from .csv or .parquet files")
        table = pq.read_table(path)
        return {
            name: [(value or "").strip() for value in table[name].cast(pa.string()).to_pylist()]
            for name in table.column_names
        }
    except OSError as error:
        raise LabelError(f"cannot read the groups {path}: {error.strerror or one_line(error)}") from error
    except (pa.ArrowException, ValueError, TypeError, KeyError) as error:
        raise LabelError(f"{path} is not a table of groups ({one_line(error)})") from error
