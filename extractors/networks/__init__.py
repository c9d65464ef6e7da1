"""What both feature networks share: their input size, their form for inference, and batches that fit."""

from typing import Literal

Precision = Literal["float32", "bfloat16"]

SIDE_PX = 224  # width and height of what ResNet-50 and I3D take
