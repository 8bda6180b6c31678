# SPDX-License-Identifier: Apache-2.0
"""Finds the axes of any network by following one image through it, without computing anything.

The network runs once on the meta device. Each operation of PyTorch says which dimensions of its operands are the same
(:mod:`.operations`), and so the dimensions of all parameters become terms of common axes (:mod:`.terms`): no table of
names is needed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from dual_skd.selection import movements, operations  # noqa: F401  (they register their handlers)
from dual_skd.selection.terms import Term
from dual_skd.selection.tracer import HANDLERS, NotFollowed, Tracer, elementwise

SIDES = (224, 96, 64, 256, 128, 160, 192, 240, 288, 384, 448, 512)  # tried in turn where a network doesn't tell its own
NORMS = ("running_mean", "running_var")


@dataclass(frozen=True)
class NetworkTrace:
    """What following one image through a network shows.

    Args:
        dims: tensor name -> one term per dimension, for the tensors that the network used.
        kernels: tensor name -> number of dimensions at its end that are a kernel.
        patches: kernels that cut the image into patches.
        classifier: names of the tensors that make the logits.
        channels: the axis of the image's channels.
        image: (C, H, W[, D]) of the image.
    """

    dims: dict[str, list[Term]]
    kernels: dict[str, int]
    patches: frozenset[str]
    classifier: frozenset[str]
    channels: Term
    image: tuple[int, ...]


def trace(network: nn.Module, image: Sequence[int] | None = None) -> NetworkTrace:
    """Follows one image through a network.

    Args:
        network: a network from images (N, C, H, W[, D]) to logits; it isn't changed.
        image: (C, H, W[, D]) that it takes; None tries the sizes that it tells, then usual ones.

    Raises:
        NotFollowed: it can't run on the meta device, or uses an operation that isn't known.
    """
    shapes = [tuple(image)] if image is not None else list(_likely_images(network))
    failure: Exception | None = None
    for shape in shapes:
        try:
            return _traced(_on_meta(network), shape)
        except NotFollowed as error:
            raise error
        except Exception as error:  # a foreign network's own complaint of the size
            failure = failure or error
    raise NotFollowed(f"the network doesn't run on an image of {' or '.join(map(str, shapes[:3]))}: {failure}")


class _Mode(TorchDispatchMode):
    """Hands each operation to its handler."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self.tracer = tracer

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(self.tracer.on_meta, (args, kwargs or {}))
        if isinstance(kwargs.get("device"), torch.device):
            kwargs["device"] = torch.device("meta")
        out = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if handler := HANDLERS.get(name):
            handler(self.tracer, out, *args, **kwargs)
        elif torch.Tag.pointwise in func.tags:
            elementwise(self.tracer, out, *args, **kwargs)
        elif self.tracer.has_terms((args, kwargs)):
            raise NotFollowed(f"the operation {name} isn't known")
        return out


def _traced(network: nn.Module, shape: tuple[int, ...]) -> NetworkTrace:
    tracer = Tracer()
    tensors = dict(network.state_dict(keep_vars=True))
    dims = {name: tracer.terms(value) for name, value in tensors.items()}
    image = torch.empty(1, *shape, device="meta", dtype=_dtype(network))
    channels = Term(shape[0], whole=True)
    tracer.set(image, [Term(1), channels, *(Term(size, space=True) for size in shape[1:])])
    with torch.no_grad(), _Mode(tracer):
        out = network(image)
    logits = first_tensor(out)
    names = {id(value): name for name, value in tensors.items()}
    used = {names[key] for key in tracer.used if key in names}
    return NetworkTrace(
        {name: dims[name] for name in dims if name in used},
        {names[key]: rank for key, rank in tracer.kernels.items() if key in names},
        frozenset(names[key] for key in tracer.patches if key in names),
        _classifier(logits, tracer, {name: dims[name] for name in dims if name in used}),
        channels,
        shape,
    )


def _classifier(logits: Tensor | None, tracer: Tracer, dims: Mapping[str, list[Term]]) -> frozenset[str]:
    """The tensors whose first dimension is that of the logits, unless a norm or a further layer has it too."""
    if logits is None or logits.dim() != 2:
        return frozenset()
    axis = tracer.terms(logits)[1].root
    owners = {name for name, terms in dims.items() for term in terms if term.root is axis}
    reads = any(term.root is axis for name in owners for term in dims[name][1:])
    has_norm = any(name.endswith(NORMS) for name in owners)
    weights = [name for name in owners if len(dims[name]) > 1]
    return frozenset() if reads or has_norm or not weights else frozenset(owners)


def first_tensor(out: Any) -> Tensor | None:
    """The first tensor of a network's answer."""
    if isinstance(out, Tensor):
        return out
    values = out.values() if isinstance(out, Mapping) else out if isinstance(out, (tuple, list)) else ()
    return next((found for found in map(first_tensor, values) if found is not None), None)


def _on_meta(network: nn.Module) -> nn.Module:
    """A copy of the network on the meta device, made without copying a value."""
    memo: dict[int, Any] = {}
    for module in network.modules():
        for store in (module._parameters, module._buffers):
            for value in store.values():
                if value is not None:
                    empty = torch.empty_like(value, device="meta")
                    is_parameter = isinstance(value, nn.Parameter)
                    memo[id(value)] = nn.Parameter(empty, requires_grad=False) if is_parameter else empty
    return copy.deepcopy(network, memo).eval()


def _dtype(network: nn.Module) -> torch.dtype:
    return next((value.dtype for value in network.parameters() if value.is_floating_point()), torch.float32)


def _likely_images(network: nn.Module) -> list[tuple[int, ...]]:
    """Shapes of images that a network may take, the likeliest first."""
    first, dims = _first_layer(network)
    told: list[tuple[int, ...]] = []
    config = getattr(network, "pretrained_cfg", None) or {}
    if size := config.get("input_size"):
        told.append(tuple(size[1:]))
    channels = dict.fromkeys([first, 3, 1])  # the first layer need not be the first that is used
    for module in network.modules():
        for attribute in ("img_size", "image_size"):
            size = getattr(module, attribute, None)
            size = (size,) * dims if isinstance(size, int) else size
            if isinstance(size, (tuple, list)) and len(size) == dims:
                told.insert(0, tuple(size))
        grid, patch = getattr(module, "grid_size", None), getattr(module, "patch_size", None)
        if isinstance(grid, tuple) and isinstance(patch, int):
            told.insert(0, tuple(side * patch for side in grid))
    sides = SIDES if dims == 2 else (96, 64, 48, 128)
    sizes = [size for size in dict.fromkeys([*told, *((side,) * dims for side in sides)]) if len(size) == dims]
    return [(number, *size) for number in channels for size in sizes]


def _first_layer(network: nn.Module) -> tuple[int, int]:
    """Channels and spatial dimensions of the images, by the first convolution."""
    for module in network.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.dim() in (3, 4, 5):
            groups = int(getattr(module, "groups", 1))
            return weight.shape[1] * groups, weight.dim() - 2
    return 3, 2
