# SPDX-License-Identifier: Apache-2.0
"""Finds the axes of any network by following one image through it, without computing anything.

The network runs once on the meta device. Each operation of PyTorch says which dimensions of its operands are the same
(:mod:`.operations`), and so the dimensions of all parameters become terms of common axes (:mod:`.terms`): no table of
names is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from dual_skd.errors import SelectionError
from dual_skd.selection import movements, operations  # noqa: F401  (they register their handlers)
from dual_skd.selection.copies import copy_with
from dual_skd.selection.images import likely_inputs, tensors_in
from dual_skd.selection.terms import Term
from dual_skd.selection.tracer import HANDLERS, NotFollowed, Tracer, elementwise

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


def trace(network: nn.Module, image_size: Sequence[int] | None = None) -> NetworkTrace:
    """Follows one image through a network.

    Args:
        network: a network from images (N, C, H, W[, D]) to logits; it isn't changed.
        image_size: (H, W[, D]) that it takes; tried after the sizes that it states, before usual ones.

    Raises:
        NotFollowed: it can't run on the meta device, or uses an operation that isn't known.
    """
    for path, module in network.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise NotFollowed(f"{path or 'the network'} is compiled by TorchScript; give the network before that")
    shapes = list(likely_inputs(network, image_size))
    failure: Exception | None = None
    for shape in shapes:
        try:
            return _traced(_on_meta(network), shape)
        except NotFollowed:
            raise
        except SelectionError as error:
            raise NotFollowed(str(error)) from error
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
        self.tracer.note_layer(out, (args, kwargs))
        return out


def _traced(network: nn.Module, shape: tuple[int, ...]) -> NetworkTrace:
    tracer = Tracer()
    tensors = dict(network.state_dict(keep_vars=True))
    dims = {name: tracer.terms(value) for name, value in tensors.items()}
    image = torch.empty(1, *shape, device="meta", dtype=_dtype(network))
    channels = Term(shape[0], whole=True)
    tracer.set(image, [Term(1), channels, *(Term(size, space=True) for size in shape[1:])])
    with torch.no_grad(), torch.random.fork_rng(devices=[]), torch.compiler.set_stance("force_eager"), _Mode(tracer):
        out = network(image)
    used = {name: dims[name] for name, value in tensors.items() if id(value) in tracer.used}
    layers = {id(value): name for name, value in tensors.items()}
    return NetworkTrace(
        used,
        {name: tracer.kernels[id(value)] for name, value in tensors.items() if id(value) in tracer.kernels},
        frozenset(name for name, value in tensors.items() if id(value) in tracer.patches),
        frozenset().union(*(_classifier(logits, tracer, used, layers) for logits in tensors_in(out))),
        channels,
        shape,
    )


def _classifier(
    logits: Tensor, tracer: Tracer, dims: Mapping[str, list[Term]], layers: Mapping[int, str]
) -> frozenset[str]:
    """The tensors of the layer that gives one of the outputs, (N, classes) or without one of the two.

    Their first dimension is that of the logits. It's a feature if a norm or a further layer has it too.
    """
    if logits.dim() not in (1, 2):
        return frozenset()
    axis = tracer.terms(logits)[-1].root
    owners = {name for name, terms in dims.items() for term in terms if term.root is axis}
    last = layers.get(tracer.layer.get(id(logits), 0), "")
    if last and dims[last][0].size == 1:  # dimensions of one index aren't tied
        return frozenset({last, f"{last.removesuffix('weight')}bias"} & dims.keys() | owners)
    reads = any(term.root is axis for name in owners for term in dims[name][1:])
    has_norm = any(name.endswith(NORMS) for name in owners)
    weights = [name for name in owners if len(dims[name]) > 1]
    return frozenset() if reads or has_norm or not weights else frozenset(owners)


def _on_meta(network: nn.Module) -> nn.Module:
    """A copy of the network on the meta device, made without copying a value."""
    return copy_with(network, lambda value: torch.empty_like(value, device="meta"))


def _dtype(network: nn.Module) -> torch.dtype:
    return next((value.dtype for value in network.parameters() if value.is_floating_point()), torch.float32)
