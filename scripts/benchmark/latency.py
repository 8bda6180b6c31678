# SPDX-License-Identifier: Apache-2.0
"""Measures how long one image takes each network of the benchmark's plan on a CPU: RESULTS/latency.csv.

    python -m scripts.benchmark.latency [--results docs/results] [--plan scripts/benchmark/plan.json] [--rounds 60]

Eager PyTorch, one thread, a batch of one image, median over rounds in which the networks take turns, so that what else
the machine does meets all of them; for the same reason the time is that of the processor, not of the clock. The
benchmark's tables show it beside parameters and MACs, with the ratio to the large network: the median of the rounds'
ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

import torch
from monai.utils import ensure_tuple_rep
from torch import nn

from dual_skd.errors import InputError
from dual_skd.networks.build import build_network
from dual_skd.runs.record import describe_architecture
from dual_skd.serving.export.export import machine
from dual_skd.utils.files import read_json
from scripts import CONFIGS, ROOT
from scripts.benchmark.plan import PLAN, RESULTS, Cell, Plan, read_plan, settings_of
from scripts.benchmark.store import read_rows, write_rows

CLASSES = 2  # the classifier's few weights don't matter
MACS_TOLERANCE = 0.02  # relative difference of MACs up to which a measured network is that of a result: other classes


@dataclass(frozen=True)
class Network:
    """What decides how long a network takes.

    Attributes:
        name: the network with its options, as text.
        size: of the input, "96x96".
    """

    name: str
    size: str

    @property
    def input_size(self) -> list[int]:
        return [int(side) for side in self.size.split("x")]

    @property
    def architecture(self) -> dict[str, Any]:
        """Arguments of :func:`dual_skd.networks.build_network`."""
        name, _, options = self.name.partition(" ")
        size = self.input_size
        common = {"num_classes": CLASSES, "in_channels": 1, "spatial_dims": len(size), "image_size": size}
        return {"name": name, **common, **json.loads(options or "{}")}


def network_of(plan: Plan, data: str, row: str, which: str = "small") -> Network:
    """The student of a row of the plan, or with ``which`` "large" the network that it is selected from."""
    values: dict[str, Any] = {}
    for name in plan["data"][data].get("configs", ["train.json"]):
        values |= read_json(CONFIGS / name)
    fraction = float(next(iter(plan["data"][data]["epochs"])))
    values |= settings_of(plan, Cell(data, fraction, row, 0), {})
    options = values[f"{which}_options"]
    name = values[which] + (f" {json.dumps(options, sort_keys=True)}" if options else "")
    return Network(name, "x".join(map(str, ensure_tuple_rep(values["image_size"], values["spatial_dims"]))))


def large_of(plan: Plan, data: str) -> Network:
    """The network that the others are compared with: that of the row "large", or what the control is selected from."""
    return (
        network_of(plan, data, "large") if "large" in plan["rows"] else network_of(plan, data, plan["control"], "large")
    )


def milliseconds(networks: Mapping[Any, tuple[nn.Module, torch.Tensor]], rounds: int) -> dict[Any, list[float]]:
    """Processor time of one forward pass of each network in every round, in turn, after two that don't count."""
    found: dict[Any, list[float]] = {key: [] for key in networks}
    with torch.inference_mode():
        for turn in range(rounds + 2):
            for key, (network, image) in networks.items():
                started = time.process_time()
                network(image)
                if turn >= 2:
                    found[key].append(1000 * (time.process_time() - started))
    return found


def measure(plan: Plan, rounds: int) -> list[dict[str, Any]]:
    """Lines of latency.csv: one per distinct network and size of the plan's cells."""
    rows = {(data, row) for tier in plan["tiers"] for data, _ in tier["on"] for row in tier["rows"]}
    large = {(found := large_of(plan, data)).size: found for data in sorted({data for data, _ in rows})}
    networks = set(large.values()) | {network_of(plan, data, row) for data, row in rows}
    networks = sorted(networks, key=lambda network: (network.size, network.name))
    built = {
        network: (build_network(**network.architecture).eval(), torch.zeros(1, 1, *network.input_size))
        for network in networks
    }
    times = milliseconds(built, rounds)
    common = {"load": f"{os.getloadavg()[0]:.1f}", "machine": f"{machine()}, 1 thread, torch {torch.__version__}"}
    common["measured"] = datetime.now(timezone.utc).isoformat(timespec="minutes")
    lines = []
    for network in networks:
        ratios = [one / other for one, other in zip(times[network], times[large[network.size]], strict=True)]
        lines.append(
            {"network": network.name, "size": network.size}
            | describe_architecture(network.architecture, (1, *network.input_size))
            | {"milliseconds": round(median(times[network]), 2), "of_large": round(median(ratios), 3)}
            | common
        )
    return lines


class Latencies:
    """What was measured, for the rows of the report."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.plan = plan
        self._found = {Network(line["network"], line["size"]): line for line in read_rows(folder, "latency")}

    def text(self, data: str, row: str, network: str, macs: float) -> str:
        """Milliseconds and ratio to the large network, as "5.1 (0.32)"; empty where unknown.

        Args:
            data, row, network: of a result.
            macs: of the result; a measurement of another network, because the plan has changed, isn't shown.
        """
        data = self.plan.get("pooled", {}).get(data, [data])[0]
        if data not in self.plan["data"] or row not in self.plan["rows"]:
            return ""
        student = network_of(self.plan, data, row)
        teacher = self.plan["rows"][row].get("method") == "distill"
        second = network_of(self.plan, data, row, "large") if teacher else student
        parts = {"student": [student], "auxiliary": [second], "mean": [student, second]}[network]
        lines = [self._found.get(part) for part in parts]
        if None in lines or abs(sum(float(line["macs"]) for line in lines) / macs - 1) > MACS_TOLERANCE:
            return ""
        duration, ratio = (sum(float(line[name]) for line in lines) for name in ("milliseconds", "of_large"))
        return f"{duration:.1f} ({ratio:.2f})"


def read_runtimes(page: Path = ROOT / "docs" / "deployment.md") -> list[tuple[str, list[float]]]:
    """Names of what scripts/benchmark/deployment.py timed, and milliseconds at 96 and at 224 px.

    Raises:
        InputError: the page has no such table.
    """
    words = {"eager ": "", "onnx_int8": "ONNX, int8", "onnx": "ONNX", "torchscript": "TorchScript",
             "openvino_fp16": "OpenVINO, 16 bit", "openvino_int8": "OpenVINO, int8"}  # fmt: skip
    lines = re.search(
        r"^\| batch 1, 1 thread \|.*\n\|[-|]+\n((?:\|.*\n)+)", page.read_text(encoding="utf-8"), re.MULTILINE
    )
    if not lines:
        raise InputError(f"{page} has no table that begins with 'batch 1, 1 thread', the times of the runtimes.")
    found = []
    for line in lines[1].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        name = re.sub("|".join(words), lambda match: words[match[0]], cells[0])
        found.append((name, [float(cells[1]), float(cells[4])]))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--plan", type=Path, default=PLAN)
    parser.add_argument("--rounds", type=int, default=60)
    args = parser.parse_args(arguments)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        lines = measure(read_plan(args.plan), args.rounds)
        write_rows(args.results, lines, "latency")
    except InputError as error:
        sys.exit(f"Error: {error}")
    finally:
        torch.set_num_threads(threads)
    for line in lines:
        print(
            f"{line['network']:60} {line['size']:>10} {line['milliseconds']:8.2f} ms {line['of_large']:6.3f} of large"
        )


if __name__ == "__main__":
    main()
