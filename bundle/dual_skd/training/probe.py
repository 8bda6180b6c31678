# SPDX-License-Identifier: Apache-2.0
"""A frozen-feature probe: how well a network's features tell the classes apart, before any training.

Ridge regression predicts the classes from the features (Alain and Bengio 2016, arXiv 1610.01644). It is judged by
cross-validation over patients, and so is its strength, within each fold. The score is the mean area under the ROC curve
over the classes, each against the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dual_skd.data import choose_window, image_transforms, look_at_sample, paths_of
from dual_skd.data.records.datalist import DataList
from dual_skd.data.records.record import Record
from dual_skd.data.records.splitting import divide, divide_into_folds
from dual_skd.metrics.estimates import Estimate
from dual_skd.metrics.intervals import metric_intervals
from dual_skd.networks.inspect import penultimate
from dual_skd.options import Training
from dual_skd.utils.progress import bar

MOST_IMAGES = 600
MOST_PIXELS = 2 * 10**8  # of all images together, 0.8 GB; fewer volumes are taken
FOLDS = 5
FEWEST_FOLDS = 3  # to choose the strength without the fold that is judged
BATCH = 32
STRENGTHS = tuple(10.0**power for power in range(-4, 3))  # of the ridge


@dataclass(frozen=True)
class ProbeImages:
    """Images to probe networks with.

    Attributes:
        images: as networks take them (N, 1, H, W[, D]).
        targets: 1 for the classes of an image, else 0 (N, K).
        patients: of each image, "" for an unknown one.
        folds: number of each image's fold (N,); a patient's images share one.
    """

    images: Tensor
    targets: Tensor
    patients: list[str]
    folds: Tensor


def read_probe_images(data: DataList, options: Training) -> ProbeImages:
    """Reads some of the training images, drawn by patients and with all classes; no other split is looked at.

    Args:
        data: of which the training images are used.
        options: how images are read; ``seed`` draws them.

    Raises:
        InputError: an image can't be read, or a class has less than three patients.
    """
    transform = _transform(data, options)
    most = min(MOST_IMAGES, MOST_PIXELS // transform(dict(data.train[0]))["image"].numel())
    records, _ = divide(data.train, fraction=most / len(data.train), seed=options.seed, purpose="probe")
    folds = divide_into_folds(
        records, folds=_folds(records, data.num_classes), seed=options.seed, class_names=data.class_names
    )
    ordered = [record for members in folds for record in members]
    targets = torch.zeros(len(ordered), data.num_classes, dtype=torch.float64)
    for row, record in zip(targets, ordered, strict=True):
        row[record.positive_labels] = 1
    return ProbeImages(
        torch.stack([transform(dict(record))["image"] for record in bar(ordered, "Reading images")]),
        targets,
        [record.patient for record in ordered],
        torch.cat([torch.full((len(members),), number) for number, members in enumerate(folds)]),
    )


def _transform(data: DataList, options: Training) -> Any:
    """What training with these options does with an image before augmentation."""
    dims = options.spatial_dims
    facts = look_at_sample(data.train, spatial_dims=dims)
    window = choose_window(options.window, paths_of(data.train), spatial_dims=dims, facts=facts)
    return image_transforms(dims, options.image_size, window, options.spacing, options.frame, options.fit)


def _folds(records: Sequence[Record], classes: int) -> int:
    """As many folds as the rarest class has patients, within limits."""
    patients = [
        {one.patient or one.image for one in records if label in one.positive_labels} for label in range(classes)
    ]
    return max(FEWEST_FOLDS, min(FOLDS, *map(len, patients)))


@torch.no_grad()
def frozen_features(network: nn.Module, images: Tensor) -> Tensor:
    """What enters the classifier of a network that isn't trained.

    Batch normalisation keeps its selected statistics: with those of these images, the probe of selected networks was
    worse (docs/experiments.md).

    Args:
        network: a classifier of one tensor, put into evaluation mode.
        images: (N, C, H, W[, D]).

    Returns:
        features (N, F), float64.
    """
    network.eval()
    return torch.cat([penultimate(network, batch)[1] for batch in images.split(BATCH)]).double()


def probe(features: Tensor, images: ProbeImages) -> Estimate:
    """The score of a network's features, with its interval over patients.

    Args:
        features: of the images (N, F).
        images: their classes, patients and folds.

    Returns:
        macro AUC over the images, each predicted by the other folds, with its interval over patients.
        Networks that are probed with the same images differ by less than their intervals suggest.
    """
    scores = torch.sigmoid(out_of_fold(features, images.targets, images.folds)).numpy()
    found = metric_intervals(
        scores, images.targets.long().numpy(), images.patients, metrics=["macro_auc"],
        multi_label=True,  # each class against the rest
    )  # fmt: skip
    return found.overall["macro_auc"]


def out_of_fold(features: Tensor, targets: Tensor, folds: Tensor) -> Tensor:
    """Predictions of ridge regression for each fold by the others, which choose the strength among themselves.

    Args:
        features: (N, F), float64.
        targets: (N, K), float64.
        folds: number of each row's fold (N,), of three or more.

    Returns:
        (N, K).
    """
    spread = features.std(0)
    used = (features - features.mean(0))[:, spread > 0] / spread[spread > 0]
    kernel = used @ used.T / max(used.shape[1], 1)
    found = torch.empty_like(targets)
    for fold in folds.unique():
        rest, judged = folds != fold, folds == fold
        errors = torch.zeros(len(STRENGTHS), dtype=targets.dtype)
        for held in folds[rest].unique():
            predicted = _ridge(kernel, targets, rest & (folds != held), folds == held)
            errors += (predicted - targets[folds == held]).square().sum((1, 2))
        found[judged] = _ridge(kernel, targets, rest, judged)[errors.argmin()]
    return found


def _ridge(kernel: Tensor, targets: Tensor, known: Tensor, asked: Tensor) -> Tensor:
    """Predictions of some rows from others, for each strength (S, N, K)."""
    mean = targets[known].mean(0)
    values, vectors = torch.linalg.eigh(kernel[known][:, known])
    weights = vectors.T @ (targets[known] - mean)
    at = kernel[asked][:, known] @ vectors
    return torch.stack([at @ (weights / (values.clamp_min(0) + strength)[:, None]) + mean for strength in STRENGTHS])
