"""The commands `traitline visualize ...`: pictures of what the networks and the model see."""

from __future__ import annotations

import typer

from flows.cli_visualize_model import model_app
from flows.cli_visualize_motion import motion_app
from flows.cli_visualize_static import static_app

visualize_app = typer.Typer(
    no_args_is_help=True, help="Draw what the networks and the model see, as PNG or SVG, and what moves as GIF."
)
for part in (static_app, motion_app, model_app):
    visualize_app.add_typer(part)
