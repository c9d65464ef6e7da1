"""The flow `evaluate`: the model beside baselines, ablations and controls, on people that it has not seen."""

from __future__ import annotations

from pathlib import Path

from flows.config.settings import RunConfig
from flows.evaluation.evaluate import Evaluation, evaluate_clips
from flows.pipeline.steps import step


@step("evaluate")
def evaluate(config: RunConfig, groups: Path | None) -> Evaluation:
    """Evaluate on the store's cached features; see `flows.evaluation.evaluate.evaluate_clips`."""
    return evaluate_clips(config, groups, labels_only=False)
