"""The state of a training after each epoch, from which it resumes as if it had never stopped.

Keras' `BackupAndRestore` cannot do this. It saves neither the seeds of dropout nor the state of `EarlyStopping` and
`ReduceLROnPlateau`, and because it writes two files, a kill between them pairs the weights of one epoch with the number
of another.
"""

from __future__ import annotations

import io
import json
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from fusion.errors import TrainingError

CHECKPOINT = "checkpoint.npz"

# Errors that NumPy and zipfile raise for damaged or forged bytes.
_MALFORMED = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, RuntimeError, MemoryError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, struct.error, SyntaxError, tokenize.TokenError),
)


@dataclass(slots=True)
class Progress:
    """A training after one of its epochs.

    Attributes:
        history: Keras' logs of each epoch: measure -> number.
        finished: whether no epoch follows.
        state: arrays of everything that steps change.
        best: weights of the best epoch; empty without validation.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    finished: bool = False
    state: list[np.ndarray] = field(default_factory=list)
    best: list[np.ndarray] = field(default_factory=list)


class Checkpoint(keras.callbacks.Callback):
    """Saves a training at the end of each epoch, and restores it at its beginning.

    It must follow the other callbacks. The state of those in `replay` is a function of the logs of past epochs, which
    they receive again when a training resumes.

    Args:
        path: the file; None saves nothing.
        identity: of the training: a digest of everything that must be unchanged to resume.
        variables: everything that steps change.
        stopping: has the best weights; None without validation.
        replay: callbacks to bring up to date when a training resumes.

    Raises:
        TrainingError: the file belongs to another training, or is damaged.
    """

    def __init__(
        self,
        path: Path | None,
        identity: str,
        variables: Sequence[keras.Variable],
        stopping: keras.callbacks.EarlyStopping | None,
        replay: Sequence[keras.callbacks.Callback],
    ) -> None:
        super().__init__()
        self._path = path
        self._identity = identity
        self._variables = variables
        self._stopping = stopping
        self._replay = replay
        self.progress = (None if path is None else read_checkpoint(path, identity)) or Progress()

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Restore the training, if there is a checkpoint."""
        if not self.progress.history:
            return
        for epoch, measures in enumerate(self.progress.history):
            for callback in self._replay:
                callback.on_epoch_end(epoch, dict(measures))
        try:
            for variable, value in zip(self._variables, self.progress.state, strict=True):
                variable.assign(value)
        except (ValueError, TypeError) as error:
            raise TrainingError(f"{self._path} does not fit this training: delete it to start over") from error
        if self._stopping is not None:
            self._stopping.best_weights = self.progress.best

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Append the logs to the history and save the training."""
        progress = self.progress
        progress.history.append({name: float(value) for name, value in (logs or {}).items()})
        if self._path is not None:
            progress.finished = self.model.stop_training or epoch + 1 == self.params["epochs"]
            progress.state = [ops.convert_to_numpy(variable) for variable in self._variables]
            progress.best = [] if self._stopping is None else self._stopping.best_weights
            write_checkpoint(self._path, self._identity, progress)


def write_checkpoint(path: Path, identity: str, progress: Progress) -> None:
    """Replace the previous checkpoint as a whole or not at all. Raises TrainingError if the system refuses."""
    facts = {"identity": identity, "history": progress.history, "finished": progress.finished}
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
    """Read a checkpoint; None if there is none. Raises TrainingError if it is another training's, or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:  # a pickle would run code
            arrays: dict[str, Any] = dict(file)
        facts = json.loads(arrays.pop("facts").tobytes())
        found = facts.pop("identity")
        state_count = sum(name.startswith("state") for name in arrays)
        state = [arrays[f"state{index}"] for index in range(state_count)]
        best = [arrays[f"best{index}"] for index in range(len(arrays) - state_count)]
        progress = Progress(**facts, state=state, best=best)
        if not all(np.isfinite(list(measures.values())).all() for measures in progress.history):
            raise ValueError("a loss is not finite")
    except FileNotFoundError:
        return None
    except _MALFORMED as error:
        raise TrainingError(f"cannot read the checkpoint {path} ({error}): delete it to start over") from error
    if found != identity:
        raise TrainingError(
            f"{path} is the checkpoint of another training (other clips, labels or settings): delete it to start over"
        )
    return progress
