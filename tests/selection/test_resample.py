# SPDX-License-Identifier: Apache-2.0
"""Input channels, kernels and positions: values against the layer they must reproduce."""

from __future__ import annotations

import pytest
import timm.layers
import torch
from torch.nn import functional as F

from dual_skd.selection.resample import (
    bias_windows,
    guess_grid,
    inflate_kernel,
    match_input_channels,
    resize_bias_table,
    resize_kernel,
    resize_patch_kernel,
    resize_positions,
)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_grey_image_gives_the_response_of_its_rgb_copy(channels: int) -> None:
    weight, grey = torch.randn(5, 3, 3, 3, dtype=torch.float64), torch.randn(2, 1, 8, 8, dtype=torch.float64)
    adapted = F.conv2d(grey.expand(-1, channels, -1, -1), match_input_channels(weight, channels))
    torch.testing.assert_close(adapted, F.conv2d(grey.expand(-1, 3, -1, -1), weight))


def test_equal_channels_are_untouched() -> None:
    weight = torch.randn(5, 3, 3, 3)
    assert match_input_channels(weight, 3) is weight


def test_rgb_to_one_is_the_sum() -> None:
    weight = torch.tensor([1.0, 2.0, 4.0]).reshape(1, 3, 1, 1)
    assert match_input_channels(weight, 1).tolist() == [[[[7.0]]]]


def test_an_inflated_kernel_answers_a_constant_depth_volume_like_the_image() -> None:
    weight, image = torch.randn(4, 2, 3, 3, dtype=torch.float64), torch.randn(1, 2, 9, 9, dtype=torch.float64)
    volume = image.unsqueeze(-1).expand(-1, -1, -1, -1, 7)
    answer = F.conv3d(volume, inflate_kernel(weight, 3))
    torch.testing.assert_close(answer, F.conv2d(image, weight).unsqueeze(-1).expand(-1, -1, -1, -1, 5))


@pytest.mark.parametrize("size", [(14, 14), (8, 8), (20, 20), (16, 12)])
def test_patch_kernels_equal_those_of_timm(size: tuple[int, int]) -> None:
    weight = torch.randn(4, 3, 16, 16)
    expected = timm.layers.resample_patch_embed(weight, list(size))
    torch.testing.assert_close(resize_patch_kernel(weight, size), expected, atol=1e-4, rtol=1e-3)


def test_an_enlarged_patch_keeps_its_token() -> None:
    weight, patch = torch.randn(4, 1, 8, 8), torch.randn(6, 1, 8, 8)
    larger = F.interpolate(patch, size=(14, 14), mode="bicubic", antialias=True)
    tokens = F.conv2d(larger, resize_patch_kernel(weight, (14, 14)))
    torch.testing.assert_close(tokens, F.conv2d(patch, weight), atol=1e-3, rtol=1e-3)


def test_a_linear_layer_becomes_a_pointwise_convolution_and_back() -> None:
    weight = torch.randn(4, 3)
    assert torch.equal(resize_kernel(weight, (1, 1)).flatten(1), weight)
    assert torch.equal(resize_kernel(weight.reshape(4, 3, 1, 1, 1), ()), weight)


def test_kernels_of_other_layers_have_no_form() -> None:
    assert resize_kernel(torch.randn(4, 3, 7, 7), (3, 3)) is None
    assert resize_kernel(torch.randn(4, 3, 3, 3, 3), (3, 3)) is None


def test_positions_keep_their_leading_tokens_and_follow_timm() -> None:
    positions = torch.randn(1, 5 + 49, 6)
    resized = resize_positions(positions, old_grid=(7, 7), new_grid=(4, 5), old_prefix=5, new_prefix=5)
    expected = timm.layers.resample_abs_pos_embed(positions, [4, 5], [7, 7], num_prefix_tokens=5)
    torch.testing.assert_close(resized, expected)
    assert torch.equal(resized[:, :5], positions[:, :5])


def test_equal_grids_are_bit_equal() -> None:
    positions = torch.randn(1, 17, 6)
    assert torch.equal(
        resize_positions(positions, old_grid=(4, 4), new_grid=(4, 4), old_prefix=1, new_prefix=1), positions
    )


def test_a_plane_is_repeated_along_the_depth_which_runs_fastest() -> None:
    positions = torch.arange(4.0).reshape(1, 4, 1)
    resized = resize_positions(positions, old_grid=(2, 2), new_grid=(2, 2, 3), old_prefix=0, new_prefix=0)
    assert resized.flatten().tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_a_constant_volume_of_positions_stays_constant() -> None:
    positions = torch.full((1, 27, 2), 0.5)
    resized = resize_positions(positions, old_grid=(3, 3, 3), new_grid=(4, 2, 5), old_prefix=0, new_prefix=1)
    assert resized.shape == (1, 41, 2)
    assert resized[:, 0].tolist() == [[0.0, 0.0]]
    torch.testing.assert_close(resized[:, 1:], torch.full((1, 40, 2), 0.5))


@pytest.mark.parametrize(
    ("tokens", "dims", "prefixes", "expected"),
    [
        (197, 2, [1, 0], ((14, 14), 1)),
        (196, 2, [1, 0], ((14, 14), 0)),
        (64, 3, [0], ((4, 4, 4), 0)),
        (21, 2, [5, 1, 0], ((4, 4), 5)),
        (12, 2, [0], None),
    ],
)
def test_grids_are_guessed_from_the_number_of_tokens(
    tokens: int, dims: int, prefixes: list[int], expected: tuple | None
) -> None:
    assert guess_grid(tokens, dims, prefixes) == expected


def test_tables_of_relative_positions_keep_their_slopes_and_special_rows() -> None:
    ramp = torch.linspace(-1, 1, 13).repeat(13)[:, None]  # grows along one axis
    table = torch.cat([ramp, torch.tensor([[5.0], [6.0], [7.0]])])
    assert bias_windows(172, 124) == ((7, 6), 3) and bias_windows(169, 25) == ((7, 3), 0)
    assert bias_windows(169, 124) is None and bias_windows(169, 99) is None
    resized = resize_bias_table(table, window=6, special=3)
    assert resized[121:].flatten().tolist() == [5, 6, 7]
    plane = resized[:121].reshape(11, 11)
    torch.testing.assert_close(plane, plane[:1].expand(11, 11))
    torch.testing.assert_close(plane[0], -plane[0].flip(0))
    assert bool((plane[0].diff() > 0).all())
    assert torch.equal(resize_bias_table(table, window=7, special=3), table)
