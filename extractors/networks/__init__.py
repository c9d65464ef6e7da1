"""What both feature networks share: their form for inference, and batches that fit."""

from typing import Literal

Precision = Literal["float32", "bfloat16"]
