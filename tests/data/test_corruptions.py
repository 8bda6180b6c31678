# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from dual_skd.data.corruptions import CORRUPTIONS, STRENGTHS, corrupt, corrupt_input
from dual_skd.errors import InputError

PICTURES = torch.rand(6, 1, 24, 32, generator=torch.Generator().manual_seed(0))
ALL = [(name, strength) for name in CORRUPTIONS for strength in STRENGTHS]


def smooth(*size: int) -> torch.Tensor:
    """Images with structure of several sizes, as scans have it."""
    generator = torch.Generator().manual_seed(1)
    parts = [torch.rand(1, 1, *(max(side // scale, 1) for side in size), generator=generator) for scale in (16, 8, 4)]
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return sum(torch.nn.functional.interpolate(part, size, mode=mode) for part in parts) / 3


@pytest.mark.parametrize(("name", "strength"), ALL)
def test_an_image_is_corrupted_alike_whatever_batch_it_comes_in(name, strength):
    whole = corrupt(PICTURES, name, strength)
    parts = [corrupt(PICTURES[place : place + 2], name, strength, first=place) for place in (0, 2, 4)]
    assert torch.allclose(torch.cat(parts), whole, atol=1e-6)
    assert whole.shape == PICTURES.shape and whole.min() >= 0 and whole.max() <= 1
    assert not torch.equal(whole, PICTURES)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("size", [(48, 64), (24, 32, 16)])
def test_a_higher_strength_changes_an_image_more(name, size):
    image = smooth(*size)
    change = [(corrupt(image, name, strength) - image).square().mean().item() for strength in STRENGTHS]
    assert all(one < two for one, two in pairwise(change)), change


def test_noise_has_the_stated_deviation_and_is_the_same_pattern_at_every_strength():
    grey = torch.full((4, 1, 64, 64), 0.5)
    noise = [corrupt(grey, "noise", strength) - 0.5 for strength in (1, 2)]
    assert noise[0].std().item() == pytest.approx(0.03, rel=0.03)
    assert torch.allclose(noise[1], 2 * noise[0], atol=1e-6)
    assert abs(np.corrcoef(noise[0][0].flatten(), noise[0][1].flatten())[0, 1]) < 0.1  # each image has its own
    assert not torch.allclose(corrupt(grey, "noise", 1, seed=1) - 0.5, noise[0], atol=0.01)


def test_blur_spreads_a_point_by_the_stated_share_of_each_axis_and_keeps_borders():
    point = torch.zeros(1, 1, 101, 201)
    point[..., 50, 100] = 1
    blurred = corrupt(point, "blur", 5)[0, 0].double()  # 0.03 of 101 and of 201 pixels
    for axis, sigma in ((0, 3.03), (1, 6.03)):
        profile = blurred.sum(1 - axis)
        places = torch.arange(len(profile)) - len(profile) // 2
        assert (profile * places**2).sum().sqrt().item() == pytest.approx(sigma, rel=0.02)
    assert torch.allclose(corrupt(torch.ones(1, 1, 16, 16), "blur", 5), torch.ones(1, 1, 16, 16), atol=1e-5)


def test_gamma_is_the_power_or_the_root_of_the_values_by_image():
    values = corrupt(torch.full((40, 1, 2, 2), 0.25), "gamma", 3)[:, 0, 0, 0]
    assert set(values.tolist()) == {0.0625, 0.5}  # squared, and the square root


def test_jpeg_is_what_pillow_makes_of_the_picture_and_of_every_slice_of_a_volume():
    picture = smooth(32, 24)
    pixels = (picture[0, 0] * 255).round().byte().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", quality=15)
    assert np.array_equal((corrupt(picture, "jpeg", 3)[0, 0] * 255).round().byte().numpy(), Image.open(file))
    volumes = torch.rand(2, 1, 16, 8, 3, generator=torch.Generator().manual_seed(2))
    slices = torch.stack([corrupt(volumes[..., place], "jpeg", 5) for place in range(3)], dim=-1)
    assert torch.equal(corrupt(volumes, "jpeg", 5), slices)


def test_resolution_averages_blocks_and_interpolates_between_them():
    image = torch.tensor([0.0, 0.4, 0.8, 0.4]).repeat(4, 1)[None, None]  # blocks of two: 0.2 and 0.6
    found = corrupt(image, "resolution", 2)[0, 0, 0]
    assert found.tolist() == pytest.approx([0.2, 0.3, 0.5, 0.6])


def test_rotation_turns_by_the_stated_angle_in_images_that_are_not_square():
    image = torch.zeros(20, 1, 61, 121)
    image[:, :, 30, 80] = 1  # 20 pixels to the right of the middle
    found = corrupt(torch.nn.functional.avg_pool2d(image, 3, 1, 1), "rotation", 5)[:, 0]  # 30 degrees
    rows, columns = torch.meshgrid(torch.arange(61) - 30, torch.arange(121) - 60, indexing="ij")
    down = (found * rows).sum((1, 2)) / found.sum((1, 2))
    right = (found * columns).sum((1, 2)) / found.sum((1, 2))
    assert down.abs().tolist() == pytest.approx([10.0] * 20, abs=0.1)  # 20 sin 30
    assert right.tolist() == pytest.approx([20 * 3**0.5 / 2] * 20, abs=0.1)
    assert {side > 0 for side in down.tolist()} == {True, False}


def test_a_volume_is_turned_slice_by_slice():
    volumes = torch.rand(2, 1, 12, 10, 4, generator=torch.Generator().manual_seed(3))
    slices = torch.stack([corrupt(volumes[..., place], "rotation", 3) for place in range(4)], dim=-1)
    assert torch.allclose(corrupt(volumes, "rotation", 3), slices, atol=1e-5)


@pytest.mark.parametrize(("name", "strength"), [("contrast", 3), ("noise", 2), ("gamma", 1)])
def test_a_networks_input_is_corrupted_in_its_own_units(name, strength):
    expected = corrupt(PICTURES, name, strength)
    for window in ("percentile", "file", [40.0, 400.0]):
        found = corrupt_input(PICTURES * 2 - 1, name, strength, window=window)
        assert torch.allclose(found, expected * 2 - 1, atol=1e-5)
    low = PICTURES.amin((1, 2, 3), keepdim=True)
    spread = (PICTURES - low) / (PICTURES.amax((1, 2, 3), keepdim=True) - low)
    scored = corrupt_input(spread * 5 - 2, name, strength, window="zscore")
    assert torch.allclose(scored, corrupt(spread, name, strength) * 5 - 2, atol=1e-4)


def test_wrong_requests_are_refused():
    for arguments, words in (
        ((PICTURES, "fog", 1), "Unknown corruption 'fog'; known: noise, blur"),
        ((PICTURES, "blur", 6), "is 1, 2, 3, 4 or 5, found 6"),
        ((PICTURES[0, 0], "blur", 1), r"found shape \(24, 32\)"),
        ((PICTURES * 2 - 1, "blur", 1), r"images in \[0, 1\], found -"),
    ):
        with pytest.raises(InputError, match=words):
            corrupt(*arguments)


def test_every_corruption_has_five_strengths():
    assert {len(values) for _, values in CORRUPTIONS.values()} == {5}
