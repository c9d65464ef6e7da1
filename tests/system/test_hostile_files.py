"""Files made to attack whoever reads them: nothing of them runs, and nothing outside is read, removed or called.

Models and bundles have more in `tests/storage/models/test_hostile_models.py`, `tests/extractors/assets/test_bundle.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from file_parsers import Parser, file_parsers
from hostile_files import hostile_files, hostile_hdf5, hostile_yaml
from hostile_pickles import Box, hostile_npz, hostile_pickles
from rendered_report import render_report
from watched_files import opened

SUPPORT = Path(__file__).parents[1] / "support" / "hostile"
# NumPy parses the header of an array as a literal.
LITERAL = "compile (b"


@pytest.fixture(scope="module")
def listener() -> Iterator[tuple[str, list[object]]]:
    """Address of a listener on this machine, and who called."""
    calls: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            while True:
                try:
                    connection, caller = server.accept()
                except OSError:
                    return
                calls.append(caller)
                connection.close()

        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/", calls


@pytest.fixture
def box(tmp_path, listener) -> Box:
    box = Box(tmp_path / "canary", tmp_path / "secret", tmp_path / ".tmp-treasure", listener[0])
    box.secret.mkdir()
    box.treasure.write_bytes(b"gold")
    (box.secret / "secret.csv").write_text("video_id\nsecret.mp4\n")
    pq.write_table(pa.table({"video_id": ["secret.mp4"]}), box.secret / "secret.parquet")
    np.save(box.secret / "secret.npy", np.arange(5))
    with h5py.File(box.secret / "secret.h5", "w") as file:
        file["data"] = np.arange(5, dtype=np.float32)
    (tmp_path / "evil.py").write_text(f"open({str(box.canary)!r}, 'w').close()\n")
    return box


@pytest.fixture
def parsers(tmp_path) -> dict[str, Parser]:
    (tmp_path / "seeds").mkdir()
    return {parser.name: parser for parser in file_parsers(tmp_path / "seeds")}


def test_nothing_of_a_hostile_file_runs_and_nothing_outside_is_touched(box, parsers, listener, tmp_path):
    attacks, contents = [], hostile_files(parsers, box)
    for name, files in contents.items():
        for title, data in files.items():
            file = f"attack {len(attacks)}"
            (tmp_path / file).write_bytes(data)
            attacks.append((name, title, file))
    (tmp_path / "attacks.json").write_text(json.dumps(attacks))
    with opened(*box.secret.iterdir()) as reads:
        done = subprocess.run(
            [sys.executable, SUPPORT / "read_hostile.py", tmp_path],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "PYTHONPATH": f"{SUPPORT}:{SUPPORT.parents[2]}:{tmp_path}", "TF_CPP_MIN_LOG_LEVEL": "3"},
            cwd=tmp_path,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(report["parser"], report["title"]) for report in reports] == [attack[:2] for attack in attacks]
    found = {}
    for report in reports:
        amiss = [event for event in report["events"] if not allowed(event, tmp_path / "place")]
        amiss += [report["outcome"]] if report["outcome"].startswith("FAULT") else []
        amiss += [f"{report[name]} {name}" for name, most in (("s", 10), ("grown_kb", 700_000)) if report[name] > most]
        if amiss:
            found[f"{report['parser']}: {report['title']}"] = amiss
    assert found == {}, "\n".join(f"{title}: {amiss}" for title, amiss in found.items())
    assert reads == [0]
    assert listener[1] == []
    assert not box.canary.exists()
    assert box.treasure.read_bytes() == b"gold"
    refused = Counter(report["parser"] for report in reports if report["outcome"])
    assert refused["labels, pickle"] == len(contents["labels, pickle"])
    print(
        f"{len(reports)} hostile files for {len(contents)} readers: {refused.total()} refused, the others harmless; "
        "0 executions, 0 reads outside, 0 calls, 0 removals"
    )


CONTROLS = {
    "pickle": (hostile_pickles, "os.system", "import pickle; pickle.loads(data)"),
    "pickle that imports": (hostile_pickles, "import of a module", "import pickle; pickle.loads(data)"),
    "YAML": (hostile_yaml, "apply", "import yaml; yaml.unsafe_load(data)"),
    "npz": (
        lambda box: hostile_npz(hostile_pickles(box), box),
        "facts: objects, os.system",
        "import io, numpy; numpy.load(io.BytesIO(data), allow_pickle=True)['facts']",
    ),
}


@pytest.mark.parametrize("name", CONTROLS)
def test_the_canary_sings_where_the_file_is_trusted(box, tmp_path, name):
    attacks, title, trusting = CONTROLS[name]
    (tmp_path / "attack").write_bytes(attacks(box)[title])
    program = f"data = open('attack', 'rb').read()\ntry:\n  {trusting}\nexcept Exception: pass"
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    assert box.canary.exists()


@pytest.mark.parametrize("attack", ["external link", "external storage", "virtual array"])
def test_a_secret_is_what_hdf5_itself_would_read(box, parsers, tmp_path, attack):
    shard = tmp_path / "hostile.h5"
    shard.write_bytes(hostile_hdf5(parsers["shard, hdf5"].seeds[0], box)[f"{attack} as vector"])
    # The secret has fewer numbers, which HDF5 finds out too late.
    with opened(box.secret / "secret.h5") as reads, contextlib.suppress(OSError), h5py.File(shard) as file:
        file["vector"][()]
    assert reads[0] > 0


def test_words_of_a_made_up_evaluation_are_text_in_the_report(report_store):
    """Whoever can put a file into STORE/reports can name groups and versions as they like."""
    folder = report_store.config.store.path / "reports"
    genuine = max(folder.glob("evaluation-*.json"))
    script = "</td></script><script>alert(1)</script><img src=x onerror=alert(1)>[link=http://x]{{ 7 * 7 }}"

    text = genuine.read_text()
    for name in ("ridge_static", "voice", "loud", "numpy"):
        assert f'"{name}"' in text
        text = text.replace(f'"{name}"', json.dumps(f"{name} {script}"))
    hostile = folder / "evaluation-99990131T235959000000.json"
    hostile.write_text(text)
    try:
        page = render_report(
            *(report_store.config, report_store.families, report_store.videos, report_store.model), datetime.now(UTC)
        )
    finally:
        hostile.unlink()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert(1)" not in page
    assert "onerror=alert(1)>" not in page


def allowed(event: str, place: Path) -> bool:
    kind, _, arguments = event.partition(" ")
    return event.startswith(LITERAL) or (kind.startswith(("open", "os.", "shutil.")) and f"'{place}" in arguments)
