"""Models saved and loaded: whole, versioned, and never run as code."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from datetime import UTC, datetime

import numpy as np
import pytest

from storage import ModelSerializer, StoreError
from storage.remote_commit import CLAIM

keras = pytest.importorskip("keras")

METADATA = {"static_dim": 3, "keys": {"static": "a" * 16}, "note": "Ünï"}
HISTORY = {"loss": [0.5, np.float32(0.25)], "val_loss": [1, 2]}


@pytest.fixture
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.BatchNormalization()(inputs)))


def test_loaded_model_gives_the_same_scores_and_its_metadata(root, model):
    store = ModelSerializer(root)
    assert store.versions("main") == []
    before = datetime.now(UTC).replace(microsecond=0)
    assert store.save(model, "main", METADATA, HISTORY) == "1"
    loaded, metadata = ModelSerializer(root).load("main")
    features = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    np.testing.assert_array_equal(loaded.predict(features, verbose=0), model.predict(features, verbose=0))
    assert {name: metadata[name] for name in METADATA} == METADATA
    assert before <= datetime.fromisoformat(metadata["created_utc"]) <= datetime.now(UTC)
    assert metadata["libraries"]["keras"] == keras.__version__
    assert {"python", "numpy", keras.config.backend()} <= set(metadata["libraries"])
    folder = root / "models/main/1"
    assert {path.name for path in folder.iterdir()} - {CLAIM} == {"model.keras", "metadata.json", "history.json"}
    assert json.loads((folder / "history.json").read_text()) == {"loss": [0.5, 0.25], "val_loss": [1, 2]}


def test_versions_count_up_as_numbers_and_latest_is_the_last(tmp_path, model):
    store = ModelSerializer(tmp_path)
    assert [store.save(model, "main", {"n": n}, {}) for n in range(1, 12)] == [str(n) for n in range(1, 12)]
    assert store.versions("main") == [str(n) for n in range(1, 12)]
    assert store.load("main")[1]["n"] == 11
    assert store.load("main", "2")[1]["n"] == 2
    assert store.save(model, "other", {}, {}) == "1"


def test_two_savers_at_once_get_a_version_each(root, model):
    stores = [ModelSerializer(root) for _ in range(2)]
    barrier = threading.Barrier(2)

    def together(name: str) -> list[int]:
        numbers = original(name)
        if not numbers:
            barrier.wait(timeout=10)  # until both have seen that there is no version as yet
        return numbers

    original = stores[0]._numbers
    for store in stores:
        store._numbers = together
    versions = []
    threads = [
        threading.Thread(target=lambda store=store: versions.append(store.save(model, "main", {}, {})))
        for store in stores
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(versions) == ["1", "2"]


def test_failed_save_leaves_no_version(tmp_path, model, monkeypatch):
    def half(path, **_options):
        path.write_bytes(b"half a mod")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model, "save", half)
    with pytest.raises(StoreError, match="No space left on device"):
        ModelSerializer(tmp_path).save(model, "main", {}, {})
    assert ModelSerializer(tmp_path).versions("main") == []
    assert list((tmp_path / "models/main").iterdir()) == []


def test_metadata_that_json_cannot_hold_and_names_out_of_the_store_are_refused(tmp_path, model):
    store = ModelSerializer(tmp_path)
    with pytest.raises(ValueError, match="metadata must be what JSON can hold"):
        store.save(model, "main", {"a": object()}, {})
    with pytest.raises(ValueError, match="leave libraries to the store"):
        store.save(model, "main", {"libraries": {}}, {})
    with pytest.raises(ValueError, match="model name must begin"):
        store.save(model, "../main", {}, {})
    assert not (tmp_path / "models").exists()


def test_missing_model_and_version_are_named(tmp_path, model):
    store = ModelSerializer(tmp_path)
    with pytest.raises(StoreError, match="no model 'main'"):
        store.load("main")
    store.save(model, "main", {}, {})
    with pytest.raises(StoreError, match=r"1.*7 has no model\.keras|main/7 has no model\.keras"):
        store.load("main", "7")


def test_lambda_layer_is_refused_without_running_it(tmp_path, model):
    ran = tmp_path / "ran"
    code = f"lambda x: (open({str(ran)!r}, 'w'), x)[1]"
    inputs = keras.Input((3,))
    store = ModelSerializer(tmp_path / "store")
    store.save(keras.Model(inputs, keras.layers.Lambda(eval(code), output_shape=(3,))(inputs)), "main", {}, {})
    ran.unlink(missing_ok=True)  # building the model ran it
    with pytest.raises(StoreError, match=r"cannot load .*model\.keras: .*[Ll]ambda") as caught:
        store.load("main")
    assert not ran.exists()
    assert "\n" not in str(caught.value)


def test_other_file_formats_are_refused(tmp_path, model):
    store = ModelSerializer(tmp_path)
    store.save(model, "main", {}, {})
    path = tmp_path / "models/main/1/model.keras"
    whole = path.read_bytes()
    model.save(tmp_path / "old.h5")
    (tmp_path / "old.h5").rename(path)
    with pytest.raises(StoreError, match=r"is not a \.keras file"):
        store.load("main")
    path.rename(path.with_name("model.h5"))
    with pytest.raises(StoreError, match=r"has no model\.keras: only models saved as \.keras are loaded"):
        store.load("main")
    changed = bytearray(whole)
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)
    with pytest.raises(StoreError, match="is not the file that was saved here"):
        store.load("main")


SAVER = """
import sys, keras
from storage import ModelSerializer
@keras.saving.register_keras_serializable(package="Elsewhere")
class Unknown(keras.layers.Layer):
    def call(self, x):
        return x
inputs = keras.Input((3,))
ModelSerializer(sys.argv[1]).save(keras.Model(inputs, Unknown()(inputs)), "main", {}, {})
"""


def test_class_that_nobody_imported_is_named(tmp_path):
    subprocess.run([sys.executable, "-c", SAVER, str(tmp_path)], check=True, capture_output=True)
    with pytest.raises(StoreError, match=r"Could not locate class 'Unknown'; .* imported first") as caught:
        ModelSerializer(tmp_path).load("main")
    assert "\n" not in str(caught.value)
