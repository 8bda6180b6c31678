# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import time

import pytest
import torch

from dual_skd.data.augment import AugmentBatch, BatchAugment, sampling_grid, sharpen
from dual_skd.errors import InputError

EVERYTHING = dict(rotate=15, scale=0.1, shear=0.1, translate=0.1, contrast=0.2, brightness=0.1, noise=0.05)


@pytest.mark.parametrize("shape", [(4, 1, 20, 30), (2, 3, 16, 18, 10)])
def test_with_all_limits_zero_images_come_back_untouched(shape):
    images = torch.rand(shape)
    assert torch.equal(BatchAugment(len(shape) - 2)(images), images)
    unlucky = BatchAugment(len(shape) - 2, **EVERYTHING, probability=0.0)(images)
    assert torch.allclose(unlucky, images, atol=1e-5)


@pytest.mark.parametrize("size", [(5, 7), (4, 6, 3)])
def test_the_sampling_grid_equals_the_one_of_torch(size):
    matrix = torch.randn(3, len(size), len(size) + 1)
    reference = torch.nn.functional.affine_grid(matrix, [3, 1, *size], align_corners=False)
    assert torch.allclose(sampling_grid(matrix, size), reference, atol=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
def test_flips_mirror_exactly_the_named_axis(dims):
    images = torch.rand(64, 1, *(12, 14, 10)[:dims])
    for axis in range(dims):
        flipped = BatchAugment(dims, flip_axes=[axis])(images)
        mirrored = images.flip(2 + axis)
        same = [torch.allclose(f, i, atol=1e-5) for f, i in zip(flipped, images, strict=True)]
        turned = [torch.allclose(f, m, atol=1e-5) for f, m in zip(flipped, mirrored, strict=True)]
        assert all(a != b for a, b in zip(same, turned, strict=True))
        assert 10 < sum(turned) < 54


def test_a_shift_moves_by_a_share_of_each_axis(monkeypatch):
    monkeypatch.setattr(BatchAugment, "_uniform", staticmethod(lambda count, limit: torch.full((count,), limit)))
    images = torch.zeros(1, 1, 20, 40)
    images[0, 0, 10, 20] = 1.0
    moved = BatchAugment(2, translate=0.1)(images)  # the sampling point moves by +2 rows and +4 columns
    assert moved[0, 0, 8, 16].item() == pytest.approx(1.0, abs=1e-4) and moved.sum().item() == pytest.approx(
        1.0, abs=1e-4
    )


def squared_gradient(images):
    return sum(images.diff(dim=axis).square().mean() for axis in range(2, images.ndim))


@pytest.mark.parametrize("size", [(48, 40), (24, 20, 16)])
def test_resampled_images_stay_as_sharp_as_they_were(size):
    torch.manual_seed(0)
    images = torch.nn.functional.avg_pool2d(torch.rand(32, 1, *size).flatten(3), 3, 1, 1).reshape(32, 1, *size)
    before = squared_gradient(images)
    moved = BatchAugment(len(size), rotate=10, translate=0.05)
    assert squared_gradient(moved(images)) / before == pytest.approx(1.0, abs=0.12)

    matrix = moved.random_matrices(size, torch.ones(32, dtype=torch.bool))
    plainly = torch.nn.functional.grid_sample(
        images, sampling_grid(matrix, size), padding_mode="border", align_corners=False
    )
    assert squared_gradient(plainly) / before < 0.8


def test_sharpening_follows_the_distance_to_the_pixels_on_each_axis():
    images = torch.rand(3, 2, 10, 14)
    shifts = torch.tensor([[0.0, 0.0], [0.5, 0.0], [0.0, 0.5]])  # pixels, W first
    matrix = torch.eye(2, 3).repeat(3, 1, 1)
    matrix[:, :, 2] = shifts * 2 / torch.tensor([14.0, 10.0])
    sharp = sharpen(images, sampling_grid(matrix, (10, 14)))
    assert torch.allclose(sharp[0], images[0], atol=1e-5)
    a = 3 / 8 * 2 * 0.5 * 0.5
    along_w = images[1] * (1 + 2 * a)
    along_w[..., 1:-1] -= a * (images[1][..., :-2] + images[1][..., 2:])
    assert torch.allclose(sharp[1][..., 1:-1], along_w[..., 1:-1], atol=1e-5)
    along_h = images[2] * (1 + 2 * a)
    along_h[:, 1:-1] -= a * (images[2][:, :-2] + images[2][:, 2:])
    assert torch.allclose(sharp[2][:, 1:-1], along_h[:, 1:-1], atol=1e-5)
    assert torch.allclose(sharp.mean((1, 2, 3)), images.mean((1, 2, 3)), atol=1e-6)


def test_sharpening_keeps_the_power_of_a_wave_that_falls_between_pixels():
    """For m c up to 1/2 (docstring of ``sharpen``); here it is 0.32 at most."""
    for shift in (0.1, 0.25, 0.5):
        for frequency in (0.3, 0.8, 1.2):
            places = torch.arange(200.0)
            wave = torch.cos(frequency * places).reshape(1, 1, 1, 200).expand(1, 1, 8, 200)
            matrix = torch.eye(2, 3).unsqueeze(0)
            matrix[:, 0, 2] = shift * 2 / 200
            grid = sampling_grid(matrix, (8, 200))
            moved = torch.nn.functional.grid_sample(sharpen(wave, grid), grid, align_corners=False)
            inner = torch.cos(frequency * (places + shift))[20:-20].square().mean()
            kept = moved[0, 0, 4, 20:-20].square().mean() / inner
            assert 0.94 < kept < 1.06


def test_a_quarter_turn_equals_rot90(monkeypatch):
    monkeypatch.setattr(BatchAugment, "_uniform", staticmethod(lambda count, limit: torch.full((count,), limit)))
    images = torch.rand(2, 1, 16, 16)
    turned = BatchAugment(2, rotate=90)(images)
    assert torch.allclose(turned, torch.rot90(images, 1, (2, 3)), atol=1e-4) or torch.allclose(
        turned, torch.rot90(images, -1, (2, 3)), atol=1e-4
    )


def test_rotation_keeps_angles_and_lengths_in_images_that_are_not_square():
    size = (40, 100)
    augment = BatchAugment(2, rotate=30)
    matrix = augment.random_matrices(size, torch.ones(50, dtype=torch.bool))[:, :, :2]
    extent = torch.tensor(size[::-1], dtype=torch.float32)
    in_pixels = matrix * extent.reshape(1, 2, 1) / extent.reshape(1, 1, 2)
    assert torch.allclose(in_pixels @ in_pixels.transpose(1, 2), torch.eye(2).expand(50, 2, 2), atol=1e-5)
    angles = torch.atan2(in_pixels[:, 1, 0], in_pixels[:, 0, 0])
    assert angles.abs().max() <= math.radians(30) and angles.std() > math.radians(10)


def test_contrast_keeps_the_mean_and_brightness_the_deviation():
    images = torch.rand(16, 1, 24, 24)
    contrast = BatchAugment(2, contrast=0.5)(images)
    assert torch.allclose(contrast.mean((1, 2, 3)), images.mean((1, 2, 3)), atol=1e-5)
    ratio = contrast.std((1, 2, 3)) / images.std((1, 2, 3))
    assert ratio.min() >= 0.5 and ratio.max() <= 1.5 and ratio.std() > 0.1
    brighter = BatchAugment(2, brightness=0.3)(images)
    assert torch.allclose(brighter.std((1, 2, 3)), images.std((1, 2, 3)), atol=1e-5)


def test_noise_stays_within_its_deviation():
    noisy = BatchAugment(2, noise=0.1)(torch.zeros(32, 1, 64, 64))
    deviations = noisy.std((1, 2, 3))
    assert 0.05 < deviations.max() < 0.103 and deviations.min() < 0.05


def test_the_same_seed_gives_the_same_images_and_each_image_its_own_change():
    images = torch.rand(1, 1, 24, 24).expand(6, 1, 24, 24)
    augment = BatchAugment(2, **EVERYTHING)
    torch.manual_seed(1)
    first = augment(images)
    torch.manual_seed(1)
    assert torch.equal(first, augment(images))
    assert not any(torch.allclose(first[0], other) for other in first[1:])


def test_the_probability_decides_image_by_image():
    images = torch.rand(400, 1, 8, 8)
    changed = (BatchAugment(2, brightness=0.5, probability=0.25)(images) != images).flatten(1).any(1)
    assert 60 < changed.sum() < 140


def test_limits_out_of_range_are_refused():
    for options in (dict(rotate=-1), dict(scale=1.0), dict(flip_axes=[2]), dict(flip_axes=1), dict(probability=1.5)):
        with pytest.raises(InputError):
            BatchAugment(2, **options)
    with pytest.raises(InputError, match="spatial_dims"):
        BatchAugment(4)
    with pytest.raises(InputError, match="4 axes"):
        BatchAugment(2)(torch.rand(1, 1, 4, 4, 4))


def test_two_calls_of_prepare_batch_are_two_views():
    prepare = AugmentBatch(BatchAugment(2, rotate=20, noise=0.1))
    batch = {"image": torch.rand(4, 1, 16, 16), "label": torch.arange(4)}
    one, label = prepare(batch, torch.device("cpu"), non_blocking=True)
    two, _ = prepare(batch, torch.device("cpu"), True)
    assert torch.equal(label, torch.arange(4)) and not torch.allclose(one, two)
    assert prepare({"image": batch["image"]}, "cpu")[1] is None


@pytest.fixture
def one_thread():
    """On a shared machine two threads wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_batch_takes_milliseconds(one_thread):
    images = torch.rand(32, 1, 96, 96)
    augment = BatchAugment(2, rotate=10, scale=0.1, translate=0.05, contrast=0.1, brightness=0.1)
    times = []
    for _ in range(10):
        start = time.perf_counter()
        augment(images)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.06  # about 6 ms on an idle core; the bound leaves room for a busy machine


def test_limits_are_multiplied_as_far_as_they_go():
    augment = BatchAugment(2, rotate=10.0, scale=0.1, contrast=0.6, spectrum=0.7, flip_axes=[1], probability=0.5)
    twice = augment.times(2.0)
    assert (twice.limits["rotate"], twice.limits["scale"]) == (20.0, 0.2)
    assert (twice.limits["contrast"], twice.limits["spectrum"], twice.limits["noise"]) == (0.9, 1.0, 0.0)
    assert (twice.flip_axes, twice.probability) == ((1,), 0.5) and augment.limits["rotate"] == 10.0
    assert BatchAugment(2, contrast=0.95).times(3.0).limits["contrast"] == 0.95
    assert augment.times(0.5).limits["contrast"] == 0.3
