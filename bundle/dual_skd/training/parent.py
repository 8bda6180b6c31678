# SPDX-License-Identifier: Apache-2.0
"""The large network that weights are selected from, with its pretrained weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dual_skd.networks.pretrained import load_network
from dual_skd.selection.naming import in_names_of
from dual_skd.selection.view import View, view_of


def load_parent(name: str, source: str, options: Mapping[str, Any]) -> View | None:
    """Loads a large network and its weights, whichever library's names a file has.

    Args:
        name: of the network, as in :func:`dual_skd.networks.build_network`.
        source: of its weights, as in :func:`dual_skd.networks.pretrained.load_pretrained`.
        options: of the network.

    Returns:
        the network as :func:`dual_skd.selection.plan_selection` takes it, or None for the source ``none``.

    Raises:
        InputError: there is no such source, or its tensors aren't those of the network.
    """
    found = load_network(name, source, options, rename=lambda network, state: in_names_of(view_of(network), state))
    return found and view_of(found[0]).with_values(found[1])
