# SPDX-License-Identifier: Apache-2.0
"""Compares federated training of several hospitals with training on their pooled images, and on one hospital's.

    python -m scripts.benchmark.federated --data_root DATA --work runs [--seeds 0 1 2] [--threads 1]
    python -m scripts.benchmark.federated --table

Each hospital of brain_volumes (task: which MR sequence) is a site, run by :class:`dual_skd.serving.federated.
DualModelAlgo` in this process; NVFlare isn't needed. A seed divides the patients of every hospital into training,
validation and test, the same for all rows, and is that of the weights. All rows but the long ones pass over their
images equally often. Each row's model is tested on the test images of all hospitals. Finished rows have lines in
docs/results/more/federated.csv, and are not run again. Kill it at any time: the row in progress is lost, nothing else.
"""

from __future__ import annotations

import argparse
import csv
import logging
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.fl.utils.constants import ExtraItems, FlStatistics
from monai.fl.utils.exchange_object import ExchangeObject
from torch import Tensor

from dual_skd.data import DataList, Record, load_records
from dual_skd.metrics import classification_metrics
from dual_skd.runs.places import own_bundle
from dual_skd.serving.federated import DualModelAlgo
from dual_skd.training.trainer import plain
from dual_skd.utils.files import write_csv
from scripts.markdown import mean_and_deviation, table_head, table_row

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "more" / "federated.csv"
SITES = ("CS", "DU", "FG", "HT")  # EZ has three volumes
POOLED, ALL = "pooled", "all"
ROUNDS, LOCAL_EPOCHS, LONG = 8, 2, 38
OPTIONS = {  # small, for one core; the scale of the intensities must not depend on the site
    "image_size": [32, 32, 16], "batch_size": 8, "window": "percentile", "keep_twins": True, "twin_search": "never",
    "num_workers": 0, "device": "cpu",
}  # fmt: skip
METRICS = ("accuracy", "balanced_accuracy", "macro_auc", "nll", "ece")
COLUMNS = ("seed", "row", "tested_on", "training_images", "images", *METRICS, "seconds")


class Row(NamedTuple):
    """A way of training.

    Attributes:
        sites: who takes part.
        rounds: of the federation; 1 for a training without one.
        epochs: of a round.
        options: of :class:`DualModelAlgo`.
    """

    sites: tuple[str, ...]
    rounds: int = 1
    epochs: int = ROUNDS * LOCAL_EPOCHS
    options: Mapping[str, Any] = {}


ROWS = {
    "federated": Row(SITES, ROUNDS, LOCAL_EPOCHS),
    POOLED: Row((POOLED,)),
    **{site: Row((site,)) for site in SITES},
    "DU_long": Row(("DU",), epochs=LONG),  # the largest hospital, in about as many steps as all have together
    "federated_long": Row(SITES, LONG // LOCAL_EPOCHS, LOCAL_EPOCHS),
    "federated_pair": Row(SITES, ROUNDS, LOCAL_EPOCHS, {"exchange": "pair"}),
    "federated_local_normalisation": Row(SITES, ROUNDS, LOCAL_EPOCHS, {"normalisation": "local"}),
}


def federated_average(updates: Sequence[tuple[Mapping[str, Tensor], float]]) -> dict[str, Tensor]:
    """Returns the mean of several sites' weights, each counted by its images (McMahan et al. 2017).

    Args:
        updates: weights and number of images of each site.
    """
    total = sum(images for _, images in updates)
    return {
        name: sum(weights[name].double() * (images / total) for weights, images in updates).float()
        for name in updates[0][0]
    }


def federate(sites: Sequence[DualModelAlgo], start: Mapping[str, Tensor], rounds: int) -> dict[str, Tensor]:
    """Runs the rounds of a federation, one site after the other, and returns the last average."""
    weights = dict(start)
    for _ in range(rounds):
        updates = []
        for site in sites:
            site.train(ExchangeObject(weights=dict(weights)))
            sent = site.get_weights()
            images = sent.statistics[FlStatistics.NUM_EXECUTED_ITERATIONS]
            updates.append(({name: values.clone() for name, values in sent.weights.items()}, images))
        weights = federated_average(updates)
    return weights


def divide(data: Path, seed: int, folder: Path) -> DataList:
    """Divides the patients, and writes a table per site and one of all sites."""
    divided = load_records(data, spatial_dims=3, seed=seed, val_fraction=0.1, test_fraction=0.25)
    for name in (*SITES, POOLED):
        rows = [
            [record.image, divided.class_names[record.label], record.patient, record.site, split]
            for split, records in divided.splits.items()
            for record in of_sites(records, SITES if name == POOLED else (name,))
        ]
        write_csv(folder / name / "datalist.csv", [["image", "label", "patient", "site", "split"], *rows])
    return divided


def of_sites(records: Sequence[Record], sites: Sequence[str]) -> list[Record]:
    """The records of some sites."""
    return [record for record in records if record.site in sites]


def started(row: Row, folder: Path, seed: int, class_names: Sequence[str]) -> list[DualModelAlgo]:
    """The sites of a row, each with its selected start."""
    options = OPTIONS | {
        "dataset_dir": f"{folder}/{{site}}", "output_dir": f"{folder}/runs/{{site}}", "seed": seed,
        "class_names": list(class_names), "rounds": row.rounds,
        "val_interval": row.epochs * row.rounds,
    }  # fmt: skip
    shutil.rmtree(folder / "runs", ignore_errors=True)
    sites = []
    for name in row.sites:
        site = DualModelAlgo(
            str(own_bundle()), local_epochs=row.epochs, send_weight_diff=False, train_kwargs=options,
            config_train_filename=["configs/train.json", "configs/volume.json"], **row.options,
        )  # fmt: skip
        site.initialize({ExtraItems.CLIENT_NAME: name})
        sites.append(site)
    return sites


@torch.no_grad()
def logits_of(site: DualModelAlgo, records: Sequence[Record]) -> Tensor:
    """The student's logits (N, K) at a site."""
    transform = site.train_workflow.parser.get_parsed_content("validate#preprocessing")
    network = site.trainer.network.eval()
    return torch.cat([network(plain(transform(record.as_dict())["image"])[None]) for record in records])


def run_row(name: str, divided: DataList, folder: Path, seed: int) -> Iterator[list[Any]]:
    """Trains a row and yields its lines of the table: tested on all hospitals, and on each."""
    row, began = ROWS[name], time.perf_counter()
    sites = started(row, folder, seed, divided.class_names)
    start = sites[0].get_weights().weights
    weights = federate(sites, {key: values.clone() for key, values in start.items()}, row.rounds)
    logits, labels = {}, {}
    for place in SITES:
        records = of_sites(divided.splits["test"], [place])
        site = sites[row.sites.index(place)] if len(sites) > 1 else sites[0]  # its normalisation may be its own
        site.evaluate(ExchangeObject(weights=dict(weights)))
        logits[place], labels[place] = logits_of(site, records), torch.tensor([record.label for record in records])
    for site in sites:
        site.finalize()
    trained_on = sum(len(site.trainer.data_loader.dataset) for site in sites)
    seconds = round(time.perf_counter() - began)
    for place in (ALL, *SITES):
        of = SITES if place == ALL else (place,)
        z, y = torch.cat([logits[one] for one in of]), torch.cat([labels[one] for one in of])
        found = classification_metrics(z, y)
        yield [seed, name, place, trained_on, len(y), *(found[metric] for metric in METRICS), seconds]


def table(lines: Sequence[Mapping[str, str]]) -> list[str]:
    """The table of the docs: a line per row, mean and standard deviation over the seeds."""
    head = ["training", "training images", "seeds", "accuracy", "balanced accuracy", "AUC", "NLL", "ECE"]
    text = table_head([*head, *(f"AUC on {site}" for site in SITES)])
    for name in ROWS:
        of_row = [line for line in lines if line["row"] == name]
        of_all = [line for line in of_row if line["tested_on"] == ALL]
        if not of_all:
            continue
        images = sorted({int(line["training_images"]) for line in of_all})
        cells = [name, " to ".join(map(str, dict.fromkeys((images[0], images[-1])))), str(len(of_all))]
        cells += [mean_and_deviation([_number(line[metric]) for line in of_all]) for metric in METRICS]
        cells += [
            mean_and_deviation([_number(line["macro_auc"]) for line in of_row if line["tested_on"] == site])
            for site in SITES
        ]
        text.append(table_row(cells))
    return text


def _number(cell: str) -> float:
    return float(cell) if cell else float("nan")


def read_lines(path: Path) -> list[dict[str, str]]:
    """The lines of the table of results; none without it."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def add_lines(path: Path, lines: Sequence[Sequence[Any]]) -> None:
    """Adds lines to the table of results, which is never half written."""
    known = [list(line.values()) for line in read_lines(path)]
    write_csv(path, [COLUMNS, *known, *([_short(cell) for cell in line] for line in lines)])


def _short(cell: Any) -> Any:
    return round(cell, 5) if isinstance(cell, float) else "" if cell is None else cell


def main(words: list[str] | None = None) -> int:
    """Runs what is missing, or prints the table."""
    parser = argparse.ArgumentParser(prog="python -m scripts.benchmark.federated", description=__doc__.split("\n")[0])
    parser.add_argument("--data_root", type=Path, help="folder of brain_volumes")
    parser.add_argument("--work", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="table of results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="print the table of the results")
    args = parser.parse_args(words)
    if args.table:
        sys.stdout.write("\n".join([*table(read_lines(args.results)), ""]))
        return 0
    if args.data_root is None:
        parser.error("give --data_root")
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(args.threads)
    variants = [name for name in args.rows if ROWS[name].options]  # of the federation: after all else
    for names in ([name for name in args.rows if name not in variants], variants):
        for seed in args.seeds:
            folder = args.work.absolute() / f"federated_{seed}"
            divided = divide(args.data_root / "brain_volumes", seed, folder)
            for name in names:
                if any(line["seed"] == str(seed) and line["row"] == name for line in read_lines(args.results)):
                    continue
                add_lines(args.results, list(run_row(name, divided, folder, seed)))
                sys.stdout.write(f"{time.strftime('%H:%M')} seed {seed}: {name} done\n")
                sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
