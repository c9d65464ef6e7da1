"""The documentation's site: it builds without a warning, loads nothing from elsewhere, and lists all that there is."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from playwright.sync_api import sync_playwright

from extractors.errors import REASONS
from flows.cli.app import app
from flows.config.load import dump_config
from flows.config.settings import RunConfig

CHROMIUM = shutil.which("chromium")
ROOT = Path(__file__).parents[2]
# What makes a browser load something. Links that people follow may lead elsewhere.
LOADING = {"src", "srcset", "poster", "data", "action"}


class Loads(HTMLParser):
    """Collects the addresses that a page loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in LOADING or (tag == "link" and name == "href"):
                self.addresses.append(value or "")


def names_of(tree: dict, prefix: str = "") -> list[str]:
    """Dotted names of the values in a tree of settings."""
    names = []
    for name, value in tree.items():
        names += names_of(value, f"{prefix}{name}.") if value and isinstance(value, dict) else [f"{prefix}{name}"]
    return names


def commands_of(command: Any, name: str = "") -> list[str]:
    """Names of the commands that do something, each with a space before every word."""
    if not hasattr(command, "commands"):
        return [name]
    return [found for word, part in command.commands.items() for found in commands_of(part, f"{name} {word}")]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site. Broken links and anchors, pages that nothing lists and unknown names of code fail the build."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")), ids=lambda page: page.name)
def test_links_of_pages_outside_the_site_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text("utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_nothing_is_loaded_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        loads = Loads()
        loads.feed(page.read_text("utf-8"))
        assert loads.addresses
        assert not [address for address in loads.addresses if re.match(r"(\w+:)?//", address)], page
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", style.read_text("utf-8")), style


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine, to open the site with")
def test_pages_open_from_the_disk_and_can_be_searched(site):
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page, asked, errors = browser.new_page(), [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(error))
        page.goto((site / "how-to" / "labels.html").as_uri())
        page.click("input.md-search__input")  # which starts the search
        page.keyboard.type("emotional stability")
        page.wait_for_selector(".md-search-result__item:has-text('Neuroticism in First Impressions')")
        assert errors == []
        assert [address for address in asked if not address.startswith("file:")] == []
        browser.close()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine, to open the site with")
def test_on_a_telephone_tables_break_no_name_and_no_page_scrolls_sideways(site):
    broken = "[...document.querySelectorAll('table code')].filter((name) => name.getClientRects().length > 1)"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 390, "height": 800})
        for path in [*site.glob("reference/*.html"), *site.glob("how-to/*.html"), site / "index.html"]:
            page.goto(path.as_uri())
            assert page.evaluate(f"{broken}.map((name) => name.textContent)") == [], path
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        browser.close()


def test_the_list_of_commands_has_whole_sentences(site):
    commands = (site / "reference" / "commands.html").read_text("utf-8")
    sentences = re.findall(r"<li>\s*(?:<p>)?<code>([a-z-]+)</code>: ([^<\n]*)", commands)
    assert len(sentences) >= len(commands_of(typer.main.get_command(app)))
    assert [words for words in sentences if words[1].endswith("...")] == []


def test_the_reference_lists_every_setting_command_and_reason(site):
    settings = (site / "reference" / "settings.html").read_text("utf-8")
    names = names_of(yaml.safe_load(dump_config(RunConfig())))
    assert [name for name in names if f"<code>{name}</code>" not in settings] == []
    commands = (site / "reference" / "commands.html").read_text("utf-8")
    names = commands_of(typer.main.get_command(app))
    assert [name for name in names if f"<code>traitline{name}</code>" not in commands] == []
    reasons = (site / "reference" / "reasons.html").read_text("utf-8")
    assert all(f"<code>{reason}</code>" in reasons for reason in REASONS)


def test_reasons_are_exactly_those_for_which_videos_are_refused():
    stages = {"decode", "faces", "motion", "extract"}
    used = set()
    for file in ROOT.glob("extractors/**/*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            called = isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("VideoError", "undecodable")
            if called or (isinstance(node, ast.Assign) and "reason" in ast.dump(node.targets[0])):
                words = ast.walk(node)
                used |= {word.value for word in words if isinstance(word, ast.Constant) and isinstance(word.value, str)}
    codes = {word for word in used if re.fullmatch(r"[a-z]{2,}(_[a-z]+)*", word)} - stages
    assert codes == set(REASONS)
