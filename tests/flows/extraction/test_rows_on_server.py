"""What a run leaves in the database of a Prefect server that outlives it does not grow with the number of shards.

Run as a program, this extracts drawn features under a server of its own and prints the rows, because Prefect sends all
events of a process to the first server that the process has met.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from prefect_machine import wait_for

SUPPORT = Path(__file__).parents[2] / "support" / "machines"
VIDEOS = 44
SHARDS = (2, 22)


def rows(database: Path) -> Counter[str]:
    """The number of rows of each table."""
    with sqlite3.connect(database) as db:
        tables = [name for (name,) in db.execute("select name from sqlite_master where type = 'table'")]
        return Counter({name: db.execute(f'select count(*) from "{name}"').fetchone()[0] for name in tables})


def rows_after(runs: int, database: Path) -> Counter[str]:
    """The rows once the server has written everything about so many runs."""
    from prefect.events import emit_event

    last = emit_event("all.sent", {"prefect.resource.id": "traitline.test"})  # after the events of this process
    ends = (
        ("select count(*) from events where id = ?", str(last.id), 1),
        ("select count(*) from events where event = ?", "prefect.flow-run.Completed", runs),
        ("select count(*) from log where message like ?", "Finished in state %", runs),
    )
    for question, value, count in ends:

        def written(question=question, value=value, count=count) -> bool:
            with sqlite3.connect(database) as db:
                return db.execute(question, (value,)).fetchone()[0] == count

        wait_for(f"{value}, {count} times", written, limit_s=120)
    return rows(database)


def main(runner: str, folder: Path) -> None:
    """Print a line of rows by table for each number of shards."""
    from worker_farm import FAMILIES, Order, drawn_videos, open_drawing

    from flows.pipeline import extract as extract_flow
    from flows.session.server import prefect_api
    from storage import FeatureStore

    extract_flow.families_of = lambda _: FAMILIES
    database = folder / "prefect" / "prefect.db"
    with prefect_api(for_people=True):
        before = rows_after(0, database)
        for runs, shards in enumerate(SHARDS, start=1):
            order = Order(str(folder / f"store {shards}"), str(folder), videos=VIDEOS, shard_size=VIDEOS // shards)
            extract_flow.open_stretches = partial(open_drawing, order)
            config = order.config()
            dask = config.dask.model_copy(update={"workers": 1})
            began = time.monotonic()
            extract_flow.extract(config.model_copy(update={"runner": runner, "dask": dask}), drawn_videos(VIDEOS))
            seconds = time.monotonic() - began
            after = rows_after(runs, database)
            print(json.dumps([after - before, seconds]))
            before = after
            assert len(FeatureStore(order.store).shards(FAMILIES.static)) == shards


@pytest.mark.parametrize("runner", ["local", pytest.param("dask", marks=pytest.mark.slow)])
def test_rows_of_a_run_do_not_grow_with_its_shards(runner, tmp_path, prepared_prefect_home):
    shutil.copytree(prepared_prefect_home, tmp_path / "prefect")
    environment = {
        **os.environ,
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "0.2",  # seconds; the test waits for it three times
        "PYTHONPATH": str(SUPPORT),
    }
    command = [sys.executable, __file__, runner, tmp_path]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (few, _), (many, seconds) = map(json.loads, done.stdout.splitlines())
    few, many = Counter(few), Counter(many)
    print(f"{runner}, {SHARDS[0]} and {SHARDS[1]} shards: {few.total()} and {many.total()} rows, of {dict(many)}")
    assert few.total() > 10
    assert few["flow_run"] == many["flow_run"] == 1
    # An update of the progress every ten seconds, of about five rows, and one of the shards every minute.
    assert many.total() - few.total() < 2 * (SHARDS[1] - SHARDS[0]) + seconds


def test_progress_of_a_run_of_days_is_shown_a_hundred_times_at_most(monkeypatch):
    from flows.pipeline import announce

    clock = iter(range(0, 10**9, 60))
    monkeypatch.setattr(announce.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(announce, "_run_id", lambda: "a run")
    shown: list[float] = []
    pages = announce.Pages()
    monkeypatch.setattr(pages, "_create", lambda kind, key, data, text: shown.append(data) or "artifact")
    monkeypatch.setattr(pages, "_ask", lambda request: shown.append(-1))
    show = pages.progress("Extract")
    for done in range(10_001):
        show(done, 10_000, 0)
    assert 90 <= len(shown) <= 102


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
