"""Imports what commands of traitline import once they work, as they do: after the environment is settled."""

from __future__ import annotations

from importlib import import_module

from flows.session.environment import settle_environment

settle_environment()
for module in (
    *("flows.cli.app", "flows.session.server", "flows.pipeline.run", "flows.evaluation.evaluate"),
    *("flows.evaluation.features", "flows.report.page", "flows.visualize.networks", "keras", "tensorflow"),
):
    import_module(module)
