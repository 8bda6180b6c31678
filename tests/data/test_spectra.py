# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch

from dual_skd.data import BatchAugment
from dual_skd.data.spectra import RINGS, mix_spectra, power_spectra
from dual_skd.errors import InputError

SIZES = [(48, 40), (24, 20, 16)]


def soft_and_hard(size: tuple[int, ...], count: int = 16) -> torch.Tensor:
    """Images with little fine detail, then as many with much: (2 count, 1, *size)."""
    pool = torch.nn.functional.avg_pool2d if len(size) == 2 else torch.nn.functional.avg_pool3d
    hard = torch.rand(count, 1, *size)
    return torch.cat([(hard + pool(hard, 3, 1, 1)) / 2, hard])


@pytest.mark.parametrize("size", SIZES)
def test_a_wave_has_its_power_in_the_ring_of_its_frequency(size):
    for ring in (2, 4, 6):
        along = torch.arange(size[0]) * (math.pi * ring / (RINGS - 1))
        wave = along.sin().reshape(-1, *[1] * (len(size) - 1)).expand(1, 1, *size)
        assert power_spectra(wave).argmax(dim=1).item() == ring


@pytest.mark.parametrize("size", SIZES)
def test_brightness_leaves_the_spectrum_alone_and_contrast_is_squared(size):
    images = soft_and_hard(size, 2)
    spectra = power_spectra(images)
    assert torch.allclose(power_spectra(images + 5), spectra, rtol=1e-3)
    assert torch.allclose(power_spectra(3 * images), 9 * spectra, rtol=1e-3)


@pytest.mark.parametrize("size", SIZES)
def test_each_image_gets_the_spectrum_of_its_partner(size):
    torch.manual_seed(0)
    images, partners = soft_and_hard(size), torch.arange(32).roll(16)
    mixed = mix_spectra(images, partners, torch.ones(32))
    before, wanted, after = (power_spectra(each).log()[:, 1:-1] for each in (images, images[partners], mixed))
    assert (wanted - before).abs().mean() > 0.7
    assert (wanted - after).abs().mean() < 0.15 * (wanted - before).abs().mean()
    half = power_spectra(mix_spectra(images, partners, torch.full((32,), 0.5))).log()[:, 1:-1]
    assert (half - (wanted + before) / 2).abs().mean() < 0.15 * (wanted - before).abs().mean()


@pytest.mark.parametrize("size", SIZES)
def test_the_picture_stays(size):
    torch.manual_seed(0)
    images, partners = soft_and_hard(size), torch.arange(32).roll(16)
    mixed = mix_spectra(images, partners, torch.ones(32))
    axes = list(range(1, images.ndim))
    assert torch.allclose(mixed.mean(dim=axes), images.mean(dim=axes), atol=1e-5)
    for image, one in zip(images, mixed, strict=True):
        assert torch.corrcoef(torch.stack([image.flatten(), one.flatten()]))[0, 1] > 0.6
    phases = torch.fft.rfftn(images[0, 0]) * torch.fft.rfftn(mixed[0, 0]).conj()
    assert phases.angle().abs().quantile(0.99) < 0.01


def test_no_share_no_partner_and_no_detail_change_nothing():
    images = soft_and_hard((32, 32), 2)
    partners = torch.tensor([3, 2, 1, 0])
    assert torch.allclose(mix_spectra(images, partners, torch.zeros(4)), images, atol=1e-5)
    assert torch.allclose(mix_spectra(images, torch.arange(4), torch.ones(4)), images, atol=1e-5)
    flat = torch.cat([torch.full((1, 1, 32, 32), 0.3), images[:1]])
    mixed = mix_spectra(flat, torch.tensor([1, 0]), torch.ones(2))
    assert torch.allclose(mixed[0], flat[0], atol=1e-5) and mixed.isfinite().all()
    assert (mixed[1] - flat[1]).abs().max() < flat[1].std() * 4  # a fourfold loss at most, not a blank image
    assert mixed[1].std() > 0.2 * flat[1].std()


@pytest.mark.parametrize("size", [(8, 8), (5, 4, 3)])
def test_images_too_small_for_some_frequencies_stay_numbers(size):
    images = torch.rand(4, 1, *size)
    mixed = mix_spectra(images, torch.tensor([1, 0, 3, 2]), torch.ones(4))
    assert mixed.isfinite().all() and not torch.allclose(mixed, images, atol=1e-3)
    assert torch.allclose(mix_spectra(images, torch.arange(4), torch.ones(4)), images, atol=1e-5)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_the_type_of_the_images_stays(kind):
    assert mix_spectra(torch.rand(2, 1, 16, 16).to(kind), torch.tensor([1, 0]), torch.ones(2)).dtype == kind


def test_the_augmentation_changes_spectra_only_where_it_is_asked_to():
    torch.manual_seed(0)
    images = soft_and_hard((32, 32))

    def fine_detail(batch: torch.Tensor) -> torch.Tensor:
        return power_spectra(batch)[:, 5:].mean(dim=1).log()

    assert (fine_detail(BatchAugment(2, spectrum=1.0)(images)) - fine_detail(images)).abs().mean() > 0.3
    assert torch.allclose(BatchAugment(2, spectrum=1.0, probability=0.0)(images), images, atol=1e-5)
    with pytest.raises(InputError, match="at most 1 for spectrum"):
        BatchAugment(2, spectrum=1.5)
