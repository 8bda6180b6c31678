# SPDX-License-Identifier: Apache-2.0
"""Reconstruction-compensated selection: what was cut away is made up for, layer by layer, in closed form.

A selected layer sees fewer channels than the layer it was taken from, so its outputs are off, and the error grows with
depth. Layer by layer, in the order of computation, the kept weights get the least-squares correction that brings the
outputs back to those of the large network on the kept channels, from the inputs that the small network really has (as
in channel pruning by reconstruction, He et al. 2017, arXiv 1707.06168). Images suffice, labels are not looked at.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import InputError
from .plan import SelectionPlan

logger = logging.getLogger(__name__)

Hook = Callable[..., None]
SAMPLES_PER_FEATURE = 2  # with fewer, a layer would be fitted to the noise of the images


@dataclass(frozen=True)
class CompensationRow:
    """What happened to one layer of the small network.

    Args:
        layer: name in the small network.
        source: name in the large network, None without one.
        samples: positions of all images that were fitted to.
        r2_selected: share of the variance of the large network's outputs that the selected weights explain, given the
            inputs the small network has; below 0 where they are worse than the mean.
        r2: the same after the correction.
        reason: why the layer was left as it is, ``""`` where it was compensated.
    """

    layer: str
    source: str | None = None
    samples: int = 0
    r2_selected: float | None = None
    r2: float | None = None
    reason: str = ""


@dataclass
class _Layer:
    """A layer of the small network, the norm that follows it at once, and what the large network gives there."""

    name: str
    module: nn.Linear | nn.Conv2d
    positions: int
    norm: _BatchNorm | None = None
    calls: int = 1
    source: str | None = None
    kept: Tensor | None = None
    reason: str = ""


class _Reached(Exception):
    """Ends a forward pass at the layer whose inputs are wanted."""


@torch.no_grad()
def compensate(
    small: nn.Module,
    large: nn.Module,
    plan: SelectionPlan,
    batches: Sequence[Tensor],
    *,
    ridge: float = 1e-3,
    samples: int = 8192,
    seed: int = 0,
) -> list[CompensationRow]:
    """Corrects the selected layers of ``small`` in place so that they reproduce ``large`` on the kept channels.

    For a layer with inputs x and selected weights W, the correction D and the offset b minimise

        sum over samples |y - W x - D x - b|^2 + ridge * n * v * |D|^2,    v: mean variance of the inputs,

    y being the large network's outputs. So directions that the images don't show keep their selected weights, and a
    network that already agrees isn't changed. The offset goes into the layer's bias, or into the running mean of the
    batch normalisation behind it. Linear layers and convolutions of one group are treated; depth-wise and grouped
    convolutions, padded as TensorFlow does, the first layer and the classifier stay as selected.

    The large network runs once, the small one once per layer up to that layer. Kept in memory are ``samples`` outputs
    of every kept channel, 32 kB a channel by default.

    Args:
        small: network with selected weights, (N, C, H, W) -> anything.
        large: the network they were selected from, for the same images and on the same device.
        plan: the plan of the selection.
        batches: images (N, C, H, W), read once per layer.
        ridge: strength of the pull towards the selected weights, positive.
        samples: how many positions of all images together a layer is fitted to; drawn per image.
        seed: of these positions.

    Returns:
        One row per layer, in the order of computation.

    Raises:
        InputError: there are no images, they are volumes, or ``ridge`` isn't positive.
    """
    if not len(batches) or batches[0].ndim != 4:
        found = f"a shape of {tuple(batches[0].shape)}" if len(batches) else "none"
        raise InputError(f"compensation needs images (N, C, H, W), found {found}; set compensate to 0 for volumes.")
    if not ridge > 0:
        raise InputError(f"ridge is {ridge}; compensation expects a positive number, such as 0.001.")
    device = next(small.parameters()).device
    batches = [batch.to(device) for batch in batches]
    training = small.training, large.training
    small.eval()
    large.eval()
    started = time.perf_counter()
    try:
        layers = _trace(small, batches[0][:1])
        for position, layer in enumerate(layers):
            layer.reason = _find_source(layer, plan, first=position == 0)
        images = sum(map(len, batches))
        targets = _targets(large, layers, batches, max(samples // images, 1), seed)
        rows = [_fit(small, layer, targets.pop(layer.name, []), batches, ridge) for layer in layers]
    finally:
        small.train(training[0])
        large.train(training[1])
    done = summarise(rows)
    logger.info(
        "Compensation of %d of %d layers on %d images in %.0f s: mean R2 %.3f, with the selected weights %.3f.",
        done["layers"], len(rows), images, time.perf_counter() - started, done["mean_r2"], done["mean_r2_selected"],
    )  # fmt: skip
    return rows


def summarise(rows: Sequence[CompensationRow]) -> dict[str, Any]:
    """Number of compensated ``layers`` and their ``mean_r2`` and ``mean_r2_selected`` (0.0 where there are none)."""
    done = [row for row in rows if not row.reason]
    count = max(len(done), 1)
    return {
        "layers": len(done),
        "mean_r2": round(sum(row.r2 or 0.0 for row in done) / count, 4),
        "mean_r2_selected": round(sum(row.r2_selected or 0.0 for row in done) / count, 4),
    }


def unlabelled_batches(
    dataset: Sequence[Mapping[str, Any]], number: int, *, seed: int = 0, batch_size: int = 32
) -> list[Tensor]:
    """Draws images of a data set without looking at anything else.

    Args:
        dataset: items with an ``image`` (C, H, W), all of one shape.
        number: how many; all where the data set has fewer.
        seed: of the draw.
        batch_size: images per batch.

    Returns:
        Batches (N, C, H, W).

    Raises:
        InputError: the number isn't a positive whole number.
    """
    if not isinstance(number, int) or number < 1:
        raise InputError(f"compensate is {number!r}; expected the number of training images to use, or 0 for none.")
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:number].tolist()
    images = [dataset[index]["image"].as_subclass(Tensor) for index in order]
    return [torch.stack(images[start : start + batch_size]) for start in range(0, len(images), batch_size)]


# --- what corresponds to what -----------------------------------------------------------------------------------------


def _trace(small: nn.Module, image: Tensor) -> list[_Layer]:
    """The linear and convolutional layers in the order of computation, each with the batch norm that reads it."""
    layers: dict[str, _Layer] = {}
    outputs: list[tuple[Tensor, _Layer]] = []  # the tensors are kept: only of living ones the identity is unique

    def after_layer(name: str) -> Hook:
        def hook(module: nn.Linear | nn.Conv2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if name in layers:
                layers[name].calls += 1
            else:
                layers[name] = _Layer(name, module, _flat(module, output).shape[1])
                outputs.append((output, layers[name]))

        return hook

    def before_norm(norm: _BatchNorm, inputs: tuple[Tensor, ...]) -> None:
        for output, layer in outputs:
            if output is inputs[0] and norm.running_mean is not None:
                layer.norm = norm

    handles = []
    for name, module in small.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            handles.append(module.register_forward_hook(after_layer(name)))
        elif isinstance(module, _BatchNorm):
            handles.append(module.register_forward_pre_hook(before_norm))
    try:
        small(image)
    finally:
        for handle in handles:
            handle.remove()
    return list(layers.values())


def _find_source(layer: _Layer, plan: SelectionPlan, *, first: bool) -> str:
    """Fills in where the layer was selected from; returns the reason if it can't be compensated."""
    source, layer.kept, reason = plan.outputs_of(f"{layer.name}.weight")
    if reason:
        return reason
    layer.source = source.removesuffix(".weight")
    if first:
        return "sees the image itself, as in the large network"
    if layer.calls > 1:
        return "used more than once"
    if isinstance(layer.module, nn.Conv2d):
        if layer.module.groups > 1:
            return "depth-wise or grouped convolution"
        if type(layer.module) is not nn.Conv2d or isinstance(layer.module.padding, str):
            return "convolution with a padding of its own"
    return ""


def _flat(module: nn.Module, output: Tensor) -> Tensor:
    """Outputs as (N, positions, channels)."""
    if isinstance(module, nn.Conv2d):
        return output.flatten(2).mT
    return output.unsqueeze(1) if output.ndim == 2 else output.flatten(1, -2)


def _inputs(module: nn.Module, x: Tensor) -> Tensor:
    """What the layer's weights are multiplied with at each output position, (N, positions, features)."""
    if not isinstance(module, nn.Conv2d):
        return _flat(module, x)
    if module.kernel_size == (1, 1) and module.stride == (1, 1) and module.padding == (0, 0):
        return x.flatten(2).mT
    padding = module.padding if isinstance(module.padding, tuple) else 0  # a word was refused before
    return F.unfold(x, module.kernel_size, module.dilation, padding, module.stride).mT


# --- fitting ----------------------------------------------------------------------------------------------------------


def _targets(
    large: nn.Module, layers: Sequence[_Layer], batches: Sequence[Tensor], per_image: int, seed: int
) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Layer -> per batch the drawn positions (N, P, 1) and the large network's outputs there (N, P, kept channels)."""
    generator = torch.Generator().manual_seed(seed)
    targets: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def keep(layer: _Layer) -> Hook:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            flat = _flat(module, output)
            if flat.shape[1] != layer.positions:
                layer.reason = f"{layer.positions} positions here, {flat.shape[1]} in the large network"
                return
            order = torch.rand(flat.shape[:2], generator=generator).argsort(1)[:, :per_image, None]
            order = order.to(flat.device)
            channels = flat if layer.kept is None else flat[..., layer.kept.to(flat.device)]
            targets.setdefault(layer.name, []).append((order, channels.take_along_dim(order, 1)))

        return hook

    modules = dict(large.named_modules())
    handles = [
        modules[layer.source].register_forward_hook(keep(layer))
        for layer in layers
        if not layer.reason and isinstance(modules.get(layer.source), nn.Linear | nn.Conv2d)
    ]
    try:
        for batch in batches:
            large(batch)
    finally:
        for handle in handles:
            handle.remove()
    return targets


def _fit(
    small: nn.Module,
    layer: _Layer,
    targets: Sequence[tuple[Tensor, Tensor]],
    batches: Sequence[Tensor],
    ridge: float,
) -> CompensationRow:
    """Corrects one layer, given that those before it are done."""
    module = layer.module
    samples = sum(wanted.shape[0] * wanted.shape[1] for _, wanted in targets)
    features = module.weight[0].numel()
    if not layer.reason and len(targets) != len(batches):
        layer.reason = "the large network doesn't compute it as one layer"
    if not layer.reason and samples < SAMPLES_PER_FEATURE * features:
        layer.reason = f"{samples} samples are too few for {features} inputs"
    if layer.reason:
        return CompensationRow(layer.name, layer.source, reason=layer.reason)

    weight = module.weight.flatten(1).to("cpu", torch.float64)
    offset = 0 if module.bias is None else module.bias.to("cpu", torch.float64)
    outputs = len(weight)
    # second moments of (inputs, residual, 1), and the targets' sums for their variance
    moments = torch.zeros(features + outputs + 1, features + outputs + 1, dtype=torch.float64)
    sums, squares = torch.zeros(2, outputs, dtype=torch.float64)
    for (order, wanted), caught in zip(targets, _caught(small, module, batches), strict=True):
        x = _inputs(module, caught).take_along_dim(order, 1).flatten(0, 1).to("cpu", torch.float64)
        y = wanted.flatten(0, 1).to("cpu", torch.float64)
        row = torch.cat([x, y - x @ weight.T - offset, x.new_ones(len(x), 1)], 1)
        moments += row.T @ row
        sums += y.sum(0)
        squares += y.square().sum(0)
    moments /= samples
    variance = (squares / samples - (sums / samples).square()).sum().item()
    left = moments.diagonal()[features:-1].sum().item()

    means = moments[-1, :-1].clone()
    has_offset = module.bias is not None or layer.norm is not None
    covariance = moments[:-1, :-1] - (torch.outer(means, means) if has_offset else 0)
    xx, xr, rr = covariance[:features, :features], covariance[:features, features:], covariance[features:, features:]
    rounding = 1e-9 * moments.diagonal()[:features].mean().item() + torch.finfo(torch.float64).tiny
    pull = ridge * xx.diagonal().mean().item() + rounding
    correction = torch.linalg.solve(xx + pull * torch.eye(features, dtype=torch.float64), xr)  # (features, outputs)
    fitted = (rr.diagonal().sum() - 2 * (correction * xr).sum() + (correction * (xx @ correction)).sum()).item()

    module.weight += correction.T.reshape(module.weight.shape).to(module.weight)
    shift = means[features:] - means[:features] @ correction
    if module.bias is not None:
        module.bias += shift.to(module.bias)
    elif layer.norm is not None:
        layer.norm.running_mean -= shift.to(layer.norm.running_mean)
    scale = max(variance, torch.finfo(torch.float32).tiny)
    return CompensationRow(layer.name, layer.source, samples, 1 - left / scale, 1 - fitted / scale)


def _caught(small: nn.Module, module: nn.Module, batches: Sequence[Tensor]) -> Iterator[Tensor]:
    """What enters a layer, batch by batch; nothing behind the layer is computed."""
    caught: list[Tensor] = []

    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        caught.append(inputs[0])
        raise _Reached

    handle = module.register_forward_pre_hook(hook)
    try:
        for batch in batches:
            try:
                small(batch)
            except _Reached:
                yield caught.pop()
    finally:
        handle.remove()
