# SPDX-License-Identifier: Apache-2.0
"""Builds the artefacts of an export one after the other; what passes the acceptance check is kept."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dual_skd.errors import InputError
from dual_skd.networks.described import require_buildable
from dual_skd.serving.export.acceptance import compare_logits
from dual_skd.serving.export.formats import FORMATS, definition
from dual_skd.serving.export.latency import run_batches
from dual_skd.serving.export.runtimes import open_artefact
from dual_skd.serving.export.worker import WorkerFailed, run_module
from dual_skd.utils.files import read_json, replace_file, sha256_of

logger = logging.getLogger(__name__)

Row = dict[str, Any]
LARGE_BYTES = 2**33  # of a large network that is timed


class ArtefactBuilder:
    """Converts a model to the formats, measures and verifies each artefact, each step in a process of its own.

    Args:
        model: the student's file.
        work: with ``images.npy``, ``calibration.npy`` and ``spec.json``.
        spec: see :func:`dual_skd.serving.export.model_spec.model_spec`.
        threads, seconds, timeout: see :func:`export`.
    """

    def __init__(
        self, model: Path, work: Path, spec: Mapping[str, Any], *, threads: int, seconds: float, timeout: float
    ) -> None:
        self.model, self.work, self.spec = model, work, spec
        self.threads, self.seconds, self.timeout = threads, seconds, timeout
        self.multi_label = spec["activation"] == "sigmoid"
        run = open_artefact("eager", model, torch.get_num_threads())
        self.reference = torch.from_numpy(run_batches(run, np.load(work / "images.npy", mmap_mode="r")))

    def baselines(self, run: Mapping[str, Any]) -> list[Row]:
        """Rows of the large network (its weights don't matter for its time) and of the student, in eager PyTorch."""
        large = run.get("networks", {}).get("large", {}).get("architecture")
        sources: dict[str, Any] = {"large network": definition(large)} if large else {}
        rows = []
        for name, source in (sources | {"student": str(self.model)}).items():
            row: Row = {"name": f"{name}, eager PyTorch", "ms": {}, "peak_mb": None}
            try:
                if source is sources.get(name):
                    require_buildable(large, self.model.parents[1] / "run.json", most_bytes=LARGE_BYTES)
                rows.append(row | self._measured("eager", source))
            except (WorkerFailed, InputError) as error:
                rows.append(row | {"reason": str(error)})
        return rows

    def artefact(self, name: str, labels: torch.Tensor, output: Path, *, wanted: bool = True) -> Row:
        """Makes one artefact; what passes is moved to ``output``, nothing else is.

        Returns:
            ``format``, ``status`` (passed, refused, failed, skipped), ``reason``, and as far as it came ``files``,
            ``ms``, ``peak_mb``, ``verification``, ``float_layers``.
        """
        known = FORMATS[name]
        row: Row = {"format": name, "runtime": known.runtime, "status": "skipped", "reason": known.obstacle()}
        files = [self.work / file for file in known.files]
        dims = len(self.spec["input"]["shape"]) - 2
        if dims not in known.dims:
            row["reason"] = f"takes {known.dims[0]}D models only, and this one is {dims}D"
        if row["reason"]:
            return row
        if known.source and not (self.work / FORMATS[known.source].files[0]).is_file():
            return row | {"status": "failed", "reason": f"is made from {known.source}, which failed"}
        logger.info("Export to %s%s ...", name, known.remark)
        try:
            if not wanted:
                self._run("formats", name, str(self.model), str(self.work))
                return row
            for floats in known.floats or (None,):
                row |= self._attempt(name, labels, floats)
                if row["status"] == "passed":
                    break
        except WorkerFailed as error:
            return row | {"status": "failed", "reason": str(error)}
        row["bytes"] = sum(file.stat().st_size for file in files)
        if row["status"] == "passed":
            row["files"] = []
            for file in files:
                name = file.name.replace("model", self.model.stem, 1)
                replace_file(output / name, partial(shutil.copyfile, file))
                row["files"].append({"name": name, "bytes": file.stat().st_size, "sha256": sha256_of(file)})
        return row

    def _attempt(self, name: str, labels: torch.Tensor, floats: float | None) -> Row:
        """Converts, measures and verifies one file; ``floats`` is the share of the layers that keep 32 bits."""
        known, logits = FORMATS[name], self.work / "logits.npy"
        self._run("formats", name, str(self.model), str(self.work), *([str(floats)] if floats else []))
        row = self._measured(known.runtime, str(self.work / known.files[0]), logits, module=known.measure)
        compared = compare_logits(
            self.reference, torch.from_numpy(np.load(logits)), labels, temperature=self.spec["temperature"],
            multi_label=self.multi_label,
        )  # fmt: skip
        row["verification"] = {key: finite(value) for key, value in asdict(compared).items()}
        row["reason"] = compared.refusal(reduced=known.reduced)
        row["status"] = "refused" if row["reason"] else "passed"
        if known.floats:
            row["float_layers"] = floats
        return row

    def _measured(self, runtime: str, source: Any, logits: Path | None = None, *, module: str = "latency") -> Row:
        answer = self.work / "answer.json"
        images = None if logits is None else str(self.work / "images.npy")
        given = {
            "runtime": runtime, "source": source, "images": images, "logits": str(logits), "answer": str(answer),
            "shape": self.spec["input"]["shape"][1:], "threads": self.threads, "seconds": self.seconds,
        }  # fmt: skip
        self._run(module, json.dumps(given))
        return read_json(answer)

    def _run(self, module: str, *arguments: str) -> None:
        name = f"dual_skd.serving.export.{module}"
        run_module(name, arguments, work=self.work, seconds=self.timeout, threads=self.threads)


def with_sources(formats: Sequence[str]) -> list[str]:
    """The formats and those they are made from, in the order in which they can be made."""
    wanted = {*formats, *(FORMATS[name].source for name in formats if not FORMATS[name].obstacle())}
    return [name for name in FORMATS if name in wanted]


def remove_earlier(output: Path) -> None:
    """What an earlier export left must not be taken for what this one verifies."""
    made = (file for known in FORMATS.values() for file in known.files)
    for name in ("export.json", "export.md", "auxiliary.onnx", *made):
        (output / name).unlink(missing_ok=True)


def finite(value: float | None) -> float | None:
    """A number as JSON takes it; None for one that isn't finite."""
    return None if value is None or not np.isfinite(value) else value
