"""The step size during a training, and the end of a training: functions of the history, without state of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fusion.settings import TrainSettings


def learning_rate(
    settings: TrainSettings, step: int, steps_per_epoch: int, validation_losses: Sequence[float]
) -> float:
    """Return the step size of a training step.

    Args:
        settings: of the training.
        step: number of previous steps, over all epochs.
        steps_per_epoch: number of steps in an epoch.
        validation_losses: of the completed epochs, for the schedule "plateau".
    """
    warmup = settings.warmup_epochs * steps_per_epoch
    if step + 1 < warmup:
        return settings.learning_rate * (step + 1) / warmup
    if settings.schedule == "cosine":
        total = settings.epochs * steps_per_epoch
        done = (step + 1 - warmup) / max(total - warmup, 1)
        return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(max(done, 0.0), 1.0)))
    if settings.schedule == "plateau":
        return settings.learning_rate * 0.5 ** plateaus(validation_losses, settings.plateau_epochs)
    return settings.learning_rate


def plateaus(losses: Sequence[float], length: int) -> int:
    """Count the runs of `length` epochs, each counted once, without a loss lower than all before."""
    best, waited, count = math.inf, 0, 0
    for loss in losses:
        if loss < best:
            best, waited = loss, 0
        else:
            waited += 1
            if waited == length:
                count, waited = count + 1, 0
    return count


def is_finished(settings: TrainSettings, epochs_done: int, validation_losses: Sequence[float]) -> bool:
    """Return whether all epochs are done, or the best one was `patience` epochs ago."""
    if epochs_done >= settings.epochs:
        return True
    if not validation_losses:
        return False
    best = min(range(len(validation_losses)), key=validation_losses.__getitem__)
    return len(validation_losses) - 1 - best >= settings.patience
