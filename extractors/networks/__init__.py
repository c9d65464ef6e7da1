"""Shared by both feature networks: their input size, their form for inference, and batches that fit into memory."""

from typing import Literal

Precision = Literal["float32", "bfloat16"]

SIDE_PX = 224  # width and height of the inputs of ResNet-50 and I3D
