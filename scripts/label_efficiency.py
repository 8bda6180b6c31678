#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""How accuracy grows with the number of labelled images, on your own data: one table and one plot.

    python scripts/label_efficiency.py DATA --output curve [--fractions 0.05 0.1 0.25 0.5 1] [--seeds 3] [--minutes 600]

Two curves over the same test images: the selected pair with self-distillation (``--method``), and plain fine-tuning of
the student from the same weights (``single``). Small fractions get more epochs, so that each has about as many steps as
the whole set, at most eight times its epochs. What follows ``--`` are other options of train.json, for all runs alike:

    python scripts/label_efficiency.py DATA --output curve -- --image_size 128 --patient_pattern "(p[0-9]+)"

Every run is kept (see scripts/benchmark.py): killed and started again, it goes on where it stopped, and runs that
failed, or had other settings than are given now, run again. Other data, or other options of the data, need another
--output. The band is the standard deviation over seeds, each of which draws other training images. Needs matplotlib
for the plot.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import benchmark
from benchmark_cells import Plan, outdated_cells, planned_cells
from benchmark_store import id_of, read_rows

from dual_skd.data import load_records, save_split
from dual_skd.data.records.datalist import DEMO_NAMES
from dual_skd.errors import InputError
from dual_skd.evaluation.recorder import read_json, write_json
from dual_skd.files import make_folder

NAME = "data"
MADE_OF = "split_made_of.json"
OWN = ("epochs", "method", "seed", "train_fraction")  # options of train.json that the script sets for each run
MOST = 8  # times the epochs of the whole set that the smallest fraction gets
METRICS = {"balanced_accuracy": "balanced accuracy", "macro_auc": "macro AUC", "ece": "calibration error (ECE)"}


def epochs_of(fraction: float, epochs: int) -> int:
    """Epochs that give a fraction about the steps of the whole set."""
    return round(epochs * min(1 / fraction, MOST))


def divide_once(data: str, options: dict[str, Any], path: Path) -> dict[str, Any]:
    """Writes the division into training and test images that all runs share; returns the options that runs still need.

    What is said of the data (``patient_pattern``, ``label_column`` ...) is used here; the file has patients and labels.
    What it was made of stands beside it.

    Raises:
        InputError: the data can't be read, its images have several labels, or the file was made of other data or with
            other options.
    """
    known = inspect.signature(load_records).parameters
    of_data = {name: value for name, value in options.items() if name in known}
    if path.is_file():
        refuse_other_division(data, of_data, path)
    else:
        found = load_records(data, **of_data | {"val_fraction": 0.0})
        if found.multi_label:
            raise InputError(f"{data} has several labels per image; name the column of one: -- --label_column NAME.")
        write_json(path.with_name(MADE_OF), made_of(data, of_data))
        save_split(found, path)
    kept = {name: value for name, value in of_data.items() if name in ("spatial_dims", "val_fraction")}
    return {name: value for name, value in options.items() if name not in of_data} | kept


def made_of(data: str, of_data: dict[str, Any]) -> dict[str, Any]:
    """What decides a division, as JSON has it; not the share of validation images, which each run takes for itself."""
    where = data if data in DEMO_NAMES else str(Path(data).expanduser().resolve())
    options = {name: value for name, value in of_data.items() if name != "val_fraction"}
    return json.loads(json.dumps({"data": where, "options": options}))


def refuse_other_division(data: str, of_data: dict[str, Any], path: Path) -> None:
    """Raises InputError where a division is known to be of other data or options than these."""
    former = read_json(path.with_name(MADE_OF))
    if former and former != made_of(data, of_data):
        options = "".join(f" --{name} {value}" for name, value in former["options"].items())
        raise InputError(
            f"{path.parent} holds the division of {former['data']} with the data options{options or ' left out'}; "
            "choose another --output."
        )


def make_plan(data: Path, fractions: Sequence[float], seeds: int, epochs: int, method: str, options: dict) -> Plan:
    """A plan for scripts/benchmark.py: two rows, every fraction, seed by seed."""
    # a fingerprint has no learning rate: runs of one that was given once would pass for runs of the usual one
    rate = {"revision": f"learning rate {options['learning_rate']}"} if "learning_rate" in options else {}
    return rate | {
        "data": {
            NAME: {
                "path": data.name,
                "epochs": {str(float(fraction)): epochs_of(fraction, epochs) for fraction in fractions},
                "overrides": options,
            }
        },
        "control": "single",
        "rows": {"single": {"method": "single"}, method: {"method": method}},
        "tiers": [
            {
                "on": [[NAME, fraction] for fraction in fractions],
                "rows": ["single", method],
                "seeds": list(range(seeds)),
            }
        ],
    }


def parse_options(words: Sequence[str]) -> dict[str, Any]:
    """Options as the bundle's command line has them: ``--name value``, values as Python literals where they are one."""
    if len(words) % 2 or any(not name.startswith("--") for name in words[::2]):
        raise SystemExit(f"Error: options of train.json come as --name value, found: {' '.join(words)}.")
    options: dict[str, Any] = {}
    for name, value in zip(words[::2], words[1::2], strict=True):
        try:
            options[name[2:]] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[name[2:]] = value
    return options


def rows_of(plan: Plan, results: Path) -> list[dict[str, str]]:
    """Lines of the finished cells that the plan has, with the settings that it has for them."""
    rows = read_rows(results)
    wanted = {cell.id for cell in planned_cells(plan)} - outdated_cells(plan, rows, ())
    return [row for row in rows if id_of(row) in wanted]


def curves(rows: Sequence[dict[str, str]]) -> dict[str, dict[float, dict[str, list[float]]]]:
    """row -> fraction -> metric -> values over seeds, of the student on the test images."""
    found: dict[str, dict[float, dict[str, list[float]]]] = {}
    for row in rows:
        if row["network"] == "student":
            at = found.setdefault(row["row"], {}).setdefault(float(row["fraction"]), {})
            for metric in METRICS:
                if row[metric]:
                    at.setdefault(metric, []).append(float(row[metric]))
    return {name: dict(sorted(points.items())) for name, points in found.items()}


def table(found: dict[str, dict[float, dict[str, list[float]]]]) -> list[str]:
    """Markdown: a line per row and fraction, mean and standard deviation over seeds."""
    lines = [f"| method | labelled share | seeds | {' | '.join(METRICS.values())} |", "|---" * (3 + len(METRICS)) + "|"]
    for name, points in found.items():
        for fraction, values in points.items():
            cells = []
            for metric in METRICS:
                some = values.get(metric, [])
                spread = f" +- {statistics.stdev(some):.3f}" if len(some) > 1 else ""
                cells.append(f"{statistics.fmean(some):.3f}{spread}" if some else "")
            count = max((len(some) for some in values.values()), default=0)
            lines.append(f"| {name} | {fraction:g} | {count} | {' | '.join(cells)} |")
    return lines


def plot(found: dict[str, dict[float, dict[str, list[float]]]], path: Path) -> None:
    """One panel per metric, fractions on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(METRICS), figsize=(4.2 * len(METRICS), 3.4))
    for panel, (metric, title) in zip(panels, METRICS.items(), strict=True):
        for name, points in found.items():
            at = [fraction for fraction, values in points.items() if values.get(metric)]
            mean = [statistics.fmean(points[fraction][metric]) for fraction in at]
            some = [points[fraction][metric] for fraction in at]
            deviation = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in some]
            (line,) = panel.plot(at, mean, marker="o", label=name)
            low, high = ([m + sign * d for m, d in zip(mean, deviation, strict=True)] for sign in (-1, 1))
            panel.fill_between(at, low, high, alpha=0.2, color=line.get_color())
        panel.set(xscale="log", xlabel="share of the labelled images", title=title)
        ticks = sorted({fraction for points in found.values() for fraction in points})
        panel.set_xticks(ticks, [f"{fraction:g}" for fraction in ticks])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None, execute: Any = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="any data set that training takes")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs, the table and the plot")
    parser.add_argument("--fractions", nargs="+", type=float, default=[0.05, 0.1, 0.25, 0.5, 1.0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12, help="of the whole set")
    parser.add_argument("--method", default="coupled", help="compared with single; a word of docs/method.md")
    parser.add_argument("--minutes", type=float, default=600, help="no run is started after them")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    args, rest = parser.parse_known_args(arguments)
    options = parse_options([word for word in rest if word != "--"])
    own = [name for name in OWN if name in options]
    if own:
        raise SystemExit(
            f"Error: {', '.join(own)} can't stand after --, as the script sets it run by run; give --epochs (of the "
            "whole set), --method, --seeds and --fractions before it."
        )
    if not all(0 < fraction <= 1 for fraction in args.fractions):
        raise SystemExit(f"Error: fractions lie between 0 and 1, found {args.fractions}.")
    args.output = args.output.expanduser()
    data = (args.output / "split.json").absolute()
    try:
        make_folder(args.output)
        options = divide_once(args.data, options, data)
    except InputError as error:
        raise SystemExit(f"Error: {error}") from None
    plan = make_plan(data, args.fractions, args.seeds, args.epochs, args.method, options)
    path = args.output / "plan.json"
    path.write_text(json.dumps(plan, indent=1))
    command = ["--data_root", data.parent, "--results", args.output, "--work", args.output / "runs", "--plan", path]
    command += ["--minutes", args.minutes, "--jobs", args.jobs, "--renew", "--retry"]
    benchmark.main([str(word) for word in command], execute)
    found = curves(rows_of(plan, args.output))
    if not found:
        raise SystemExit("Error: no run has finished; the reasons stand above.")
    (args.output / "label_efficiency.md").write_text("\n".join(table(found)) + "\n", encoding="utf-8")
    try:
        plot(found, args.output / "label_efficiency.png")
    except ImportError:
        print("No plot: pip install matplotlib, and start the same command again.")
    print((args.output / "label_efficiency.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
