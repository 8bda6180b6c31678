# SPDX-License-Identifier: Apache-2.0
"""Measures whether the ratio of coarse to fine structure alone gives a class away, in training and in test images.

    python -m scripts.benchmark.probes.spectra /data/brain_mri_clean.csv /data/chest_xray /data/lung_ct

Of every image one number per spatial frequency is kept, the mean power there as a share of the sum over frequencies,
so no place and no shape. The table has the area under the ROC curve with which that number tells a class from the
others, in training images and in test images. 0.5 is chance; far from it in training and nearer in test images is a
shortcut that training rewards. The test images' labels are looked at: what follows from the table is no choice on
validation data.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

from dual_skd.data.spectra import RINGS, power_spectra
from dual_skd.metrics.classification import area_under_roc
from scripts.benchmark.probes.sharpness import records_and_transform
from scripts.markdown import table_head, table_row


def relative_power(images: Tensor) -> Tensor:
    """The logarithm of each frequency's share of the sum over the frequencies: (N, RINGS)."""
    level = (power_spectra(images) + 1e-12).log()
    return level - level.logsumexp(dim=1, keepdim=True)


def auc_by_frequency(values: Tensor, labels: Tensor, classes: int) -> list[list[float]]:
    """Area under the ROC curve of each frequency (rows) for each class against the others."""
    one_hot = torch.nn.functional.one_hot(labels, classes).double()
    return [[area_under_roc(value, one_hot[:, k]) for k in range(classes)] for value in values.double().T]


def spectra_of(records: Sequence[dict], transform) -> tuple[Tensor, Tensor]:
    values = [relative_power(transform(record)["image"].as_subclass(Tensor)[None]) for record in records]
    return torch.cat(values), torch.tensor([record["label"] for record in records])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset_dir", nargs="+")
    parser.add_argument("--spatial_dims", type=int, choices=(2, 3), default=2)
    parser.add_argument("--image_size", type=int, nargs="+", default=[96])
    args = parser.parse_args(arguments)
    for folder in args.dataset_dir:
        records, transform = records_and_transform(folder, args.spatial_dims, args.image_size)
        names = records.class_names
        sides = [auc_by_frequency(*spectra_of(part, transform), len(names)) for part in (records.train, records.test)]
        print(f"{folder}: {len(records.train)} training and {len(records.test)} test images\n")
        shown = range(1, 2) if len(names) == 2 else range(len(names))  # of two classes one mirrors the other
        print(*table_head(["cycles per pixel", *(names[k] for k in shown)]), sep="\n")
        for ring, (train, test) in enumerate(zip(*sides, strict=True)):
            cells = (f"{train[k]:.2f} -> {test[k]:.2f}" for k in shown)
            print(table_row([f"{ring / (RINGS - 1) / 2:.2f}", *cells]), flush=True)
        print()


if __name__ == "__main__":
    main()
