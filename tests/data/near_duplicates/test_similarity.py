# SPDX-License-Identifier: Apache-2.0
"""The comparison of many pairs at a time against the plain one of two pictures, and how much of it there is."""

from __future__ import annotations

import io
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch.nn import functional

from dual_skd.data.demo import chest_xray, head_volume
from dual_skd.data.near_duplicates import finder as searching
from dual_skd.data.near_duplicates import signature_cache
from dual_skd.data.near_duplicates import similarity as fine
from dual_skd.data.near_duplicates.candidates import candidates, grouped_by_image
from dual_skd.data.near_duplicates.finder import NearDuplicateFinder
from dual_skd.data.near_duplicates.signatures import read_finite, views_of

FLIPPED = ((), (0,), (1,), (0, 1))  # axes by the code that candidates() gives


# ---------------------------------------------------------------- two pictures, step by step, as the method is written


def plain_blur(picture: torch.Tensor, deviation: float) -> torch.Tensor:
    radius = max(1, int(3 * deviation + 0.5))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / deviation) ** 2)
    kernel = kernel / kernel.sum()
    padded = functional.pad(picture[None, None], (radius,) * 4, mode="replicate")
    return functional.conv2d(functional.conv2d(padded, kernel[None, None, :, None]), kernel[None, None, None])[0, 0]


def plain_standard(picture: torch.Tensor, deviation: float) -> torch.Tensor:
    high = picture - plain_blur(picture, deviation)
    local = plain_blur(high**2, deviation).clamp_min(0).sqrt()
    return high / (local + 0.1 * high.std()).clamp_min(1e-6)


def sampled(picture: torch.Tensor, grid: torch.Tensor, mode: str = "bilinear") -> torch.Tensor:
    return functional.grid_sample(picture[None, None], grid, mode=mode, align_corners=False)[0, 0]


def grid_of(theta: torch.Tensor, size: int) -> torch.Tensor:
    return functional.affine_grid(theta[None], [1, 1, size, size], align_corners=False)


def plain_steps(first: torch.Tensor, second: torch.Tensor, theta: torch.Tensor, steps: int) -> torch.Tensor:
    size = len(first)
    moving, fixed = (plain_standard(each, 1 + size / 24) for each in (first, second))
    edge = functional.pad(moving[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    across = (edge[1:-1, 2:] - edge[1:-1, :-2]) * size / 4
    down = (edge[2:, 1:-1] - edge[:-2, 1:-1]) * size / 4
    x, y = grid_of(torch.eye(2, 3), size)[0].unbind(dim=-1)
    for _ in range(steps):
        grid = grid_of(theta, size)
        inside = (grid[0].abs() <= 1).all(dim=-1).float()
        value, dx, dy = (sampled(each, grid) for each in (moving, across, down))
        residual = fixed - value
        scale = 2 * (residual.abs() * inside).mean()
        weight = inside / (1 + (residual / scale.clamp_min(2e-6)) ** 2)
        jacobian = torch.stack([dx * x, dx * y, dx, dy * x, dy * y, dy]).flatten(1)
        hessian = (jacobian * weight.flatten()) @ jacobian.T
        damping = torch.diag(0.01 * hessian.diagonal() + 1e-6)
        step = torch.linalg.solve(hessian + damping, (jacobian * weight.flatten()) @ residual.flatten())
        theta = theta + step.clamp(-0.08, 0.08).view(2, 3)
    return theta


def plain_agreement(first: torch.Tensor, second: torch.Tensor, theta: torch.Tensor) -> float:
    size = len(first)
    a, b = (plain_blur(plain_standard(each, size / 24), 0.7) for each in (first, second))
    margins = [0.01 * (each.max() - each.min()) for each in (first, second)]
    visible, b_visible = (
        (each > each.min() + margin) & (each < each.max() - margin)
        for each, margin in zip((first, second), margins, strict=True)
    )
    grid = grid_of(theta, size)
    inside = (grid[0].abs() <= 1 - 4 / size).all(dim=-1)
    a = sampled(a, grid, "bicubic")
    mask = inside & (sampled(visible.float(), grid) > 0.5) & b_visible
    if inside.float().mean() < 0.5 or mask.float().mean() < 0.05:
        return -1.0
    found = []
    length = size // 12
    for top in range(0, size - length, length):
        for left in range(0, size - length, length):
            block = slice(top, top + 2 * length), slice(left, left + 2 * length)
            seen = mask[block]
            if seen.float().mean() > 0.25:
                one, other = a[block][seen].double(), b[block][seen].double()
                variances = max(float(one.var(correction=0)), 1e-6) * max(float(other.var(correction=0)), 1e-6)
                covariance = float(((one - one.mean()) * (other - other.mean())).mean())
                found.append((covariance / variances**0.5, variances**0.5 * float(seen.float().mean())))
    found.sort()
    reached = np.cumsum([weight for _, weight in found])
    return found[int((reached < 0.1 * reached[-1]).sum())][0] if found else -1.0


def plain_similarity(first: torch.Tensor, second: torch.Tensor) -> float:
    """Similarity of two pictures (96, 96), one pair at a time."""
    theta = torch.eye(2, 3)
    for size, steps in ((24, 6), (48, 5)):
        small = [functional.avg_pool2d(each[None, None], 96 // size)[0, 0] for each in (first, second)]
        theta = plain_steps(*small, theta, steps)
    rough = plain_agreement(*small, theta)
    if rough < 0.5:
        return rough
    theta = plain_steps(first, second, theta, 3)
    square = torch.linalg.inv(theta[:, :2])
    back = torch.cat([square, -square @ theta[:, 2:]], dim=1)
    return max(plain_agreement(first, second, theta), plain_agreement(second, first, back))


# ------------------------------------------------------------------------------------------------------------- images


def jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    return Image.open(buffer)


CHANGES = {
    "jpeg": jpeg,
    "turned": lambda image: image.rotate(3, resample=Image.Resampling.BICUBIC),
    "scaled": lambda image: image.resize((110, 100), Image.Resampling.BICUBIC),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "flatter": lambda image: ImageEnhance.Contrast(image).enhance(0.6),
    "cropped": lambda image: image.crop((4, 2, 157, 158)),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "upside down": lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    "half a turn": lambda image: image.transpose(Image.Transpose.ROTATE_180),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[str]:
    """Twelve X-rays, of which two have copies, and neighbouring slices of a head, which are alike and no copies."""
    folder = tmp_path_factory.mktemp("images")
    for seed in range(12):
        pixels = chest_xray("normal", anatomy_seed=seed, size=(320, 320))
        image = Image.fromarray((pixels // 16).astype(np.uint8)).resize((160, 160), Image.Resampling.BOX)
        image.save(folder / f"{seed}.png")
        for name, change in CHANGES.items() if seed in (3, 8) else ():
            change(image).save(folder / f"{seed} {name}.png")
    volume = head_volume("lesion", anatomy_seed=0, size=(96, 96, 24))
    grey = np.clip((volume - volume.min()) / np.ptp(volume) * 255, 0, 255).astype(np.uint8)
    for place in range(8, 14):
        Image.fromarray(grey[:, :, place]).save(folder / f"slice {place}.png")
    return sorted(str(path) for path in folder.iterdir())


def candidates_of(finder: NearDuplicateFinder) -> list[tuple[int, int, int]]:
    rows = torch.arange(len(finder._descriptors))
    return candidates(torch.from_numpy(finder._descriptors), rows, rows)


def test_many_pairs_at_a_time_have_the_similarity_they_have_one_by_one(images):
    finder = NearDuplicateFinder(images, cache=False)
    found = {frozenset((t.image, t.other)): t.similarity for t in finder.find(images, images, min_similarity=0.2)}
    pictures = [torch.from_numpy(views_of(read_finite(image), fine.SIZE_PIXELS))[0] for image in images]
    plain = {
        frozenset((images[one], images[other])): plain_similarity(pictures[one].flip(FLIPPED[axes]), pictures[other])
        for one, other, axes in candidates_of(finder)
    }
    expected = {pair: value for pair, value in plain.items() if value >= 0.2}
    assert found.keys() == expected.keys() and len(plain) > len(expected)
    assert all(found[pair] == pytest.approx(expected[pair], abs=2e-4) for pair in expected)
    copies = {pair for pair, value in expected.items() if value >= searching.SIMILARITY}
    names = [sorted(Path(image).stem.split() for image in pair) for pair in copies]
    assert len(copies) >= 2 * len(CHANGES) and all(one[0] == other[0] != "slice" for one, other in names)


def test_the_result_of_a_pair_does_not_depend_on_the_pairs_beside_it(images, monkeypatch):
    def found() -> dict[frozenset[str], float]:
        pairs = NearDuplicateFinder(images, cache=False).find(images, images, min_similarity=0.2)
        return {frozenset((pair.image, pair.other)): pair.similarity for pair in pairs}

    together = found()
    monkeypatch.setattr(searching, "PAIRS_PER_STEP", 1)
    monkeypatch.setattr(fine, "PIXELS_PER_BATCH", 1)
    alone = found()
    assert together.keys() == alone.keys()
    assert all(together[pair] == pytest.approx(alone[pair], abs=1e-4) for pair in together)


def test_images_beyond_those_that_are_kept_in_memory_are_decoded_again(images, monkeypatch):
    kept = NearDuplicateFinder(images, cache=False).find(images, images, min_similarity=0.2)
    monkeypatch.setattr(signature_cache, "MAX_IMAGES_IN_MEMORY", {2: 5})
    monkeypatch.setattr(searching, "PAIRS_PER_STEP", 4)
    finder = NearDuplicateFinder(images, cache=False)
    names: list[str] = []
    monkeypatch.setattr(searching, "read_finite", lambda image, **options: names.append(image) or read_finite(image))
    found = finder.find(images, images, min_similarity=0.2)
    assert {(pair.image, pair.other) for pair in found} == {(pair.image, pair.other) for pair in kept}
    assert len(set(names)) > 5


def test_only_what_is_alike_at_half_size_is_compared_at_full_size_and_pictures_are_prepared_once(images, monkeypatch):
    stepped, prepared = {24: 0, 48: 0, 96: 0}, {24: 0, 48: 0, 96: 0}
    step, standardise = fine._gauss_newton, fine.standardise

    def counted_step(slopes, *rest):
        stepped[slopes.shape[-1]] += len(slopes)
        return step(slopes, *rest)

    def counted_standardise(pictures, deviation):
        prepared[pictures.shape[-1]] += len(pictures)
        return standardise(pictures, deviation)

    finder = NearDuplicateFinder(images, cache=False)
    pairs = candidates_of(finder)
    monkeypatch.setattr(fine, "_gauss_newton", counted_step)
    monkeypatch.setattr(fine, "standardise", counted_standardise)
    alike = finder.find(images, images, min_similarity=fine.PROMISING)
    assert stepped[24] == stepped[48] == len(pairs) > len(images)
    assert len(alike) <= stepped[96] < len(pairs)
    assert prepared[24] <= len(images) and prepared[48] <= 2 * len(images)  # for the map, for the correlation
    assert prepared[96] <= 2 * len(images)


def test_pairs_of_the_same_images_come_close_together():
    groups = [[5 * number + place for place in range(5)] for number in range(40)]
    pairs = [(one, other, 0) for group in groups for one, other in combinations(group, 2)]
    mixed = [pairs[place] for place in np.random.default_rng(0).permutation(len(pairs))]
    ordered = grouped_by_image(mixed)
    assert sorted(ordered) == sorted(mixed)
    assert all(
        len({row for pair in ordered[start : start + 10] for row in pair[:2]}) == 5 for start in range(0, 400, 10)
    )
