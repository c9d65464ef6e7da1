"""The tables that show an evaluation, one per question."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.table import Column, Table

from fusion.evaluation.protocol import COLUMNS

MEASURES = {
    "one_minus_mae": "1-MAE",
    "rmse": "RMSE",
    "r2": "R2",
    "pearson": "Pearson",
    "ccc": "CCC",
    "sd_ratio": "sd ratio",
}
PROTOCOLS = {"official": "official split", "subject_folds": "unseen people"}
_TRAIT_LETTERS = ("O", "C", "E", "A", "N", "mean")


def evaluation_tables(results: dict[str, Any]) -> list[Table]:
    """Return the tables of an evaluation (see `flows.evaluation.evaluate.evaluate_clips`) that have rows."""
    tables = [
        _leakage(results),
        _shared(results),
        *(_side_by_side(results, some) for some in (("one_minus_mae", "r2", "ccc"), ("rmse", "pearson", "sd_ratio"))),
        *(_by_trait(results, metric) for metric in MEASURES),
        _with_intervals(results, "The model, trait by trait", only_model=True),
        _tests(results),
        _slices(results),
        _coverage(results),
    ]
    return [table for table in tables if table.row_count]


def every_figure(results: dict[str, Any]) -> Table:
    """Return every measure of every predictor by trait with its interval, one per row: too many for a screen."""
    return _with_intervals(results, "Every predictor, trait by trait, with 95% intervals over people", only_model=False)


def _table(title: str, *headings: str, numbers: Iterable[str] = ()) -> Table:
    """Return an empty table with columns of text, then columns of numbers."""
    columns = (Column(heading, justify="right") for heading in numbers)
    return Table(*headings, *columns, title=title)


def _leakage(results: dict[str, Any]) -> Table:
    headings = ("folds", "training clips", "test clips", "test people", "of them in training", "test clips of those")
    table = _table("Leakage: people on both sides", "protocol", numbers=headings)
    for name, protocol in results["protocols"].items():
        leaks = protocol["leakage"]
        known = f"{leaks['test_clips_of_known_subjects']:,} ({leaks['share_of_known_subjects']:.1%})"
        counts = (protocol["folds"], protocol["train_clips"], leaks["test_clips"], leaks["test_subjects"])
        table.add_row(PROTOCOLS[name], *(f"{count:,}" for count in counts), f"{leaks['subjects_in_both']:,}", known)
    return table


def _shared(results: dict[str, Any]) -> Table:
    table = _table("People in two parts", "parts of the official split", numbers=["people in both"])
    for parts, people in results["shared_subjects"].items():
        table.add_row(parts, f"{people:,}")
    return table


def _side_by_side(results: dict[str, Any], measures: tuple[str, ...]) -> Table:
    seeds = max(row["seeds"] for protocol in results["protocols"].values() for row in protocol["predictors"])
    over = "traits" if seeds == 1 else f"traits and {seeds} repetitions"
    title = f"Mean over {over}, with 95% intervals over people"
    headings = [f"{MEASURES[measure]}\n{PROTOCOLS[name]}" for measure in measures for name in results["protocols"]]
    headings += ["seconds"] if measures[0] == "one_minus_mae" else []
    table = _table(title, "predictor", "kind", numbers=["fitted to", *headings])
    for rows in zip(*(protocol["predictors"] for protocol in results["protocols"].values()), strict=True):
        cells = [_with_interval(row["metrics"][measure]["mean"]) for measure in measures for row in rows]
        seconds = [f"{sum(row['seconds'] for row in rows):.1f}"] if measures[0] == "one_minus_mae" else []
        table.add_row(rows[0]["name"], rows[0]["kind"], f"{rows[0]['fitted_share']:.0%}", *cells, *seconds)
    return table


def _by_trait(results: dict[str, Any], metric: str) -> Table:
    table = Table(title=f"{MEASURES[metric]} by trait")
    table.add_column("predictor", no_wrap=True)
    for protocol in results["protocols"]:
        for letter in _TRAIT_LETTERS:
            table.add_column(f"{PROTOCOLS[protocol].split()[0]}\n{letter}", justify="right", no_wrap=True)
    for rows in zip(*(protocol["predictors"] for protocol in results["protocols"].values()), strict=True):
        table.add_row(
            rows[0]["name"], *(_decimal(row["metrics"][metric][name]["value"]) for row in rows for name in COLUMNS)
        )
    return table


def _with_intervals(results: dict[str, Any], title: str, *, only_model: bool) -> Table:
    table = _table(title, "predictor", "measure", "protocol", *COLUMNS)
    for rows in zip(*(protocol["predictors"] for protocol in results["protocols"].values()), strict=True):
        for metric, heading in MEASURES.items():
            for protocol, row in zip(results["protocols"], rows, strict=True):
                if row["kind"] == "model" or not only_model:
                    cells = [_with_interval(row["metrics"][metric][name]) for name in COLUMNS]
                    table.add_row(row["name"], heading, PROTOCOLS[protocol], *cells)
    return table


def _tests(results: dict[str, Any]) -> Table:
    title = (
        "The model against each baseline: gain, mean over people, with its 95% interval (one-sided t; Holm over "
        "protocols and baselines, by trait over traits too; a baseline with the scores of another is not counted)"
    )
    by_trait = [f"{letter}\np (Holm)" for letter in _TRAIT_LETTERS[:-1]]
    headings = ["gain in 1-MAE", "people better", "p", "p (Holm)", *by_trait]
    table = _table(title, "protocol", "baseline", numbers=headings)
    for protocol, found in results["protocols"].items():
        of_baseline: dict[str, dict[str, Any]] = {}
        for test in found["tests"]:
            of_baseline.setdefault(test["baseline"], {})[test["trait"]] = test
        for baseline, tests in of_baseline.items():
            mean = tests["mean"]
            p_values = [mean["p"], mean["p_holm"], *(tests[name]["p_holm"] for name in COLUMNS[:-1])]
            cells = (f"{value:.2g}" for value in p_values)
            name = f"{baseline} (as {mean['copy_of']})" if mean["copy_of"] else baseline
            table.add_row(PROTOCOLS[protocol], name, _with_interval(mean), f"{mean['people_better']:.0%}", *cells)
    return table


def _slices(results: dict[str, Any]) -> Table:
    """List the model in every group; if it was not evaluated, the last predictor."""
    headings = ("people", "clips", "predictor", "1-MAE", "R2", "CCC")
    table = _table("By group, mean over traits", "protocol", "column", "group", numbers=headings)
    for protocol, found in results["protocols"].items():
        shown = next(
            (row["name"] for row in found["predictors"] if row["kind"] == "model"), found["predictors"][-1]["name"]
        )
        for one in found["slices"]:
            cells = [_with_interval(one["metrics"][shown][metric]["mean"]) for metric in ("one_minus_mae", "r2", "ccc")]
            counts = (f"{one['subjects']:,}", f"{one['clips']:,}")
            table.add_row(PROTOCOLS[protocol], one["column"], one["group"], *counts, shown, *cells)
    return table


def _coverage(results: dict[str, Any]) -> Table:
    confidence = results["settings"]["uncertainty"]["confidence"]
    title = f"Share of labels inside the model's {confidence:.0%} intervals, every person counting once"
    table = _table(title, "protocol", "column", "group", numbers=["people", "clips", *_TRAIT_LETTERS])
    for protocol, found in results["protocols"].items():
        for one in found["coverage"]:
            cells = [_decimal(one["traits"][name]["value"]) for name in COLUMNS[:-1]]
            cells.append(_with_interval(one["traits"]["mean"]))
            counts = (f"{one['subjects']:,}", f"{one['clips']:,}")
            table.add_row(PROTOCOLS[protocol], one["column"], one["group"], *counts, *cells)
    return table


def _with_interval(cell: dict[str, Any]) -> str:
    if cell["value"] is None:
        return "-"
    return f"{_decimal(cell['value'])} [{_decimal(cell['low'])}, {_decimal(cell['high'])}]"


def _decimal(value: float | None) -> str:
    """Format with four decimals and no leading zero, as is usual in these tables; "-" if undefined."""
    if value is None:
        return "-"
    text = f"{value:.4f}" if abs(value) < 9.5 else f"{value:.1f}"
    return text.replace("0.", ".", 1) if abs(float(text)) < 1 else text
