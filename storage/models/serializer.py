"""Trained models by name and version, in STORE/models/<name>/<version>/, and aliases of versions."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.errors import StoreError, UnreachableError, reading, refusal
from storage.files.commit import commit_file, commit_folder, remove_files
from storage.files.paths import StorePath, exists, matching
from storage.layout import open_store, path_name
from storage.models.keras_file import MAX_FILE_BYTES, read_model, write_model
from storage.models.provenance import library_versions, program_version

if TYPE_CHECKING:
    import keras

LATEST = "latest"
MODEL_FILE = "model.keras"
HISTORY_FILE = "history.json"
METADATA_FILE = "metadata.json"  # a folder without it is not a version
FILES = (MODEL_FILE, HISTORY_FILE, METADATA_FILE)
ALIASES = "aliases"
_ADDED = ("created_utc", "libraries", "program", "files", "digest")
_LIKE_A_VERSION = re.compile(r"[vV]?[0-9.]+", re.ASCII)


class ModelSerializer:
    """Saves and loads the models of a store. A version is complete or absent, and never changes.

    Versions are "1", "2", ... A name may also have aliases, such as "production": words that refer to a version and can
    be moved to another one at any time. "latest" always refers to the version with the highest number.

    Versions cannot be removed: scores name the model that they came from, and the number would be reused.

    All methods raise ValueError if a name, version or alias cannot be a file's name, and StoreError if it does not
    exist, a file is damaged, or the operating system refuses.
    """

    def __init__(self, root: str | StorePath) -> None:
        self._models = open_store(root) / "models"

    def save(
        self,
        model: keras.Model,
        name: str,
        metadata: Mapping[str, Any],
        history: Mapping[str, Sequence[float]],
    ) -> str:
        """Save a model as the next version of its name.

        Args:
            model: a built model of one of this program's own classes; the optimiser's state is not saved.
            name: letters, digits, dot, dash and underscore.
            metadata: JSON values. The store adds `created_utc`, `libraries` (name -> version), `program` (version and
                git commit), `files` (name -> SHA-256) and `digest` (SHA-256 over all the rest).
            history: measure -> its value after each epoch, like Keras' `History.history`.

        Returns:
            The version: "1", "2", ...

        Raises:
            ValueError: the model, the name or the metadata do not meet these conditions.
        """
        path_name("model name", name)
        taken = [word for word in _ADDED if word in metadata]
        if taken:
            raise ValueError(f"metadata must leave {', '.join(taken)} to the store")
        # Convert both to JSON before anything is written, to report the caller's mistakes early.
        measures = _json({measure: [float(value) for value in values] for measure, values in history.items()})
        _json(dict(metadata))

        def fill(folder: Path) -> None:
            write_model(model, folder / MODEL_FILE)
            (folder / HISTORY_FILE).write_text(measures, encoding="utf-8")
            (folder / METADATA_FILE).write_text(sealed({**metadata, **_added(folder)}), encoding="utf-8")

        return self._commit(name, fill)

    def files(self, name: str, version: str) -> dict[str, bytes]:
        """Read the files of a version, name -> content, for `add` in another store.

        Raises:
            StoreError: also if a file is damaged.
        """
        self.verify(name, version)
        folder = self._version(name, version)
        return {file: _read(folder / file) for file in FILES}

    def add(self, name: str, files: Mapping[str, bytes]) -> str:
        """Add a version that another store has saved, byte for byte, as the next version of a name.

        Keras must know the model's class already, as for `load`.

        Args:
            name: letters, digits, dot, dash and underscore.
            files: from `files`, there.

        Returns:
            The version: "1", "2", ...

        Raises:
            StoreError: also if a file is missing or damaged, or the model cannot be loaded.
        """
        path_name("model name", name)
        if set(files) != set(FILES):
            raise StoreError(f"a model has the files {', '.join(FILES)}, not {', '.join(sorted(files)) or 'none'}")
        facts = read_metadata(files[METADATA_FILE], METADATA_FILE)
        digests = {file: hashlib.sha256(data).hexdigest() for file, data in files.items() if file != METADATA_FILE}
        for file, digest in digests.items():
            if facts["files"].get(file) != digest:
                raise StoreError(
                    f"{file} is not the file that was saved: its SHA-256 differs from the one in {METADATA_FILE}"
                )
        _parse(files[HISTORY_FILE], HISTORY_FILE)
        read_model(files[MODEL_FILE], MODEL_FILE)

        def fill(folder: Path) -> None:
            for file, data in files.items():
                (folder / file).write_bytes(data)

        return self._commit(name, fill)

    def _commit(self, name: str, fill: Callable[[Path], None]) -> str:
        number = max(self._numbers(name), default=0) + 1
        while True:
            try:
                with commit_folder(self._models / name / str(number), mark=METADATA_FILE) as temporary:
                    fill(temporary)
                return str(number)
            except FileExistsError:
                number += 1  # another process has just saved this version, or is about to

    def load(self, name: str, version: str = LATEST) -> tuple[keras.Model, dict[str, Any]]:
        """Load an uncompiled model and its metadata. Runs no code from the file, see `storage.models.keras_file`.

        Keras must know the model's class already: import the package that registers it.

        Args:
            name: of the model.
            version: a version, an alias or "latest".

        Returns:
            The model, and its metadata as `metadata` returns it.

        Raises:
            StoreError: also if the model is not a .keras file as this program writes it.
        """
        version = self.resolve(name, version)
        path = self._version(name, version) / MODEL_FILE
        metadata = self.metadata(name, version)
        if not exists(path):
            raise StoreError(f"{path.parent} has no {MODEL_FILE}: only models saved as .keras can be loaded")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise StoreError(f"cannot load {path}: it has more than {MAX_FILE_BYTES:,} bytes")
        data = _read(path)
        if hashlib.sha256(data).hexdigest() != metadata["files"].get(MODEL_FILE):
            raise StoreError(
                f"{path} is not the file that was saved here: its SHA-256 differs from the one in {METADATA_FILE}"
            )
        return read_model(data, path), metadata

    def resolve(self, name: str, word: str = LATEST) -> str:
        """Return the version that a word refers to: a version itself, an alias or "latest"."""
        path_name("model version", word)
        versions = self.versions(name)
        if word == LATEST and versions:
            return versions[-1]
        if word in versions:
            return word
        version = None if word == LATEST else self._alias(name, word)
        if version in versions:
            return version
        if version is not None:
            raise StoreError(f"the alias {name}/{word} refers to version {version}, which does not exist: set it again")
        known = f"; there are {', '.join(versions)}" if versions else ": train one first, or name another"
        raise StoreError(f"no model {name}/{word} in {self._models}{known}")

    def metadata(self, name: str, version: str) -> dict[str, Any]:
        """Read the metadata given to `save`, with the additions of `save`, without loading the model."""
        path = self._version(name, version) / METADATA_FILE
        return read_metadata(_read(path), path)

    def history(self, name: str, version: str) -> dict[str, list[float]]:
        """Read a version's measures, one value per epoch."""
        return _read_json(self._version(name, version) / HISTORY_FILE)

    def verify(self, name: str, version: str) -> None:
        """Read all files of a version. Raises StoreError that names the first one that is damaged or missing."""
        folder = self._version(name, version)
        for file, digest in self.metadata(name, version)["files"].items():
            try:
                path = folder / path_name("file", file)
            except ValueError as error:
                raise StoreError(f"{folder} is damaged: {error}") from error
            if hashlib.sha256(_read(path)).hexdigest() != digest:
                raise StoreError(f"{path} is damaged: its SHA-256 differs from that in {METADATA_FILE}")

    def versions(self, name: str) -> list[str]:
        """Return all versions of a model, oldest first; an empty list if there is no such model."""
        return [str(number) for number in sorted(self._numbers(name))]

    def names(self) -> list[str]:
        """Return the names of all models that have a version, sorted."""
        names = {path.parent.name for path in matching(self._models, "*/*") if _is_version(path)}
        return sorted(name for name in names if not name.startswith("."))

    def aliases(self, name: str) -> dict[str, str]:
        """Return alias -> version, sorted by alias."""
        folder = self._models / path_name("model name", name) / ALIASES
        words = sorted(path.stem for path in matching(folder, "*.json") if not path.name.startswith("."))
        found = {word: self._alias(name, word) for word in words}
        return {word: version for word, version in found.items() if version is not None}

    def set_alias(self, name: str, alias: str, version: str) -> str:
        """Make an alias refer to a version, or to the version that another alias or "latest" refers to now.

        Readers see either the old version or the new one.

        Returns:
            The version.

        Raises:
            ValueError: also if the alias is "latest" or looks like a version.
        """
        path = self._alias_path(name, alias)
        version = self.resolve(name, version)
        with commit_file(path) as temporary:
            temporary.write_text(_json({"version": version}), encoding="utf-8")
        return version

    def remove_alias(self, name: str, alias: str) -> None:
        """Remove an alias; its version stays."""
        path = self._alias_path(name, alias)
        if not exists(path):
            raise StoreError(f"there is no alias {name}/{alias} in {self._models}")
        remove_files([path])

    def _alias(self, name: str, alias: str) -> str | None:
        path = self._alias_path(name, alias) if not _LIKE_A_VERSION.fullmatch(alias) else None
        if path is None or not exists(path):
            return None
        version = _read_json(path).get("version")
        if not isinstance(version, str) or not version.isalnum():
            raise StoreError(f"{path} is damaged: remove that alias and set it again")
        return version

    def _alias_path(self, name: str, alias: str) -> StorePath:
        if alias == LATEST or _LIKE_A_VERSION.fullmatch(alias):
            raise ValueError(f"an alias must not be {LATEST!r} or look like a version, as {alias!r} does")
        return self._models / path_name("model name", name) / ALIASES / f"{path_name('alias', alias)}.json"

    def _version(self, name: str, version: str) -> StorePath:
        return self._models / path_name("model name", name) / path_name("model version", version)

    def _numbers(self, name: str) -> list[int]:
        paths = matching(self._models / path_name("model name", name), "*")
        return [int(path.name) for path in paths if _is_version(path)]


def _is_version(folder: StorePath) -> bool:
    return folder.name.isascii() and folder.name.isdigit() and exists(folder / METADATA_FILE)


def _added(folder: Path) -> dict[str, Any]:
    return {
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "libraries": library_versions(),
        "program": program_version(),
        "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())},
    }


def _digest(facts: Mapping[str, Any]) -> str:
    """Return the SHA-256 over all facts except the digest itself."""
    rest = {name: value for name, value in facts.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def sealed(metadata: Mapping[str, Any]) -> str:
    """Return the content of a version's metadata.json, with the digest of all the rest."""
    facts = json.loads(_json(dict(metadata)))  # as readers will see them
    return _json({**facts, "digest": _digest(facts)})


def read_metadata(data: bytes, name: object) -> dict[str, Any]:
    """Read the content of a version's metadata.json.

    Args:
        name: of the file, for messages.

    Raises:
        StoreError: it is damaged.
    """
    facts = _parse(data, name)
    if facts.get("digest") != _digest(facts) or not isinstance(facts.get("files"), dict):
        raise StoreError(f"{name} is damaged: it differs from the saved metadata")
    return facts


def _read_json(path: StorePath) -> dict[str, Any]:
    return _parse(_read(path), path)


def _read(path: StorePath) -> bytes:
    try:
        with reading(path):
            return path.read_bytes()
    except FileNotFoundError as error:
        kind = UnreachableError if exists(path) else StoreError  # the handle was stale
        raise kind(f"cannot read {path}: {refusal(error)}") from error


def _parse(data: bytes, name: object) -> dict[str, Any]:
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{name} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise StoreError(f"cannot read {name}: it must hold one JSON object")
    return value


def _json(value: Mapping[str, Any]) -> str:
    try:
        return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    except TypeError as error:
        raise ValueError(f"metadata must be JSON values: {error}") from error
