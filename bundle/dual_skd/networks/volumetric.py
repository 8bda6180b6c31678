# SPDX-License-Identifier: Apache-2.0
"""A 2D convolutional network turned into the same network for volumes.

Every 2D layer is exchanged for its 3D counterpart under the same name, so that weights can be selected from a 2D parent
tensor by tensor. Depth is the last axis, (N, C, H, W, D) as in MONAI, and is treated as height and width are. Every
conversion is checked for that, because a library's ``forward`` may name its axes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.layers import BatchNormAct2d, Conv2dSame, LayerNorm2d, LayerNormAct2d, LayerScale2d, SEModule
from timm.layers.grn import GlobalResponseNorm
from timm.layers.pool2d_same import AvgPool2dSame, MaxPool2dSame
from timm.models._efficientnet_blocks import SqueezeExcite
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn
from torch.nn import functional

from dual_skd.errors import InputError


def to_volumetric(network: nn.Module) -> nn.Module:
    """Returns a 3D copy of a 2D convolutional network, with the same names of layers and tensors.

    3D kernels are random, with the variance of the 2D ones divided by the depth of the kernel, as the initialiser would
    have drawn them for the larger fan.

    Args:
        network: maps (N, C, H, W) to logits; stays as it is.

    Returns:
        a module that maps (N, C, H, W, D) to logits.

    Raises:
        InputError: a layer without a 3D counterpart, or a network that treats the three axes differently after all.
    """
    volumetric = copy.deepcopy(network)
    holder = nn.ModuleDict({"network": volumetric})
    for name, module in list(holder.named_modules()):
        new = _counterpart(module)
        if new is not module:
            parent, _, child = name.rpartition(".")
            setattr(holder.get_submodule(parent), child, new)
        elif _is_2d_layer(module):
            raise InputError(
                f"{type(network).__name__}: layer {name.removeprefix('network.')!r} is a {type(module).__name__}, "
                "which has no 3D counterpart here; use another network for volumes, for instance tf_efficientnet_lite2."
            )
    volumetric = holder["network"]
    if next(volumetric.parameters()).device.type != "meta":
        _verify_axes(volumetric)
    return volumetric


# --- layers -----------------------------------------------------------------------------------------------------------


def _same_padding(x: Tensor, kernel: Any, stride: Any, dilation: Any, value: float = 0) -> Tensor:
    """TensorFlow's SAME: the output has ceil(size / stride) voxels, an odd voxel of padding goes to the end."""
    pads: list[int] = []
    for size, k, s, d in reversed(list(zip(x.shape[2:], kernel, stride, dilation, strict=True))):  # last axis first
        total = max((math.ceil(size / s) - 1) * s + (k - 1) * d + 1 - size, 0)
        pads += [total // 2, total - total // 2]
    return functional.pad(x, pads, value=value)


class Conv3dSame(nn.Conv3d):
    """Convolution with TensorFlow's SAME padding."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(_same_padding(x, self.kernel_size, self.stride, self.dilation))


class MaxPool3dSame(nn.MaxPool3d):
    """Maximum pooling with TensorFlow's SAME padding."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(_same_padding(x, self.kernel_size, self.stride, (1, 1, 1), -math.inf))


class AvgPool3dSame(nn.AvgPool3d):
    """Average pooling with TensorFlow's SAME padding."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(_same_padding(x, self.kernel_size, self.stride, (1, 1, 1)))


# The classes below have the state of a timm layer and only another forward, so an instance is given the new class.


class BatchNormAct3d(BatchNormAct2d):
    """Batch normalisation followed by an activation."""

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(nn.BatchNorm3d.forward(self, x)))

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim != 5:
            raise ValueError(f"expected (N, C, H, W, D), got {tuple(input.shape)}")


class LayerNorm3d(LayerNorm2d):
    """Layer normalisation over the channels of (N, C, H, W, D)."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.LayerNorm.forward(self, x.movedim(1, -1)).movedim(-1, 1)


class LayerNormAct3d(LayerNormAct2d):
    """Layer normalisation over the channels, followed by an activation."""

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(nn.LayerNorm.forward(self, x.movedim(1, -1)).movedim(-1, 1)))


class LayerScale3d(LayerScale2d):
    """One learnt factor per channel."""

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma.view(1, -1, 1, 1, 1)


class SqueezeExcite3d(SqueezeExcite):
    """Channel gates from the mean over the volume (EfficientNet, MobileNet)."""

    def forward(self, x: Tensor) -> Tensor:
        gates = self.conv_expand(self.act1(self.conv_reduce(x.mean((2, 3, 4), keepdim=True))))
        return x * self.gate(gates)


class SEModule3d(SEModule):
    """Channel gates from the mean over the volume (SE-ResNet, RegNet)."""

    def forward(self, x: Tensor) -> Tensor:
        squeezed = x.mean((2, 3, 4), keepdim=True)
        if self.add_maxpool:
            squeezed = (squeezed + x.amax((2, 3, 4), keepdim=True)) / 2
        return x * self.gate(self.fc2(self.act(self.bn(self.fc1(squeezed)))))


class GlobalResponseNorm3d(GlobalResponseNorm):
    """Response normalisation over the volume (ConvNeXt V2, Woo 2023), for (N, C, H, W, D) or (N, H, W, D, C)."""

    def forward(self, x: Tensor) -> Tensor:
        axes = (2, 3, 4) if self.channel_dim == 1 else (1, 2, 3)
        norm = x.norm(p=2, dim=axes, keepdim=True)
        share = norm / (norm.mean(dim=self.channel_dim, keepdim=True) + self.eps)
        shape = (1, -1, 1, 1, 1) if self.channel_dim == 1 else (1, 1, 1, 1, -1)
        return x + self.bias.view(shape) + self.weight.view(shape) * (x * share)


class ConvNeXtBlock3d(ConvNeXtBlock):
    """ConvNeXt's block; its linear layers see the channels last."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_dw(x)
        y = self.mlp(self.norm(y)) if self.use_conv_mlp else self.mlp(self.norm(y.movedim(1, -1))).movedim(-1, 1)
        if self.gamma is not None:
            y = y * self.gamma.view(1, -1, 1, 1, 1)
        return self.drop_path(y) + self.shortcut(x)


_NEW_FORWARD: dict[type[nn.Module], type[nn.Module]] = {
    BatchNormAct2d: BatchNormAct3d,
    LayerNorm2d: LayerNorm3d,
    LayerNormAct2d: LayerNormAct3d,
    LayerScale2d: LayerScale3d,
    SqueezeExcite: SqueezeExcite3d,
    SEModule: SEModule3d,
    GlobalResponseNorm: GlobalResponseNorm3d,
    ConvNeXtBlock: ConvNeXtBlock3d,
}


def _convolution(layer: nn.Conv2d) -> nn.Conv3d:
    new = nn.utils.skip_init(
        Conv3dSame if type(layer) is Conv2dSame else nn.Conv3d,
        layer.in_channels,
        layer.out_channels,
        _deepen(layer.kernel_size),
        stride=_deepen(layer.stride),
        padding=layer.padding if isinstance(layer.padding, str) else _deepen(layer.padding),
        dilation=_deepen(layer.dilation),
        groups=layer.groups,
        bias=layer.bias is not None,
        padding_mode=layer.padding_mode,
        device=layer.weight.device,
        dtype=layer.weight.dtype,
    )
    depth = new.kernel_size[-1]
    flat = layer.weight.detach()
    with torch.no_grad():
        if depth == 1:
            new.weight.copy_(flat.unsqueeze(-1))
        else:
            new.weight.normal_().mul_(flat.square().mean().sqrt() / math.sqrt(depth))
        if new.bias is not None:
            new.bias.copy_(layer.bias)
    new.weight.requires_grad_(layer.weight.requires_grad)
    return new.train(layer.training)


def _deepen(sizes: int | Sequence[int]) -> tuple[int, int, int]:
    """(h, w) -> (h, w, d) with the depth of the other two; a kernel of 1 x 7 stays flat along the depth."""
    height, width = (sizes, sizes) if isinstance(sizes, int) else sizes
    return height, width, min(height, width)


def _batch_norm(layer: nn.BatchNorm2d) -> nn.BatchNorm3d:
    new = nn.BatchNorm3d(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
    new.to(next(iter(layer.state_dict().values()), torch.empty(0)).device)
    new.load_state_dict(layer.state_dict(), assign=True)
    return new.train(layer.training)


def _max_pool(layer: nn.MaxPool2d, kind: type[nn.MaxPool3d]) -> nn.MaxPool3d:
    size, stride = _deepen(layer.kernel_size), _deepen(layer.stride)
    return kind(size, stride, _deepen(layer.padding), _deepen(layer.dilation), ceil_mode=layer.ceil_mode)


def _avg_pool(layer: nn.AvgPool2d, kind: type[nn.AvgPool3d]) -> nn.AvgPool3d:
    size, stride = _deepen(layer.kernel_size), _deepen(layer.stride)
    return kind(size, stride, _deepen(layer.padding), layer.ceil_mode, layer.count_include_pad)


_COUNTERPARTS: dict[type[nn.Module], Callable[..., nn.Module]] = {
    nn.Conv2d: _convolution,
    Conv2dSame: _convolution,
    nn.BatchNorm2d: _batch_norm,
    nn.MaxPool2d: lambda layer: _max_pool(layer, nn.MaxPool3d),
    MaxPool2dSame: lambda layer: _max_pool(layer, MaxPool3dSame),
    nn.AvgPool2d: lambda layer: _avg_pool(layer, nn.AvgPool3d),
    AvgPool2dSame: lambda layer: _avg_pool(layer, AvgPool3dSame),
    nn.AdaptiveAvgPool2d: lambda layer: nn.AdaptiveAvgPool3d(_deepen(layer.output_size)),
    nn.AdaptiveMaxPool2d: lambda layer: nn.AdaptiveMaxPool3d(_deepen(layer.output_size)),
    nn.Dropout2d: lambda layer: nn.Dropout3d(layer.p, layer.inplace),
}


def _counterpart(module: nn.Module) -> nn.Module:
    if type(module) in _NEW_FORWARD:
        module.__class__ = _NEW_FORWARD[type(module)]
        return module
    return _COUNTERPARTS[type(module)](module) if type(module) in _COUNTERPARTS else module


def _is_2d_layer(module: nn.Module) -> bool:
    converted = type(module) in _NEW_FORWARD.values()
    return not converted and isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.ConvTranspose2d | nn.MaxPool2d)


# --- verification -----------------------------------------------------------------------------------------------------


def _verify_axes(network: nn.Module) -> None:
    """Raises InputError unless exchanging width and depth of the input leaves the output as it is.

    A ``forward`` that still averages over two axes, or reshapes as if there were two, would give plausible numbers for
    volumes. Its output changes when the volume is transposed, though the kernels are symmetric in the three axes.
    """
    generator = torch.Generator().manual_seed(0)
    probe = copy.deepcopy(network).cpu().double().eval()  # in float32 deep random networks amplify rounding
    with torch.no_grad():
        for tensor in probe.parameters():
            if tensor.ndim == 5:  # one random value per pair of channels, constant over the kernel: symmetric
                one = torch.randn(*tensor.shape[:2], 1, 1, 1, generator=generator, dtype=torch.float64)
                tensor.copy_((one / tensor[0].numel() ** 0.5).expand_as(tensor))
            elif tensor.ndim == 1:  # wakes up branches that start at zero, such as the last norm of a residual block
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        channels = next(tensor.shape[1] for tensor in probe.parameters() if tensor.ndim == 5)
        volume = torch.randn(1, channels, 32, 32, 32, generator=generator, dtype=torch.float64)
        try:
            one, other = probe(volume), probe(volume.transpose(-1, -2))
        except (RuntimeError, ValueError, AssertionError, IndexError) as error:
            found = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(
                f"{type(network).__name__} has no 3D form here: it fails on volumes ({found}); use another network, "
                "for instance tf_efficientnet_lite2 or monai_resnet18."
            ) from error
    if one.ndim != 2 or not torch.allclose(one, other, rtol=1e-6, atol=1e-6 * float(one.abs().max())):
        raise InputError(
            f"{type(network).__name__} has no 3D form here: it treats height, width and depth differently; use "
            "another network, for instance tf_efficientnet_lite2 or monai_resnet18."
        )
