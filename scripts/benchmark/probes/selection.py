# SPDX-License-Identifier: Apache-2.0
"""Compares the selection rules by the features of a light network before any training.

Each small network is initialised by one rule and kept frozen. A logistic regression on its penultimate features of
the training images predicts the validation images; test images are not read. A cheap guide among
selections, to be confirmed by full runs:

    python -m scripts.benchmark.probes.selection /data/brain_mri --train_fraction 0.1
    python -m scripts.benchmark.probes.selection /data/brain_mri --train_fraction 0.1 --small_options '{"width": 0.4}'
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from dual_skd.data import cached_dataset, choose_window, image_transforms, load_records, paths_of
from dual_skd.networks.build import build_network
from dual_skd.networks.inspect import penultimate
from dual_skd.training.start import initialise_pair

LARGE = "tf_efficientnet_lite2"
ROWS = ("random", "uniform", "last layers", "consecutive", "importance", "complement", "large")
INVERSE_PENALTY = 0.01  # fixed, so that validation images choose nothing


def read_items(args: argparse.Namespace) -> tuple[dict[str, list], int]:
    """Decoded training and validation items of a data set, and its number of classes."""
    records = load_records(args.dataset_dir, train_fraction=args.train_fraction, seed=args.seed)
    window = choose_window("auto", paths_of(records.train), spatial_dims=2)
    settings = {"spatial_dims": 2, "image_size": args.image_size, "window": window}
    transform = image_transforms(**settings, with_label=True)
    with tempfile.TemporaryDirectory() as folder:
        items = {
            part: list(cached_dataset(records.splits[part], transform, cache="memory", cache_dir=folder,
                                      settings=settings))
            for part in ("train", "val")
        }  # fmt: skip
    return items, records.num_classes


def initialised(row: str, args: argparse.Namespace, num_classes: int) -> nn.Module:
    """The network of one row of the table."""
    torch.manual_seed(args.seed)
    options = {} if row == "large" else args.small_options
    network = build_network(LARGE, num_classes=num_classes, in_channels=1, **options)
    selection = {"random": "scratch", "large": "uniform", "last layers": "uniform"}.get(row, row)
    layers = "last" if row == "last layers" else "first"
    initialise_pair(network, large=LARGE, selection_student=selection, layers=layers, seed=args.seed)
    return network.eval()


@torch.no_grad()
def features_of(network: nn.Module, items: Sequence[dict]) -> Tensor:
    """Penultimate features (N, F), float64."""
    images = torch.stack([item["image"].as_subclass(Tensor) for item in items])
    return torch.cat([penultimate(network, batch)[1] for batch in images.split(64)]).double()


def scores(train: Tensor, train_labels: Tensor, val: Tensor, val_labels: Tensor) -> dict[str, float]:
    """Balanced accuracy and macro AUC (one class against the rest) of logistic regression on standardised features."""
    scaler = StandardScaler().fit(train)
    probe = LogisticRegression(C=INVERSE_PENALTY, max_iter=300, class_weight="balanced")
    probe.fit(scaler.transform(train), train_labels)
    probabilities = torch.from_numpy(probe.predict_proba(scaler.transform(val)))
    auc = [roc_auc_score(val_labels == label, probabilities[:, column]) for column, label in enumerate(probe.classes_)]
    return {
        "balanced_accuracy": balanced_accuracy_score(val_labels, probe.classes_[probabilities.argmax(1)]),
        "macro_auc": sum(auc) / len(auc),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset_dir")
    parser.add_argument("--train_fraction", type=float, default=1.0)
    parser.add_argument("--image_size", type=int, default=96)
    parser.add_argument("--small_options", type=json.loads, default={"depths": [1, 3, 3, 2, 1, 1]}, help="JSON")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", nargs="+", default=ROWS, choices=ROWS)
    args = parser.parse_args(arguments)
    items, classes = read_items(args)
    labels = {part: torch.tensor([int(item["label"]) for item in items[part]]) for part in items}
    print(f"{len(items['train'])} training and {len(items['val'])} validation images, {classes} classes", flush=True)
    print("| initialisation | balanced accuracy | macro AUC | s |\n|---|---|---|---|", flush=True)
    for row in args.rows:
        started = time.perf_counter()
        network = initialised(row, args, classes)
        seconds = time.perf_counter() - started
        features = {part: features_of(network, items[part]) for part in items}
        found = scores(features["train"], labels["train"], features["val"], labels["val"])
        print(f"| {row} | {found['balanced_accuracy']:.3f} | {found['macro_auc']:.3f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
