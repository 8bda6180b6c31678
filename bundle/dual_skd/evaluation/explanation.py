# SPDX-License-Identifier: Apache-2.0
"""Where a network looked: maps of the regions that speak for a class, the images worth showing, and their overlays.

A map is a hint for a reader of images, no evidence: it shows what the answer is sensitive to, not the reason, and
networks with random weights can give plausible maps too (Adebayo et al. 2018, Sanity Checks for Saliency Maps).
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.networks.blocks.selfattention import SABlock
from monai.visualize import GradCAM
from numpy.typing import ArrayLike
from timm.layers.attention import Attention
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn
from torch.nn import functional

from dual_skd.errors import InputError
from dual_skd.metrics.uncertainty import decisions, predictive_entropy
from dual_skd.networks.inspect import unwrap

METHODS = ("auto", "occlusion", "gradcam", "attention")
CELLS = {2: 12, 3: 8}  # windows along an axis by spatial axes: 144 images or 512 volumes to classify
OCCLUDED_AT_ONCE = 16
ROUNDING = 1e-4  # of log odds: what falls by less isn't made visible by scaling to 1
SMALLEST_MAP = 6  # positions along the longest axis; Grad-CAM was made for 7 and more, at 224 pixels
# viridis (van der Walt and Smith 2015, CC0), every 16th of its colours: even in lightness, for colour-blind eyes too
_COLOURS = np.array([
    [68, 1, 84], [72, 24, 106], [71, 45, 123], [66, 64, 134], [59, 82, 139], [51, 99, 141], [44, 114, 142],
    [38, 130, 142], [33, 145, 140], [31, 159, 136], [39, 173, 129], [61, 188, 116], [92, 200, 99], [129, 211, 77],
    [170, 220, 50], [213, 226, 26], [253, 231, 37],
])  # fmt: skip


class Panel(NamedTuple):
    """One picture of an explanation.

    Attributes:
        name: ``image``; of a volume the axis and place of the slice, such as ``axis 2, slice 14``.
        picture: RGB, uint8 (H, W, 3).
        overlay: the same with the map over it.
    """

    name: str
    picture: np.ndarray
    overlay: np.ndarray


# --- maps -------------------------------------------------------------------------------------------------------------


def explain(
    network: nn.Module,
    image: Tensor,
    target: int,
    *,
    layer: str | None = None,
    method: str = "auto",
    multi_label: bool = False,
) -> np.ndarray:
    """Map of the regions of an image that speak for a class: what the answer is sensitive to, not why.

    ``auto`` takes, by the network:

    * EfficientNets, the default student: ``occlusion`` (Zeiler and Fergus 2014), see :func:`_occlusion_map`. It was
      best at planted cues, where Grad-CAM of the last features missed them (docs/experiments.md).
    * other convolutional networks: ``gradcam`` (Selvaraju et al. 2017) by MONAI, at the last feature map that has at
      least 6 positions along an axis.
    * vision transformers of timm and MONAI: ``attention``, see :func:`_attention_map`.

    Args:
        network: a classifier of :func:`dual_skd.networks.build_network`, wrapped or not; it stays as it is.
        image: (C, H, W[, D]) as the network takes it, without a batch axis.
        target: index of the class.
        layer: name of the module, as in ``network.named_modules()``, whose features are used; it implies ``gradcam``.
        method: ``auto``, ``occlusion`` (any network), ``gradcam`` (any with feature maps) or ``attention``.
        multi_label: labels don't exclude each other: occlusion takes the probability of the class by its logit alone
            (sigmoid), as it does where there is one logit only.

    Returns:
        float32 (H, W[, D]) from 0 to 1, upsampled linearly; all 0 where nothing speaks for the class.

    Raises:
        InputError: the class, the layer or the method doesn't exist, or the network has nothing that it could use.
    """
    if method not in METHODS:
        raise InputError(f"Unknown method {method!r} of a map; valid: {', '.join(METHODS)}.")
    if layer is not None and method not in ("auto", "gradcam"):
        raise InputError(f"layer {layer!r} is of Grad-CAM, but method is {method!r}; leave one of the two out.")
    with torch.inference_mode(False), torch.enable_grad():
        network = _copy_for_gradients(network)
        device = next(network.parameters()).device
        x = torch.as_tensor(image).detach().as_subclass(Tensor)[None].to(device, torch.float32, copy=True)
        classes = network(x).shape[1]
        if not 0 <= target < classes:
            raise InputError(f"Class {target} doesn't exist: the network has {classes}, counted from 0.")
        blocks = [module for module in network.modules() if isinstance(module, Attention | SABlock)]
        if method == "auto":
            method = "gradcam" if layer is not None else _method_for(network, blocks)
        if method == "occlusion":
            found = _occlusion_map(network, x, target, multi_label or classes == 1)
        elif method == "attention":
            found = _attention_map(network, blocks, x, target)
        else:
            found = _gradcam_map(network, x, target, layer)
    mode = {2: "bilinear", 3: "trilinear"}[x.ndim - 2]
    found = functional.interpolate(found.detach(), x.shape[2:], mode=mode, align_corners=False)[0, 0]
    return (found / found.max().clamp(min=torch.finfo(found.dtype).tiny)).clamp(0, 1).float().cpu().numpy()


def _copy_for_gradients(network: nn.Module) -> nn.Module:
    """A copy in float32 that hooks and gradients may stay in."""
    network = copy.deepcopy(unwrap(network)).eval().float()
    module: Any
    for module in network.modules():
        if getattr(module, "inplace", False):  # would write over what a hook holds
            module.inplace = False
    return network.requires_grad_(True)


def _method_for(network: nn.Module, blocks: list[nn.Module]) -> str:
    if blocks:
        return "attention"
    return "occlusion" if isinstance(network, EfficientNet) else "gradcam"


def _gradcam_map(network: nn.Module, x: Tensor, target: int, layer: str | None) -> Tensor:
    name = _feature_layer(network, x) if layer is None else layer
    if name not in dict(network.named_modules()):
        raise InputError(f"{type(network).__name__} has no layer {name!r}; see network.named_modules().")
    return GradCAM(network, name, upsampler=lambda size: lambda m: m).compute_map(x, class_idx=target)


@torch.no_grad()
def _occlusion_map(network: nn.Module, x: Tensor, target: int, multi_label: bool) -> Tensor:
    """Fall of the class's log-probability where a window is filled (1, 1, *cells); 0 where it rises.

    A window of a sixth of each side, in 3D a quarter, is filled with the mean of the image, at 12 x 12 or 8 x 8 x 8
    places that overlap by half: about 0.5 s of CPU time for the default student at 96 px. Evidence that is wider than
    the window, or there twice, isn't found, and a filled window is itself something the network never saw.

    Not by MONAI's OcclusionSensitivity: its windows are averaged over all pixels that they cover, so that the maximum
    is a plateau, and its indexing by lists is announced to end with a coming PyTorch.
    """
    dims = x.ndim - 2
    order = torch.channels_last if dims == 2 else torch.channels_last_3d  # up to twice as fast on CPUs
    network, x = network.to(memory_format=order), x.contiguous(memory_format=order)
    cells = [min(CELLS[dims], side) for side in x.shape[2:]]
    # two cells wide and centred on one: the values lie at the centres of cells, where interpolate expects them
    windows = [
        [slice(max(0, math.floor((k - 0.5) * side / n)), math.floor((k + 1.5) * side / n)) for k in range(n)]
        for side, n in zip(x.shape[2:], cells, strict=True)
    ]
    places = list(itertools.product(*windows))
    mean = x.mean(dim=tuple(range(2, x.ndim)), keepdim=True)

    def log_odds(images: Tensor) -> Tensor:
        logits = network(images).cpu().double()  # of a sure network log p is rounded to 0 in float32
        others = logits[:, [k for k in range(logits.shape[1]) if k != target]]
        return logits[:, target] - (0 if multi_label else others.logsumexp(1))

    filled = []
    for start in range(0, len(places), OCCLUDED_AT_ONCE):
        batch = places[start : start + OCCLUDED_AT_ONCE]
        images = x.repeat(len(batch), *[1] * (x.ndim - 1)).contiguous(memory_format=order)
        for row, place in enumerate(batch):
            there = (slice(row, row + 1), slice(None), *place)
            images[there] = mean
        filled.append(log_odds(images))
    before, after = log_odds(x), torch.cat(filled)
    fall = functional.softplus(-after) - functional.softplus(-before)  # log p = -softplus(-log odds)
    return torch.where(before - after > ROUNDING, fall, 0).reshape(1, 1, *cells)


def _feature_layer(network: nn.Module, x: Tensor) -> str:
    """Name of the block that is the last to give a feature map that is fine enough, else of the last of the finest."""
    sizes: dict[str, tuple[int, ...]] = {}  # in the order in which the modules finish

    def note(name: str):
        def hook(module: nn.Module, inputs: tuple, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim == x.ndim and _is_map(output.shape[2:], x.shape[2:]):
                sizes.pop(name, None)
                sizes[name] = tuple(output.shape[2:])

        return hook

    modules = dict(network.named_modules())
    hooks = [module.register_forward_hook(note(name)) for name, module in modules.items() if name]
    try:
        with torch.no_grad():
            network(x)
    finally:
        for hook in hooks:
            hook.remove()
    # what lies within a block, such as its expansion, isn't what the block says; a Sequential is only a list of blocks
    blocks = {name for name in sizes if not isinstance(modules[name], nn.Sequential)}
    outputs = {name: max(size) for name, size in sizes.items() if not any(_inside(name, block) for block in blocks)}
    fine = [name for name, size in outputs.items() if size >= SMALLEST_MAP]
    if fine:
        return fine[-1]
    if outputs and max(outputs.values()) > 1:
        return max(reversed(outputs), key=outputs.__getitem__)
    raise InputError(
        f"{type(network).__name__} gives no feature maps of {x.ndim - 2} axes between image and classifier, so there "
        "is nothing for Grad-CAM to show; give layer, or method occlusion, or take a convolutional network or a ViT."
    )


def _inside(name: str, block: str) -> bool:
    return name.startswith(block + ".")


def _is_map(size: Sequence[int], image: Sequence[int]) -> bool:
    """Whether axes are the image's, divided by about one stride: channels-last features within a block aren't."""
    strides = [whole / part for whole, part in zip(image, size, strict=True)]
    return min(strides) >= 1 and max(strides) <= 2 * min(strides)


def _attention_map(network: nn.Module, blocks: list[Any], x: Tensor, target: int) -> Tensor:
    """Relevance of the patches (1, 1, *grid) for the tokens that the classifier reads.

    With a class token, attention rollout weighted by the gradient of the class (Chefer et al. 2021, Generic
    Attention-model Explainability, equations 5 and 6); of a network that averages its patches, Grad-CAM over the tokens
    of the last block.
    """
    if not blocks:
        raise InputError(f"{type(network).__name__} has no attention that is known here; leave method out.")
    caught: list[Tensor] = []
    timm_blocks: Any = getattr(network, "blocks", None)

    def catch(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        caught.append(output)

    grid = [whole // part for whole, part in zip(x.shape[2:], _patch_size(network, x), strict=True)]
    patches = int(np.prod(grid))
    if getattr(network, "global_pool", "token") != "token":  # no one token gathers what the patches say
        timm_blocks[-1].register_forward_hook(catch)
        (gradient,) = torch.autograd.grad(network(x)[0, target], caught)
        found = (caught[0] * gradient.mean(1, keepdim=True)).sum(-1).clamp(min=0)
        return found[:, -patches:].reshape(1, 1, *grid)
    for block in blocks:
        if isinstance(block, Attention):
            block.fused_attn = False  # the fused kernel never holds the attention matrix
            block.attn_drop.register_forward_hook(catch)
        else:
            block.use_flash_attention = False
            block.drop_weights.register_forward_hook(catch)
    gradients = torch.autograd.grad(network(x)[0, target], caught)
    relevance = torch.eye(caught[0].shape[-1], device=x.device)
    for attention, gradient in zip(caught, gradients, strict=True):  # (1, heads, tokens, tokens)
        relevance = relevance + (attention * gradient).clamp(min=0).mean(1)[0] @ relevance
    return relevance[0, -patches:].reshape(1, 1, *grid)  # the class token first, then registers, then patches


def _patch_size(network: nn.Module, x: Tensor) -> Sequence[int]:
    embedding: Any = getattr(network, "patch_embed", None)  # timm
    if embedding is not None:
        return embedding.patch_size
    embedding = getattr(network, "patch_embedding", None)  # MONAI keeps no patch size
    projection: Any = getattr(embedding, "patch_embeddings", None)
    if hasattr(projection, "kernel_size"):
        return projection.kernel_size
    if projection is not None:  # by a linear layer, for patches of equal sides
        return [round((embedding.patch_dim / x.shape[1]) ** (1 / (x.ndim - 2)))] * (x.ndim - 2)
    raise InputError(f"{type(network).__name__} has attention but no patch embedding; give layer for Grad-CAM.")


# --- which images -----------------------------------------------------------------------------------------------------


def choose_cases(
    probabilities: ArrayLike, labels: ArrayLike, *, count: int = 3, multi_label: bool = False
) -> dict[str, list[int]]:
    """Images worth looking at, such as from :func:`dual_skd.metrics.predictions.read_predictions`.

    Args:
        probabilities: (N, K).
        labels: class indices (N,); with ``multi_label`` zeros and ones (N, K).
        count: how many of each kind at most.
        multi_label: an image is right where all its labels are, and as sure as they are on average.

    Returns:
        rows of the table: ``confident_right`` and ``confident_wrong``, the surest first, and ``least_certain``, those
        of the largest entropy whether right or wrong. Of equals the earlier row comes first.
    """
    p, labels = np.asarray(probabilities, dtype=float), np.asarray(labels)
    confidence, decided = decisions(p, labels, multi_label)
    right = decided.min(axis=1)  # of all labels
    surest = np.argsort(-confidence.mean(axis=1), kind="stable")
    unsure = np.argsort(-predictive_entropy(p, multi_label=multi_label), kind="stable")
    return {
        "confident_right": surest[right[surest]][:count].tolist(),
        "confident_wrong": surest[~right[surest]][:count].tolist(),
        "least_certain": unsure[:count].tolist(),
    }


# --- pictures ---------------------------------------------------------------------------------------------------------


def overlay(
    picture: ArrayLike, relevance: ArrayLike, *, limits: tuple[float, float] | None = None, opacity: float = 0.6
) -> np.ndarray:
    """A grey picture with a map over it, coloured from violet (0) over green to yellow (1).

    The colours cover as much as the map is large, so that the anatomy stays to be seen where nothing was found.

    Args:
        picture: (H, W).
        relevance: (H, W), from 0 to 1.
        limits: intensities that become black and white; None takes the smallest and the largest.
        opacity: of the colours where the map is 1; 0 gives the picture alone.

    Returns:
        RGB, uint8 (H, W, 3).

    Raises:
        InputError: the two differ in shape or aren't two-dimensional.
    """
    grey, marked = np.asarray(picture, dtype=float), np.asarray(relevance, dtype=float)
    if grey.ndim != 2 or grey.shape != marked.shape:
        raise InputError(
            f"An overlay needs a picture (H, W) and a map of its size, found {grey.shape} and {marked.shape}; "
            "take slices of a volume with panels."
        )
    low, high = limits or (grey.min(), grey.max())
    grey = 255 * np.clip((grey - low) / (high - low if high > low else 1), 0, 1)
    marked = np.clip(marked, 0, 1)
    marks = np.linspace(0, 1, len(_COLOURS))
    colour = np.stack([np.interp(marked, marks, channel) for channel in _COLOURS.T], axis=-1)
    share = opacity * marked[..., None]
    return np.round((1 - share) * grey[..., None] + share * colour).astype(np.uint8)


def panels(image: ArrayLike, relevance: ArrayLike, *, limits: tuple[float, float] | None = None) -> list[Panel]:
    """Pictures of an explanation: the image itself, or of a volume three orthogonal slices through the map's maximum.

    Args:
        image: (H, W) or (H, W, D), or with one leading axis of one channel.
        relevance: (H, W[, D]), of :func:`explain`.
        limits: see :func:`overlay`; None takes those of the whole image.

    Returns:
        one panel, or three in the order of the axes. Slices keep the order of the remaining axes.
    """
    whole, marked = np.asarray(image, dtype=float), np.asarray(relevance, dtype=float)
    if whole.ndim == marked.ndim + 1 and len(whole) == 1:
        whole = whole[0]
    if whole.shape != marked.shape or whole.ndim not in (2, 3):
        raise InputError(
            f"Panels need an image (H, W) or a volume (H, W, D) and a map of its size, found {whole.shape} and "
            f"{marked.shape}."
        )
    limits = limits or (whole.min(), whole.max())
    if whole.ndim == 2:
        cuts = [("image", whole, marked)]
    else:
        peak = np.unravel_index(marked.argmax(), marked.shape)
        cuts = [(f"axis {axis}, slice {place}", whole.take(place, axis), marked.take(place, axis))
                for axis, place in enumerate(peak)]  # fmt: skip
    return [
        Panel(name, overlay(cut, part, limits=limits, opacity=0), overlay(cut, part, limits=limits))
        for name, cut, part in cuts
    ]
