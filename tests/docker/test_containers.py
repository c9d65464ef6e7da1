"""The images, built and run. A worker runs in one of them; Prefect's server and the archive are outside."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator

import numpy as np
import pytest
import yaml
from buildah import BASE, OF_MACHINE, Buildah
from prefect_machine import PASSWORD, scheduled_every, wait_for

from extractors.assets import catalog
from flows.archive.families import families_of
from flows.config.load import load_config
from storage import FeatureStore

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("buildah") is None or os.geteuid() != 0,
        reason="needs buildah, and root to run it (Debian: apt install buildah debootstrap)",
    ),
]

USER = 10001
CLIP = "mixed.mp4"


@pytest.fixture(scope="module")
def buildah(tmp_path_factory) -> Iterator[Buildah]:
    """buildah with the image that the Dockerfile begins with."""
    buildah = Buildah(tmp_path_factory.mktemp("buildah"))
    buildah.take_base()
    yield buildah
    buildah.close()


def features(store: os.PathLike[str] | str) -> dict[str, np.ndarray]:
    """The vectors of the clip that a store holds, by family."""
    families = families_of(load_config(flags={"weights": "random"}))
    kept = FeatureStore(store)
    return {
        family.name: row.vectors
        for family in (families.faces, families.static, families.dynamic)
        for row in kept.read(family)
        if row.video_id == CLIP
    }


def test_a_worker_in_its_image_extracts_what_a_schedule_asks_for(
    buildah, prefect_server, rendered, face_models, traitline, tmp_path
):
    """The numbers that it writes are those that the command finds outside."""
    image = buildah.build("cpu")
    settings = buildah.settings_of(image)
    videos, store = tmp_path / "videos", tmp_path / "store"
    videos.mkdir()
    store.mkdir()
    shutil.copy(rendered.videos / CLIP, videos)
    os.chown(store, USER, USER)
    words = {"videos": "/videos", "store": {"path": "/store"}, "weights": "random"}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(words))
    scheduled_every(60, tmp_path / "prefect.yaml", deployment="extract", first_after_s=30)
    mounted = {
        videos: "/videos:ro",
        store: "/store",
        catalog.user_cache(): "/assets:ro",
        tmp_path / "settings.yaml": "/settings.yaml:ro",
        tmp_path / "prefect.yaml": "/prefect.yaml:ro",
    }
    variables = {
        "PREFECT_API_URL": prefect_server.api,
        "PREFECT_API_AUTH_STRING": PASSWORD,
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }
    container = buildah("from", image)
    options = [f"--volume={path}:{place}" for path, place in mounted.items()]
    options += [f"--env={name}={value}" for name, value in variables.items()]

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        line = buildah.in_container(container, command, *options)
        return subprocess.run(line, capture_output=True, text=True, timeout=300)

    kind, *health = settings["Healthcheck"]["Test"]
    assert kind == "CMD"
    assert run("id", "--user").stdout.strip() == str(USER)
    deployed = run("traitline", "deploy", "--config=/settings.yaml", "--file=/prefect.yaml")
    assert deployed.returncode == 0, deployed.stderr
    assert run(*health).returncode != 0
    with (tmp_path / "worker.log").open("ab") as log:
        line = buildah.in_container(container, settings["Cmd"], *options)
        worker = subprocess.Popen(line, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for("a healthy worker", lambda: run(*health).returncode == 0, limit_s=90)
            done = wait_for("a run that is over", lambda: prefect_server.runs_over("extract"), limit_s=500)[0]
        finally:
            os.killpg(worker.pid, signal.SIGTERM)
            worker.wait(60)
    assert done["state_type"] == "COMPLETED", done["state"]["message"]
    assert done["auto_scheduled"]
    assert {path.stat().st_uid for path in store.rglob("*")} == {USER}

    command = traitline("extract", "--videos", videos, "--store", tmp_path / "outside", "--weights", "random")
    assert command.returncode == 0, command.stderr
    inside, outside = features(store), features(tmp_path / "outside")
    assert sorted(inside) == ["dynamic", "faces", "static"]
    for name, vectors in outside.items():
        np.testing.assert_allclose(inside[name], vectors, rtol=1e-4, atol=1e-5)


def test_the_gpu_image_can_be_installed_from_its_lock(buildah):
    """Every package is there for the image's Python, with one of the digests; several gigabytes, so not installed."""
    container = buildah("from", *(f"--volume={path}:{path}:ro" for path in OF_MACHINE if os.path.exists(path)), BASE)
    buildah("copy", container, "docker/gpu.lock", "/worker.lock")
    script = (
        "python -m venv /venv && /venv/bin/pip install --quiet --upgrade 'pip>=24' "
        "&& /venv/bin/pip install --no-cache-dir --dry-run --require-hashes -r /worker.lock"
    )
    done = subprocess.run(buildah.in_container(container, ["sh", "-c", script]), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (would_install,) = [line for line in done.stdout.splitlines() if line.startswith("Would install")]
    assert {"cuda-core", "nvidia-cudnn-cu12", "tensorflow"} <= {
        word.rsplit("-", 1)[0] for word in would_install.split()
    }
