"""Both feature networks in PyTorch's eager mode with the weights of the Keras models: what others would run."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from extractors.dynamic.i3d import INCEPTION, PUBLISHED_NAME_OF_BRANCH_2_3X3

Unit = Callable[..., torch.Tensor]


def _units(model: keras.Model, norm_name: Callable[[str], str]) -> Unit:
    """Return unit(x, name, stride=1, relu=True, padded=False): convolution, SAME where not padded, BatchNorm, ReLU."""
    weights = {layer.name: [torch.from_numpy(w) for w in layer.get_weights()] for layer in model.layers}

    def unit(x: torch.Tensor, name: str, stride: int = 1, relu: bool = True, padded: bool = False) -> torch.Tensor:
        kernel, *bias = weights[name]
        rank = kernel.ndim - 2
        kernel = kernel.permute(rank + 1, rank, *range(rank))
        *gamma, beta, mean, variance = weights[norm_name(name)]
        convolve = F.conv3d if rank == 3 else F.conv2d
        if padded:
            padding = 0
        elif stride > 1:
            x, padding = _same(x, kernel.shape[2:], (stride,) * rank), 0
        else:
            padding = kernel.shape[-1] // 2
        x = convolve(x, kernel, bias[0] if bias else None, stride=stride, padding=padding)
        x = F.batch_norm(
            x, mean, variance, gamma[0] if gamma else None, beta, eps=model.get_layer(norm_name(name)).epsilon
        )
        return F.relu(x, inplace=True) if relu else x

    return unit


def _same(x: torch.Tensor, size: tuple[int, ...], stride: tuple[int, ...]) -> torch.Tensor:
    pads: list[int] = []
    for length, k, s in zip(reversed(x.shape[2:]), reversed(size), reversed(stride), strict=False):
        total = max((-(-length // s) - 1) * s + k - length, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


def torch_i3d(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """I3D as `extractors.dynamic.i3d.build_i3d()` made it: windows -> features."""
    unit = _units(model, lambda name: f"{name}.batch_norm")

    def pool(x: torch.Tensor, size: tuple[int, int, int], stride: tuple[int, int, int]) -> torch.Tensor:
        return F.max_pool3d(_same(x, size, stride), size, stride)

    def mixed(x: torch.Tensor, name: str) -> torch.Tensor:
        last = PUBLISHED_NAME_OF_BRANCH_2_3X3.get(name, "Conv3d_0b_3x3")
        a = unit(x, f"{name}.Branch_0.Conv3d_0a_1x1")
        b = unit(unit(x, f"{name}.Branch_1.Conv3d_0a_1x1"), f"{name}.Branch_1.Conv3d_0b_3x3")
        c = unit(unit(x, f"{name}.Branch_2.Conv3d_0a_1x1"), f"{name}.Branch_2.{last}")
        d = unit(pool(x, (3, 3, 3), (1, 1, 1)), f"{name}.Branch_3.Conv3d_0b_1x1")
        return torch.cat([a, b, c, d], 1)

    @torch.inference_mode()
    def run(windows: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(windows).permute(0, 4, 1, 2, 3).contiguous()
        x = pool(unit(x, "Conv3d_1a_7x7", 2), (1, 3, 3), (1, 2, 2))
        x = pool(unit(unit(x, "Conv3d_2b_1x1"), "Conv3d_2c_3x3"), (1, 3, 3), (1, 2, 2))
        for name in INCEPTION:
            if name == "Mixed_4b":
                x = pool(x, (3, 3, 3), (2, 2, 2))
            elif name == "Mixed_5b":
                x = pool(x, (2, 2, 2), (2, 2, 2))
            x = mixed(x, name)
        return F.avg_pool3d(x, (2, 7, 7), 1).mean((2, 3, 4)).numpy()

    return run


def torch_resnet(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """ResNet-50 v1 as keras.applications makes it: prepared pictures -> features."""
    unit = _units(model, lambda name: name.removesuffix("conv") + "bn")

    @torch.inference_mode()
    def run(pictures: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()
        x = F.max_pool2d(F.pad(unit(F.pad(x, (3, 3, 3, 3)), "conv1_conv", 2, padded=True), (1, 1, 1, 1)), 3, 2)
        for stage, blocks in ((2, 3), (3, 4), (4, 6), (5, 3)):
            for block in range(1, blocks + 1):
                name = f"conv{stage}_block{block}"
                stride = 2 if stage > 2 and block == 1 else 1
                shortcut = unit(x, f"{name}_0_conv", stride, relu=False) if block == 1 else x
                x = unit(unit(x, f"{name}_1_conv", stride), f"{name}_2_conv")
                x = F.relu(unit(x, f"{name}_3_conv", relu=False) + shortcut)
        return x.mean((2, 3)).numpy()

    return run
