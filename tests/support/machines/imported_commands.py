"""Imports what commands of traitline import once they work, as they do: after the environment is settled."""

from __future__ import annotations

from importlib import import_module

from flows.session.environment import settle_environment

settle_environment()
for module in (
    *("flows.cli.app", "flows.session.server", "flows.pipeline.run", "flows.evaluation.evaluate"),
    *("flows.evaluation.features", "flows.report.page", "flows.visualize.networks", "keras", "tensorflow"),
    *("flows.archive.model_bundle", "fusion.model.kinds", "fusion.model.scoring", "fusion.training.train"),
    *("extractors.optical_flow.cpu.engine", "pyarrow.dataset", "pyarrow.pandas_compat", "rich.status"),
    # Not deltalake, which starts a thread.
):
    import_module(module)
