"""The step size over a training, and when it ends: functions of the history alone, so that nothing has to be kept."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fusion.settings import TrainSettings


def learning_rate(
    settings: TrainSettings, step: int, steps_per_epoch: int, validation_losses: Sequence[float]
) -> float:
    """Step size of a training step.

    Args:
        settings: of the training.
        step: number of steps done before, over all epochs.
        steps_per_epoch: how many make an epoch.
        validation_losses: of the epochs done, for the schedule "plateau".
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
    """How many runs of `length` epochs, each counted once, brought no loss lower than all before."""
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
    """Whether all epochs are done, or the best one lies `patience` epochs back."""
    if epochs_done >= settings.epochs:
        return True
    if not validation_losses:
        return False
    best = min(range(len(validation_losses)), key=validation_losses.__getitem__)
    return len(validation_losses) - 1 - best >= settings.patience
