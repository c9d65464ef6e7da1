"""What a person sees of an evaluation: one table per question."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from fusion.evaluation import COLUMNS

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
    """All tables of an evaluation (see `flows.evaluation.evaluate_clips`), those without rows left out."""
    tables = [
        _leakage(results),
        *(_side_by_side(results, some) for some in (("one_minus_mae", "r2", "ccc"), ("rmse", "pearson", "sd_ratio"))),
        *(_by_trait(results, metric) for metric in ("one_minus_mae", "ccc")),
        _model_by_trait(results),
        _tests(results),
        _slices(results),
        _coverage(results),
    ]
    return [table for table in tables if table.row_count]


def _leakage(results: dict[str, Any]) -> Table:
    table = Table("protocol", title="Leakage: people on both sides", title_justify="left")
    headings = ("folds", "training clips", "test clips", "test people", "of them in training", "test clips of those")
    for heading in headings:
        table.add_column(heading, justify="right")
    for name, protocol in results["protocols"].items():
        leaks = protocol["leakage"]
        known = f"{leaks['test_clips_of_known_subjects']:,} ({leaks['share_of_known_subjects']:.1%})"
        counts = (protocol["folds"], protocol["train_clips"], leaks["test_clips"], leaks["test_subjects"])
        table.add_row(PROTOCOLS[name], *(f"{count:,}" for count in counts), f"{leaks['subjects_in_both']:,}", known)
    return table


def _side_by_side(results: dict[str, Any], measures: tuple[str, ...]) -> Table:
    table = Table("predictor", "kind", title="Mean over traits, with 95 % intervals over people", title_justify="left")
    for measure in measures:
        for protocol in results["protocols"]:
            table.add_column(f"{MEASURES[measure]}\n{PROTOCOLS[protocol]}", justify="right")
    if measures[0] == "one_minus_mae":
        table.add_column("seconds", justify="right")
    for rows in zip(*(protocol["predictors"] for protocol in results["protocols"].values()), strict=True):
        cells = [_with_interval(row["metrics"][measure]["mean"]) for measure in measures for row in rows]
        seconds = [f"{sum(row['seconds'] for row in rows):.1f}"] if measures[0] == "one_minus_mae" else []
        table.add_row(rows[0]["name"], rows[0]["kind"], *cells, *seconds)
    return table


def _by_trait(results: dict[str, Any], metric: str) -> Table:
    table = Table(title=f"{MEASURES[metric]} by trait", title_justify="left")
    table.add_column("predictor", no_wrap=True)
    for protocol in results["protocols"]:
        for letter in _TRAIT_LETTERS:
            table.add_column(f"{PROTOCOLS[protocol].split()[0]}\n{letter}", justify="right", no_wrap=True)
    for rows in zip(*(protocol["predictors"] for protocol in results["protocols"].values()), strict=True):
        table.add_row(
            rows[0]["name"], *(_decimal(row["metrics"][metric][name]["value"]) for row in rows for name in COLUMNS)
        )
    return table


def _model_by_trait(results: dict[str, Any]) -> Table:
    table = Table("protocol", "measure", *COLUMNS, title="The model, trait by trait", title_justify="left")
    for protocol, found in results["protocols"].items():
        for model in (row for row in found["predictors"] if row["kind"] == "model"):
            for metric, heading in MEASURES.items():
                cells = [_with_interval(model["metrics"][metric][name]) for name in COLUMNS]
                table.add_row(PROTOCOLS[protocol], heading, *cells)
    return table


def _tests(results: dict[str, Any]) -> Table:
    table = Table(
        "protocol", "baseline", title="The model against each baseline, person by person", title_justify="left"
    )
    for heading in ("gain in 1-MAE", "p (Wilcoxon)", "p (Holm)"):
        table.add_column(heading, justify="right")
    for protocol, found in results["protocols"].items():
        for test in found["tests"]:
            if test["trait"] == "mean":
                p_values = (f"{test[name]:.2g}" for name in ("p", "p_holm"))
                table.add_row(PROTOCOLS[protocol], test["baseline"], _with_interval(test), *p_values)
    return table


def _slices(results: dict[str, Any]) -> Table:
    """The model in every group; where it was not evaluated, the last predictor."""
    table = Table("protocol", "column", "group", title="By group, mean over traits", title_justify="left")
    for heading in ("people", "clips", "predictor", "1-MAE", "R2", "CCC"):
        table.add_column(heading, justify="right")
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
    table = Table("protocol", "column", "group", title=title, title_justify="left")
    for heading in ("people", "clips", *_TRAIT_LETTERS):
        table.add_column(heading, justify="right")
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
    """Four decimals without the leading zero, as these tables are read; "-" where a measure is not defined."""
    if value is None:
        return "-"
    text = f"{value:.4f}" if abs(value) < 9.5 else f"{value:.1f}"
    return text.replace("0.", ".", 1) if abs(float(text)) < 1 else text
