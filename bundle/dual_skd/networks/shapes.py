# SPDX-License-Identifier: Apache-2.0
"""Shapes that a smaller network of the same family may have, and those that fit a budget.

A shape is a share of the large network's width, and a number of blocks for each stage. Shapes come in ladders. Within
a ladder each shape contains the one before, so that the largest one that fits is found by bisection.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from monai.networks.nets import DenseNet as MonaiDenseNet
from monai.networks.nets import ResNet as MonaiResNet
from timm.models.convnext import ConvNeXt
from timm.models.densenet import DenseNet
from timm.models.efficientnet import EfficientNet
from timm.models.resnet import ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import nn

from dual_skd.errors import InputError
from dual_skd.networks.build import EFFICIENTNET_LITE, VisionTransformer, build_network

WIDTHS = (1.0, 0.75, 0.5, 0.375, 0.25)  # shares of the large network's channels
MOST_WIDTHS = 6  # of a transformer, whose width is a number of heads
MULTIPLE = 8  # of channels
LEAST_SHARE = 0.7  # of the budget that a proposal uses, if any does


class Shape(NamedTuple):
    """A smaller network of a family.

    Attributes:
        width: share of the large network's channels or heads, at most 1.
        depths: blocks of each stage; stages that are missing at the end are left out.
    """

    width: float
    depths: tuple[int, ...]

    def within(self, other: Shape) -> bool:
        """Whether another shape contains this one: at least as wide, and at least as many blocks in every stage."""
        deep = len(self.depths) <= len(other.depths)
        fits = all(own <= its for own, its in zip(self.depths, other.depths, strict=False))
        return self.width <= other.width and deep and fits


@dataclass(frozen=True)
class Family:
    """What may be chosen of a large network's family.

    Attributes:
        depths: blocks of each stage of the large network.
        options: from a width and the blocks of each stage to options of :func:`~dual_skd.networks.build_network`.
        widths: those to try, 1 first.
        step: blocks are added in groups of so many.
        fewest_stages: stages behind them may be left out; None where each is needed.
    """

    depths: tuple[int, ...]
    options: Callable[[float, list[int]], dict[str, Any]]
    widths: tuple[float, ...] = WIDTHS
    step: int = 1
    fewest_stages: int | None = None


class Proposal(NamedTuple):
    """A shape with its options of :func:`~dual_skd.networks.build_network`, and what it costs of the budget."""

    shape: Shape
    options: dict[str, Any]
    cost: float


def family_of(name: str, options: Mapping[str, Any]) -> Family:
    """What may be chosen of a network's family.

    Args:
        name: of the large network, as in :func:`~dual_skd.networks.build_network`.
        options: of the large network, ``image_size`` and ``spatial_dims`` among them.

    Raises:
        InputError: the options of its family aren't known here.
    """
    with torch.device("meta"):
        network = build_network(name, **({"num_classes": 2} | dict(options)))
    for kind, read in _FAMILIES.items():
        if isinstance(network, kind):
            return read(name, network)
    raise InputError(
        f"No shapes are known for {name} ({type(network).__name__}); known are EfficientNet and its Lite form, "
        "ConvNeXt, ViT, ResNet, DenseNet and Swin of timm, and MONAI's ResNet, DenseNet and ViT. For another network, "
        "give its options yourself: --small NAME --small-options JSON."
    )


def propose(family: Family, cost: Callable[[Shape], float], budget: float) -> list[Proposal]:
    """The largest shapes that fit a budget, one of each ladder at most, none of which contains another.

    Args:
        family: of the large network.
        cost: of a shape, in the unit of the budget; called a few times per ladder.
        budget: what a shape may cost at most.

    Returns:
        Those that use 70 % of the budget or more, or else the one that comes nearest; the widest first, then the most
        expensive.

    Raises:
        InputError: no shape fits, or the large network itself does.
    """
    known: dict[Shape, float] = {}

    def cost_of(shape: Shape) -> float:
        if shape not in known:
            known[shape] = cost(shape)
        return known[shape]

    largest = (_largest(ladder, cost_of, budget) for ladder in ladders(family))
    fitting = list(dict.fromkeys(shape for shape in largest if shape is not None))
    if not fitting:
        least = min(known.values())
        raise InputError(
            f"No shape fits the budget of {budget:,g}: the smallest costs {round(least, 2):,}; allow more."
        )
    if (everything := Shape(1.0, family.depths)) in fitting:
        raise InputError(
            f"The large network itself fits the budget of {budget:,g}: it costs {round(known[everything], 2):,}; allow "
            "less."
        )
    full = [shape for shape in fitting if known[shape] >= LEAST_SHARE * budget]
    shapes = full or [max(fitting, key=lambda shape: known[shape])]
    shapes = [one for one in shapes if not any(one is not other and one.within(other) for other in shapes)]
    shapes.sort(key=lambda shape: (-shape.width, -known[shape], shape.depths))
    return [Proposal(shape, family.options(shape.width, list(shape.depths)), known[shape]) for shape in shapes]


def ladders(family: Family) -> Iterator[list[Shape]]:
    """Shapes in ladders, of which each contains the one before: per width and number of stages two ways down in depth.

    One keeps the blocks nearest to the image, besides the first of every stage; the other the same share of each stage.
    """
    everything = len(family.depths)
    for width in family.widths:
        for stages in range(everything, (family.fewest_stages or everything) - 1, -1):
            most = [depth // family.step or 1 for depth in family.depths[:stages]]
            for ladder in (_from_below(most), _evenly(most)):
                yield [Shape(width, _blocks(groups, family, stages)) for groups in ladder]


def _blocks(groups: Iterable[int], family: Family, stages: int) -> tuple[int, ...]:
    return tuple(min(n * family.step, depth) for n, depth in zip(groups, family.depths[:stages], strict=True))


def _from_below(most: Sequence[int]) -> list[tuple[int, ...]]:
    """One block of each stage, and then all those of the first stage, of the second, and so on.

    >>> _from_below([2, 3])
    [(1, 1), (2, 1), (2, 2), (2, 3)]
    """
    found = [tuple(1 for _ in most)]
    for stage, depth in enumerate(most):
        for n in range(2, depth + 1):
            found.append((*found[-1][:stage], n, *found[-1][stage + 1 :]))
    return found


def _evenly(most: Sequence[int]) -> list[tuple[int, ...]]:
    """The same share of each stage, rounded up.

    >>> _evenly([2, 4])
    [(1, 1), (1, 2), (2, 3), (2, 4)]
    """
    top = max(most)
    return list(dict.fromkeys(tuple(-(-depth * n // top) for depth in most) for n in range(1, top + 1)))


def _largest(ladder: Sequence[Shape], cost: Callable[[Shape], float], budget: float) -> Shape | None:
    """The last shape of a ladder that fits, by bisection; None where the first doesn't."""
    low, high = -1, len(ladder)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(ladder[middle]) <= budget else (low, middle)
    return ladder[low] if low >= 0 else None


# --- families ---------------------------------------------------------------------------------------------------------


def _scaled(channels: Iterable[int], share: float) -> list[int]:
    return [max(MULTIPLE, round(width * share / MULTIPLE) * MULTIPLE) for width in channels]


def _efficientnet(name: str, network: Any) -> Family:
    depths = tuple(len(stage) for stage in network.blocks)
    multiplier = EFFICIENTNET_LITE.get(name.split(".")[0], (None,))[0]

    def options(share: float, blocks: list[int]) -> dict[str, Any]:
        return {"depths": blocks} | (
            {} if share == 1 or multiplier is None else {"width": round(share * multiplier, 4)}
        )

    return Family(depths, options, WIDTHS if multiplier else (1.0,), fewest_stages=math.ceil(len(depths) / 2))


def _staged(name_of_depths: str, name_of_widths: str, depths: Iterable[int], widths: Sequence[int]) -> Family:
    """A family whose options are two lists, the blocks and the channels of each stage."""

    def options(share: float, blocks: list[int]) -> dict[str, Any]:
        return {name_of_depths: blocks} | ({} if share == 1 else {name_of_widths: _scaled(widths, share)})

    return Family(tuple(depths), options)


def _convnext(name: str, network: Any) -> Family:
    widths = [stage["num_chs"] for stage in network.feature_info]
    return _staged("depths", "dims", (len(stage.blocks) for stage in network.stages), widths)


def _resnet(name: str, network: Any) -> Family:
    stages = [getattr(network, f"layer{number}") for number in range(1, 5)]
    widths = [stage["num_chs"] // stages[0][0].expansion for stage in network.feature_info[1:]]
    return _staged("layers", "channels", map(len, stages), widths)


def _monai_resnet(name: str, network: Any) -> Family:
    stages = [getattr(network, f"layer{number}") for number in range(1, 5)]
    widths = [stage[0].conv1.out_channels for stage in stages]
    return _staged("layers", "block_inplanes", map(len, stages), widths)


def _densenet(name: str, network: Any) -> Family:
    blocks = [block for key, block in network.features.named_children() if key.startswith("denseblock")]
    growth = blocks[0].get_submodule("denselayer1")
    growth = getattr(growth, "layers", growth).conv2.out_channels

    def options(share: float, layers: list[int]) -> dict[str, Any]:
        return {"block_config": layers} | ({} if share == 1 else {"growth_rate": _scaled([growth], share)[0]})

    return Family(tuple(map(len, blocks)), options)


def _head_widths(heads: int) -> tuple[float, ...]:
    """Shares that leave whole heads."""
    step = math.ceil(heads / MOST_WIDTHS)
    return tuple(number / heads for number in range(heads, 0, -step))


def _vit(name: str, network: Any) -> Family:
    heads, width = network.blocks[0].attn.num_heads, network.embed_dim

    def options(share: float, depth: list[int]) -> dict[str, Any]:
        kept = round(share * heads)
        narrow = {} if share == 1 else {"embed_dim": kept * width // heads, "num_heads": kept}
        return {"depth": depth[0], **narrow}

    return Family((len(network.blocks),), options, _head_widths(heads))


def _monai_vit(name: str, network: Any) -> Family:
    first = network.blocks[0]
    heads, width, mlp = first.attn.num_heads, first.mlp.linear2.out_features, first.mlp.linear2.in_features

    def options(share: float, depth: list[int]) -> dict[str, Any]:
        kept = round(share * heads)
        sizes = {"hidden_size": kept * width // heads, "num_heads": kept, "mlp_dim": kept * mlp // heads}
        return {"num_layers": depth[0], **({} if share == 1 else sizes)}

    return Family((len(network.blocks),), options, _head_widths(heads))


def _swin(name: str, network: Any) -> Family:
    heads = [stage.blocks[0].attn.num_heads for stage in network.layers]
    width = network.embed_dim[0] if isinstance(network.embed_dim, list | tuple) else network.embed_dim

    def options(share: float, blocks: list[int]) -> dict[str, Any]:
        kept = [round(share * number) for number in heads]
        narrow = {} if share == 1 else {"embed_dim": kept[0] * width // heads[0], "num_heads": kept}
        return {"depths": blocks, **narrow}

    # blocks come in pairs, of which the second has shifted windows
    return Family(tuple(len(stage.blocks) for stage in network.layers), options, _head_widths(heads[0]), step=2)


_FAMILIES: dict[type[nn.Module], Callable[[str, Any], Family]] = {
    EfficientNet: _efficientnet,
    ConvNeXt: _convnext,
    TimmViT: _vit,
    ResNet: _resnet,
    DenseNet: _densenet,
    SwinTransformer: _swin,
    MonaiResNet: _monai_resnet,
    MonaiDenseNet: _densenet,
    VisionTransformer: _monai_vit,
}
