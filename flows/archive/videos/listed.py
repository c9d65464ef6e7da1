"""Lists of videos: text files of paths, or tables with a column of paths."""

from __future__ import annotations

import csv
import os
import stat
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from flows.archive.videos.folder import Names, id_of
from flows.session.errors import UserError
from fusion.errors import one_line
from fusion.labels.read import ID_COLUMNS

LIST_ENDINGS = (".txt", ".csv", ".tsv", ".parquet")
_SEPARATORS = ",;\t"
_MOST_NAMED = 10
_MOST_NAMES = 2**20  # of folders, in memory at a time
_MOST_FOLDERS = 2**16
_ESCAPE = "\\x"  # see `id_of`
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
            relative, is_there = search.find(text)
        except ValueError as error:
            problems.append(f"{word} {number}: {error}")
            continue
        video_id = names.add(relative)
        if not is_there:
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
        video_id = id_of(search.find(text)[0])
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
        self._told: dict[str, bool] = {}
        self._listed: dict[str, dict[str, str]] = {}  # the folder used last comes last
        self._held = 0  # number of names in these

    def find(self, text: str) -> tuple[str, bool]:
        """Return the path, relative to the folder, of the file that an entry of a list names, and whether it exists.

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
            try:
                mode = os.stat(file).st_mode
            except OSError:
                if os.path.lexists(file):  # a broken link
                    return relative, True
                missing = relative  # in the spelling of the folder
                continue
            if stat.S_ISDIR(mode):
                raise ValueError(f"{text!r} is a folder")
            if not stat.S_ISREG(mode):
                raise ValueError(f"{text!r} is not a file")
            return relative, True
        if PureWindowsPath(text).is_absolute():
            raise ValueError(f"{text!r} is a path of another system; make it relative to the videos folder")
        if missing is None:
            raise reasons[0]
        return missing, False

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
        if wanted.isascii() and _ESCAPE not in wanted:
            # Most names are these. They are found without the names of the whole folder, which can be millions.
            if not os.path.lexists(os.path.join(folder, wanted)):
                return None
            if self._tells_case(folder, wanted):
                return wanted
        names = self._names(folder)
        found = names.get(wanted) or names.get(unicodedata.normalize("NFC", wanted))
        if found is None and names and os.path.lexists(os.path.join(folder, wanted)):
            # The file system ignores case.
            return next((name for letters, name in names.items() if letters.casefold() == wanted.casefold()), None)
        return found

    def _tells_case(self, folder: str, name: str) -> bool:
        """Return whether the folder of this name tells names apart by the case of their letters."""
        other = name.swapcase()
        if other == name:
            return True
        if folder not in self._told:
            if len(self._told) == _MOST_FOLDERS:
                self._told.clear()
            self._told[folder] = not os.path.lexists(os.path.join(folder, other))
        return self._told[folder]

    def _names(self, folder: str) -> dict[str, str]:
        """Return the names in a folder by their letters, also in the composed form; none if it cannot be read."""
        names = self._listed.pop(folder, None)
        if names is None:
            try:
                listed = {id_of(name): name for name in os.listdir(folder)}
            except OSError:
                listed = {}
            names = {unicodedata.normalize("NFC", letters): name for letters, name in listed.items()} | listed
            self._held += len(names)
            while self._listed and self._held > _MOST_NAMES:
                self._held -= len(self._listed.pop(next(iter(self._listed))))
        self._listed[folder] = names
        return names


def entries(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each entry with the number of its line, or of its row in Parquet, except blank lines."""
    try:
        kind = path.suffix.lower()
        if kind == ".parquet":
            yield from _rows_of_parquet(path)
        elif kind == ".txt":
            with _opened(path, newline="\n") as file:
                lines = (line.removesuffix("\n").removesuffix("\r") for line in file)
                yield from ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
        else:
            yield from _rows_of_csv(path, "\t" if kind == ".tsv" else _SEPARATORS)
    except OSError as error:
        raise UserError(f"cannot read the list of videos {path}: {error.strerror or one_line(error)}") from error
    except (ValueError, csv.Error, pa.ArrowException) as error:
        raise UserError(f"cannot read the list of videos {path}: {one_line(error)}") from error


def _opened(path: Path, newline: str) -> IO[str]:
    with path.open("rb") as file:
        head = file.read(max(map(len, _BYTE_ORDER_MARKS)))
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if head.startswith(mark)), "utf-8")
    # File names need not be UTF-8.
    return path.open(encoding=encoding, errors="strict" if encoding == "utf-16" else "surrogateescape", newline=newline)


def _rows_of_csv(path: Path, separators: str) -> Iterator[tuple[int, str]]:
    for separator in separators:
        with _opened(path, newline="") as file:
            reader = csv.reader(file, delimiter=separator, strict=True)
            name = _column(names := next(reader, []))
            if name is None:
                continue
            column = names.index(name)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield reader.line_num, cells[column] if column < len(cells) else ""
            return
    with _opened(path, newline="") as file:
        header = file.readline().strip()
        if header or any(line.strip() for line in file):
            raise UserError(_no_column(path, header))


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
