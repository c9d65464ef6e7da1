"""The wheel: built from the source archive, installed beside nothing of this checkout, and run."""

import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PACKAGES = ("extractors", "flows", "fusion", "storage")


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The source archive and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("built")
    copy = folder / "copy"
    for name in run("git", "ls-files", cwd=ROOT).splitlines():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    backend = "from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"
    run(sys.executable, "-c", "import sys; " + backend, folder, cwd=copy)
    (archive,) = folder.glob("*.tar.gz")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, archive)
    (wheel,) = folder.glob("*.whl")
    return archive, wheel


def test_the_wheel_holds_every_file_of_the_packages(built):
    tracked = set(run("git", "ls-files", *PACKAGES, cwd=ROOT).splitlines())
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
        metadata = wheel.read(next(name for name in names if name.endswith(".dist-info/METADATA"))).decode()
    assert {name for name in names if name.startswith(PACKAGES)} == tracked
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "License-Expression: Apache-2.0" in metadata
    assert "Classifier: Typing :: Typed" in metadata
    _, _, description = metadata.partition("\n\n")
    assert description.startswith("# Traitline")
    links = re.findall(r"\]\(([^)]*)\)", description)
    assert links  # an index has no files that others could lead to
    assert [link for link in links if not link.startswith("https://")] == []


def test_the_source_archive_holds_documentation_tests_and_changes(built):
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "SECURITY.md", "Makefile"} <= names
    assert {"docs/how-to/store.md", "docs/pictures/report-top.png", "tests/conftest.py", "docker/compose.yaml"} <= names


def test_the_installed_wheel_runs_without_the_checkout(built, tmp_path):
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", built[1])
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # Third parties come from this environment; its link to the checkout, which is a .pth file, does not follow.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = run(python, "-c", "import flows, fusion; print(flows.__file__); print(fusion.__file__)", cwd=tmp_path)
    assert all(line.startswith(str(packages)) for line in where.splitlines()), where
    version = run(python.parent / "traitline", "--version", cwd=tmp_path).split()
    assert version == ["traitline", yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]]
    settings = yaml.safe_load(run(python.parent / "traitline", "config", "show", cwd=tmp_path))
    assert settings["video"]["fps"] == 25
