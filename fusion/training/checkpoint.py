"""The state of a training in one file, from which training resumes as if it had never stopped."""

from __future__ import annotations

import io
import json
import os
import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fusion.errors import TrainingError

# Errors that NumPy and zipfile raise for damaged or forged bytes.
_MALFORMED = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, RuntimeError, MemoryError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, struct.error, SyntaxError, tokenize.TokenError),
)


@dataclass(slots=True)
class Progress:
    """The progress of a training.

    Attributes:
        history: "loss" and, with validation, "validation_loss", one number per completed epoch.
        batches_done: in the current epoch.
        loss_sum: over the clips in those batches.
        state: arrays of everything that steps change.
        best: weights of the best epoch so far; empty before the first.
    """

    history: dict[str, list[float]]
    batches_done: int = 0
    loss_sum: float = 0.0
    state: list[np.ndarray] = field(default_factory=list)
    best: list[np.ndarray] = field(default_factory=list)

    @property
    def epochs_done(self) -> int:
        """Number of completed epochs."""
        return len(self.history["loss"])


def write_checkpoint(path: Path, identity: str, progress: Progress) -> None:
    """Replace the previous checkpoint as a whole or not at all.

    Args:
        path: the file; its folder is created if missing.
        identity: of the training: a digest of everything that must be unchanged to resume.
        progress: to store.

    Raises:
        TrainingError: the operating system refused.
    """
    facts = {
        "identity": identity,
        "history": progress.history,
        "batches_done": progress.batches_done,
        "loss_sum": progress.loss_sum,
    }
    content = io.BytesIO()
    # NumPy's stubs expect the bool `allow_pickle` among the keyword arguments, all of which are arrays here.
    np.savez(
        content,
        facts=np.frombuffer(json.dumps(facts).encode(), np.uint8),
        **{f"state{index}": array for index, array in enumerate(progress.state)},  # type: ignore[arg-type]
        **{f"best{index}": array for index, array in enumerate(progress.best)},  # type: ignore[arg-type]
    )
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise TrainingError(f"cannot write the checkpoint {path}: {error.strerror or error}") from error


def read_checkpoint(path: Path, identity: str) -> Progress | None:
    """Read a checkpoint; return None if there is none.

    Raises:
        TrainingError: it belongs to another training, or is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:  # a pickle would run code
            arrays: dict[str, Any] = dict(file)
        facts = json.loads(arrays.pop("facts").tobytes())
        found = facts.pop("identity")
        state_count = sum(name.startswith("state") for name in arrays)
        state = [arrays[f"state{index}"] for index in range(state_count)]
        best = [arrays[f"best{index}"] for index in range(len(arrays) - state_count)]
        progress = Progress(**facts, state=state, best=best)
    except FileNotFoundError:
        return None
    except _MALFORMED as error:
        raise TrainingError(f"cannot read the checkpoint {path} ({error}): delete it to start over") from error
    if found != identity:
        raise TrainingError(
            f"{path} is the checkpoint of another training (other clips, labels or settings): delete it to start over"
        )
    return progress
