"""Predictions of an evaluation, one file per training, so that an interrupted evaluation can continue.

    STORE/runs/evaluation-<recipe>/<predictor>-seed<seed>-<fold>.npz

The recipe is a digest of clips, labels, features and settings; the fold is a digest of which clips are on which side.
Neither depends on groups, the number of seeds or the choice of predictors: after a change of these, only missing
predictions are computed.
"""

from __future__ import annotations

import hashlib
import logging
import zipfile
from dataclasses import fields

import numpy as np

from fusion.evaluation.folds import Fold
from fusion.evaluation.predictors import LabelledClips, Prediction, Predictor, timed_prediction
from storage.files.commit import commit_file
from storage.files.paths import StorePath

log = logging.getLogger(__name__)


class KeptPredictions:
    """Predictions in a folder that belongs to one set of clips, labels, features and settings.

    Several evaluations may use it at once; at worst, both compute the same prediction.
    """

    def __init__(self, folder: StorePath) -> None:
        """List the folder, which may be absent."""
        self.folder = folder
        self._there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()

    def has(self, predictor: Predictor, fold: Fold, seed: int) -> bool:
        """Return whether the prediction of a training was kept."""
        return _name(predictor, fold, seed) in self._there

    def predict(self, predictor: Predictor, clips: LabelledClips, fold: Fold, seed: int) -> Prediction:
        """Return the kept prediction, or make it by `fusion.evaluation.predictors.timed_prediction` and keep it."""
        name = _name(predictor, fold, seed)
        kept = _read(self.folder / name, len(fold.test)) if name in self._there else None
        if kept is not None:
            return kept
        made = timed_prediction(predictor, clips, fold, seed)
        with commit_file(self.folder / name) as temporary, temporary.open("wb") as file:
            values = {field.name: getattr(made, field.name) for field in fields(made)}
            np.savez(file, **{name: value for name, value in values.items() if value is not None})
        return made


def _name(predictor: Predictor, fold: Fold, seed: int) -> str:
    sides = hashlib.sha256(f"{fold.train.tolist()} {fold.test.tolist()}".encode()).hexdigest()[:16]
    return f"{predictor.name}-seed{seed}-{sides}.npz"


def _read(path: StorePath, clips: int) -> Prediction | None:
    """Return the kept prediction; None, with a line in the log, if it is damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            scores, low, high = arrays["scores"], arrays.get("low"), arrays.get("high")
            if {len(some) for some in (scores, low, high) if some is not None} != {clips}:
                raise ValueError("it belongs to other clips")
            return Prediction(scores, low, high, float(arrays["seconds"]), float(arrays["fitted_share"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s is damaged and is computed again: %s", path, error)
        return None
