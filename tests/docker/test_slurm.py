"""The batch script for Slurm, with the programs that it calls replaced: the test plays Slurm's part."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect_machine import wait_for

from flows.archive.families import families_of
from flows.config.load import load_config
from storage import FeatureStore
from storage.files.paths import store_path
from storage.leases.leases import Leases

SCRIPT = Path(__file__).parents[2] / "docker" / "traitline.sbatch"
PROGRAMS = {
    "srun": 'echo $$ > step.pid; exec "$@"',
    "squeue": "cat state",
    "scontrol": 'echo "$@" >> asked',
}
# Takes its time to end after SIGTERM, like a command that drops a shard.
PATIENT = "#!/bin/sh\ntrap 'sleep 1; touch ended; exit 130' TERM\ntouch begun\nwhile :; do sleep 0.05; done\n"


@pytest.fixture
def job(tmp_path) -> Callable[..., subprocess.Popen[bytes]]:
    """Start job 7 in the test's folder with the given variables and options of `traitline extract`."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    path = os.pathsep.join((str(programs), str(Path(sys.executable).parent), os.environ["PATH"]))

    def start(*options: str, **variables: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PATH": path, "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "2", **variables}
        return subprocess.Popen(["bash", SCRIPT, *options], cwd=tmp_path, env=environment)

    return start


def preempt(job: subprocess.Popen[bytes], folder: Path, state: str) -> None:
    """Tell the command and the batch shell to stop, as Slurm does."""
    (folder / "state").write_text(state)
    os.kill(int((folder / "step.pid").read_text()), signal.SIGTERM)
    job.send_signal(signal.SIGTERM)


def test_a_preempted_job_goes_back_into_the_queue_and_then_does_the_rest(
    job, short_clips, small_networks, face_models, tmp_path
):
    settings = ("extract.shard_size=1", *small_networks)
    options = ["--weights", "random", *(part for setting in settings for part in ("--set", setting))]
    videos = tmp_path / "videos"
    videos.mkdir()
    for clip in sorted(short_clips.videos.iterdir())[:4]:
        (videos / clip.name).hardlink_to(clip)
    variables = {"VIDEOS": str(videos), "STORE": str(tmp_path / "store")}
    families = families_of(load_config(flags={"weights": "random"}, assignments=settings))
    store = FeatureStore(tmp_path / "store")

    def extracted() -> Counter[str]:
        return Counter(row.video_id for row in store.read(families.dynamic))

    names = sorted(path.name for path in videos.iterdir())
    with Leases(store_path(tmp_path / "store"), families.faces.key) as other:  # so that the job cannot end by itself
        other.claim(lambda _: dict.fromkeys(names[2:]))
        first = job(*options, **variables)
        wait_for("the first features", extracted, limit_s=300)
        preempt(first, tmp_path, "RUNNING")
        assert first.wait(300) == 130
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
    assert 0 < len(extracted()) < 4

    assert job(*options, **variables).wait(300) == 0
    assert extracted() == Counter(path.name for path in videos.iterdir())
    assert (tmp_path / "asked").read_text() == "requeue 7\n"


def test_a_cancelled_job_ends_after_its_command_and_stays_cancelled(job, tmp_path):
    command = tmp_path / "patient"
    command.write_text(PATIENT)
    command.chmod(0o755)
    cancelled = job(VIDEOS="clips", STORE="store", TRAITLINE=str(command))
    wait_for("the command", (tmp_path / "begun").exists, limit_s=60)
    preempt(cancelled, tmp_path, "CANCELLED")
    assert cancelled.wait(300) == 130
    assert (tmp_path / "ended").exists()
    assert not (tmp_path / "asked").exists()


def test_a_job_that_lacks_an_archive_says_so(job):
    assert job(VIDEOS="", STORE="store").wait(60) == 1
