"""The flow `run`: all steps, from videos to the trait CSV and the report."""

from __future__ import annotations

from dataclasses import dataclass

from flows.archive.models import ModelReference, chosen_model, trains
from flows.archive.outcomes import AllRefusedError
from flows.archive.videos import Archive
from flows.config.settings import RunConfig
from flows.engine.choice import one_engine
from flows.extraction.jobs import ExtractReport, TooManyRefusedError
from flows.pipeline.export import ExportReport, export
from flows.pipeline.extract import extract
from flows.pipeline.report import report
from flows.pipeline.score import score
from flows.pipeline.steps import step
from flows.pipeline.train import train
from flows.session.errors import USER_ERRORS, UserError
from storage.files.paths import StorePath


@dataclass(frozen=True, slots=True)
class RunReport:
    """The results of a run. If too many videos were refused, `refusal` is set and `extraction` is None."""

    extraction: ExtractReport | None
    model: ModelReference
    scored_now: int
    export: ExportReport
    report: StorePath
    refusal: TooManyRefusedError | None = None

    def check(self) -> None:
        """Raise UserError if too many videos were refused."""
        if self.refusal is not None:
            raise UserError(f"{self.refusal}; the CSV is {self.export.path}, the report {self.report}")


@step("run")
def run(config: RunConfig, videos: Archive) -> RunReport:
    """Run all steps.

    Raises:
        UserError: there are neither labels nor a model; or, after all steps, too many videos were refused.
    """
    with one_engine():
        report = all_steps(config, videos)
    report.check()
    return report


def all_steps(config: RunConfig, videos: Archive) -> RunReport:
    """Extract, train if there are labels and no model is named, score, export and report.

    Raises:
        UserError: there are neither labels nor a model.
    """
    refusal = None
    try:
        extraction = extract(config, videos)
    except TooManyRefusedError as error:
        # The extracted features are still worth scoring; the run fails at its end.
        extraction, refusal = None, error
    try:
        model = train(config, videos) if trains(config) else chosen_model(config)
    except USER_ERRORS as error:
        if refusal is None:
            raise
        # Most likely, training fails because of the refusals.
        raise refusal if isinstance(error, AllRefusedError) else UserError(f"{refusal}; training: {error}") from error
    scored_now = score(config, videos, model)
    exported = export(config, videos, model)
    page = report(config, videos, model)
    return RunReport(extraction, model, scored_now, exported, page, refusal)
