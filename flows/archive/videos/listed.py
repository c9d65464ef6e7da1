"""Lists of videos: text files of paths, or tables with a column of paths."""

from __future__ import annotations

import csv
import io
import os
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flows.archive.videos.folder import Names, id_of
from flows.session.errors import UserError
from fusion.errors import one_line
from fusion.labels.read import ID_COLUMNS

LIST_ENDINGS = (".txt", ".csv", ".tsv", ".parquet")
_SEPARATORS = ",;\t"
_MOST_NAMED = 10
_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}


@dataclass
class Listed:
    """The videos of a list.

    Args:
        videos: ids in ascending order, in parts; each is a file or missing.
        spelled: see `Names`.
        missing: ids of videos that do not exist, with their place in the list.
        repeated: ids that occur more than once, with their places.
    """

    videos: list[pa.Array[Any]]
    spelled: Mapping[str, str]
    missing: Mapping[str, str]
    repeated: Mapping[str, str]


def videos_of_list(path: Path, root: Path) -> Listed:
    """Read a list of videos. They have the same ids as when the folder `root` is read.

    Each path is tried as written, then without surrounding spaces, with / for \\, and without the apostrophe that a
    trait CSV puts in front of some names; each spelling also in other Unicode forms of the same letters.

    Args:
        path: .txt with a path in each line, or .csv, .tsv or .parquet with a column from `ID_COLUMNS`.
        root: folder that relative paths start from, and that contains absolute ones.

    Raises:
        UserError: the list cannot be read or is empty, or some paths cannot be a video below `root`; the message names
            up to 10 of them.
    """
    word = "row" if path.suffix.lower() == ".parquet" else "line"
    search, names = _Search(root), Names()
    missing: dict[str, str] = {}
    problems = []
    for number, text in entries(path):
        try:
            relative = search.find(text)
        except ValueError as error:
            problems.append(f"{word} {number}: {error}")
            continue
        video_id = names.add(relative)
        if not os.path.lexists(os.path.join(root, relative)):
            missing.setdefault(video_id, f"{word} {number}")
    if problems:
        more = f"; and {len(problems) - _MOST_NAMED} more" if len(problems) > _MOST_NAMED else ""
        raise UserError(f"{path} has unusable entries: {'; '.join(problems[:_MOST_NAMED])}{more}")
    videos, doubled = names.ascending()
    if not videos:
        raise UserError(f"{path} names no videos: it is empty")
    if len(missing) == sum(map(len, videos)):
        raise UserError(
            f"none of the videos that {path} names is in {root}, such as {next(iter(missing))!r}; name the "
            "folder that its paths are relative to with --videos-root DIR"
        )
    places: dict[str, list[int]] = {video_id: [] for video_id in doubled}
    for number, text in entries(path) if doubled else ():
        video_id = id_of(search.find(text))
        if video_id in places:
            places[video_id].append(number)
    repeated = {video_id: f"{word}s {', '.join(map(str, numbers))}" for video_id, numbers in places.items()}
    return Listed(videos, names.spelled, missing, repeated)


class _Search:
    """Finds the files of a folder that the entries of a list name."""

    def __init__(self, root: Path) -> None:
        self._root = os.fspath(root)
        # Absolute paths may begin with the folder's own path, or with that of its link target.
        self._bases = [os.path.abspath(root), os.path.realpath(root)]
        self._names: dict[str, dict[str, str]] = {}
        self._composed: dict[str, dict[str, str]] = {}

    def find(self, text: str) -> str:
        """Return the path, relative to the folder, of the file that an entry of a list names; it may be missing.

        Raises:
            ValueError: it cannot name a video of the folder; the message says why.
        """
        if "\0" in text or not text.strip():
            raise ValueError("no path")
        spellings = [text, text.strip()]
        spellings += [spelling.replace("\\", "/") for spelling in spellings if "\\" in spelling]
        spellings += [spelling[1:] for spelling in spellings if spelling.startswith("'") and len(spelling) > 1]
        reasons, missing = [], None
        for spelling in dict.fromkeys(spellings):
            try:
                relative = self._look_up(spelling)
            except ValueError as error:
                reasons.append(error)
                continue
            file = os.path.join(self._root, relative)
            if os.path.lexists(file):
                if os.path.isdir(file):
                    raise ValueError(f"{text!r} is a folder")
                if os.path.exists(file) and not os.path.isfile(file):
                    raise ValueError(f"{text!r} is not a file")
                return relative
            # In the spelling of the folder.
            missing = relative
        if PureWindowsPath(text).is_absolute():
            raise ValueError(f"{text!r} is a path of another system; make it relative to the videos folder")
        if missing is None:
            raise reasons[0]
        return missing

    def _look_up(self, text: str) -> str:
        path = self._relative(text)
        if path == os.pardir or path.startswith(os.pardir + os.sep) or os.path.isabs(path):
            raise ValueError(
                f"{text!r} is outside {self._root}; name the folder that contains all videos with --videos-root DIR"
            )
        if path == os.curdir:
            raise ValueError(f"{text!r} is the folder itself")
        folder, names = self._root, []
        for part in path.split(os.sep):
            names.append(self._name(folder, id_of(part)) or part)
            folder = os.path.join(folder, names[-1])
        return "/".join(names)

    def _relative(self, text: str) -> str:
        path = os.path.normpath(text)
        if os.path.isabs(path):
            parent, name = os.path.split(path)
            for absolute in (path, os.path.join(os.path.realpath(parent), name)):
                for base in self._bases:
                    if absolute.startswith(os.path.join(base, "")):
                        return os.path.relpath(absolute, base)
        return path

    def _name(self, folder: str, wanted: str) -> str | None:
        """Return the spelling of this name in a folder, comparing letters; None if it has no such entry."""
        if folder not in self._names:
            try:
                self._names[folder] = {id_of(name): name for name in os.listdir(folder)}
            except OSError:
                self._names[folder] = {}
        names = self._names[folder]
        if wanted in names:
            return names[wanted]
        if folder not in self._composed:
            self._composed[folder] = {unicodedata.normalize("NFC", letters): name for letters, name in names.items()}
        composed = unicodedata.normalize("NFC", wanted)
        if composed in self._composed[folder]:
            return self._composed[folder][composed]
        if names and os.path.lexists(os.path.join(folder, wanted)):
            # The file system ignores case.
            return next((name for letters, name in names.items() if letters.casefold() == wanted.casefold()), None)
        return None


def entries(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each entry with the number of its line, or of its row in Parquet, except blank lines."""
    try:
        if path.suffix.lower() == ".parquet":
            yield from _rows_of_parquet(path)
            return
        data = path.read_bytes()
        encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8")
        # File names need not be UTF-8.
        text = data.decode(encoding, "strict" if encoding == "utf-16" else "surrogateescape")
        if path.suffix.lower() == ".txt":
            lines = (line.removesuffix("\r") for line in text.split("\n"))
            yield from ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
        else:
            yield from _rows_of_csv(path, text)
    except OSError as error:
        raise UserError(f"cannot read the list of videos {path}: {error.strerror or one_line(error)}") from error
    except (ValueError, csv.Error, pa.ArrowException) as error:
        raise UserError(f"cannot read the list of videos {path}: {one_line(error)}") from error


def _rows_of_csv(path: Path, text: str) -> Iterator[tuple[int, str]]:
    header = text.partition("\n")[0]
    separators = "\t" if path.suffix.lower() == ".tsv" else _SEPARATORS
    readers = [csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True) for separator in separators]
    for reader in readers:
        names = next(reader, [])
        name = _column(names)
        if name is None:
            continue
        column = names.index(name)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, cells[column] if column < len(cells) else ""
        return
    if text.strip():
        raise UserError(_no_column(path, header.strip()))


def _rows_of_parquet(path: Path) -> Iterator[tuple[int, str]]:
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        column = _column(names)
        if column is None:
            raise UserError(_no_column(path, ", ".join(names)))
        number = 0
        for batch in file.iter_batches(columns=[column]):
            for value in batch.column(0).cast(pa.string()).to_pylist():
                number += 1
                yield number, value or ""


def _column(names: list[str]) -> str | None:
    known = {name.strip().lower(): name for name in names}
    return next((known[name] for name in ID_COLUMNS if name in known), None)


def _no_column(path: Path, found: str) -> str:
    return f"{path} has no column of paths ({', '.join(ID_COLUMNS)}); its first line: {found[:200]!r}"
