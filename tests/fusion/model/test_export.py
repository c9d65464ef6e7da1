"""An exported model says the same as ours, in programs that have none of our code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import onnxruntime
import pytest

from fusion import TRAITS, CompletePersonalityModel
from fusion.clips.tokens import ClipTokens, pad_batch
from fusion.model.bilinear import BilinearPersonalityModel
from fusion.model.export import export_onnx, export_savedmodel
from fusion.model.kinds import PersonalityModel
from fusion.model.scoring import predict

# Tokens of each clip of a batch, static and dynamic.
BATCHES = [[(16, 6)], [(1, 1)], [(1, 1), (16, 6), (3, 40)], [(200, 2), (5, 100)], [(16, 6)] * 33]

ALONE = """
import sys
*forms, root = sys.argv[1:]
sys.path = [path for path in sys.path if path not in ("", root)]
import numpy as np
import tensorflow as tf
for form in forms:
    scores = tf.saved_model.load(form).signatures["serving_default"]
    batches = np.load(form + ".npz")
    count = max(int(name.split("/")[0]) for name in batches) + 1
    found = {}
    for number in range(count):
        inputs = {name.split("/")[1]: batches[name] for name in batches if name.split("/")[0] == str(number)}
        found[str(number)] = scores(**{name: tf.constant(value) for name, value in inputs.items()})["traits"].numpy()
    assert not {"fusion", "storage", "flows", "extractors"} & set(sys.modules), "it was loaded with our code"
    np.savez(form + ".npz", **found)
"""
FORMS = ("sequence", "vector", "bilinear")


@pytest.fixture(scope="module", params=FORMS)
def form(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(form) -> PersonalityModel:
    return drawn_model(form)


def drawn_model(form: str) -> PersonalityModel:
    """As a trained one: statistics far from 0 and 1, and a batch norm that has moved."""
    keras.utils.set_random_seed(1)
    if form == "bilinear":
        linear = BilinearPersonalityModel(20, 10, 4, 3, moment_s=20.0)
        drawn = np.random.default_rng(1)
        linear.set_weights([drawn.normal(0, 0.1, weight.shape) for weight in linear.weights])
        return linear
    model = CompletePersonalityModel(20, 10, fusion_dim=16, hidden_dim=8, form=form)
    rng = np.random.default_rng(1)
    model.set_statistics(rng.normal(size=20), rng.uniform(0.1, 9, 20), rng.normal(size=10), rng.uniform(0.1, 9, 10))
    model.fusion.norm.moving_mean.assign(rng.normal(size=16))
    model.fusion.norm.moving_variance.assign(rng.uniform(0.5, 2, 16))
    return model


@pytest.fixture(scope="module")
def clips() -> list[list[ClipTokens]]:
    rng = np.random.default_rng(0)
    return [
        [
            ClipTokens(
                f"{number}.mp4",
                rng.normal(1, 5, (static, 20)).astype(np.float32),
                np.sort(rng.uniform(0, 300, static)).astype(np.float32),
                rng.normal(-1, 3, (dynamic, 10)).astype(np.float32),
                np.sort(rng.uniform(0, 300, dynamic)).astype(np.float32),
            )
            for number, (static, dynamic) in enumerate(lengths)
        ]
        for lengths in BATCHES
    ]


def inputs_of(model: PersonalityModel, clips: list[ClipTokens]) -> dict[str, np.ndarray]:
    """A padded batch as any program would make it, with rubbish in the padding."""
    batch = pad_batch(clips)
    for kind in ("static", "dynamic"):
        batch[kind][~batch[f"{kind}_mask"]] = np.nan
    return {name: batch[name] for name in model.input_signature()}


@pytest.fixture(scope="module")
def scored_alone(clips, tmp_path_factory) -> Path:
    """Folder with each form's scores, from one process that has TensorFlow only."""
    folder = tmp_path_factory.mktemp("alone")
    for form in FORMS:
        model = drawn_model(form)
        export_savedmodel(model, folder / form)
        named = {f"{i}/{k}": v for i, batch in enumerate(clips) for k, v in inputs_of(model, batch).items()}
        np.savez(folder / f"{form}.npz", **named)
    program = [sys.executable, "-I", "-c", ALONE, *FORMS, str(Path(__file__).parents[3])]
    done = subprocess.run(program, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def test_savedmodel_gives_our_scores_in_tensorflow_alone(scored_alone, form, model, clips):
    found = np.load(scored_alone / f"{form}.npz")
    compare("SavedModel", model, [(batch, found[str(number)]) for number, batch in enumerate(clips)])


def test_onnx_gives_our_scores_in_onnx_runtime(tmp_path, model, clips, capfd):
    export_onnx(model, tmp_path / "model.onnx")
    printed = "".join(capfd.readouterr()).splitlines()
    assert [line for line in printed if not line.startswith("I0000 ")] == []  # TensorFlow's notes, which commands hide
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    assert names == list(model.input_signature())
    shapes = {value.name: value.shape for value in session.get_inputs()}
    assert shapes["static"] == ["batch", "static_tokens", 20]
    assert shapes["dynamic_mask"] == ["batch", "dynamic_tokens"]
    compare("ONNX", model, [(batch, session.run(["traits"], inputs_of(model, batch))[0]) for batch in clips])


def compare(name: str, model: PersonalityModel, results: list[tuple[list[ClipTokens], np.ndarray]]) -> None:
    worst = spread = 0.0
    for clips, found in results:
        ours = predict(model, clips)
        assert found.shape == (len(clips), len(TRAITS))
        assert found.dtype == np.float32
        worst = max(worst, float(np.abs(found - ours).max()))
        spread = max(spread, float(np.abs(ours).max()))
    print(f"{name}, {model.form}: differs from ours by at most {worst:.1e} (scores up to {spread:.1f})")
    assert worst < 1e-5


def test_tokens_of_another_time_are_another_clip(tmp_path, model, clips):
    """Parity of a model that ignores its inputs would prove nothing."""
    batch = pad_batch(clips[2])
    ours = np.asarray(model(batch, training=False))
    assert np.abs(ours[0] - ours[1]).max() > 1e-2
    moved = {**batch, "static_time_s": batch["static_time_s"] + 3}
    changed = np.abs(np.asarray(model(moved, training=False)) - ours).max()
    assert (changed > 1e-4) == (model.form == "sequence")
