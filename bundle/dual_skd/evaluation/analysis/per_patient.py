# SPDX-License-Identifier: Apache-2.0
"""A run's files with a row per patient instead of one per image, for an analysis that doesn't know the difference.

The answers of a patient's images are combined as they were given. Then thresholds, temperature and prediction sets are
chosen on the validation patients, whose images are combined in the same way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dual_skd.data.records.evaluation_records import patients_of
from dual_skd.data.records.rows import cell_text
from dual_skd.errors import InputError
from dual_skd.evaluation.analysis.calibration import normalised, with_temperature
from dual_skd.evaluation.run_files import RunFiles, Unit
from dual_skd.metrics.per_patient import PatientTable, combine_patients
from dual_skd.metrics.predictions import PredictionTable

KEPT_KEYS = ("image", "label", "patient")  # of a record, which aren't those of a single image


def files_per_patient(files: RunFiles, how: str = "mean") -> RunFiles:
    """The same run with a row per patient.

    Args:
        files: of :func:`~dual_skd.evaluation.run_files.read_run`.
        how: ``mean`` or ``max``, see :func:`~dual_skd.metrics.per_patient.combine_patients`.

    Raises:
        InputError: no patient is known, or none has a label of its own.
    """
    p = normalised(files.table.probabilities, files.multi_label)
    patients = patients_of(files.records)
    of_images = [patients.get(image, "") for image in files.table.images]
    found = combine_patients(files.table._replace(probabilities=p), of_images, how, multi_label=files.multi_label)
    records, mixed = _records(files, found, of_images)
    entry = files.metrics.get(files.split) or {}
    unit = Unit(
        "patient",
        how,
        "calibrated" if "calibrated" in entry else "as the network gives them",
        found.left_out_patients,
        found.left_out_images,
        mixed,
    )
    validation, reason = _validation(files, p, how)
    return replace(
        files, table=found.table, validation=validation, validation_reason=reason, records=records, calibration=None,
        metrics=_metrics(files, unit), unit=unit,
    )  # fmt: skip


def images_of_rows(files: RunFiles) -> np.ndarray:
    """Number of images behind each row (N,)."""
    if files.unit.name == "patient":
        return np.array(files.table.columns["images"], dtype=int)
    return np.ones(len(files.table.images), dtype=int)


def _validation(files: RunFiles, p: np.ndarray, how: str) -> tuple[PredictionTable | None, str]:
    """The validation patients, their images' answers being what those of the table are; or why there are none."""
    forms = with_temperature(files, p)
    if files.validation is None or forms.validation is None:
        return None, forms.reason
    patients = patients_of(files.datalist.get("validation") or [])
    of_images = [patients.get(image, "") for image in files.validation.images]
    table = files.validation._replace(probabilities=forms.validation)
    if not any(of_images):
        return None, "the patients of the validation images aren't known"
    try:
        return combine_patients(table, of_images, how, multi_label=files.multi_label).table, ""
    except InputError:
        return None, "most validation patients have images of different labels"


def _records(
    files: RunFiles, found: PatientTable, of_images: Sequence[str]
) -> tuple[tuple[dict[str, Any], ...], dict[str, int]]:
    """A record per patient, with what all its images have alike; and of how many patients they differ in each column.

    A column in which the images of most patients differ is left out.
    """
    of_image = {record["image"]: record for record in files.records}
    records, mixed = [], Counter[str]()
    for name, rows in zip(found.table.images, found.members, strict=True):
        members = [of_image.get(files.table.images[row], {}) for row in rows]
        record = {"image": name, "patient": of_images[rows[0]]}
        for key in dict.fromkeys(key for member in members for key in member if key not in KEPT_KEYS):
            values = {text: member[key] for member in members if (text := cell_text(member.get(key)))}
            if len(values) == 1:
                record |= {key: next(iter(values.values()))}
            mixed[key] += len(values) > 1
        records.append(record)
    varies = [key for key, count in mixed.items() if 2 * count > len(records)]  # a column of images, not of patients
    kept = tuple({key: value for key, value in record.items() if key not in varies} for record in records)
    return kept, {key: count for key, count in mixed.items() if count}


def _metrics(files: RunFiles, unit: Unit) -> dict[str, Any]:
    """``metrics.json`` with the numbers of patients where those of images are."""
    test, entry = files.metrics.get("test") or {}, files.metrics.get(files.split) or {}
    own: dict[str, Any] = {key: entry[key] for key in ("unexpected_images", "prediction_sets") if key in entry}
    home: Mapping[str, Any] = {}
    if ("calibrated" in test) == ("calibrated" in entry):
        home = (test.get(unit.key) or {}).get("analysis") or {}
    overall = (home.get("metrics") or {}).get("overall") or {}
    student = {name: one["value"] for name, one in overall.items()}
    at_home = {"images": home["rows"], "student": student, "analysis": home} if home else {}
    return {**files.metrics, "test": at_home, files.split: own}
