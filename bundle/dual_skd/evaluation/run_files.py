# SPDX-License-Identifier: Apache-2.0
"""The files of a finished run that an analysis needs, read and brought together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dual_skd.data.records.evaluation_records import patients_of
from dual_skd.data.records.split_file import SECTIONS
from dual_skd.errors import InputError
from dual_skd.evaluation.measured_images import note_path
from dual_skd.metrics.predictions import PredictionTable, read_predictions
from dual_skd.runs.metrics_file import read_metrics
from dual_skd.utils.csv_text import read_rows
from dual_skd.utils.files import expanded, read_json
from dual_skd.utils.wording import quoted


@dataclass(frozen=True)
class Unit:
    """What a row of the predictions stands for: an image, or a patient with all images of it.

    Attributes:
        name: ``image`` or ``patient``.
        combine: how the images of a patient are combined, ``mean`` or ``max``; "" for images.
        answers: what the combined probabilities of images are, calibrated or not, in words.
        left_out_patients: number of patients without a label of their own.
        left_out_images: number of their images.
        mixed_columns: column of the data list -> number of patients whose images differ in it.
    """

    name: str = "image"
    combine: str = ""
    answers: str = ""
    left_out_patients: int = 0
    left_out_images: int = 0
    mixed_columns: Mapping[str, int] = field(default_factory=dict)

    @property
    def many(self) -> str:
        """The name of several of them."""
        return f"{self.name}s"

    @property
    def key(self) -> str:
        """The name of a report of patients beside that of images, such as ``patients_mean``; "" for images."""
        return f"{self.many}_{self.combine}" if self.combine else ""


@dataclass(frozen=True)
class RunFiles:
    """What a run and its evaluation wrote.

    Attributes:
        split: which evaluation this is, such as ``test``, or the name that ``report_as`` gave to another data set.
        table: predictions of that split.
        validation: predictions on the validation images, uncalibrated; None without them.
        datalist: ``datalist.json``: the division of the images that the model was trained on.
        records: of the images of the split: image, label, patient, site and what else the data list knows; empty where
            they aren't in it.
        metrics: ``metrics.json``.
        run: ``run.json``.
        selection: rows of ``selection_report.csv``.
        calibration: ``temperature``, ``images``, ``nll_before`` and ``nll_after`` of the model file; None without.
        model_bytes: size of the model file; None without one.
        multi_label: whether an image may have any number of the classes.
        section: of ``datalist.json`` whose images were measured, ``test`` or ``validation``; "" for another data set.
        validation_reason: why there are no validation predictions; "" where there are.
        unit: what a row of the predictions stands for.
    """

    split: str
    table: PredictionTable
    validation: PredictionTable | None = None
    datalist: Mapping[str, Any] = field(default_factory=dict)
    records: tuple[Mapping[str, Any], ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)
    selection: tuple[Mapping[str, str], ...] = ()
    calibration: Mapping[str, float] | None = None
    model_bytes: int | None = None
    multi_label: bool = False
    section: str = ""
    validation_reason: str = ""
    unit: Unit = Unit()

    @property
    def external(self) -> bool:
        """Whether the images are of another data set than that of the training run."""
        return not self.section

    @property
    def validation_patients(self) -> list[str]:
        """Patient of each validation image that there is a prediction of, "" for an unknown one."""
        known = patients_of(self.datalist.get("validation") or [])
        return [known.get(image, "") for image in self.validation.images] if self.validation else []


def read_run(
    directory: str | Path,
    split: str = "test",
    *,
    calibration: Mapping[str, float] | None = None,
    model: str | Path | None = None,
) -> RunFiles:
    """Reads the files of a run; all but the table of predictions may be missing.

    Args:
        directory: ``output_dir`` of the run.
        split: name of the evaluation: ``predictions_<split>.csv`` is read.
        calibration: of the model file, from :func:`dual_skd.load_model`.
        model: the model file, for its size; None takes the run's own.

    Raises:
        InputError: no such run, no predictions of this split, or a file that isn't what it should be.
    """
    directory = expanded(directory)
    if not directory.is_dir():
        raise InputError(f"There is no folder {directory}; give the output_dir of a run.")
    path = directory / f"predictions_{split}.csv"
    if not path.is_file():
        known = sorted(file.stem.removeprefix("predictions_") for file in directory.glob("predictions_*.csv"))
        known = [name for name in known if not name.endswith("_auxiliary") and name != "validation"]
        made = f"make them: dual-skd evaluate {quoted(directory)}" + " --split val" * (split == "val")
        others = f"choose one of those evaluated as split: {', '.join(known)}" if known else ""
        remedy = ", or ".join(filter(None, [made if split in SECTIONS or not known else "", others]))
        raise InputError(f"There are no predictions {path}; {remedy}.")
    datalist = read_json(directory / "datalist.json")
    section, own, records = measured_records(directory, split)
    multi_label = any(isinstance(record.get("label"), list) for record in records or datalist.get("training", []))
    table = read_predictions(path, multi_label=multi_label)
    validation, reason = _validation(directory / "predictions_validation.csv", table, calibration, multi_label)
    model = Path(model) if model is not None else directory / "models" / "model.pt"
    return RunFiles(
        split=split,
        table=table,
        validation=validation,
        datalist=datalist and datalist | {key: own.get(key) for key in ("left_out", "twins_searched", "unusable")},
        records=tuple(records),
        metrics=read_metrics(directory),
        run=read_json(directory / "run.json"),
        selection=tuple(read_rows(directory / "selection_report.csv")),
        calibration=calibration,
        model_bytes=model.stat().st_size if model.is_file() else None,
        multi_label=multi_label,
        section=section,
        validation_reason=reason,
    )


def measured_records(directory: Path, split: str) -> tuple[str, dict[str, Any], list[dict[str, Any]]]:
    """Which images an evaluation measured.

    Returns:
        the section of the run's ``datalist.json``, "" for another data set; the data list; and its records.
    """
    note = read_json(note_path(directory, split))
    sections = SECTIONS | {name: name for name in SECTIONS.values()}  # the section's own name serves, too
    section = note.get("own", "" if note else sections.get(split, ""))
    own = read_json(directory / "datalist.json") if section else note
    return section, own, (own.get(section) if section else own.get("test") or own.get("validation")) or []


def estimates(entry: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What an evaluation measured, from its entry in ``metrics.json``; without a report there are no intervals.

    Returns:
        per metric ``value``, ``low``, ``high`` and ``reason``.
    """
    answered = entry.get("calibrated") or entry.get("student") or {}
    found = ((entry.get("analysis") or {}).get("metrics") or {}).get("overall") or {}
    none = {"low": None, "high": None, "reason": ""}
    return {name: found.get(name) or {"value": value, **none} for name, value in answered.items()}


def at_home(metrics: Mapping[str, Any], split: str) -> tuple[dict[str, dict[str, Any]], str]:
    """What the run's own test images gave, for the report of another data set.

    Args:
        metrics: content of ``metrics.json``.
        split: name of the evaluation of the other data set.

    Returns:
        their :func:`estimates`, and why there are none; "" where there are.
    """
    home, here = metrics.get("test") or {}, metrics.get(split) or {}
    if not home:
        return {}, "the run's own test images weren't evaluated"
    if ("calibrated" in home) != ("calibrated" in here):
        return {}, "the run's own test images weren't evaluated with the same setting of calibrate"
    return estimates(home), ""


def unfinished(run: Mapping[str, Any], goes_on: str) -> str:
    """The warning of a run whose training hasn't come to its end; "" for one that has, and without a record of it.

    Args:
        run: content of ``run.json``.
        goes_on: what goes on with the training: a command, in words.
    """
    if not run or run.get("finished"):
        return ""
    done = len((run.get("timings") or {}).get("epochs") or [])
    planned = (run.get("config") or {}).get("epochs")
    return (
        f"Training was stopped after epoch {done}{f' of {planned}' if planned else ''}, or still runs; {goes_on} goes "
        "on. These numbers are of an unfinished model."
    )


def report_folder(directory: Path, split: str, unit: Unit = Unit()) -> Path:
    """Where the pages of an evaluation are; those of patients are in a folder of their own within."""
    return directory / ("report" if split == "test" else f"report_{split}") / unit.key


def _validation(
    path: Path, table: PredictionTable, calibration: Mapping[str, float] | None, multi_label: bool
) -> tuple[PredictionTable | None, str]:
    """The validation predictions of the model that made the table, or why there are none."""
    if not path.is_file():
        return None, "the run kept no predictions of validation images"
    validation = read_predictions(path, multi_label=multi_label)
    if validation.class_names != table.class_names:
        return None, "the validation predictions are of other classes"
    if calibration is not None and calibration.get("images") != len(validation.images):
        return None, "the validation predictions are of another model"
    return validation, ""
