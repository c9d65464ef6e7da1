"""How many child processes prepare videos, on machines with more cores than there is work for. Nothing is decoded."""

from __future__ import annotations

import pytest

from flows.archive.families import families_of
from flows.config.settings import RunConfig
from flows.extraction import extractor as module


class StartedError(Exception):
    """Instead of starting that many."""


@pytest.mark.parametrize(
    ("cores", "videos", "chosen", "expected"),
    [(2, 10, None, 2), (64, 10, None, 10), (256, 6000, None, 256), (256, None, None, 256), (64, 10, 3, 3)],
)
def test_no_process_starts_that_can_get_no_video(monkeypatch, tmp_path, cores, videos, chosen, expected):
    def pool(settings, processes, stall_s):
        raise StartedError(processes)

    monkeypatch.setattr(module, "usable_cores", lambda: cores)
    monkeypatch.setattr(module, "PreparerPool", pool)
    config = RunConfig(store={"path": tmp_path}, weights="random", extract={"processes": chosen})
    with pytest.raises(StartedError) as started, module.Extractor(config, families_of(config), videos=videos):
        pass
    assert started.value.args == (expected,)
