"""Precisions are those that the settings name, or they are refused. What GPUs have is said by a stand-in here."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from drawn_networks import patch_network
from keras import layers

from extractors.errors import DeviceError
from extractors.networks import onnx_file, precision
from extractors.networks.inference import for_inference
from extractors.networks.precision import check_precision, computing_in
from extractors.static.extractor import StaticFeatureExtractor
from fusion.model.model import CompletePersonalityModel

TF32 = tf.config.experimental.tensor_float_32_execution_enabled


@pytest.fixture(autouse=True)
def switch(monkeypatch):
    """Each test begins as a process does: no network is built, and TensorFlow allows TF32."""
    monkeypatch.setattr(precision, "_tf32", set())
    tf.config.experimental.enable_tensor_float_32_execution(True)
    yield
    tf.config.experimental.enable_tensor_float_32_execution(False)


@pytest.fixture
def gpu(monkeypatch):
    """Call it with the compute capability of this machine's GPU; None is a GPU of another maker."""

    def has(capability: tuple[int, int] | None) -> None:
        monkeypatch.setattr(precision, "has_gpu", lambda: True)
        monkeypatch.setattr(precision, "cuda_capability", lambda: capability)

    return has


def network() -> keras.Model:
    picture = keras.Input((8, 8, 3))
    return keras.Model(picture, layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(picture)))


@pytest.fixture
def cpu_with(monkeypatch, tmp_path):
    """Call it with the flags of this machine's only processor."""

    def has(flags: str) -> None:
        (tmp_path / "cpuinfo").write_text(f"flags\t\t: fpu sse4_2 avx2 {flags}\n")
        monkeypatch.setattr(precision, "CPU_FLAGS", tmp_path / "cpuinfo")
        monkeypatch.setattr(precision, "has_gpu", lambda: False)
        monkeypatch.setattr(precision, "cuda_capability", lambda: None)

    return has


def test_a_cpu_without_bfloat16_refuses_it_and_names_the_setting(cpu_with):
    cpu_with("avx512f avx512_vnni")
    with pytest.raises(DeviceError, match="set precision to float32"):
        StaticFeatureExtractor("random", precision="bfloat16")


def test_bfloat16_is_refused_where_onednn_is_turned_off(cpu_with, monkeypatch):
    cpu_with("avx512_bf16")
    check_precision("bfloat16")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    with pytest.raises(DeviceError, match="TF_ENABLE_ONEDNN_OPTS"):
        check_precision("bfloat16")


def test_tf32_is_refused_on_a_cpu_and_not_float32_under_another_name(cpu_with):
    cpu_with("avx512_bf16")
    with pytest.raises(DeviceError, match=r"tf32 needs an NVIDIA GPU .* set precision to float32"):
        for_inference(network(), "tf32")


@pytest.mark.parametrize(
    ("capability", "refused"),
    [
        ((7, 5), {"tf32", "bfloat16"}),
        ((8, 0), set()),
        ((9, 0), set()),
        ((12, 0), set()),
        (None, {"tf32"}),  # AMD's have bfloat16
    ],
)
def test_a_gpu_computes_in_what_its_hardware_has(gpu, capability, refused):
    gpu(capability)
    for name in ("float32", "tf32", "bfloat16"):
        if name in refused:
            with pytest.raises(DeviceError, match="set precision to float32"):
                check_precision(name)
        else:
            check_precision(name)


@pytest.mark.parametrize("chosen", ["float32", "tf32", "bfloat16"])
def test_tf32_is_on_just_while_a_network_with_tf32_runs(gpu, chosen, resnet_extractor, monkeypatch):
    gpu((9, 0))
    for_inference(network(), chosen)
    assert not TF32()  # scoring and training in the same process are in float32
    run, seen = resnet_extractor._network.predict_on_batch, []
    monkeypatch.setattr(resnet_extractor, "precision", chosen)
    monkeypatch.setattr(resnet_extractor._network, "predict_on_batch", lambda batch: seen.append(TF32()) or run(batch))
    resnet_extractor.extract(np.zeros((1, 224, 224, 3), np.uint8))
    assert seen == [chosen == "tf32"]
    assert not TF32()


def test_the_dynamic_network_runs_in_its_precision(i3d_extractor, monkeypatch):
    seen = []
    monkeypatch.setattr(i3d_extractor, "precision", "tf32")
    monkeypatch.setattr(
        i3d_extractor._network, "predict_on_batch", lambda windows: seen.append(TF32()) or np.zeros((1, 1024))
    )
    i3d_extractor.extract(np.zeros((1, 9, 224, 224, 2), np.float32))
    assert seen == [True]


def test_tf32_is_off_again_after_a_network_failed():
    with pytest.raises(KeyError), computing_in("tf32"):
        raise KeyError
    assert not TF32()


@pytest.mark.parametrize(("first", "second"), [("float32", "tf32"), ("tf32", "float32"), ("tf32", "bfloat16")])
def test_networks_with_and_without_tf32_are_not_mixed_in_a_process(gpu, first, second):
    gpu((8, 0))
    for_inference(network(), first)
    for_inference(network(), first)
    with pytest.raises(DeviceError, match="all networks to tf32 or none"):
        for_inference(network(), second)


def test_weights_and_layers_of_tf32_are_those_of_float32(gpu):
    gpu((8, 0))
    model = network()
    copy = for_inference(model, "tf32")
    assert {layer.compute_dtype for layer in copy.layers} == {"float32"}
    pictures = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(copy.predict_on_batch(pictures), model.predict_on_batch(pictures), rtol=1e-6)


def test_models_of_traits_compute_in_float32():
    CompletePersonalityModel(8, 8)
    assert not TF32()


def test_onnx_files_are_run_in_float32_on_a_gpu(tmp_path, monkeypatch):
    import onnxruntime

    patch_network(tmp_path / "net.onnx")
    asked = []
    session = onnxruntime.InferenceSession

    def spy(data, options, providers):
        asked.append(dict(providers))
        return session(data, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", spy)
    providers = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    onnx_file.open_network((tmp_path / "net.onnx").read_bytes(), "vector")
    assert asked == [{"CUDAExecutionProvider": {"use_tf32": "0"}, "CPUExecutionProvider": {}}]
