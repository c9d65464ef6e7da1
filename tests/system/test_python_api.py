"""The names that other programs import: all there, documented, shown by `dir` and `help`, and light until used."""

import pydoc
import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

PACKAGES = ("extractors", "flows", "fusion", "storage")
FACES = (*PACKAGES, "extractors.dynamic", "extractors.optical_flow", "extractors.static")
HEAVY = ("av", "cv2", "keras", "matplotlib", "mediapipe", "numba", "pandas", "prefect", "pyarrow", "tensorflow")
DOCUMENTED = re.findall(r"^::: (\S+)", (Path(__file__).parents[2] / "docs/reference/api.md").read_text(), re.MULTILINE)


def loaded_after(*statements: str) -> list[str]:
    """Return the heavy modules that a fresh interpreter has loaded after some statements."""
    code = "\n".join(["import sys", *statements, f"print(*[name for name in {HEAVY} if name in sys.modules])"])
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("package", FACES)
def test_every_name_of_a_face_exists(package):
    module = import_module(package)
    names = dir(module)
    assert names == sorted(module.__all__)
    assert len(names) > 3
    for name in names:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        module.nonsense  # noqa: B018


@pytest.mark.parametrize("package", PACKAGES)
def test_help_shows_the_names_and_their_docstrings(package):
    module = import_module(package)
    shown = pydoc.plain(pydoc.render_doc(module))
    for name in dir(module):
        assert re.search(rf"\b{name}\b", shown)
    documented = [getattr(module, name) for name in dir(module) if callable(getattr(module, name))]
    assert documented
    for thing in documented:
        assert thing.__doc__
        assert thing.__doc__.splitlines()[0] in shown


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_states_its_version(package):
    assert import_module(package).__version__ == version("traitline")


@pytest.mark.parametrize("name", DOCUMENTED)
def test_documented_names_are_on_a_face(name):
    package, _, attribute = name.rpartition(".")
    assert attribute in dir(import_module(package))


def test_faces_load_nothing_heavy():
    assert loaded_after(*(f"import {package}" for package in FACES)) == []


def test_reading_labels_and_tokens_needs_no_keras():
    modules = "fusion, fusion.labels.read, fusion.labels.matching, fusion.clips.tokens, fusion.traits"
    assert not {"keras", "tensorflow", "matplotlib"} & set(loaded_after(f"import {modules}"))
