# SPDX-License-Identifier: Apache-2.0
"""Finds a network's classifier: the last linear layer of the module that is named or given as one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from torch import nn

Shapes = Mapping[str, tuple[int, ...]]

# names of the module that holds the classifier, by library
CLASSIFIERS = frozenset(
    "head heads head_dist heads_dist aux_head fc _fc last_linear classifier classif classification_head "
    "class_layers".split()
)
HIDDEN = "pre_logits"  # timm's name of the hidden layers in front of a classifier


def classifier_tensors(shapes: Shapes, module: nn.Module | None = None) -> frozenset[str]:
    """Names of the classifier's weights and biases: they belong to the old classes and are never selected.

    Norms and hidden layers in front of the last linear layer are features like any other.

    Args:
        shapes: tensor name -> shape.
        module: the network, where it is known; its ``get_classifier`` is asked if it has one.
    """
    asked, roots = _told(module) if module is not None else (None, set[str]())
    has_none = not any(_last_layers(roots, shapes))  # then names count only beside the module that was asked
    roots |= _named({name: shape for name, shape in shapes.items() if not (has_none and _is_within(name, asked))})
    return frozenset(name for layer in _last_layers(roots, shapes) for name in _tensors(layer) if name in shapes)


def _told(network: nn.Module) -> tuple[str | None, set[str]]:
    """Path of the outermost module that has ``get_classifier``, and the paths of what it returns."""
    for path, inside in network.named_modules():
        if callable(ask := getattr(inside, "get_classifier", None)):
            found = ask()
            found = found if isinstance(found, tuple | list) else (found,)
            return path, {name for name, module in network.named_modules() if any(module is one for one in found)}
    return None, set()


def _named(shapes: Shapes) -> set[str]:
    """Paths of the modules with a classifier's name, at the top or inside a wrapper that holds most of the network."""
    roots = set()
    for name in shapes:
        parts = name.split(".")
        place = next((place for place, part in enumerate(parts[:-1]) if part in CLASSIFIERS), None)
        if place is None:
            continue
        wrapper = ".".join(parts[:place])
        if 2 * sum(_is_within(other, wrapper) for other in shapes) >= len(shapes):
            roots.add(".".join(parts[: place + 1]))
    return roots


def _last_layers(roots: Iterable[str], shapes: Shapes) -> Iterator[str]:
    """The linear layers inside each root that give its output: several ones where they are parallel."""
    layers = {
        root: [
            (name.removesuffix(".weight"), shape)
            for name, shape in shapes.items()
            if name.endswith(".weight")
            and _is_within(name, root)
            and HIDDEN not in name.split(".")
            and _is_linear(shape)
        ]
        for root in sorted(roots)
    }
    order = {name: place for place, name in enumerate(shapes)}
    after = [(order[f"{layer}.weight"], shape[1]) for inside in layers.values() for layer, shape in inside]
    for inside in layers.values():
        for layer, shape in inside:
            place = order[f"{layer}.weight"]
            is_read = any(other > place and channels == shape[0] for other, channels in after)
            if shape[0] == inside[-1][1][0] and not is_read:
                yield layer


def _tensors(layer: str) -> tuple[str, str]:
    return f"{layer}.weight", f"{layer}.bias"


def _is_linear(shape: tuple[int, ...]) -> bool:
    return len(shape) > 1 and math.prod(shape[2:]) == 1


def _is_within(name: str, path: str | None) -> bool:
    return path is not None and (not path or name.startswith(f"{path}."))
