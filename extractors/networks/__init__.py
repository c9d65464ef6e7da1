"""Shared by both feature networks: their input size, their form for inference, and batches that fit into memory."""

from pathlib import PurePath
from typing import Literal

Precision = Literal["float32", "tf32", "bfloat16"]
"""What a network computes in; see `extractors.networks.precision`."""
Preprocessing = Literal["imagenet-torch", "imagenet-caffe", "minus1-1", "0-1", "0-255"]
"""What a network's input is made of; see `extractors.networks.preprocessing.preprocess`."""

SIDE_PX = 224  # width and height of the inputs of ResNet-50 and I3D
FILE_ENDINGS = (".onnx", ".keras")  # of networks in files of the user's own


def is_network_file(name: str) -> bool:
    """Return whether a setting names a network's file, and not a network that Traitline knows."""
    return PurePath(name).suffix.lower() in FILE_ENDINGS
