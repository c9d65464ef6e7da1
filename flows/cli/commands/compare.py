"""The command `traitline compare`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from flows.cli.command import plain_command
from flows.cli.options import PICTURE
from flows.cli.output import numbers, show_table
from flows.evaluation.networks import ENTRIES
from flows.session import console
from flows.session.errors import UserError
from storage.files.commit import check_writable, commit_file

if TYPE_CHECKING:
    from flows.evaluation.measured import Measured
    from fusion.model.architecture import Architecture


def compare(
    networks: Annotated[list[str] | None, typer.Argument(help=f"Which: {', '.join(ENTRIES)}; by default all.")] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Also list every layer.")] = False,
    measure: Annotated[bool, typer.Option(help="Measure time and memory, each network in its own process.")] = True,
    out: Annotated[
        Path | None, typer.Option(help="Folder for pictures and compare.json; by default none are kept.")
    ] = None,
    picture: PICTURE = "png",
) -> None:
    """Compare the networks: parameters, work, time, memory, and how they are wired."""
    with plain_command():
        console.silence_libraries(Path(os.devnull))  # TensorFlow prints five lines
        chosen = list(dict.fromkeys(networks or ENTRIES))
        unknown = [name for name in chosen if name not in ENTRIES]
        if unknown:
            raise UserError(f"there is no network {', '.join(unknown)}; there are {', '.join(ENTRIES)}")
        if out is not None:
            check_writable(out / "compare.json")
        described, measured = _look_at(chosen, measure)
        show_table(_summary(described, measured))
        for name in chosen if layers else ():
            show_table(_layers(name, described[name]))
        if out is not None:
            _keep(out, described, measured, picture)


def _look_at(names: list[str], measure: bool) -> tuple[dict[str, Architecture], dict[str, Measured]]:
    from flows.evaluation.measured import measure as measure_one
    from fusion.model.architecture import describe

    described, measured = {}, {}
    with console.stage("Compare", len(names) * (1 + measure)) as stage:
        for name in names:
            described[name] = describe(ENTRIES[name].build(), *ENTRIES[name].shapes)
            stage.advance(title=f"Compare  {name}")
            if measure:
                measured[name] = measure_one(name)
                stage.advance()
    return described, measured


def _summary(described: dict[str, Architecture], measured: dict[str, Measured]) -> Table:
    from extractors.devices import usable_cores

    cores = console.counted(usable_cores(), "core")
    caption = (
        "for one clip, face crop or window; a multiply-add is 2 FLOPs, and only convolutions and products of matrices "
        f"count; latency and peak memory (above that of TensorFlow itself) on {cores}, with BatchNorm "
        "folded as extraction does it"
    )
    headings = ["parameters", "trainable", "layers", "multiply-adds", "FLOPs"]
    headings += ["latency (ms)", "peak memory (MB)"] if measured else []
    table = Table("network", "what it is", *numbers(*headings), caption=caption)
    for name, network in described.items():
        counts = (network.parameters, network.trainable, len(network.layers), network.macs, network.flops)
        cells = [f"{count:,}" for count in counts]
        if name in measured:
            cells += [f"{measured[name].latency_ms:.2f}", f"{measured[name].peak_mb:.0f}"]
        table.add_row(name, ENTRIES[name].title, *cells)
    return table


def _layers(name: str, network: Architecture) -> Table:
    figures = numbers("parameters", "multiply-adds", "share")
    table = Table("layer", "kind", "output", *figures, title=name)
    for layer in network.layers:
        shape = " x ".join(map(str, layer.output_shape[1:]))
        share = f"{layer.macs / max(network.macs, 1):.1%}"
        table.add_row(layer.name, layer.kind, shape, f"{layer.parameters:,}", f"{layer.macs:,}", share)
    return table


def _keep(folder: Path, described: dict[str, Architecture], measured: dict[str, Measured], picture: str) -> None:
    from flows.visualize.files import picture_style, save_picture
    from fusion.pictures.architectures import plot_architectures, plot_costs

    costs: dict[str, list[float]] = {
        "parameters": [network.parameters for network in described.values()],
        "multiply-adds": [network.macs for network in described.values()],
    }
    if measured:
        costs["latency (ms)"] = [one.latency_ms for one in measured.values()]
        costs["peak memory (MB)"] = [one.peak_mb for one in measured.values()]
    titles = {ENTRIES[name].title: network for name, network in described.items()}
    records: dict[str, Any] = {
        name: asdict(network)
        | {"macs": network.macs, "flops": network.flops}
        | (asdict(measured[name]) if name in measured else {})
        for name, network in described.items()
    }
    with picture_style():
        save_picture(plot_architectures(titles), folder / f"graphs.{picture}")
        save_picture(plot_costs(list(described), costs), folder / f"costs.{picture}")
    with commit_file(folder / "compare.json") as temporary:
        temporary.write_text(json.dumps(records, indent=1), encoding="utf-8")
    console.say(f"Compare: pictures and compare.json are in {folder}")
