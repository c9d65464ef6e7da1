"""A version of a model as far as its files go: what `ModelSerializer.save` puts, with a few bytes for a model."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from storage.files.commit import commit_folder
from storage.files.paths import StorePath


def save_version(folder: StorePath, **metadata: Any) -> None:
    """Commit the files of one version, with these things said of it."""
    with commit_folder(folder, mark="metadata.json") as temporary:
        contents = {"model.keras": b"layers", "history.json": b"{}"}
        for name, data in contents.items():
            (temporary / name).write_bytes(data)
        facts = {**metadata, "files": {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}}
        facts["digest"] = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        (temporary / "metadata.json").write_text(json.dumps(facts))
