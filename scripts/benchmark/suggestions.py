# SPDX-License-Identifier: Apache-2.0
"""Labels that a classifier needs when ``dual-skd suggest`` chooses the images, and when chance does.

    dual-skd check DATA/brain_mri --clean-list DATA/brain_mri_clean.csv
    python -m scripts.benchmark.suggestions --data_root DATA --data brain_mri=brain_mri_clean.csv chest_xray \\
        --seeds 0 1 2 --work runs
    python -m scripts.benchmark.suggestions --plot

A pool of training images plays the images without labels. Each seed draws the pool and the first labelled images, which
all strategies share. In each round the pair is trained anew on the images that have labels by now; it then chooses as
many again. Every training has the same number of steps, and is measured on the official test images, less those that
have a twin among the training images. Nothing is chosen on them.

Rows are added to RESULTS/suggestions.csv as they are measured. After an interruption the same command goes on: WORK
holds which images have labels in each round. ``--plot`` draws RESULTS/suggestions.svg and prints the table of the docs.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import dual_skd
from dual_skd.data.records.datalist import DataList
from dual_skd.data.records.record import Record
from dual_skd.data.records.split_file import save_split
from dual_skd.metrics.classification import classification_metrics
from dual_skd.serving.suggestions.answers import ask
from dual_skd.serving.suggestions.strategies import rank
from dual_skd.serving.torch_predictor import TorchPredictor
from dual_skd.utils.files import read_json, write_json
from scripts import ROOT
from scripts.benchmark import pictures
from scripts.benchmark.names import DATA
from scripts.benchmark.store import replace_text
from scripts.markdown import table_head, table_row

ROUNDS = (40, 80, 160, 320)
STRATEGIES = ("random", "badge", "disagreement", "uncertainty")
START = "start"  # the round that all strategies share
POOL = 1500
STEPS, BATCH, SIZE = 160, 16, 64
COLUMNS = ("data", "seed", "strategy", "labels", "test_images", "macro_auc", "balanced_accuracy", "seconds")
LOOKS = {
    "random": (pictures.INK, "s"), "badge": ("#0072b2", "D"), "disagreement": ("#b35900", "o"),
    "uncertainty": ("#00795a", "P"),
}  # fmt: skip
TARGETS = (80, 160, 320)  # labels by chance, whose AUC is to be reached


class Row(NamedTuple):
    """One measured training."""

    data: str
    seed: int
    strategy: str
    labels: int
    test_images: int
    macro_auc: float
    balanced_accuracy: float
    seconds: float


def read_rows(path: Path) -> list[Row]:
    """The rows of a table; none without the file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [Row(*(kind(row[name]) for name, kind in _KINDS.items())) for row in csv.DictReader(file)]


_KINDS = {"data": str, "seed": int, "strategy": str, "labels": int, "test_images": int} | dict.fromkeys(
    COLUMNS[5:], float
)


def add_row(path: Path, row: Row) -> None:
    """Adds a row; a killed program leaves the former file or the new one."""
    lines = [COLUMNS, *read_rows(path), row]
    replace_text(path, "".join(f"{','.join(map(str, line))}\n" for line in lines))


class Experiment:
    """One data set with one seed.

    Args:
        data: its images; those of training play the pool.
        name: of the data set.
        seed: of the pool, the first labels, the trainings and the strategies.
        work: folder for the runs.
        table: of the results.
    """

    def __init__(self, data: DataList, name: str, seed: int, work: Path, table: Path) -> None:
        self.data, self.name, self.seed, self.work, self.table = data, name, seed, work / f"{name}_{seed}", table
        rng = np.random.default_rng(seed)
        places = rng.permutation(len(data.train))[: min(POOL, len(data.train))]
        self.pool: list[Record] = [data.train[place] for place in places]
        self.order = rng.permutation(len(self.pool)).tolist()  # of chance
        self._prepared: dict[str, torch.Tensor] = {}

    def first(self) -> list[int]:
        """The images that have labels at the start: the first of a random order in which no class is missing."""
        rng = np.random.default_rng(self.seed)
        while True:
            drawn = rng.permutation(len(self.pool))[: ROUNDS[0]].tolist()
            if len({self.pool[place].label for place in drawn}) == len(self.data.class_names):
                return drawn

    def run(self) -> None:
        """Makes the trainings that are missing."""
        start = self.first()
        self.round(START, start, STRATEGIES)
        for strategy in STRATEGIES:
            for count in ROUNDS[1:]:
                self.round(strategy, read_json(self.labelled(strategy, count))["places"], (strategy,))

    def labelled(self, strategy: str, count: int) -> Path:
        """The file that says which images have labels in a round."""
        return self.work / f"{strategy}_{count}.json"

    def round(self, strategy: str, places: Sequence[int], following: Sequence[str]) -> None:
        """Trains on the images that have labels, measures, and chooses those of the next round."""
        count = len(places)
        further = ROUNDS[ROUNDS.index(count) + 1 :][:1]
        missing = [(name, more) for name in following for more in further if not self.labelled(name, more).is_file()]
        measured = {(row.data, row.seed, row.strategy, row.labels) for row in read_rows(self.table)}
        if (self.name, self.seed, strategy, count) in measured and not missing:
            return
        began = time.monotonic()
        predictor = self.train([self.pool[place] for place in places], f"{strategy}_{count}")
        seconds = time.monotonic() - began
        for name, more in missing:
            chosen = self.choose(name, predictor, places, more - count)
            write_json(self.labelled(name, more), {"places": [*places, *chosen]})
        answers = ask(predictor, self.batches(predictor, self.data.test), features=False)
        logits = torch.from_numpy(np.log(np.clip(answers.probabilities[0], 1e-12, 1)))
        found = classification_metrics(logits, torch.tensor([record.label for record in self.data.test]))
        auc, accuracy = (round(found[metric], 5) for metric in ("macro_auc", "balanced_accuracy"))
        row = Row(self.name, self.seed, strategy, count, len(self.data.test), auc, accuracy, round(seconds, 1))
        add_row(self.table, row)
        print(*row, flush=True)

    def train(self, records: list[Record], name: str) -> TorchPredictor:
        """Trains the pair of the default method."""
        split = self.work / f"{name}_split.json"
        save_split(replace(self.data, splits={"train": records, "val": [], "test": self.data.test[:1]}), split)
        folder = self.work / name
        dual_skd.train(
            split, output_dir=folder, fresh=True, epochs=math.ceil(STEPS * BATCH / len(records)), batch_size=BATCH,
            image_size=SIZE, seed=self.seed, val_fraction=0.0, patient_pattern="", keep_twins=True, num_workers=0,
            device="cpu",
        )  # fmt: skip
        return TorchPredictor(folder / "models" / "model.pt")

    def choose(self, strategy: str, predictor: TorchPredictor, places: Sequence[int], number: int) -> list[int]:
        """Places of the images in the pool that get labels next."""
        known = set(places)
        if strategy == "random":
            return [place for place in self.order if place not in known][:number]
        rest = [place for place in range(len(self.pool)) if place not in known]
        answers = ask(predictor, self.batches(predictor, [self.pool[place] for place in rest]))
        return [rest[choice.image] for choice in rank(strategy, answers, number, seed=self.seed)]

    def batches(self, predictor: TorchPredictor, records: Sequence[Record]) -> Iterator[list[torch.Tensor]]:
        """The images as networks take them, which is the same for all of them."""
        for start in range(0, len(records), 64):
            names = [record.image for record in records[start : start + 64]]
            for name in names:
                if name not in self._prepared:
                    self._prepared[name] = torch.as_tensor(predictor.prepare(name)).clone()
            yield [self._prepared[name] for name in names]


# --- what was found ---------------------------------------------------------------------------------------------------


class Curves:
    """AUC by number of labels, of each seed and strategy.

    Args:
        rows: of the table.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    @cached_property
    def data(self) -> list[str]:
        """Data sets for which a seed is complete."""
        return [name for name in dict.fromkeys(row.data for row in self.rows) if self.seeds(name)]

    def seeds(self, data: str) -> list[int]:
        """The complete seeds of a data set."""
        wanted = {(strategy, count) for strategy in STRATEGIES for count in ROUNDS[1:]} | {(START, ROUNDS[0])}
        found: dict[int, set[tuple[str, int]]] = defaultdict(set)
        for row in self.rows:
            if row.data == data:
                found[row.seed].add((row.strategy, row.labels))
        return sorted(seed for seed, done in found.items() if wanted <= done)

    def curve(self, data: str, seed: int, strategy: str) -> list[float]:
        """AUC in each round."""
        of = {(row.strategy, row.labels): row.macro_auc for row in self.rows if (row.data, row.seed) == (data, seed)}
        return [of[START, ROUNDS[0]], *(of[strategy, count] for count in ROUNDS[1:])]

    def mean(self, data: str, strategy: str) -> np.ndarray:
        """Over the seeds."""
        return np.mean([self.curve(data, seed, strategy) for seed in self.seeds(data)], axis=0)

    def needed(self, data: str, strategy: str, target: float) -> float:
        """Labels with which the mean curve reaches an AUC, see :func:`labels_needed`."""
        return labels_needed(self.mean(data, strategy), target)


def labels_needed(curve: Sequence[float], target: float) -> float:
    """Labels at which a curve over :data:`ROUNDS` first reaches an AUC, between rounds by the logarithm; inf if never.

    Example:
        >>> round(labels_needed([0.8, 0.9, 0.9, 1.0], 0.85), 1)  # half way from 40 to 80 by the logarithm
        56.6
    """
    if curve[0] >= target:
        return ROUNDS[0]
    for place in range(1, len(curve)):
        if curve[place] >= target:
            share = (target - curve[place - 1]) / (curve[place] - curve[place - 1])
            return float(np.exp(np.interp(share, [0, 1], np.log(ROUNDS[place - 1 : place + 1]))))
    return math.inf


def table(curves: Curves) -> list[str]:
    """A Markdown table: AUC of each strategy by labels, its difference to chance, and labels needed."""
    lines = table_head([
        "images", "strategy", *(f"{count} labels" for count in ROUNDS[1:]), "minus chance, mean of the rounds",
        *(f"labels for chance's AUC at {count}" for count in TARGETS),
    ])  # fmt: skip
    for data in curves.data:
        chance = curves.mean(data, "random")
        for strategy in STRATEGIES:
            of_seeds = np.array([curves.curve(data, seed, strategy) for seed in curves.seeds(data)])
            control = np.array([curves.curve(data, seed, "random") for seed in curves.seeds(data)])
            gain = (of_seeds - control)[:, 1:].mean(axis=1)
            cells = [_spread(of_seeds[:, place]) for place in range(1, len(ROUNDS))]
            difference = "" if strategy == "random" else interval(gain)
            needed = [curves.needed(data, strategy, chance[ROUNDS.index(count)]) for count in TARGETS]
            cells += [difference, *(f"{n:.0f}" if n < math.inf else f"over {ROUNDS[-1]}" for n in needed)]
            lines.append(table_row([DATA[data], strategy, *cells]))
    return lines


def interval(values: np.ndarray) -> str:
    """Mean and 95 % interval of paired differences over seeds, by Student's t."""
    from scipy import stats

    mean = values.mean()
    if len(values) < 2:
        return f"{mean:+.3f} (one seed)"
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return f"{mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f})"


def _spread(values: np.ndarray) -> str:
    return f"{values.mean():.3f} ({values.min():.3f}-{values.max():.3f})"


def draw(curves: Curves) -> Any:
    """The figure: AUC by labels, a panel per data set, a line per strategy."""
    figure, axes = pictures._figure("Labels chosen by chance and by the pair", 1, len(curves.data), 3.6)
    for axis, data in zip(axes[0], curves.data, strict=True):
        for place, (strategy, (colour, marker)) in enumerate(LOOKS.items()):
            values = np.array([curves.curve(data, seed, strategy) for seed in curves.seeds(data)])
            at = np.array(ROUNDS) * 1.03 ** (place - 1.5)
            axis.plot(at, values.mean(axis=0), marker=marker, color=colour, linewidth=1.2, markersize=5, label=strategy)
            axis.vlines(at, values.min(axis=0), values.max(axis=0), color=colour)
        axis.set(xscale="log", xlabel="labelled images", title=f"{DATA[data]}, {len(curves.seeds(data))} seeds")
        axis.set_xticks(ROUNDS, [str(count) for count in ROUNDS])
        axis.minorticks_off()
        axis.grid(axis="y")
    axes[0][0].set_ylabel("AUC, better ↑")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles=handles, labels=labels, loc="outside lower center", ncols=4, title=pictures.BARS)
    return figure


def show(results: Path) -> None:
    """Draws what was measured, and prints its table."""
    curves = Curves(read_rows(results / "suggestions.csv"))
    if not curves.data:
        raise SystemExit(f"Error: {results / 'suggestions.csv'} has no complete seed yet; let the experiment go on.")
    with pictures._style():
        replace_text(results / "suggestions.svg", pictures._svg(draw(curves), "suggestions"))
    print(*table(curves), sep="\n")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_root", type=Path, help="folder of the data sets")
    parser.add_argument(
        "--data", nargs="+", metavar="NAME[=PATH]", default=["brain_mri=brain_mri_clean.csv", "chest_xray"]
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--work", type=Path, help="folder for the runs")
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "results" / "more")
    parser.add_argument("--plot", action="store_true", help="draw what was measured, and measure nothing")
    args = parser.parse_args(arguments)
    if args.plot:
        show(args.results)
        return
    if args.data_root is None or args.work is None:
        parser.error("give --data_root and --work, or --plot")
    sets: dict[str, DataList] = {}
    for word in args.data:
        name, _, path = word.partition("=")
        sets[name] = dual_skd.load_records(args.data_root / (path or name), val_fraction=0.0, twin_search="always")
    for seed in args.seeds:
        for name, data in sets.items():
            Experiment(data, name, seed, args.work, args.results / "suggestions.csv").run()


if __name__ == "__main__":
    main()
