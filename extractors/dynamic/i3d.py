"""I3D: Inception-v1 with its filters inflated to 3-D, for the optical-flow stream.

Layers have the names of DeepMind's checkpoint, so that its variables map to them one to one.

Sources:
    Carreira & Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017 (arXiv:1705.07750), figure 3.
    google-deepmind/kinetics-i3d, i3d.py, for details that the figure omits: SAME padding, BatchNorm without scale
    (epsilon 1e-3), average pool 2x7x7 with stride 1, logits averaged over time.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import keras
from keras import layers

from extractors.assets.files import AssetError
from extractors.networks import SIDE_PX

SCOPE = "Flow/inception_i3d"
HEAD = f"{SCOPE}/Logits/Conv3d_0c_1x1/conv_3d"

# Channels of each Inception block: 1x1 | 1x1 -> 3x3 | 1x1 -> 3x3 | pool -> 1x1 (paper's figure 3, GoogLeNet's table 1).
INCEPTION = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
# In the published checkpoint one layer of one block has an irregular name.
PUBLISHED_NAME_OF_BRANCH_2_3X3 = {"Mixed_5b": "Conv3d_0a_3x3"}


def build_i3d(*, seed: int = 0, classes: int | None = None, dropout: float = 0.0) -> keras.Model:
    """Build the optical-flow stream of I3D.

    Args:
        seed: seeds the random initial weights; the same seed gives the same weights, layer by layer.
        classes: if given, the output is the logits [N, classes] of the classification head, otherwise the pooled
            features.
        dropout: share of the pooled features that training drops before the head, after the average pool as in the
            released code, whose default also drops none. Extraction never drops any.

    Returns:
        Model from float32 [N, T, 224, 224, 2] in [-1, 1], T >= 9, to float32 [N, 1024] (or [N, classes]).
    """
    field = keras.Input((None, SIDE_PX, SIDE_PX, 2), name="optical_flow")
    x = _unit(field, "Conv3d_1a_7x7", 64, 7, seed, strides=2)
    x = _max_pool(x, "MaxPool3d_2a_3x3", (1, 3, 3), (1, 2, 2))
    x = _unit(x, "Conv3d_2b_1x1", 64, 1, seed)
    x = _unit(x, "Conv3d_2c_3x3", 192, 3, seed)
    x = _max_pool(x, "MaxPool3d_3a_3x3", (1, 3, 3), (1, 2, 2))
    for name, channels in INCEPTION.items():
        if name == "Mixed_4b":
            x = _max_pool(x, "MaxPool3d_4a_3x3", 3, 2)
        elif name == "Mixed_5b":
            x = _max_pool(x, "MaxPool3d_5a_2x2", 2, 2)
        x = _inception(x, name, channels, seed)
    x = layers.AveragePooling3D((2, 7, 7), strides=1, padding="valid", name="AvgPool3d_6a_7x7")(x)
    if classes is None:
        x = layers.GlobalAveragePooling3D(name="features")(x)
    else:
        x = layers.Dropout(dropout, name="Logits.Dropout")(x)
        x = layers.Conv3D(classes, 1, kernel_initializer=_initializer(seed, "logits"), name="Logits.Conv3d_0c_1x1")(x)
        x = layers.GlobalAveragePooling3D(name="logits")(x)
    return keras.Model(field, x, name="i3d_flow")


def checkpoint_variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Map names of DeepMind's checkpoint to the model's variables."""
    names = {}
    for layer in model.layers:
        scope = f"{SCOPE}/{layer.name.replace('.', '/')}"  # Keras allows no "/" in a layer's name
        if isinstance(layer, layers.Conv3D):
            names[f"{scope}/conv_3d/w"] = layer.kernel
            if layer.use_bias:
                names[f"{scope}/conv_3d/b"] = layer.bias
        elif isinstance(layer, layers.BatchNormalization):
            names[f"{scope}/beta"] = layer.beta
            names[f"{scope}/moving_mean"] = layer.moving_mean
            names[f"{scope}/moving_variance"] = layer.moving_variance
    return names


def load_checkpoint(model: keras.Model, folder: Path) -> None:
    """Fill the model with DeepMind's TF1 checkpoint `FOLDER/model.ckpt`, by name.

    A model without the head ignores the head's two variables.

    Raises:
        AssetError: the checkpoint is missing, lacks a variable of the model, has it in another shape, or has one that
            the model has no place for; names the variable.
    """
    import tensorflow as tf

    try:
        reader = tf.train.load_checkpoint(str(folder / "model.ckpt"))
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise AssetError(f"{folder} holds no checkpoint model.ckpt that TensorFlow can read") from error
    shapes = reader.get_variable_to_shape_map()
    variables = checkpoint_variables(model)
    left_over = sorted(set(shapes) - set(variables) - {f"{HEAD}/w", f"{HEAD}/b"})
    if left_over:
        raise AssetError(f"{folder}: the network has no place for variable {left_over[0]}")
    for name, variable in variables.items():
        if shapes.get(name) != list(variable.shape):
            raise AssetError(f"{folder}: variable {name} is {shapes.get(name, 'missing')}, not {list(variable.shape)}")
    for name, variable in variables.items():
        variable.assign(reader.get_tensor(name))


def _initializer(seed: int, name: str) -> keras.initializers.Initializer:
    # He initialization keeps the variance of activations through the ReLUs, so that untrained features differ. Each
    # layer is seeded by its own name, so that its weights do not depend on the layers built before it.
    return keras.initializers.HeNormal(seed=zlib.crc32(f"{seed}/{name}".encode()))


def _unit(x: keras.KerasTensor, name: str, filters: int, size: int, seed: int, strides: int = 1) -> keras.KerasTensor:
    start = _initializer(seed, name)
    x = layers.Conv3D(filters, size, strides, "same", use_bias=False, kernel_initializer=start, name=name)(x)
    x = layers.BatchNormalization(scale=False, epsilon=1e-3, momentum=0.999, name=f"{name}.batch_norm")(x)
    return layers.ReLU(name=f"{name}.relu")(x)


def _max_pool(
    x: keras.KerasTensor, name: str, size: int | tuple[int, ...], strides: int | tuple[int, ...]
) -> keras.KerasTensor:
    return layers.MaxPooling3D(size, strides=strides, padding="same", name=name)(x)


def _inception(x: keras.KerasTensor, name: str, channels: tuple[int, ...], seed: int) -> keras.KerasTensor:
    one, reduce_a, three_a, reduce_b, three_b, pooled = channels
    branch_0 = _unit(x, f"{name}.Branch_0.Conv3d_0a_1x1", one, 1, seed)
    branch_1 = _unit(x, f"{name}.Branch_1.Conv3d_0a_1x1", reduce_a, 1, seed)
    branch_1 = _unit(branch_1, f"{name}.Branch_1.Conv3d_0b_3x3", three_a, 3, seed)
    branch_2 = _unit(x, f"{name}.Branch_2.Conv3d_0a_1x1", reduce_b, 1, seed)
    branch_2_name = PUBLISHED_NAME_OF_BRANCH_2_3X3.get(name, "Conv3d_0b_3x3")
    branch_2 = _unit(branch_2, f"{name}.Branch_2.{branch_2_name}", three_b, 3, seed)
    branch_3 = _max_pool(x, f"{name}.Branch_3.MaxPool3d_0a_3x3", 3, 1)
    branch_3 = _unit(branch_3, f"{name}.Branch_3.Conv3d_0b_1x1", pooled, 1, seed)
    return layers.Concatenate(name=name)([branch_0, branch_1, branch_2, branch_3])
