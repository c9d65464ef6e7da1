"""Trained models by name and version, in STORE/models/<name>/<version>/."""

from __future__ import annotations

import hashlib
import json
import platform
import zipfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version as library_version
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from storage.commit import commit_folder
from storage.errors import StoreError
from storage.layout import open_store, path_name
from storage.paths import StorePath, local_copy

if TYPE_CHECKING:
    import keras

MODEL_FILE = "model.keras"
METADATA_FILE = "metadata.json"  # without which there is no version
_ADDED = ("created_utc", "libraries", "model_sha256")


class ModelSerializer:
    """Saves and loads models of a store. A version is there whole or not at all, and is never changed.

    Classes that a model is made of must be known to Keras before `load`: import the package that registers them.

    Args:
        root: the store's folder.

    Raises:
        StoreError: the folder is not a store.
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
            model: a built Keras model.
            name: letters, digits, dot, dash and underscore.
            metadata: what JSON can hold; `created_utc`, `libraries` and `model_sha256` are added.
            history: measure -> its value after each epoch, as Keras' `History.history`.

        Returns:
            The version: "1", "2", ...

        Raises:
            ValueError: the name or the metadata are not as above.
            StoreError: the operating system refused.
        """
        folder = self._models / path_name("model name", name)
        taken = [word for word in _ADDED if word in metadata]
        if taken:
            raise ValueError(f"metadata must leave {', '.join(taken)} to the store")
        # Before anything is written: what cannot be JSON is the caller's mistake.
        measures = _json({measure: [float(value) for value in values] for measure, values in history.items()})
        _json(dict(metadata))
        for number in count(max(self._numbers(name), default=0) + 1):
            version = str(number)
            try:
                with commit_folder(folder / version, mark=METADATA_FILE) as temporary:
                    model.save(temporary / MODEL_FILE)
                    added = {
                        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
                        "libraries": _libraries(),
                        "model_sha256": _file_sha256(temporary / MODEL_FILE),
                    }
                    (temporary / METADATA_FILE).write_text(_json({**metadata, **added}), encoding="utf-8")
                    (temporary / "history.json").write_text(measures, encoding="utf-8")
                return version
            except FileExistsError:
                continue  # another process has just saved this version, or is about to

    def load(self, name: str, version: str | Literal["latest"] = "latest") -> tuple[keras.Model, dict[str, Any]]:
        """Load a model, not compiled, and its metadata. No code from the file is run.

        Raises:
            ValueError: `name` or `version` cannot be a folder's name.
            StoreError: there is no such version, it is damaged or no .keras file, it holds code of its own, or a class
                that it is made of is not known.
        """
        if version == "latest":
            versions = self.versions(name)
            if not versions:
                raise StoreError(f"no model {name!r} in {self._models}: train one first, or name another")
            version = versions[-1]
        folder = self._models / path_name("model name", name) / path_name("model version", version)
        path = folder / MODEL_FILE
        if not path.is_file():
            raise StoreError(f"{folder} has no {MODEL_FILE}: only models saved as .keras are loaded")
        metadata = self.metadata(name, version)
        with local_copy(path) as copy:
            if not zipfile.is_zipfile(copy):
                raise StoreError(f"{path} is not a .keras file: it may be of another format, or damaged")
            if _file_sha256(copy) != metadata.get("model_sha256"):
                raise StoreError(f"{path} is not the file that was saved here: its SHA-256 is not in {METADATA_FILE}")
            return _load_keras(copy, path), metadata

    def metadata(self, name: str, version: str) -> dict[str, Any]:
        """Read what `save` was told about a version, without loading the model.

        Raises:
            ValueError: `name` or `version` cannot be a folder's name.
            StoreError: there is no such version, or its metadata is damaged.
        """
        return self._read_json(name, version, METADATA_FILE)

    def history(self, name: str, version: str) -> dict[str, list[float]]:
        """Read a version's measures by epoch. Raises as `metadata` does."""
        return self._read_json(name, version, "history.json")

    def versions(self, name: str) -> list[str]:
        """All versions of a model, oldest first; none where there is no such model."""
        return [str(number) for number in sorted(self._numbers(name))]

    def names(self) -> list[str]:
        """Names of all models that have a version, sorted."""
        names = {path.parent.name for path in self._models.glob("*/*") if _is_version(path)}
        return sorted(name for name in names if not name.startswith("."))

    def _read_json(self, name: str, version: str, file: str) -> dict[str, Any]:
        path = self._models / path_name("model name", name) / path_name("model version", version) / file
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot read {path}: {error!r}") from error
        if not isinstance(value, dict):
            raise StoreError(f"cannot read {path}: it must hold one JSON object")
        return value

    def _numbers(self, name: str) -> list[int]:
        paths = (self._models / path_name("model name", name)).glob("*")
        return [int(path.name) for path in paths if _is_version(path)]


def _is_version(folder: StorePath) -> bool:
    return folder.name.isascii() and folder.name.isdigit() and (folder / METADATA_FILE).exists()


def _load_keras(copy: Path, path: StorePath) -> keras.Model:
    import keras  # takes seconds, and only models need it

    try:
        # Not compiled: scoring needs no optimiser, and a loss of one's own would have to be known as well.
        return keras.saving.load_model(copy, safe_mode=True, compile=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        root = error
        while root.__context__ is not None:  # Keras wraps what is wrong into pages of configuration
            root = root.__context__
        reason = " ".join(str(root).split()).partition(". ")[0][:300]
        allowed = "a model may be made of Keras' own layers and of classes whose package is imported first"
        raise StoreError(f"cannot load {path}: {reason}; {allowed}") from error


def _libraries() -> dict[str, str]:
    import keras

    libraries = {name: library_version(name) for name in ("keras", "numpy", keras.config.backend())}
    return {"python": platform.python_version(), **libraries}


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json(value: Mapping[str, Any]) -> str:
    try:
        return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    except TypeError as error:
        raise ValueError(f"metadata must be what JSON can hold: {error}") from error
