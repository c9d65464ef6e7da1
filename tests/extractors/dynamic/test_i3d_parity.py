"""I3D against a network of other make: an ONNX graph from the paper's figure, run by ONNX Runtime, with equal weights.

The graph shares nothing with `extractors.dynamic.i3d`: layers, channels and names are written out again here, weights
are drawn here and reach the network under test through a checkpoint file only.

Sources:
    Carreira & Zisserman, arXiv:1705.07750, figure 3; Szegedy et al., arXiv:1409.4842, table 1, for the channels;
    google-deepmind/kinetics-i3d, i3d.py, for SAME padding, BatchNorm's epsilon and the variables' names.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from extractors.dynamic import i3d
from extractors.dynamic.extractor import DynamicFeatureExtractor
from extractors.dynamic.sequences import OpticalFlowSequenceLoader
from extractors.networks.inference import for_inference

CHECKPOINT = "TRAITLINE_I3D_CHECKPOINT"
PLAYING_CRICKET = 227  # from 0; line 228 of label_map.txt in that repository
# The networks compute all windows alike; 25 fields leave odd numbers of steps to many layers.
SLOW_16, SLOW_25, SLOW_64, SLOW_79 = (pytest.param(fields, marks=pytest.mark.slow) for fields in (16, 25, 64, 79))
# Table 1 of GoogLeNet: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5 (3x3 in I3D), pool projection.
GOOGLENET = """
3b  64  96 128 16  32  32
3c 128 128 192 32  96  64
4b 192  96 208 16  48  64
4c 160 112 224 24  64  64
4d 128 128 256 24  64  64
4e 112 144 288 32  64  64
4f 256 160 320 32 128 128
5b 256 160 320 32 128 128
5c 384 192 384 48 128 128
"""


class Graph:
    """Builds the ONNX graph and draws its weights on the way; `drawn` has them as a checkpoint would."""

    def __init__(self, seed: int) -> None:
        self.drawn: dict[str, np.ndarray] = {}
        self._generator = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str | np.ndarray, **attributes: object) -> str:
        names = []
        for value in inputs:
            if isinstance(value, np.ndarray):
                self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value), f"w{len(self._constants)}"))
                value = self._constants[-1].name
            names.append(value)
        output = f"{kind}{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, names, [output], **attributes))
        return output

    def draw(self, name: str, *shape: int, low: float = -0.3, high: float = 0.3) -> np.ndarray:
        self.drawn[f"Flow/inception_i3d/{name}"] = self._generator.uniform(low, high, shape).astype(np.float32)
        return self.drawn[f"Flow/inception_i3d/{name}"]

    def unit(self, x: str, name: str, into: int, out: int, size: int, stride: int = 1) -> str:
        bound = np.sqrt(6 / (into * size**3))  # keeps the scale of activations
        kernel = self.draw(f"{name}/conv_3d/w", size, size, size, into, out, low=-bound, high=bound)
        x = self.op("Conv", x, kernel.transpose(4, 3, 0, 1, 2), strides=(stride,) * 3, auto_pad="SAME_UPPER")
        beta = self.draw(f"{name}/batch_norm/beta", out)
        mean = self.draw(f"{name}/batch_norm/moving_mean", out)
        variance = self.draw(f"{name}/batch_norm/moving_variance", out, low=0.5, high=1.5)
        one = np.ones(out, np.float32)
        x = self.op("BatchNormalization", x, one, beta, mean, variance, epsilon=1e-3)
        return self.op("Relu", x)

    def pool(self, x: str, size: tuple[int, int, int], stride: tuple[int, int, int]) -> str:
        return self.op("MaxPool", x, kernel_shape=size, strides=stride, auto_pad="SAME_UPPER")

    def mixed(self, x: str, block: str, into: int, channels: list[int]) -> str:
        one, reduce_3, three, reduce_5, five, projection = channels
        name = f"Mixed_{block}"
        last = "Conv3d_0a_3x3" if block == "5b" else "Conv3d_0b_3x3"  # a slip in the released code, kept in its weights
        a = self.unit(x, f"{name}/Branch_0/Conv3d_0a_1x1", into, one, 1)
        b = self.unit(x, f"{name}/Branch_1/Conv3d_0a_1x1", into, reduce_3, 1)
        b = self.unit(b, f"{name}/Branch_1/Conv3d_0b_3x3", reduce_3, three, 3)
        c = self.unit(x, f"{name}/Branch_2/Conv3d_0a_1x1", into, reduce_5, 1)
        c = self.unit(c, f"{name}/Branch_2/{last}", reduce_5, five, 3)
        d = self.pool(x, (3, 3, 3), (1, 1, 1))
        d = self.unit(d, f"{name}/Branch_3/Conv3d_0b_1x1", into, projection, 1)
        return self.op("Concat", a, b, c, d, axis=1)

    def build(self) -> bytes:
        x = self.op("Transpose", "flow", perm=(0, 4, 1, 2, 3))
        x = self.unit(x, "Conv3d_1a_7x7", 2, 64, 7, stride=2)
        x = self.pool(x, (1, 3, 3), (1, 2, 2))
        x = self.unit(x, "Conv3d_2b_1x1", 64, 64, 1)
        x = self.unit(x, "Conv3d_2c_3x3", 64, 192, 3)
        x = self.pool(x, (1, 3, 3), (1, 2, 2))
        depth = 192
        for row in GOOGLENET.split("\n")[1:-1]:
            block, *numbers = row.split()
            channels = [int(number) for number in numbers]
            if block == "4b":
                x = self.pool(x, (3, 3, 3), (2, 2, 2))
            elif block == "5b":
                x = self.pool(x, (2, 2, 2), (2, 2, 2))
            x = self.mixed(x, block, depth, channels)
            depth = channels[0] + channels[2] + channels[4] + channels[5]
        x = self.op("AveragePool", x, kernel_shape=(2, 7, 7), strides=(1, 1, 1))
        features = self.op("ReduceMean", x, axes=(2, 3, 4), keepdims=0)
        head = self.draw("Logits/Conv3d_0c_1x1/conv_3d/w", 1, 1, 1, depth, 400)
        x = self.op("Conv", x, head.transpose(4, 3, 0, 1, 2), self.draw("Logits/Conv3d_0c_1x1/conv_3d/b", 400))
        logits = self.op("ReduceMean", x, axes=(2, 3, 4), keepdims=0)
        graph = helper.make_graph(
            self._nodes,
            "i3d",
            [helper.make_tensor_value_info("flow", TensorProto.FLOAT, ["n", "t", 224, 224, 2])],
            [
                helper.make_tensor_value_info(features, TensorProto.FLOAT, ["n", 1024]),
                helper.make_tensor_value_info(logits, TensorProto.FLOAT, ["n", 400]),
            ],
            self._constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.checker.check_model(model)
        return model.SerializeToString()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("checkpoint")


@pytest.fixture(scope="module")
def reference(folder, write_checkpoint):
    """The independent network: windows -> (features, logits). Its weights lie as a checkpoint in `folder`."""
    graph = Graph(seed=11)
    session = onnxruntime.InferenceSession(graph.build())
    write_checkpoint(folder, graph.drawn)
    return lambda windows: session.run(None, {"flow": windows})


@pytest.fixture(scope="module")
def networks(folder, reference, i3d_with_head):
    """The networks under test, as extraction runs them: features, logits."""
    models = [i3d.build_i3d(), i3d_with_head]
    for model in models:
        i3d.load_checkpoint(model, folder)
    return [for_inference(model) for model in models]


def real_motion(corpus: Path, fields: int) -> np.ndarray:
    """The middle of a speaker's optical flow, float32 [fields, 224, 224, 2]."""
    return OpticalFlowSequenceLoader(fields=fields).load(corpus / "fi_v2" / "9KAqOrdiZ4I.002.mp4")


def random_motion(fields: int) -> np.ndarray:
    generator = np.random.default_rng(2)
    coarse = generator.uniform(-0.5, 0.5, (fields, 14, 14, 2)).repeat(16, axis=1).repeat(16, axis=2)
    return (coarse + generator.uniform(-0.5, 0.5, (fields, 224, 224, 2))).astype(np.float32)


def assert_equal(networks, reference, window: np.ndarray) -> None:
    for network, expected in zip(networks, reference(window[None]), strict=True):
        found = network.predict_on_batch(window[None])
        assert np.linalg.norm(found - expected) <= 1e-3 * np.linalg.norm(expected)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("fields", [SLOW_16, 25, SLOW_64, SLOW_79])
def test_features_and_logits_of_random_motion_are_those_of_the_independent_network(fields, networks, reference):
    assert_equal(networks, reference, random_motion(fields))


@pytest.mark.parametrize("fields", [SLOW_16, SLOW_25, SLOW_64, SLOW_79])
def test_features_and_logits_of_a_speaker_are_those_of_the_independent_network(fields, networks, reference, corpus):
    motion = real_motion(corpus, fields)
    assert motion.std() > 0.005  # the speaker moves
    assert_equal(networks, reference, motion)


def test_the_published_weights_see_cricket_in_the_published_sample():
    """Figures of google-deepmind/kinetics-i3d, out/imagenet_flow.txt."""
    folder = os.environ.get(CHECKPOINT)
    if folder is None:
        pytest.skip(f"{CHECKPOINT} names no folder with DeepMind's model.ckpt and v_CricketShot_g04_c01_flow.npy")
    sample = Path(folder) / "v_CricketShot_g04_c01_flow.npy"
    window = OpticalFlowSequenceLoader(fields=79, values="scaled").load(sample)
    model = i3d.build_i3d(classes=400)
    i3d.load_checkpoint(model, Path(folder))
    (logits,) = for_inference(model).predict_on_batch(window[None])
    odds = np.exp(logits - logits.max())
    assert logits.argmax() == PLAYING_CRICKET
    assert np.linalg.norm(logits) == pytest.approx(63.2527, rel=1e-3)
    assert logits.max() == pytest.approx(15.957, rel=1e-3)
    assert odds.max() / odds.sum() == pytest.approx(0.948, abs=1e-3)
    features = DynamicFeatureExtractor("pretrained", asset_folder=Path(folder)).extract(window[None])
    head = model.get_layer("Logits.Conv3d_0c_1x1")
    np.testing.assert_allclose(features[0] @ np.asarray(head.kernel)[0, 0, 0] + head.bias, logits, rtol=1e-3, atol=1e-3)
