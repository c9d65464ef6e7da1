"""Preprocessing of pictures: the ranges and orders of colours that networks were trained on."""

from __future__ import annotations

import cv2
import numpy as np

from extractors.networks import SIDE_PX, Preprocessing

CROP_SHAPE = (SIDE_PX, SIDE_PX, 3)

# Means and standard deviations over ImageNet: of RGB in [0, 1] as in torchvision, and means of BGR as in Caffe.
TORCH_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
TORCH_STD = np.array([0.229, 0.224, 0.225], np.float32)
CAFFE_MEAN = np.array([103.939, 116.779, 123.68], np.float32)


def check_crops(crops: np.ndarray) -> None:
    """Raise ValueError unless face crops are uint8 [N, 224, 224, 3]."""
    if crops.dtype != np.uint8 or crops.shape[1:] != CROP_SHAPE:
        raise ValueError(f"crops must be uint8 [N, {SIDE_PX}, {SIDE_PX}, 3]; got {crops.dtype} {crops.shape}")


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
    return pictures if pictures.shape[1] == side else np.stack([resized(one, (side, side)) for one in pictures])


def resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale a picture [H, W, ...] to a width and a height in pixels, without changing its proportions."""
    # Averaging areas prevents aliasing, which looks like motion; when enlarging, it would only repeat pixels.
    shrinks = size[0] < picture.shape[1]
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
