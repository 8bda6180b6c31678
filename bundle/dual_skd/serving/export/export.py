# SPDX-License-Identifier: Apache-2.0
"""A trained student for other runtimes, verified, measured and described."""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dual_skd.data import image_transforms, load_records, load_split
from dual_skd.data.reading.facts import spread
from dual_skd.data.records.datalist import DataList
from dual_skd.data.records.record import Record
from dual_skd.errors import InputError, choose, input_error_behind
from dual_skd.networks.weight_files import read_info
from dual_skd.runs.model_file import conformal_rule, load_model
from dual_skd.runs.places import find_model
from dual_skd.serving.export.child import ChildFailed, run_module
from dual_skd.serving.export.formats import CALIBRATION, FORMATS, RECIPE, definition
from dual_skd.serving.export.gate import compare
from dual_skd.serving.export.latency import answers
from dual_skd.serving.export.recipe import recipe
from dual_skd.serving.export.runtimes import open_artefact
from dual_skd.utils.files import expanded, make_folder, read_json, sha256_of, write_json

logger = logging.getLogger(__name__)

CALIBRATION_IMAGES = 64
MOST_BYTES = 2**30  # of images to verify on, held in memory
Row = dict[str, Any]


def export(
    run_dir: str | Path,
    output: str | Path | None = None,
    *,
    formats: Sequence[str] = tuple(FORMATS),
    data: str | Path | None = None,
    label_column: str | Sequence[str] = "label",
    class_map: Mapping[Any, Any] | str | None = None,
    image_column: str | None = None,
    images: int = 2000,
    threads: int = 1,
    seconds: float = 3.0,
    timeout: float = 900.0,
) -> dict[str, Any]:
    """Writes the artefacts that pass, ``export.json`` and ``export.md``.

    Args:
        run_dir: ``output_dir`` of a training run.
        output: folder of the artefacts, default ``run_dir/export``; those of an earlier export are removed from it.
        formats: of :data:`dual_skd.serving.export.formats.FORMATS`.
        data: labelled images to verify on, in any form that training takes: its validation images, or all where it has
            none. Default: those of the run.
        label_column, class_map, image_column: of ``data``, see :func:`dual_skd.data.load_records`.
        images: verify on so many at most, evenly spread; on fewer where they would take more than 1 GiB.
        threads: for the measurement of times.
        seconds: for the time of one batch size.
        timeout: seconds that one conversion or measurement may take.

    Returns:
        the content of ``export.json``.

    Raises:
        InputError: no model, no such format, or no images to verify on; an earlier export stays as it was.
    """
    for name in formats:
        choose(FORMATS, name, "format")
    for name, value in (("images", images), ("threads", threads)):
        if value < 1:
            raise InputError(f"{name} is {value}; give a number from 1 on.")
    run_dir = expanded(run_dir)
    output = run_dir / "export" if output is None else expanded(output)
    model = Path(find_model(run_dir)).absolute()
    _, info = load_model(model)
    make_folder(output)  # before the work, which takes minutes
    read_as = {"label_column": label_column, "class_map": class_map, "image_column": image_column}
    about = recipe(info)
    fitting = MOST_BYTES // (4 * math.prod(about["input"]["shape"][1:]))
    most = max(min(images, fitting), 1)  # one, however large an image is
    records, source, calibration = _images_of(run_dir, data, read_as, info, most)
    with tempfile.TemporaryDirectory(prefix="dual_skd_export_") as folder:
        work = Path(folder).resolve()
        transforms = image_transforms(**info["preprocessing"] | {"expected": None})
        np.save(work / "images.npy", _arrays(records, transforms))
        np.save(work / CALIBRATION, _arrays(calibration, transforms) if calibration is not None
                else _arrays(_spread(records, CALIBRATION_IMAGES), transforms))  # fmt: skip
        write_json(work / RECIPE, about)
        _remove_earlier(output)
        bench = Bench(model, work, about, threads=threads, seconds=seconds, timeout=timeout)
        labels = torch.tensor([record.label for record in records])
        baselines = bench.baselines(read_json(run_dir / "run.json"))
        rows = [bench.artefact(name, labels, output, wanted=name in formats) for name in _with_sources(formats)]
        auxiliary = _auxiliary(bench, labels, output) if "onnx" in formats else None
    rows = [row for row in rows if row["format"] in formats]
    passed = [row for row in rows if row["status"] == "passed" and row["ms"]["1"] is not None]
    report = {
        "made_with": _versions(),
        "model": {"file": model.name, "sha256": sha256_of(model)},
        **about,
        "prediction_sets": _prediction_sets(run_dir, info),
        "auxiliary": auxiliary,
        "verified_on": {"data": source, "images": len(records), "reference": "PyTorch, float32"},
        "measured": {
            "machine": machine(), "threads": threads,
            "clock": "processor time" if threads == 1 else "clock time",
        },
        "baselines": baselines,
        "artefacts": rows,
        "fastest": min(passed, key=lambda row: row["ms"]["1"])["format"] if passed else None,
    }  # fmt: skip
    write_json(output / "export.json", report)
    (output / "export.md").write_text(markdown(report), encoding="utf-8")
    return report


def _prediction_sets(run_dir: Path, info: Mapping[str, Any]) -> Row | None:
    """The rule of the prediction sets in plain values; its threshold is None where every set is full."""
    rule = conformal_rule(run_dir, info)
    return None if rule is None else {**rule._asdict(), "threshold": _finite(rule.threshold)}


def _auxiliary(bench: Bench, labels: torch.Tensor, output: Path) -> Row | None:
    """The auxiliary as ONNX, for the disagreement that ``predict`` states; None where the run left none."""
    path = bench.model.with_name("auxiliary.pt")
    if not path.is_file():
        return None
    about = recipe(read_info(path))
    other = Bench(path, bench.work, about, threads=bench.threads, seconds=0, timeout=bench.timeout)
    row = other.artefact("onnx", labels, output)
    about_model = {"model": {"file": path.name, "sha256": sha256_of(path)}, "temperature": about["temperature"]}
    return about_model | row


# --- images -----------------------------------------------------------------------------------------------------------


def _images_of(
    run_dir: Path, data: str | Path | None, read_as: Mapping[str, Any], info: Mapping[str, Any], most: int
) -> tuple[list[Record], str, list[Record] | None]:
    """Records to verify on, where they are from, and training records to calibrate on (None where they are gone)."""
    own: DataList | None = None
    try:
        own = load_split(run_dir / "datalist.json")
    except InputError as error:
        if data is None:
            raise InputError(
                f"The images of this run can't be used for the verification ({error}) Give labelled images as --data."
            ) from error
    given: Any = own if data is None else _labelled(data, read_as, info)
    records = given.val or [record for split in given.splits.values() for record in split]
    which = "validation images" if given.val else "all images"
    source = f"{which} of {(run_dir if data is None else Path(data)).resolve().name}"
    if own is not None and own.train:
        return _spread(records, most), source, _spread(own.train, CALIBRATION_IMAGES)
    logger.warning("The training images aren't there; quantisation is calibrated on images it is verified on.")
    return _spread(records, most), source, None


def _labelled(data: str | Path, read_as: Mapping[str, Any], info: Mapping[str, Any]) -> DataList:
    preprocessing = info["preprocessing"]
    found = load_records(
        data, spatial_dims=preprocessing.get("spatial_dims", 2), class_names=info["class_names"], val_fraction=0.0,
        numbers_are_places=False, test_fraction=0.0, keep_twins=True, patient_pattern="",
        frame=preprocessing.get("frame"), **read_as, refuse_shared_patients=False,
    )  # fmt: skip
    if list(found.class_names) != list(info["class_names"]) or found.multi_label != bool(info.get("multi_label")):
        raise InputError(
            f"{data} has the classes {', '.join(found.class_names)}, expected those of the model, "
            f"{', '.join(info['class_names'])}; give data with the same labels."
        )
    return found


def _spread(records: Sequence[Record], most: int) -> list[Record]:
    return [records[place] for place in spread(len(records), most)]


def _arrays(records: Sequence[Record], transforms: Any) -> np.ndarray:
    try:
        return np.stack([transforms({"image": record.image})["image"].numpy() for record in records])
    except Exception as error:
        cause = input_error_behind(error)
        if cause is None:
            raise
        raise InputError(str(cause)) from error


# --- one artefact after the other -------------------------------------------------------------------------------------


class Bench:
    """Converts, measures and judges, each in a process of its own.

    Args:
        model: the student's file.
        work: with ``images.npy``, ``calibration.npy`` and ``recipe.json``.
        about: see :func:`dual_skd.serving.export.recipe.recipe`.
        threads, seconds, timeout: see :func:`export`.
    """

    def __init__(
        self, model: Path, work: Path, about: Mapping[str, Any], *, threads: int, seconds: float, timeout: float
    ) -> None:
        self.model, self.work, self.about = model, work, about
        self.threads, self.seconds, self.timeout = threads, seconds, timeout
        self.multi_label = about["activation"] == "sigmoid"
        run = open_artefact("eager", model, torch.get_num_threads())
        self.reference = torch.from_numpy(answers(run, np.load(work / "images.npy", mmap_mode="r")))

    def baselines(self, run: Mapping[str, Any]) -> list[Row]:
        """Rows of the large network (its weights don't matter for its time) and of the student, in eager PyTorch."""
        large = run.get("networks", {}).get("large", {}).get("architecture")
        sources = ([("large network, eager PyTorch", definition(large))] if large else []) + [
            ("student, eager PyTorch", str(self.model))
        ]
        rows = []
        for name, source in sources:
            row: Row = {"name": name, "ms": {}, "peak_mb": None}
            try:
                row |= self._measured("eager", source)
            except ChildFailed as error:
                row["reason"] = str(error)
            rows.append(row)
        return rows

    def artefact(self, name: str, labels: torch.Tensor, output: Path, *, wanted: bool = True) -> Row:
        """Makes one artefact; what passes is moved to ``output``, nothing else is.

        Returns:
            ``format``, ``status`` (passed, refused, failed, skipped), ``reason``, and as far as it came ``files``,
            ``ms``, ``peak_mb``, ``verification``.
        """
        known = FORMATS[name]
        row: Row = {"format": name, "runtime": known.runtime, "status": "skipped", "reason": known.obstacle()}
        files = [self.work / file for file in known.files]
        if row["reason"]:
            return row
        if known.source and not (self.work / FORMATS[known.source].files[0]).is_file():
            return row | {"status": "failed", "reason": f"is made from {known.source}, which failed"}
        logger.info("Export to %s ...", name)
        try:
            run_module(
                "dual_skd.serving.export.formats", [name, str(self.model), str(self.work)], work=self.work,
                seconds=self.timeout, threads=self.threads,
            )  # fmt: skip
            if not wanted:
                return row
            logits = self.work / "logits.npy"
            row |= self._measured(known.runtime, str(files[0]), logits)
        except ChildFailed as error:
            return row | {"status": "failed", "reason": str(error)}
        compared = compare(
            self.reference, torch.from_numpy(np.load(logits)), labels, temperature=self.about["temperature"],
            multi_label=self.multi_label,
        )  # fmt: skip
        row["verification"] = {key: _finite(value) for key, value in asdict(compared).items()}
        row["reason"] = compared.refusal(reduced=known.reduced)
        row["status"] = "refused" if row["reason"] else "passed"
        row["bytes"] = sum(file.stat().st_size for file in files)
        if row["status"] == "passed":
            row["files"] = []
            for file in files:
                name = file.name.replace("model", self.model.stem, 1)
                shutil.copyfile(file, output / name)
                row["files"].append({"name": name, "bytes": file.stat().st_size, "sha256": sha256_of(file)})
        return row

    def _measured(self, runtime: str, source: Any, logits: Path | None = None) -> Row:
        answer = self.work / "answer.json"
        images = None if logits is None else str(self.work / "images.npy")
        given = {
            "runtime": runtime, "source": source, "images": images, "logits": str(logits), "answer": str(answer),
            "shape": self.about["input"]["shape"][1:], "threads": self.threads, "seconds": self.seconds,
        }  # fmt: skip
        run_module(
            "dual_skd.serving.export.latency",
            [json.dumps(given)],
            work=self.work,
            seconds=self.timeout,
            threads=self.threads,
        )
        return read_json(answer)


def _with_sources(formats: Sequence[str]) -> list[str]:
    wanted = {*formats, *(FORMATS[name].source for name in formats if not FORMATS[name].obstacle())}
    return [name for name in FORMATS if name in wanted]


def _remove_earlier(output: Path) -> None:
    """What an earlier export left must not be taken for what this one verifies."""
    made = (file for known in FORMATS.values() for file in known.files)
    for name in ("export.json", "export.md", "auxiliary.onnx", *made):
        (output / name).unlink(missing_ok=True)


def _finite(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else value


# --- the report -------------------------------------------------------------------------------------------------------


def markdown(report: Mapping[str, Any]) -> str:
    """The table of an export: both networks in eager PyTorch and every format, the fastest that passed in bold."""
    measured, verified = report["measured"], report["verified_on"]
    large = next((row["ms"].get("1") for row in report["baselines"] if row["name"].startswith("large")), None)
    lines = [
        f"Verified on {verified['images']} images ({verified['data']}) against PyTorch in float32. Time: median of the "
        f"{measured['clock']}, {measured['threads']} thread{'s' * (measured['threads'] > 1)}, {measured['machine']}. "
        "Memory: peak of the process.",
        "",
        "| | result | file, MB | ms, batch 1 | ms, batch 32 | times faster than large | memory, MB "
        "| largest difference of a probability | fall of AUC | changed decisions |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in (*report["baselines"], *report["artefacts"]):
        name = row.get("name", row.get("format"))
        first, many = (row.get("ms", {}).get(batch) for batch in ("1", "32"))
        checked = row.get("verification", {})
        drop = None if checked.get("auc") is None else checked["auc_reference"] - checked["auc"]
        status = row.get("status", "baseline") + (f": {row['reason']}" if row.get("reason") else "")
        cells = [
            f"**{name}, the fastest**" if name == report["fastest"] else name, status.replace("|", "/"),
            _number(row.get("bytes") and row["bytes"] / 1e6, ".2f"), _number(first, ".2f"), _number(many, ".1f"),
            _number(large and first and large / first, ".1f"), _number(row.get("peak_mb"), ".0f"),
            _number(checked.get("max_difference"), ".1g"), _number(drop, ".4f"), _number(checked.get("changed"), ".2%"),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("dual-skd", "torch", "monai", "timm", "onnx", "onnxruntime", "openvino", "nncf"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """The processor in words."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"
