# SPDX-License-Identifier: Apache-2.0
"""Shapes for a budget: the largest of each ladder, and options that build what the shape says."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from dual_skd.errors import InputError
from dual_skd.networks.build import build_network
from dual_skd.networks.inspect import count_parameters
from dual_skd.networks.shapes import Family, Shape, family_of, ladders, propose

TOY = Family((2, 3), lambda share, blocks: {"depths": blocks, "width": share}, widths=(1.0, 0.5), fewest_stages=1)


def cost(shape: Shape) -> float:
    return shape.width**2 * sum(10 * 4**stage * depth for stage, depth in enumerate(shape.depths))


def test_a_ladder_goes_up_to_the_whole_network_and_each_shape_contains_the_one_before() -> None:
    for ladder in ladders(TOY):
        assert ladder[-1].depths == TOY.depths[: len(ladder[0].depths)]
        assert all(low.within(high) and not high.within(low) for low, high in itertools.pairwise(ladder))


@pytest.mark.parametrize("budget", [12, 45, 70, 100, 139])
def test_proposals_are_the_largest_that_fit_and_none_contains_another(budget: float) -> None:
    found = propose(TOY, cost, budget)
    fitting = [[shape for shape in ladder if cost(shape) <= budget] for ladder in ladders(TOY)]
    largest = {max(shapes, key=cost) for shapes in fitting if shapes}  # by trying each
    assert {one.shape for one in found} <= largest
    assert all(one.cost == cost(one.shape) <= budget for one in found)
    assert not any(a.shape.within(b.shape) for a, b in itertools.permutations(found, 2))
    full = {shape for shape in largest if cost(shape) >= 0.7 * budget}
    if full:  # each that uses the budget is there, or one that contains it is
        assert all(any(shape.within(one.shape) for one in found) for shape in full)
    else:
        assert [one.cost for one in found] == [max(map(cost, largest))]


def test_a_budget_below_the_smallest_shape_is_refused_with_its_cost() -> None:
    with pytest.raises(InputError, match=r"budget of 2: the smallest costs 2\.5; allow more"):
        propose(TOY, cost, 2)


def test_a_budget_that_the_large_network_fits_is_refused_with_its_cost() -> None:
    with pytest.raises(InputError, match=r"itself fits the budget of 1,000: it costs 140\.0; allow less"):
        propose(TOY, cost, 1000)


SMALL: dict[str, dict[str, Any]] = {
    "tf_efficientnet_lite0": {},
    "efficientnet_b0": {},
    "convnext_atto": {"depths": [1, 2, 1, 1], "dims": [16, 32, 64, 128]},
    "vit_tiny_patch16_224": {"embed_dim": 64, "num_heads": 4, "depth": 3, "image_size": 32},
    "resnet18": {"channels": [16, 32, 64, 128]},
    "resnet50": {"channels": [16, 32, 64, 128], "layers": [1, 2, 1, 1]},
    "densenet121": {"growth_rate": 16, "block_config": [2, 3, 2, 2]},
    "swin_tiny_patch4_window7_224": {
        "embed_dim": 32, "depths": [2, 4], "num_heads": [2, 4], "window_size": 4, "image_size": 32,
    },
    "monai_densenet121": {"growth_rate": 16, "block_config": [2, 3, 2, 2]},
    "monai_resnet10": {"block_inplanes": [16, 32, 64, 128]},
    "monai_vit": {"hidden_size": 32, "mlp_dim": 64, "num_heads": 4, "num_layers": 2, "image_size": 32},
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_options_build_networks_of_these_blocks_and_widths(name: str) -> None:
    family = family_of(name, SMALL[name])

    def build(options: dict[str, Any]) -> torch.nn.Module:
        with torch.device("meta"):
            return build_network(name, num_classes=2, **SMALL[name] | options)

    whole = build({})
    same = build(family.options(1.0, list(family.depths)))
    assert {key: value.shape for key, value in same.state_dict().items()} == {
        key: value.shape for key, value in whole.state_dict().items()
    }
    every = list(ladders(family))
    for ladder in (every[0], every[-1]):  # the widest and the narrowest
        built = [build(family.options(shape.width, list(shape.depths))) for shape in (ladder[0], ladder[-1])]
        assert [count_parameters(network) for network in built] == sorted(map(count_parameters, built))
        read = family_of(name, SMALL[name] | family.options(ladder[0].width, list(ladder[0].depths)))
        assert read.depths == ladder[0].depths  # what was asked for is what was built


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_heads_keep_their_channels(name: str) -> None:
    whole, family = SMALL[name], family_of(name, SMALL[name])
    first = whole["num_heads"] if isinstance(whole["num_heads"], int) else whole["num_heads"][0]
    for width in family.widths[1:]:
        options = family.options(width, list(family.depths))
        heads = options["num_heads"] if isinstance(options["num_heads"], int) else options["num_heads"][0]
        assert heads < first
        assert options["embed_dim"] / heads == whole["embed_dim"] / first


def test_another_family_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(InputError, match="No shapes are known for regnetx_002 .RegNet.; known are EfficientNet"):
        family_of("regnetx_002", {})
