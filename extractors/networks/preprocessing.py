"""Preprocessing of pictures: the ranges and orders of colours that networks were trained on."""

from __future__ import annotations

import cv2
import numpy as np

from extractors.networks import Preprocessing

# Means and standard deviations over ImageNet: of RGB in [0, 1] as in torchvision, and means of BGR as in Caffe.
TORCH_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
TORCH_STD = np.array([0.229, 0.224, 0.225], np.float32)
CAFFE_MEAN = np.array([103.939, 116.779, 123.68], np.float32)


def preprocess(pictures: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Bring pictures into the range that a network was trained on.

    Args:
        pictures: uint8 RGB [N, H, W, 3].
        preprocessing: "imagenet-torch": RGB in [0, 1], minus ImageNet's means, by its standard deviations;
            "imagenet-caffe": BGR in [0, 255], minus ImageNet's means; "minus1-1", "0-1", "0-255": RGB in that range.

    Returns:
        float32, the same shape.
    """
    values = pictures.astype(np.float32)
    match preprocessing:
        case "imagenet-torch":
            prepared: np.ndarray = (values / np.float32(255) - TORCH_MEAN) / TORCH_STD
        case "imagenet-caffe":
            prepared = values[..., ::-1] - CAFFE_MEAN
        case "minus1-1":
            prepared = values / np.float32(127.5) - np.float32(1)
        case "0-1":
            prepared = values / np.float32(255)
        case "0-255":
            prepared = values
    return prepared


def scaled(pictures: np.ndarray, side: int) -> np.ndarray:
    """Scale square pictures, uint8 [N, S, S, 3], to another side in pixels."""
    if pictures.shape[1] == side:
        return pictures
    # Averaging areas prevents aliasing; when enlarging, it would only repeat pixels.
    interpolation = cv2.INTER_AREA if side < pictures.shape[1] else cv2.INTER_CUBIC
    return np.stack([cv2.resize(picture, (side, side), interpolation=interpolation) for picture in pictures])
