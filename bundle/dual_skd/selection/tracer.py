# SPDX-License-Identifier: Apache-2.0
"""The terms of every tensor while one image is followed through a network, and the register of operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from dual_skd.selection.terms import Term, tie

Handler = Callable[..., None]
HANDLERS: dict[str, Handler] = {}


class NotFollowed(Exception):
    """A network can't be followed; the message says why."""


class Tracer:
    """The terms of each tensor of one run.

    Attributes:
        used: ids of the tensors that entered an operation.
        kernels: id of a weight -> number of kernel dimensions.
        patches: ids of the kernels whose stride equals their size.
        layer: id of a result -> id of the weight, with more than one dimension, of the last layer that it comes from.
    """

    def __init__(self) -> None:
        self.used: set[int] = set()
        self.kernels: dict[int, int] = {}
        self.patches: set[int] = set()
        self.layer: dict[int, int] = {}
        self._terms: dict[int, list[Term]] = {}
        self._alive: list[Tensor] = []  # an id is one tensor's only as long as that one lives
        self._moved: dict[int, Tensor] = {}

    def on_meta(self, value: Any) -> Any:
        """A tensor on the meta device, the same one for the same tensor; anything else as it is."""
        if not isinstance(value, Tensor) or value.device.type == "meta":
            return value
        if id(value) not in self._moved:
            self._alive.append(value)
            self._moved[id(value)] = torch.empty_like(value, device="meta")
        return self._moved[id(value)]

    def terms(self, tensor: Tensor) -> list[Term]:
        """The terms of a tensor's dimensions; new axes where it is seen for the first time."""
        if id(tensor) not in self._terms:
            self.set(tensor, [Term(size) for size in tensor.shape])
        return self._terms[id(tensor)]

    def read(self, tensor: Tensor) -> list[Term]:
        """The terms of an operand."""
        self.used.add(id(tensor))
        return self.terms(tensor)

    def set(self, tensor: Tensor, terms: Sequence[Term]) -> None:
        """Gives a result its terms."""
        sizes = [term.size for term in terms]
        if sizes != list(tensor.shape):
            raise AssertionError(f"terms of {sizes} for a tensor of {list(tensor.shape)}")
        if id(tensor) in self._terms:  # changed in place
            for known, term in zip(self._terms[id(tensor)], terms, strict=True):
                tie(known, term)
            return
        self._terms[id(tensor)] = list(terms)
        self._alive.append(tensor)

    def note_layer(self, out: Any, operands: Any) -> None:
        """Notes the last layer that results come from."""
        tensors = [value for value in tree_leaves(operands) if isinstance(value, Tensor)]
        found = [
            id(value) if isinstance(value, nn.Parameter) else self.layer.get(id(value), 0)
            for value in tensors
            if value.dim() > 1 or not isinstance(value, nn.Parameter)
        ]
        if last := next(filter(None, reversed(found)), 0):
            self.layer |= {id(value): last for value in tree_leaves(out) if isinstance(value, Tensor)}

    def replace(self, tensor: Tensor, terms: Sequence[Term]) -> None:
        """Gives a tensor whose dimensions were exchanged in place its new terms."""
        self._terms[id(tensor)] = list(terms)

    def has_terms(self, values: Any) -> bool:
        """Whether a tensor among the values is known."""
        return any(isinstance(value, Tensor) and id(value) in self._terms for value in tree_leaves(values))


def handles(*names: str) -> Callable[[Handler], Handler]:
    """Registers the handler of PyTorch's operations of these names."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return register


def space(size: int) -> Term:
    """A new axis of places."""
    return Term(size, space=True)


def elementwise(t: Tracer, out: Any, *args: Any, **kwargs: Any) -> None:
    """Operands of one shape, or broadcast: dimensions are the same, counted from the last."""
    results = results_of(out)
    terms = [Term(size) for size in results[0].shape]
    for operand in tree_leaves((args, kwargs)):
        if isinstance(operand, Tensor):
            tie_broadcast(terms, t.read(operand))
    for result in results:
        t.set(result, terms)


def results_of(out: Any) -> list[Tensor]:
    """The tensors that an operation gives."""
    return [each for each in ([out] if isinstance(out, Tensor) else out) if isinstance(each, Tensor)]


def tie_broadcast(terms: list[Term], operand: list[Term]) -> None:
    for place, term in enumerate(reversed(operand)):
        at = len(terms) - 1 - place
        if term.size == terms[at].size and term.size > 1:
            tie(terms[at], term)
