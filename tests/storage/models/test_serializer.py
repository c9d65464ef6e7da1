"""Models saved and loaded: whole, versioned, found by other names, and checked."""

from __future__ import annotations

import io
import json
import re
import subprocess
import threading
import time
import zipfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from model_savers import start_saver
from model_version import save_version

from fusion import CompletePersonalityModel
from storage import ModelSerializer, StoreError

METADATA = {"static_dim": 3, "keys": {"static": "a" * 16}, "note": "Ünï", "counts": {10: 1, 9: 2}}
HISTORY = {"loss": [0.5, np.float32(0.25)], "val_loss": [1, 2]}
FILES = {"model.keras", "metadata.json", "history.json"}


@pytest.fixture(scope="module")
def model() -> CompletePersonalityModel:
    """A small model that has been trained for a step, so that nothing of it is as it was at its start."""
    keras.utils.set_random_seed(0)
    model = CompletePersonalityModel(3, 2, fusion_dim=4, num_heads=2, hidden_dim=3, form="vector")
    model.set_statistics(np.ones(3), np.full(3, 2.0), np.zeros(2), np.full(2, 0.5))
    model.compile("adam", "mse")
    model.fit(features(), np.ones((4, 5), np.float32), verbose=0)
    return model


@pytest.fixture(scope="module")
def one_version(tmp_path_factory, model) -> Path:
    """A store with a model, which tests must not change."""
    root = tmp_path_factory.mktemp("one version")
    ModelSerializer(root).save(model, "traits", {}, {})
    return root


@pytest.fixture(params=["local", "object storage"])
def root(request, tmp_path) -> Path | str:
    """A store on this machine, and one on object storage."""
    return tmp_path / "store" if request.param == "local" else request.getfixturevalue("s3_folder")


def features() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "static": rng.normal(size=(4, 7, 3)).astype(np.float32),
        "dynamic": rng.normal(size=(4, 5, 2)).astype(np.float32),
        "static_mask": rng.random((4, 7)) < 0.7,
        "dynamic_mask": np.ones((4, 5), bool),
    }


def scores(model: keras.Model) -> bytes:
    return np.asarray(model(features(), training=False)).tobytes()


def test_loaded_model_gives_the_same_scores_bit_for_bit_and_its_metadata(root, model):
    store = ModelSerializer(root)
    assert store.versions("main") == []
    before = datetime.now(UTC).replace(microsecond=0)
    assert store.save(model, "main", METADATA, HISTORY) == "1"
    loaded, metadata = ModelSerializer(root).load("main")
    assert scores(loaded) == scores(model)
    assert loaded.get_config() == model.get_config()
    assert not loaded.compiled
    assert {name: metadata[name] for name in METADATA} == METADATA | {"counts": {"10": 1, "9": 2}}
    assert before <= datetime.fromisoformat(metadata["created_utc"]) <= datetime.now(UTC)
    assert metadata["libraries"]["keras"] == keras.__version__
    assert {"python", "numpy", "h5py", keras.config.backend()} <= set(metadata["libraries"])
    assert store.history("main", "1") == {"loss": [0.5, 0.25], "val_loss": [1, 2]}
    store.verify("main", "1")


def test_metadata_name_the_commit_of_the_checkout(tmp_path, model):
    ModelSerializer(tmp_path).save(model, "main", {}, {})
    program = ModelSerializer(tmp_path).metadata("main", "1")["program"]
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True)
    if commit.returncode != 0:
        assert program["commit"] is None
    else:
        assert program["commit"].removesuffix("-dirty") == commit.stdout.strip()
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", program["version"])


def test_digests_in_the_metadata_are_those_of_sha256sum(tmp_path, model):
    ModelSerializer(tmp_path).save(model, "main", METADATA, HISTORY)
    folder = tmp_path / "models/main/1"
    assert {path.name for path in folder.iterdir()} == FILES
    found = subprocess.run(["sha256sum", "history.json", "model.keras"], cwd=folder, capture_output=True, text=True)
    listed = ModelSerializer(tmp_path).metadata("main", "1")["files"]
    assert {line.split()[1]: line.split()[0] for line in found.stdout.splitlines()} == listed


@pytest.mark.parametrize("file", sorted(FILES))
def test_every_flipped_bit_of_a_version_is_found(tmp_path, model, file):
    store = ModelSerializer(tmp_path)
    store.save(model, "main", METADATA, HISTORY)
    path = tmp_path / "models/main/1" / file
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    missed = []
    for bit in rng.choice(8 * len(whole), 200, replace=False):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with suppress(StoreError):
            store.verify("main", "1")
            if not same_json(whole, bytes(changed)):
                missed.append(bit)
    assert missed == []
    path.unlink()
    with pytest.raises(StoreError, match=file):
        store.verify("main", "1")


def same_json(one: bytes, other: bytes) -> bool:
    """White space is nothing that any reader gets."""
    try:
        return json.loads(one) == json.loads(other)
    except ValueError:
        return False


def test_optimiser_is_left_out(tmp_path, model):
    ModelSerializer(tmp_path).save(model, "main", {}, {})
    model.save(tmp_path / "with.keras")
    groups = []
    for path in (tmp_path / "with.keras", tmp_path / "models/main/1/model.keras"):
        with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as weights:
            groups.append(set(weights))
    assert groups[0] - groups[1] == {"optimizer"}
    assert model.optimizer is not None  # the model in hand can be trained on


def test_versions_count_up_as_numbers_and_latest_is_the_last(tmp_path, model):
    store = ModelSerializer(tmp_path)
    for n in range(1, 8):
        save_version(tmp_path / "models" / "main" / str(n))
    assert [store.save(model, "main", {"n": n}, {}) for n in range(8, 12)] == ["8", "9", "10", "11"]
    assert store.versions("main") == [str(n) for n in range(1, 12)]
    assert store.load("main")[1]["n"] == store.load("main", "latest")[1]["n"] == 11
    assert store.load("main", "9")[1]["n"] == 9
    assert store.save(model, "other", {}, {}) == "1"


def test_an_alias_stands_for_one_version_until_it_is_moved_or_removed(root, model):
    store = ModelSerializer(root)
    for n in (1, 2):
        store.save(model, "traits", {"n": n}, {})
    assert store.aliases("traits") == {}
    assert store.set_alias("traits", "production", "1") == "1"
    assert store.set_alias("traits", "trial", "latest") == "2"
    assert store.set_alias("traits", "before", "production") == "1"
    assert store.load("traits", "production")[1]["n"] == 1
    store.set_alias("traits", "production", "2")
    assert store.load("traits", "production")[1]["n"] == 2
    assert store.aliases("traits") == {"before": "1", "production": "2", "trial": "2"}
    store.remove_alias("traits", "production")
    assert store.aliases("traits") == {"before": "1", "trial": "2"}
    assert store.versions("traits") == ["1", "2"]
    assert store.names() == ["traits"]
    with pytest.raises(StoreError, match="traits/production"):
        store.load("traits", "production")
    with pytest.raises(StoreError, match="traits/production"):
        store.remove_alias("traits", "production")
    with pytest.raises(StoreError, match="traits/9"):
        store.set_alias("traits", "production", "9")


@pytest.mark.parametrize("alias", ["latest", "3", "v3", "1.2", "V1.0", "..", "a/b", "", ".hidden"])
def test_an_alias_that_could_be_something_else_is_refused(one_version, alias):
    with pytest.raises(ValueError, match="alias"):
        ModelSerializer(one_version).set_alias("traits", alias, "1")
    assert not (one_version / "models/traits/aliases").exists()


def test_an_alias_that_is_moved_without_end_is_always_one_of_its_versions(tmp_path, model):
    store = ModelSerializer(tmp_path)
    for _ in range(2):
        store.save(model, "traits", {}, {})
    store.set_alias("traits", "production", "1")
    stop = threading.Event()

    def move() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            store.set_alias("traits", "production", str(1 + number % 2))

    mover = threading.Thread(target=move)
    mover.start()
    reader = ModelSerializer(tmp_path)
    try:
        seen = [reader.resolve("traits", "production") for _ in range(500)]
        while len(set(seen)) < 2:  # on a busy machine the mover may not have had its turn yet
            seen.append(reader.resolve("traits", "production"))
    finally:
        stop.set()
        mover.join()
    assert set(seen) == {"1", "2"}


def test_two_trainers_at_once_get_a_version_each(tmp_path, s3_folder):
    roots = (tmp_path / "store", s3_folder)
    savers = [start_saver(3, *roots) for _ in range(2)]
    for _, connection in savers:
        connection.send("go")
    saved = {process.pid: [connection.recv() for _ in range(3 * len(roots))] for process, connection in savers}
    for process, _ in savers:
        process.join()
    for number, root in enumerate(roots):
        store = ModelSerializer(root)
        of_process = {pid: versions[3 * number :][:3] for pid, versions in saved.items()}
        assert sorted(int(version) for versions in of_process.values() for version in versions) == [1, 2, 3, 4, 5, 6]
        for pid, versions in of_process.items():
            for version in versions:
                assert store.metadata("main", version)["process"] == pid
                store.verify("main", version)


@pytest.mark.parametrize("kills", [2, pytest.param(15, marks=pytest.mark.slow)])
def test_trainer_killed_at_any_time_leaves_no_half_version(tmp_path, kills):
    delays_s = np.random.default_rng(0).uniform(0, 1.0, kills)
    for delay_s in delays_s:
        process, connection = start_saver(1000, tmp_path)
        connection.send("go")
        connection.recv()  # one is there
        time.sleep(delay_s)
        process.kill()
        process.join()
    store = ModelSerializer(tmp_path)
    versions = store.versions("main")
    assert len(versions) >= len(delays_s)
    assert versions == [str(number) for number in range(1, len(versions) + 1)]
    for version in versions:
        store.verify("main", version)
        assert {path.name for path in (tmp_path / "models/main" / version).iterdir()} == FILES


def test_failed_save_leaves_no_version(tmp_path, model, monkeypatch):
    def full(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(CompletePersonalityModel, "save", full)
    with pytest.raises(StoreError, match="No space left on device"):
        ModelSerializer(tmp_path).save(model, "main", {}, {})
    assert ModelSerializer(tmp_path).versions("main") == []
    assert list((tmp_path / "models/main").iterdir()) == []


def test_metadata_that_json_cannot_hold_and_names_out_of_the_store_are_refused(tmp_path, model):
    store = ModelSerializer(tmp_path)
    with pytest.raises(ValueError, match=r"metadata.*JSON"):
        store.save(model, "main", {"a": object()}, {})
    with pytest.raises(ValueError, match=r"metadata.*libraries"):
        store.save(model, "main", {"libraries": {}}, {})
    with pytest.raises(ValueError, match=r"model name.*\.\./main"):
        store.save(model, "../main", {}, {})
    assert not (tmp_path / "models").exists()


def test_model_that_could_not_be_loaded_is_not_saved(tmp_path):
    inputs = keras.Input((3,))
    with pytest.raises(ValueError, match=r"Functional.*Dense"):
        ModelSerializer(tmp_path).save(keras.Model(inputs, keras.layers.Dense(2)(inputs)), "main", {}, {})
    assert ModelSerializer(tmp_path).versions("main") == []


def test_missing_model_and_version_are_named(tmp_path, model):
    store = ModelSerializer(tmp_path)
    with pytest.raises(StoreError, match="main/latest"):
        store.load("main")
    store.save(model, "main", {}, {})
    with pytest.raises(StoreError, match=r"main/7 .*\b1$"):
        store.load("main", "7")


def test_other_file_formats_are_refused(tmp_path, model):
    store = ModelSerializer(tmp_path)
    store.save(model, "main", {}, {})
    path = tmp_path / "models/main/1/model.keras"
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)
    with pytest.raises(StoreError, match=r"model\.keras.*metadata\.json"):
        store.load("main")
    path.rename(path.with_name("model.h5"))
    with pytest.raises(StoreError, match=r"models/main/1 .*model\.keras"):
        store.load("main")
