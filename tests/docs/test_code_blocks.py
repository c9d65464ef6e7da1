"""Every code block of the documentation runs, as a reader would paste it.

The blocks of a page run in order, in one folder that holds a small archive: `clips`, `labels.csv`, `groups.csv`,
`store`, a network `faces.onnx`, and `demo` as `traitline demo` leaves it. This machine may lack the pretrained weights:
commands that take `--weights` get `--weights random` unless the block names some. A block that cannot run here has a
line `<!-- not run: REASON -->` before it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socketserver
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import nbformat
import numpy as np
import pytest
import typer.main
import yaml
from clips import cut_clip
from drawn_networks import patch_network
from drawn_store import draw_store
from markdown_it import MarkdownIt
from nbclient import NotebookClient

from extractors.video.digests import sha256_of
from flows.archive.families import families_of
from flows.cli.app import app
from flows.config.load import dump_config, load_config
from flows.config.settings import RunConfig
from storage import FeatureStore

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
NOT_RUN = re.compile(r"<!-- not run: (.+) -->")
# Networks run forwards and backwards for minutes, or features are extracted again.
SLOW = {f"docs/how-to/{name}.md" for name in ("backbones", "pictures", "rejected-videos")}
SLOW.add("docs/explanation/optical-flow.md")
# Tests of the commands do the same: `flows/pipeline/test_run.py`, `flows/doctor/test_doctor.py`, those of
# `flows/evaluation`, `flows/cli/test_models.py`, `flows/pipeline/test_training_from_store.py`; and
# `fusion/model/test_model.py` runs the blocks of the specification.
SLOW |= {f"docs/how-to/{name}.md" for name in ("evaluation", "features", "first-run", "models", "training")}
SLOW.add("docs/reference/specification.md")
MOST_NOT_RUN = 20
CLIPS = ("mixed.mp4", "nod.mp4")  # all that pages name

# Stands for the command on the PATH of a shell: sends its arguments to the test, which runs them.
COMMAND = """#!{python} -SE
import json, os, socket, sys
with socket.create_connection(("127.0.0.1", {port})) as line, line.makefile("rw") as file:
    print(json.dumps([os.getcwd(), *sys.argv[1:]]), file=file, flush=True)
    code, out, err = json.loads(file.readline())
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(code)
"""


@dataclass(frozen=True)
class Block:
    """A code block of a page: its language, its text, its first line, and why it is not run, if it is not."""

    language: str
    text: str
    line: int
    not_run: str


def blocks_of(page: Path) -> list[Block]:
    """Return the code blocks of a page."""
    blocks, reason = [], ""
    for token in MarkdownIt().parse(page.read_text("utf-8")):
        if token.type == "html_block":
            mark = NOT_RUN.search(token.content)
            reason = mark[1] if mark else ""
        elif token.type == "fence":
            assert token.map is not None
            blocks.append(Block(token.info.strip(), token.content, token.map[0] + 1, reason))
            reason = ""
        elif token.nesting >= 0:
            reason = ""
    return blocks


def pages() -> list:
    """Pages with blocks to run, as parameters of a test."""
    found = []
    for page in PAGES:
        if any(not block.not_run for block in blocks_of(page)):
            name = page.relative_to(ROOT).as_posix()
            found.append(pytest.param(page, id=name, marks=[pytest.mark.slow] if name in SLOW else []))
    return found


def takes_weights(words: list[str]) -> bool:
    """Whether a command has the option --weights."""
    command = typer.main.get_command(app)
    for word in words:
        if not hasattr(command, "commands"):
            break
        command = command.commands.get(word)
    return any("--weights" in option.opts for option in getattr(command, "params", ()))


@pytest.fixture(scope="module")
def shell(traitline, tmp_path_factory):
    """Environment of a shell in which `traitline` is the tested command."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            folder, *words = json.loads(self.rfile.readline())
            if "--weights" not in words and takes_weights(words):
                words += ["--weights", "random"]
            done = traitline(*words, folder=Path(folder))
            answer = json.dumps([done.returncode, done.stdout, done.stderr])
            self.wfile.write(f"{answer}\n".encode())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        programs = tmp_path_factory.mktemp("bin")
        command = programs / "traitline"
        command.write_text(COMMAND.format(python=sys.executable, port=server.server_address[1]))
        command.chmod(0o755)
        yield {**os.environ, "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
        server.shutdown()


def draw_features(folder: Path, small_networks: tuple[str, ...], traitline) -> None:
    """Give the clips features under the usual networks' names: faces as they are, vectors drawn, which take seconds."""
    extracted, *_ = CLIPS
    (folder / "list.txt").write_text(extracted)
    small = ("--store", "small", "--weights", "random", *(part for name in small_networks for part in ("--set", name)))
    done = traitline("extract", "--videos", "list.txt", "--videos-root", "clips", *small, folder=folder)
    assert done.returncode == 0, done.stderr
    rng, weights = np.random.default_rng(0), {"weights": "random"}
    found, wanted = (
        families_of(load_config(flags=weights, assignments=small_networks)),
        families_of(load_config(flags=weights)),
    )
    for kind in ("faces", "static", "dynamic"):
        (row,) = FeatureStore(folder / "small").read(getattr(found, kind), [extracted])
        family = getattr(wanted, kind)
        shape = (len(row.start_s), family.dim)
        FeatureStore(folder / "store").write(
            family,
            [
                replace(
                    row,
                    video_id=name,
                    video_sha256=sha256_of(folder / "clips" / name),
                    vectors=row.vectors if kind == "faces" else rng.normal(size=shape).astype(np.float32),
                )
                for name in CLIPS
            ],
        )
    shutil.rmtree(folder / "small")


@pytest.fixture(scope="module")
def archive(made_once, short_clips, small_networks, traitline) -> Path:
    """The folder in which pages begin; tests get a copy."""
    with made_once("documented archive") as folder:
        if not folder.exists():
            partial = folder.with_suffix(".partial")
            (partial / "clips").mkdir(parents=True)
            labels, _ = draw_store(partial, people=12, clips_each=2)
            for name in CLIPS:
                cut_clip(short_clips.videos / name, partial / "clips" / name, 30)
            with labels.open("a", newline="") as file:
                file.writelines(f"{name},{name},training,.5,.4,.6,.7,.3\r\n" for name in CLIPS)
            trial = ("--labels", "labels.csv", "--store", "store", "--weights", "random")
            draw_features(partial, small_networks, traitline)
            for command in (("train", *trial), ("score", *trial[2:])):
                done = traitline(*command, folder=partial)
                assert done.returncode == 0, done.stderr
            patch_network(partial / "faces.onnx")
            (partial / "demo").mkdir()
            shutil.copytree(partial / "clips", partial / "demo" / "videos", copy_function=os.link)
            shutil.copytree(partial / "store", partial / "demo" / "store", copy_function=os.link)
            os.link(labels, partial / "demo" / "labels.csv")
            partial.rename(folder)
        return folder


@pytest.mark.parametrize("page", pages())
def test_the_blocks_of_a_page_run(page, archive, shell, tmp_path, monkeypatch):
    folder = shutil.copytree(archive, tmp_path / "work")
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    for block in blocks_of(page):
        place = f"{page.relative_to(ROOT)}, line {block.line}"
        if block.not_run:
            continue
        if block.language == "sql":
            duckdb.sql(block.text).fetchall()
            continue
        if block.language == "yaml":  # settings
            (tmp_path / "block.yaml").write_text(block.text)
            load_config(tmp_path / "block.yaml")
            continue
        if block.language == "python":
            exec(compile(block.text, place, "exec"), names)
            continue
        command = ["bash", "-euo", "pipefail", "-c", block.text]
        done = subprocess.run(command, env=shell, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{place}:\n{block.text}\n{done.stdout}\n{done.stderr}"


@pytest.mark.slow  # they make the calls of docs/how-to/python.md, in a kernel of their own
def test_the_notebooks_run_and_are_kept_without_outputs(archive, tmp_path):
    """All in one kernel, because its start and Keras take longer than the cells."""
    folder = shutil.copytree(archive, tmp_path / "work")
    cells = []
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert code
        assert not any(cell.outputs or cell.execution_count for cell in code), f"{path}: clear its outputs"
        cells += [*code, nbformat.v4.new_code_cell("%reset -f")]
    together = nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)
    NotebookClient(together, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    pictures = [output for cell in cells for output in cell.outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= len(NOTEBOOKS)


def test_few_blocks_are_not_run_and_all_have_a_language():
    blocks = [block for page in PAGES for block in blocks_of(page)]
    assert {block.language for block in blocks} <= {"sh", "python", "sql", "yaml"}
    assert sum(bool(block.not_run) for block in blocks) <= MOST_NOT_RUN


def test_settings_that_pages_name_exist():
    tree = yaml.safe_load(dump_config(RunConfig()))
    sections = {name for name, value in tree.items() if isinstance(value, dict) and hasattr(RunConfig(), name)}
    for page in PAGES:
        for name in re.findall(r"(?:`|--set )'?(\w+(?:\.\w+)+)\b", page.read_text("utf-8")):
            section, _, rest = name.partition(".")
            if section in sections and rest:
                value = tree
                for word in name.split("."):
                    assert word in value, f"{page}: {name}"
                    value = value[word]


def test_files_that_pages_name_exist():
    for page in PAGES:
        text = page.read_text("utf-8")
        for name in re.findall(r"((?:[a-z_]+/)*(?:test|bench|fuzz)_\w+\.py)", text):
            if name.startswith("scripts/"):  # of the specification
                continue
            folder = ROOT if name.startswith("tests/") else ROOT / "tests"
            assert (folder / name).is_file() or any(folder.rglob(name)), f"{page}: {name}"
