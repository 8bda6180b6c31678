# SPDX-License-Identifier: Apache-2.0
"""Measures the sharpness of augmented images, as a share of that of the images a network is evaluated on.

    python -m scripts.benchmark.probes.sharpness /data/brain_mri /data/chest_xray /data/lung_ct
    python -m scripts.benchmark.probes.sharpness /data/brain_volumes --spatial_dims 3 --image_size 48 48 24

Training images are rotated and shifted as in train.json by default (not scaled, which changes sharpness itself), with
the same random numbers for every way of resampling. Sharpness: the squared gradient, by differences of neighbours. Last
column: test images, as they are, by the same measure; their labels aren't looked at.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from dual_skd.data import BatchAugment, DataList, choose_window, image_transforms, load_records, paths_of
from dual_skd.data.augment import sampling_grid, sharpen
from dual_skd.errors import InputError
from scripts.markdown import table_head, table_row

Resample = Callable[[Tensor, Tensor], Tensor]


def squared_gradient(images: Tensor) -> float:
    return sum(images.diff(dim=axis).square().mean().item() for axis in range(2, images.ndim))


def ways_of_resampling(spatial_dims: int) -> dict[str, Resample]:
    """Functions of images and a grid; torch has cubic interpolation in 2D only."""
    sample = partial(functional.grid_sample, padding_mode="border", align_corners=False)
    cubic = {"cubic": partial(sample, mode="bicubic")} if spatial_dims == 2 else {}
    return {"linear": sample} | cubic | {"sharpened, linear": lambda images, grid: sample(sharpen(images, grid), grid)}


def shares(images: Tensor, augment: BatchAugment, ways: dict[str, Resample]) -> dict[str, float]:
    """Squared gradient of resampled images (N, C, H, W[, D]) over that of the images, by way."""
    size = tuple(images.shape[2:])
    grid = sampling_grid(augment.random_matrices(size, torch.ones(len(images), dtype=torch.bool)), size)
    before = squared_gradient(images)
    return {name: squared_gradient(way(images, grid)) / before for name, way in ways.items()}


def random_images(records: Sequence[dict], transform: Callable[[dict], dict], number: int) -> Tensor:
    """Some of the images (N, C, H, W[, D]), drawn at random."""
    chosen = torch.randperm(len(records))[:number].tolist()
    return torch.stack([transform(records[each])["image"].as_subclass(Tensor) for each in chosen])


def records_and_transform(
    folder: str, spatial_dims: int, image_size: Sequence[int], **options: bool
) -> tuple[DataList, Callable[[dict], dict]]:
    """A data set and what makes its images network input; ends the program where it can't be read."""
    try:
        records = load_records(folder, spatial_dims=spatial_dims, **options)
    except InputError as error:
        sys.exit(f"Error: {error}")
    window = choose_window("auto", paths_of(records.train), spatial_dims=spatial_dims)
    size = image_size[0] if len(image_size) == 1 else image_size
    return records, image_transforms(spatial_dims=spatial_dims, image_size=size, window=window)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset_dir", nargs="+")
    parser.add_argument("--spatial_dims", type=int, choices=(2, 3), default=2)
    parser.add_argument("--image_size", type=int, nargs="+", default=[96])
    parser.add_argument("--images", type=int, default=200, help="training images per data set")
    parser.add_argument("--rotate", type=float, default=10.0)
    parser.add_argument("--translate", type=float, default=0.05)
    args = parser.parse_args(arguments)
    ways = ways_of_resampling(args.spatial_dims)
    augment = BatchAugment(args.spatial_dims, rotate=args.rotate, translate=args.translate)
    print(*table_head(["data", "images", *ways, "test images"]), sep="\n")
    for folder in args.dataset_dir:
        records, transform = records_and_transform(folder, args.spatial_dims, args.image_size, keep_twins=True)
        torch.manual_seed(0)
        images, test = (random_images(part, transform, args.images) for part in (records.train, records.test))
        found = shares(images, augment, ways) | {"test": squared_gradient(test) / squared_gradient(images)}
        print(table_row([folder, str(len(images)), *(f"{share:.2f}" for share in found.values())]), flush=True)


if __name__ == "__main__":
    main()
