"""Hooks of MkDocs: pages from the root of the project, and reference tables made from the code.

A page says `<!-- generated: NAME -->` where a table belongs; NAME is a key of `TABLES`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
import yaml
from annotated_types import Ge, Gt, Le, Lt
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.cli import get_docs_for_click

from extractors.errors import REASONS
from flows.cli.app import app
from flows.config.settings import RunConfig
from flows.pipeline.frames import FRAME_COLUMNS
from fusion.traits import TRAITS
from storage.exports.columns import Column, trait_columns

ROOT = Path(__file__).parents[1]
FROM_ROOT = {"README.md": "index.md", **{name: name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")}}
BOUNDS = {Ge: (">=", "ge"), Gt: (">", "gt"), Le: ("<=", "le"), Lt: ("<", "lt")}


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages of the project's root."""
    for source, target in FROM_ROOT.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_text("utf-8")))


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Point links between the root and `docs/` to the site's pages, and fill in the generated tables."""
    names = "|".join(map(re.escape, FROM_ROOT))
    if page.file.src_uri in FROM_ROOT.values():
        markdown = re.sub(r"\]\(docs/", "](", markdown)
    else:
        markdown = re.sub(rf"\]\(((?:\.\./)*)\.\./({names})", lambda link: f"]({link[1]}{FROM_ROOT[link[2]]}", markdown)
    return re.sub(r"<!-- generated: (\w+) -->", lambda mark: "\n".join(TABLES[mark[1]]()), markdown)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    head = list(head)
    yield f'<div class="reference {head[0]}" markdown>\n'
    yield f"| {' | '.join(head)} |"
    yield "| --- " * len(head) + "|"
    for row in rows:
        cells = (re.sub(r"(?<!\\)\|", r"\\|", " ".join(cell.split())) for cell in row)
        yield f"| {' | '.join(cells)} |"
    yield "\n</div>\n"


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _settings() -> Iterator[str]:
    """Every setting with its default, the values it may have, and its meaning."""
    tree = RunConfig()
    sections = {name: value for name in RunConfig.model_fields if isinstance(value := getattr(tree, name), BaseModel)}
    yield from _settings_of(tree, "")
    for name, section in sections.items():
        yield f"## `{name}`\n\n{(type(section).__doc__ or '').splitlines()[0]}\n"
        yield from _settings_of(section, f"{name}.")


def _settings_of(section: BaseModel, prefix: str) -> Iterator[str]:
    rows: list[tuple[str, str, str, str]] = []
    inner: list[tuple[str, BaseModel]] = []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            inner.append((f"{prefix}{name}.", value))
            continue
        plain = section.model_dump(mode="json", include={name})[name]
        default = yaml.safe_dump(plain, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
        rows.append((_code(f"{prefix}{name}"), _code(default), _allowed(field), field.description or ""))
    if rows:
        yield from _table(("setting", "default", "values", "meaning"), rows)
    if prefix:
        for name, part in inner:
            yield from _settings_of(part, name)


def _allowed(field: FieldInfo) -> str:
    annotation: Any = field.annotation
    choices = get_args(annotation) if get_origin(annotation) is Literal else ()
    bounds = [
        f"{sign} {getattr(part, attribute)}"
        for part in field.metadata
        for kind, (sign, attribute) in BOUNDS.items()
        if isinstance(part, kind)
    ]
    return ", ".join(_code(str(part)) for part in (*choices, *bounds))


def _commands() -> Iterator[str]:
    """Every command with its arguments and options, as Typer describes them."""
    command = typer.main.get_command(app)
    _show_first_sentences(command)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="traitline")
    text = re.sub("^Examples?: (`.*`)$", _as_block, text, flags=re.MULTILINE)  # blocks are not broken into lines
    yield text.partition("\n")[2].replace("* `--help`: Show this message and exit.\n", "")


def _as_block(commands: re.Match[str]) -> str:
    return "\n".join(["**Example**:\n\n```sh", *re.findall("`([^`]*)`", commands[1]), "```"])


def _show_first_sentences(group: Any) -> None:
    """Let lists of commands show the whole first sentence of each, which Typer cuts to fit a terminal."""
    for command in group.commands.values():
        command.short_help = re.split(r"(?<=\.)\s", inspect.cleandoc(command.help or ""))[0]
        if hasattr(command, "commands"):
            _show_first_sentences(command)


def _columns() -> Iterator[str]:
    """Every column of an export of scores."""
    yield from _table_of(trait_columns(TRAITS))


def _frame_columns() -> Iterator[str]:
    """Every column of an export of frames."""
    yield from _table_of(FRAME_COLUMNS)


def _table_of(columns: Iterable[Column[Any]]) -> Iterator[str]:
    rows = []
    for column in columns:
        bounds = "" if column.minimum is None else f">= {column.minimum:g}"
        if column.maximum is not None:
            bounds = f"{column.minimum:g} to {column.maximum:g}"
        kind = str(column.type).replace("timestamp[s, tz=UTC]", "time, UTC")
        values = ", ".join(map(_code, column.values)) if column.values else bounds
        rows.append((_code(column.name), kind, column.unit or "", values, column.description))
    yield from _table(("column", "type", "unit", "values", "meaning"), rows)


def _reasons() -> Iterator[str]:
    """Every reason for which a video is rejected."""
    yield from _table(("reason", "meaning"), ((_code(reason), meaning) for reason, meaning in REASONS.items()))


TABLES = {
    "settings": _settings,
    "commands": _commands,
    "columns": _columns,
    "frame_columns": _frame_columns,
    "reasons": _reasons,
}
