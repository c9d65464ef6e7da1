"""How many cores a process may use, and what its control groups grant of their time and of memory."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from extractors import devices
from extractors.devices import memory_left, usable_cores


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Pretends to be on eight cores, in control groups with the given files."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(devices, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(devices, "_MEMBERSHIP", tmp_path / "membership")

    def pretend(membership: str, files: dict[str, str]) -> None:
        (tmp_path / "membership").write_text(membership)
        for name, content in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content + "\n")

    return pretend


V1 = "4:memory:/job\n2:cpuacct,cpu:/job\n1:name=systemd:/job\n0::/\n"


def of_group(folder: str, most: str, used: int, files: int) -> dict[str, str]:
    """A group's memory in version 2: its limit, what is used, and how much of that are files read some time ago."""
    stat = f"anon 1\ninactive_file {files}"
    named = {"memory.max": most, "memory.current": str(used), "memory.stat": stat}
    return {str(PurePosixPath(folder, name)): content for name, content in named.items()}


OLD_MEMORY = {
    "memory/job/memory.limit_in_bytes": "1200",
    "memory/job/memory.usage_in_bytes": "1000",
    "memory/job/memory.stat": "cache 7\ninactive_file 0\ntotal_inactive_file 300",
}


@pytest.mark.parametrize(
    ("membership", "files", "left"),
    [
        ("0::/\n", {}, math.inf),
        ("0::/\n", of_group("", "max", 1000, 300), math.inf),
        ("0::/\n", of_group("", "1200", 1000, 300), 500),
        ("0::/a/b\n", {**of_group("a/b", "max", 9, 0), **of_group("a", "1200", 1000, 0)}, 200),
        ("0::/docker/c0ffee\n", of_group("", "900", 1000, 0), 0),
        (V1, OLD_MEMORY, 500),
    ],
)
def test_the_memory_that_control_groups_leave(groups, membership, files, left):
    groups(membership, files)
    assert memory_left() == left


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        ("0::/\n", {}, 8),
        ("0::/\n", {"cpu.max": "max 100000"}, 8),
        ("0::/\n", {"cpu.max": "200000 100000"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000"}, 2),  # part of a core counts
        ("0::/\n", {"cpu.max": "10000 100000"}, 1),
        ("0::/\n", {"cpu.max": "6400000 100000"}, 8),  # more than there are
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, 3),  # the group above is limited
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000", "a/cpu.max": "500000 100000"}, 4),
        ("0::/docker/c0ffee\n", {"cpu.max": "200000 100000"}, 2),  # a container sees its own group as the root
        ("0::/../elsewhere\n", {"cpu.max": "200000 100000"}, 2),
        (V1, {"cpu,cpuacct/job/cpu.cfs_quota_us": "-1", "cpu,cpuacct/job/cpu.cfs_period_us": "100000"}, 8),
        (V1, {"cpu,cpuacct/job/cpu.cfs_quota_us": "250000", "cpu,cpuacct/job/cpu.cfs_period_us": "50000"}, 5),
        (V1, {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        (V1, {"memory/job/cpu.cfs_quota_us": "100000", "memory/job/cpu.cfs_period_us": "100000"}, 8),
    ],
)
def test_a_control_group_limits_the_cores(groups, membership, files, cores):
    groups(membership, files)
    assert usable_cores() == cores


def test_without_control_groups_all_cores_that_the_process_may_run_on_count(groups):
    assert not Path(devices._MEMBERSHIP).exists()
    assert usable_cores() == 8


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux's sched_setaffinity")
def test_a_process_that_is_kept_to_one_core_counts_one():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "from extractors.devices import usable_cores; print(usable_cores())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
