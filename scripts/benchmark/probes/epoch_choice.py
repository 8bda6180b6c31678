# SPDX-License-Identifier: Apache-2.0
"""Compares ways to choose an epoch when there are few validation images: by one of their metrics, or the last one.

One ordinary training run with a large validation part, whose predictions are noted after every epoch. Then many small
validation sets are drawn from it: each chooses an epoch, and the images that were not drawn say what the choice was
worth. The test images are not read. Where the records name patients, whole patients are drawn. What follows ``--`` are
options of train.json:

    python -m scripts.benchmark.probes.epoch_choice brain_mri_clean.csv --images 38 -- --train_fraction 0.17 \
        --val_fraction 0.5 --epochs 48 --method coupled
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow
from torch import Tensor

from dual_skd.cli.dispatch import parser_of
from dual_skd.metrics.classification import classification_metrics
from dual_skd.options import Training
from dual_skd.options.arguments import given
from dual_skd.runs.recorder import epoch_order
from scripts import TRAIN
from scripts.markdown import table_head, table_row

CHOICES = ("macro_auc", "balanced_accuracy", "nll", "last")
MAX_TRIES_PER_DRAW = 100  # most may lack a class
METRICS = ("balanced_accuracy", "macro_auc", "nll", "ece")


def train_once(dataset_dir: str, options: dict) -> tuple[Tensor, Tensor, list[str]]:
    """Trains once; logits of every epoch (E, N, K), labels (N,) and the patients of the validation images."""
    with tempfile.TemporaryDirectory() as folder:
        run = ConfigWorkflow(
            str(TRAIN), workflow_type="train", run_id="training", init_id="initialize",
            dataset_dir=dataset_dir, output_dir=folder, logging_file=None, **options,
        )  # fmt: skip
        run.initialize()
        noted: list[Tensor] = []
        evaluator = run.parser.get_parsed_content("validate#evaluator")
        validation = run.parser.get_parsed_content("data").splits["val"]

        @evaluator.on(Events.EPOCH_COMPLETED)
        def _(engine: Engine) -> None:
            noted.append(engine.state.measured.logits.clone())

        run.run()
        run.finalize()
    patients = [record.get("patient") or record["image"] for record in validation]
    return torch.stack(noted), evaluator.state.measured.labels, patients


def draws(
    logits: Tensor, labels: Tensor, patients: Sequence[str], images: int, count: int
) -> dict[str, list[tuple[int, dict[str, float | None]]]]:
    """Per choice and draw: the epoch, from 1, and its metrics on the images that weren't drawn.

    Draws that leave a class out, or take all of it, are drawn again: AUC isn't defined then.

    Args:
        logits: (E, N, K), of every epoch.
        labels: class indices (N,).
        patients: N names; images of one patient stay together.
        images: smallest number of images to draw.
        count: how many times.

    Raises:
        SystemExit: no draw, or hardly one, has every class on both sides.
    """
    classes, kinds = logits.shape[2], len(labels.unique())
    wanted = f"draws of {images} from {len(labels)} validation images, which are of {kinds} of the {classes} classes,"
    if kinds < classes or not classes <= images < len(labels):
        raise SystemExit(
            f"Error: {wanted} can't hold and leave every class; choose another --images or --val_fraction."
        )
    places = {name: place for place, name in enumerate(dict.fromkeys(patients))}
    number = torch.tensor([places[name] for name in patients])
    generator, found = torch.Generator().manual_seed(0), {choice: [] for choice in CHOICES}
    for _ in range(MAX_TRIES_PER_DRAW * count):
        order = torch.randperm(len(places), generator=generator)[number].argsort()
        drawn = torch.isin(number, number[order[:images]])
        if any(len(labels[side].unique()) < classes for side in (drawn, ~drawn)):
            continue
        measured = [classification_metrics(epoch[drawn], labels[drawn]) for epoch in logits]
        for choice in CHOICES:
            kept = max(range(len(logits)), key=lambda epoch, choice=choice: epoch_order(measured[epoch], choice, epoch))
            found[choice].append((kept + 1, classification_metrics(logits[kept][~drawn], labels[~drawn])))
        if len(found["last"]) == count:
            return found
    raise SystemExit(
        f"Error: {wanted} hardly ever hold and leave every class; choose another --images or --val_fraction."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset_dir", help="any data set that training takes")
    parser.add_argument("--images", type=int, default=40, help="of the small validation sets")
    parser.add_argument("--draws", type=int, default=200)
    args, rest = parser.parse_known_args(arguments)
    options = given(parser_of("train").parse([word for word in rest if word != "--"]), Training)
    logits, labels, patients = train_once(args.dataset_dir, options)
    print(f"{len(labels)} validation images, {args.draws} draws of {args.images}; mean (standard deviation)")
    print(*table_head(["epoch kept by", "epoch", *METRICS]), sep="\n")
    for choice, kept in draws(logits, labels, patients, args.images, args.draws).items():
        epochs = torch.tensor([float(epoch) for epoch, _ in kept])
        values = {name: torch.tensor([metrics[name] for _, metrics in kept]) for name in METRICS}
        cells = [f"{of_metric.mean():.3f} ({of_metric.std():.3f})" for of_metric in values.values()]
        print(table_row([choice, f"{epochs.mean():.1f}", *cells]))


if __name__ == "__main__":
    main()
