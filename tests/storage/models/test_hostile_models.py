"""Files made to attack whoever loads them: nothing of them is run, and nothing beside them is read."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from changed_files import changed_bytes, changed_tree
from hostile_models import hostile_archives, hostile_configs, hostile_weights, lambda_config, members_of, packed
from hypothesis import HealthCheck, given, settings
from watched_files import opened

from fusion import CompletePersonalityModel
from storage import ModelSerializer, StoreError
from storage.models.keras_file import read_model

WATCHED = Path(__file__).parents[2] / "support" / "machines" / "load_watched.py"


def plant(root: Path, name: str, data: bytes) -> None:
    """Put a file where a version has its model, with metadata that fit it: an attacker knows how to make digests."""
    folder = root / "models" / name / "1"
    folder.mkdir(parents=True)
    (folder / "model.keras").write_bytes(data)
    facts = {"files": {"model.keras": hashlib.sha256(data).hexdigest()}}
    facts["digest"] = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    (folder / "metadata.json").write_text(json.dumps(facts))


@pytest.fixture(scope="module")
def good() -> CompletePersonalityModel:
    return CompletePersonalityModel(8, 6, fusion_dim=4, num_heads=2, hidden_dim=3)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory, good) -> tuple[Path, Path, Path, dict[str, list[str]]]:
    """A store with a model for every attack; the canary, the secret, and the names of the attacks by kind."""
    folder = tmp_path_factory.mktemp("attacked")
    root, canary, secret = folder / "store", folder / "canary", folder / "secret" / "secret.h5"
    secret.parent.mkdir()
    with h5py.File(secret, "w") as file:
        file["data"] = np.arange(5, dtype=np.float32)
    (folder / "evil.py").write_text(f"open({str(canary)!r}, 'w').close()\n")
    ModelSerializer(root).save(good, "good", {}, {})
    members = members_of((root / "models/good/1/model.keras").read_bytes())
    config = json.loads(members["config.json"])
    files = {
        "config": {
            name: packed({**members, "config.json": json.dumps(tree).encode()})
            for name, tree in hostile_configs(config, canary, secret).items()
        },
        "weights": {
            name: packed({**members, "model.weights.h5": data})
            for name, data in hostile_weights(members["model.weights.h5"], secret).items()
        },
        "archive": hostile_archives(members, canary),
        "harmless": {
            "module and compilation": packed(
                {
                    **members,
                    "config.json": json.dumps(
                        {
                            **config,
                            "module": "evil",
                            "compile_config": {"optimizer": {"module": "os", "class_name": "system", "config": "x"}},
                        }
                    ).encode(),
                }
            )
        },
    }
    inputs = keras.Input((3,))
    keras.Sequential([inputs, keras.layers.Lambda(lambda x: x)]).save(folder / "old.h5")
    files["archive"]["h5 with a lambda"] = (folder / "old.h5").read_bytes()
    names: dict[str, list[str]] = {}
    for kind, attacks in files.items():
        names[kind] = []
        for number, (_, data) in enumerate(attacks.items()):
            plant(root, f"{kind}-{number}", data)
            names[kind].append(f"{kind}-{number}")
    names["titles"] = [f"{kind}: {name}" for kind, attacks in files.items() for name in attacks]
    return root, canary, secret, names


def test_nothing_of_a_hostile_file_is_run_and_nothing_beside_it_is_read(attacked):
    root, canary, secret, kinds = attacked
    names = [name for kind in ("config", "weights", "archive", "harmless") for name in kinds[kind]]
    with opened(secret) as reads:
        done = subprocess.run(
            [sys.executable, str(WATCHED), str(root), *names],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "PYTHONPATH": f"{root.parent}:{Path(__file__).parents[3]}"},
        )
    assert done.returncode == 0, done.stderr[-3000:]
    unknown, *reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert " CompletePersonalityModel " in unknown
    assert [report["name"] for report in reports] == names
    for title, report in zip(kinds["titles"], reports, strict=True):
        outside = [event for event in report["events"] if not allowed(event, root)]
        assert outside == [], f"{title}: {outside}"
        assert report["grown_kb"] < 100_000, title
        if report["name"] in kinds["harmless"]:
            assert report["outcome"] == "CompletePersonalityModel"
            continue
        assert report["outcome"].startswith("refused: cannot load "), (title, report["outcome"])
        assert "\n" not in report["outcome"]
        assert len(report["outcome"]) < 700, title
    assert reads == [0]
    assert not canary.exists()
    assert sorted(path.name for path in root.parent.iterdir()) == ["evil.py", "old.h5", "secret", "store"]
    refused = sum(report["outcome"].startswith("refused") for report in reports)
    print(
        f"{refused} hostile files of {len(reports)} refused; canaries 0, reads beside them 0, events of other kinds 0"
    )


@pytest.fixture(scope="module")
def members(tmp_path_factory, good) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("good")
    ModelSerializer(root).save(good, "good", {}, {})
    return members_of((root / "models/good/1/model.keras").read_bytes())


@pytest.mark.parametrize("part", ["config.json", "model.weights.h5", "the archive", "settings"])
def test_whatever_is_changed_in_a_model_it_is_built_or_refused_in_one_line(members, part):
    whole = packed(members)
    kinds = {
        "the archive": changed_bytes([whole]),
        "settings": changed_tree(json.loads(members["config.json"])).map(
            lambda tree: packed({**members, "config.json": json.dumps(tree).encode()})
        ),
    }
    change = kinds[part] if part in kinds else changed_bytes([members[part]]).map(
        lambda data: packed({**members, part: data})
    )  # fmt: skip

    @settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(change)
    def check(data: bytes) -> None:
        try:
            read_model(data, "a model")
        except StoreError as error:
            assert "\n" not in str(error)  # noqa: PT017 - either outcome is right

    check()


def allowed(event: str, root: Path) -> bool:
    """Files of the store and of the loader's own temporary folder; no code, no import, no process, no connection."""
    kind = event.partition(" ")[0]
    own = (str(root), "/traitline-")
    return kind in ("open", "os.mkdir", "os.rmdir", "os.remove", "os.chmod", "shutil.rmtree") and (
        any(place in event for place in own) or event.startswith(f"{kind} ('model.weights.h5'")
    )


def test_the_canary_sings_where_keras_is_asked_to_trust_the_file(tmp_path):
    canary = tmp_path / "canary"
    config = lambda_config(canary)
    assert not canary.exists()
    keras.saving.deserialize_keras_object(config, safe_mode=False)
    assert canary.exists()


@pytest.mark.parametrize("attack", ["external link", "external storage", "virtual array", "virtual array without end"])
def test_weights_in_another_file_are_what_hdf5_itself_would_read(tmp_path, good, attack):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["data"] = np.arange(5, dtype=np.float32)
    good.save_weights(tmp_path / "good.weights.h5")
    path = tmp_path / "hostile.h5"
    path.write_bytes(hostile_weights((tmp_path / "good.weights.h5").read_bytes(), secret)[attack])
    with opened(secret) as reads, h5py.File(path) as file:
        assert file["head/scores/vars/1"][:].shape == (5,)
    assert reads[0] > 0


def test_zip_bomb_is_made_of_what_it_claims(good, tmp_path):
    good.save(tmp_path / "good.keras")
    bomb = hostile_archives(members_of((tmp_path / "good.keras").read_bytes()), tmp_path / "canary")["zip bomb"]
    (tmp_path / "bomb").write_bytes(bomb)
    assert len(bomb) < 2**20
    with zipfile.ZipFile(tmp_path / "bomb") as archive:
        assert archive.getinfo("model.weights.h5").file_size == 300 * 2**20
