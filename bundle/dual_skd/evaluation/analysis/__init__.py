# SPDX-License-Identifier: Apache-2.0
"""Everything that a run's files say about it: what the report shows, and what ``metrics.json`` keeps of it.

What isn't defined is None beside a ``reason``. No part holds the name of a file or of a patient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from dual_skd.evaluation.analysis import decisions, run_facts
from dual_skd.evaluation.analysis.calibration import Calibration, calibration_of, normalised, with_temperature
from dual_skd.evaluation.analysis.per_patient import images_of_rows
from dual_skd.evaluation.analysis.predictions import Patients, Predictions, Settings
from dual_skd.evaluation.analysis.recalibration import Recalibrated, recalibration_of, risks_of
from dual_skd.evaluation.analysis.sample_size import SampleSize, sample_size_of
from dual_skd.evaluation.analysis.subgroups import Subgroups, subgroups_of
from dual_skd.evaluation.run_files import RunFiles, Unit
from dual_skd.metrics.curves import precision_recall_curve, roc_curve
from dual_skd.metrics.estimates import LEVEL
from dual_skd.metrics.intervals import RESAMPLES, Intervals
from dual_skd.metrics.reliability_diagram import ReliabilityBin
from dual_skd.metrics.risks import RiskCalibration
from dual_skd.options import Reporting

SENSITIVITY = 0.9  # of the second operating point


@dataclass(frozen=True)
class Analysis:
    """The analysis of an evaluated run; its parts are described where they are made."""

    split: str
    unit: Unit  # what is measured: images, or patients
    rows: int  # how many of them
    images: int  # the same, or the images behind the patients
    class_names: list[str]
    class_images: list[int]
    class_patients: list[int]  # known patients with an image of each class
    class_images_without_patient: list[int]
    multi_label: bool
    patients: Patients
    settings: Settings
    metrics: Intervals
    operating_points: tuple[decisions.ClassThreshold, ...]  # three of every class
    calibration: Calibration
    risk_calibration: tuple[RiskCalibration, ...]  # of the classes with the most images
    recalibration: Recalibrated
    prediction_sets: decisions.PredictionSets
    risk_coverage: decisions.RiskCoverage
    subgroups: Subgroups
    confusion: list[list[int]]  # rows by true class (rows) and predicted class; tn, fp, fn, tp of several labels
    roc: tuple[decisions.ClassCurve, ...]
    precision_recall: tuple[decisions.ClassCurve, ...]
    decision_curves: tuple[decisions.ClassDecisionCurve, ...]
    sample_size: SampleSize
    data: run_facts.Data
    training: run_facts.Training
    efficiency: run_facts.Efficiency
    selection: run_facts.Selection
    run: run_facts.Run
    home: run_facts.Home | None  # None for the run's own images


def analyse(
    files: RunFiles,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
    alpha: float = 0.1,
    sensitivity: float = SENSITIVITY,
    speed: Mapping[str, Any] | None = None,
    options: Reporting | None = None,
) -> Analysis:
    """Measures a run from its files; thresholds and prediction sets are chosen on the validation images.

    Intervals are over patients, see :func:`~dual_skd.metrics.intervals.metric_intervals`.

    Args:
        files: from :func:`~dual_skd.evaluation.run_files.read_run`, or of
            :func:`~dual_skd.evaluation.analysis.per_patient.files_per_patient`.
        level: of the intervals.
        resamples: number of bootstrap resamples; half as many for each subgroup, a quarter for curves.
        seed: of the resampling.
        alpha: share of images whose prediction set may miss the label; that of the evaluation, where it had sets.
        sensitivity: of the second operating point, and of the third, with confidence; the first is Youden's.
        speed: time per image, where it was measured.
        options: of the report; None for their defaults. ``per`` is that of ``files``.
    """
    table, names, multi_label = files.table, files.table.class_names, files.multi_label
    records, patients = _records_of(files)
    p, settings = normalised(table.probabilities, multi_label), Settings(level, resamples, seed)
    predictions = Predictions(p, table.labels, patients, names, multi_label, settings)
    images, of_class = images_of_rows(files), predictions.class_patients()
    forms, asked = with_temperature(files, p), options or Reporting()
    return Analysis(
        split=files.split,
        unit=files.unit,
        rows=len(table.images),
        images=int(images.sum()),
        class_names=list(names),
        class_images=predictions.class_rows(images),
        class_patients=of_class[0],
        class_images_without_patient=of_class[1],
        multi_label=multi_label,
        patients=predictions.known_patients(int(images.sum())),
        settings=settings,
        metrics=predictions.intervals(),
        operating_points=decisions.thresholds(predictions, forms, files, sensitivity),
        calibration=calibration_of(predictions, forms, files.unit.answers),
        risk_calibration=risks_of(predictions),
        recalibration=recalibration_of(
            predictions, asked.recalibrate, asked.recalibrate_share, chose_the_model=files.section == "validation"
        ),
        prediction_sets=decisions.sets_of(predictions, forms, files, alpha),
        risk_coverage=decisions.risk_coverage_of(predictions),
        subgroups=subgroups_of(predictions, records, files.unit),
        confusion=decisions.confusion_of(predictions),
        roc=decisions.curves_of(predictions, roc_curve),
        precision_recall=decisions.curves_of(predictions, precision_recall_curve),
        decision_curves=decisions.decision_curves_of(predictions),
        sample_size=sample_size_of(predictions, asked.half_width),
        data=run_facts.data_of(files),
        training=run_facts.training_of(files.metrics),
        efficiency=run_facts.efficiency_of(files, speed),
        selection=run_facts.selection_of(files.selection),
        run=run_facts.run_of(files.run),
        home=run_facts.home_of(files),
    )


def _records_of(files: RunFiles) -> tuple[list[Mapping[str, Any]], list[str]]:
    """What the data list knows of each image measured, in the order of the predictions, and its patient."""
    known = {record["image"]: record for record in files.records}
    records = [known.get(image, {}) for image in files.table.images]
    return records, [str(record.get("patient") or "") for record in records]


def to_json(analysis: Analysis) -> dict[str, Any]:
    """The analysis as ``metrics.json`` holds it: plain JSON, without nan."""
    found = _plain(analysis)
    if not analysis.training.epochs:
        found["training"] = {"epochs": [], "reason": analysis.training.reason}
    if analysis.prediction_sets.coverage is None:
        found["prediction_sets"] = {key: found["prediction_sets"][key] for key in ("alpha", "coverage", "reason")}
    if analysis.recalibration.after is None:
        found["recalibration"] = {key: found["recalibration"][key] for key in ("form", "share", "reason")}
    return found


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        pairs = ((field.name, getattr(value, field.name)) for field in fields(value))
        return {"class" if name == "class_name" else name: _plain(part) for name, part in pairs}
    if isinstance(value, ReliabilityBin):
        return value._asdict()
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
