"""The images' recipes and the compose file, read by the linters of their own trade; `test_containers.py` runs them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from flows.config.load import load_config

DOCKER = Path(__file__).parents[2] / "docker"


def pins(lock: Path) -> set[tuple[str, str]]:
    """(package, version); a package has several where versions of Python differ."""
    return set(re.findall(r"^([a-z0-9-]+)==(\S+)", lock.read_text(), re.MULTILINE))


def compose() -> dict:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


def test_hadolint_finds_nothing():
    scripts = Path(sys.executable).parent
    done = subprocess.run([scripts / "hadolint", DOCKER / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_compose_file_follows_its_schema():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, DOCKER / "compose.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("worker", ["cpu", "gpu"])
def test_images_get_the_versions_that_tests_run_on(worker):
    tested, image = pins(DOCKER.parent / "requirements.lock"), pins(DOCKER / f"{worker}.lock")
    others = {name for name, _ in image - tested}
    assert all(name.startswith("nvidia-") for name in others)
    assert bool(others) == (worker == "gpu")
    names = {name for name, _ in image}
    assert {"tensorflow", "mediapipe", "prefect", "setuptools"} < names
    assert "pytest" not in names


def test_every_package_of_an_image_has_a_digest():
    for worker in ("cpu", "gpu"):
        text = (DOCKER / f"{worker}.lock").read_text()
        for entry in re.split(r"\n(?=[a-z0-9])", text):
            Requirement(entry.split(" \\")[0])
            assert "--hash=sha256:" in entry
        assert "index-url" not in text


def test_what_the_build_copies_is_what_the_engine_gets():
    """The ignore file lets through no more than the Dockerfile takes, and nothing that it takes is left out."""
    recipe = (DOCKER / "Dockerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (?!--from)(.*) \S+$", recipe, re.MULTILINE) for word in line.split()]
    let_in = re.findall(r"^!(.*)$", (DOCKER / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    assert sorted(word.replace("${WORKER}", "*") for word in copied) == sorted(let_in)
    assert all(list(DOCKER.parent.glob(pattern)) for pattern in let_in)


def test_what_the_engine_gets_is_enough_to_install(tmp_path):
    for pattern in re.findall(r"^!(?!docker/)(.*)$", (DOCKER / "Dockerfile.dockerignore").read_text(), re.MULTILINE):
        (tmp_path / pattern).symlink_to(DOCKER.parent / pattern)
    build = "from setuptools.build_meta import prepare_metadata_for_build_wheel as p; p('.')"
    done = subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_workers_are_nobody_special():
    recipe = (DOCKER / "Dockerfile").read_text()
    assert re.findall(r"^USER (.*)$", recipe, re.MULTILINE) == ["10001:10001"]
    assert not any(service.get("privileged") or service.get("user") for service in compose()["services"].values())


def test_the_settings_of_the_containers_are_settings():
    settings = load_config(DOCKER / "settings.yaml")
    mounted = [volume.split(":")[1] for volume in compose()["x-traitline"]["volumes"] if "}" not in volume]
    targets = re.findall(r"\}:(/\w+)", (DOCKER / "compose.yaml").read_text())
    assert mounted == ["/settings.yaml"]
    assert {str(settings.videos), str(settings.store.path), "/assets"} == set(targets)


def test_every_command_of_the_compose_file_and_the_image_exists():
    """Each is asked for its help with its own options, so that a word that is not known is refused."""
    (worker,) = re.findall(r"^CMD (\[.*\])$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    commands = [service["command"] for service in compose()["services"].values() if "command" in service]
    scripts = Path(sys.executable).parent
    for program, *arguments in [json.loads(worker), *commands]:
        done = subprocess.run([scripts / program, *arguments, "--help"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        named = {word.split("=")[0] for word in arguments if word.startswith("--")}
        assert all(word in done.stdout for word in named), (named, done.stdout)
