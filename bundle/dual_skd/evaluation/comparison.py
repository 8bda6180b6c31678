# SPDX-License-Identifier: Apache-2.0
"""Two runs side by side, on the images that both were evaluated on, with paired tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from dual_skd.errors import InputError
from dual_skd.evaluation.analysis.per_patient import files_per_patient
from dual_skd.evaluation.run_files import RunFiles
from dual_skd.metrics.bootstrap import RESAMPLES
from dual_skd.metrics.definitions import METRICS
from dual_skd.metrics.delong import delong_test
from dual_skd.metrics.estimates import DEFINED_SHARE
from dual_skd.metrics.mcnemar import match_tables, mcnemar_test
from dual_skd.metrics.paired import holm, paired_differences
from dual_skd.metrics.predictions import PredictionTable
from dual_skd.metrics.resampling import patient_numbers
from dual_skd.metrics.weighted import WeightedMetrics
from dual_skd.options import Training, completed, marks
from dual_skd.utils.wording import counted, of_patients

# patients for a p value: of n, differences that all have one sign give 2 / 2^n, which for 5 is above 0.05
FEWEST = 6


def compare_runs(
    one: RunFiles, other: RunFiles, *, resamples: int = RESAMPLES, seed: int = 0, names: tuple[str, str] = ("A", "B"),
    combine: str = "",
) -> dict[str, Any]:  # fmt: skip
    """Compares the predictions of two runs on the images that both have.

    All metrics by a paired bootstrap over patients, the area of every class by DeLong's test, right and wrong by
    McNemar's test, whose images count as independent. All p values are one family, corrected by Holm. Patients are
    those in the data list of either run. With fewer than :data:`FEWEST` of them only McNemar's test, which is exact,
    gives a p value.

    Args:
        one: the first run; the differences are this one minus the other.
        other: the second run.
        resamples: number of bootstrap resamples.
        seed: of the resampling.
        names: of the two, for errors and the reason.
        combine: ``mean`` or ``max`` compares patients, see :func:`~dual_skd.metrics.per_patient.combine_patients`; ""
            images.

    Returns:
        plain JSON: number of ``shared`` images or patients (``unit``), of images that ``only_one`` and ``only_other``
        has, of known ``patients`` of the shared ones, of those without (``images_without_patient``), and whether the
        patients are too ``few``; ``metrics`` (per name one, other, difference, low, high, p, p_holm, reason), ``areas``
        (the same per class) and ``mcnemar``; ``reason``, why there are areas only (several labels per image), or that
        the probabilities of one run alone are calibrated.

    Raises:
        InputError: no image is in both, the runs contradict each other about labels or classes, or patients are to be
            compared and none is known.
    """
    both = len(set(one.table.images) & set(other.table.images))
    only_one, only_other = (len(run.table.images) - both for run in (one, other))
    if combine:
        one, other = _per_patient(one, other, combine, names)
    first, second = _on_shared_images(one, other, names)
    patients = _patients(first.images, (other, one))
    p, q, labels = first.probabilities, second.probabilities, first.labels
    found: dict[str, Any] = {
        "shared": len(labels),
        "only_one": only_one,
        "only_other": only_other,
        "patients": len({name for name in patients if name}),
        "images_without_patient": sum(not name for name in patients),
        "unit": one.unit.name,
        "class_names": list(first.class_names),
        "metrics": {},
        "mcnemar": None,
        "reason": "With several labels per image only the areas of each label are compared.",
    }
    if not one.multi_label:
        found["reason"] = _calibrated_apart(one, other, names)
        p, q = (side / side.sum(axis=1, keepdims=True) for side in (p, q))
        found["metrics"] = _metrics(p, q, labels, patients, resamples, seed)
        found["mcnemar"] = asdict(mcnemar_test(p.argmax(axis=1), q.argmax(axis=1), labels)) | {"reason": ""}
    found["areas"] = [
        {"class": name, **asdict(delong_test(p[:, k], q[:, k], _truth(labels, k), patients=patients))}
        for k, name in enumerate(first.class_names)
    ]
    found["few"] = len(set(patient_numbers(patients, len(labels)))) < FEWEST
    tested = [*found["metrics"].values(), *found["areas"]]
    if found["few"]:
        _without_p(tested)
    _correct(tested + [found["mcnemar"]] * (not one.multi_label))
    return found


def _per_patient(one: RunFiles, other: RunFiles, how: str, names: tuple[str, str]) -> list[RunFiles]:
    """The two runs with a row per patient, of the images that both have."""
    first, second = _on_shared_images(one, other, names)
    known = dict(zip(first.images, _patients(first.images, (other, one)), strict=True))
    records = tuple({"image": image, "patient": patient} for image, patient in known.items())
    runs = (replace(run, table=table, records=records) for run, table in ((one, first), (other, second)))
    return [files_per_patient(run, how) for run in runs]


def _on_shared_images(
    one: RunFiles, other: RunFiles, names: tuple[str, str]
) -> tuple[PredictionTable, PredictionTable]:
    """The predictions of the images that both runs have, in one order."""
    if one.multi_label != other.multi_label:
        raise InputError(f"One of {names[0]} and {names[1]} has several labels per image, the other has not.")
    both = set(one.table.images) & set(other.table.images)
    if not both:
        raise InputError(
            f"No image is among the predictions of both {names[0]} and {names[1]}: images are matched by their paths, "
            "and the same images in two folders have different ones. Evaluate each run with `--dataset-dir FOLDER "
            "--report-as both`, the FOLDER being the same, then compare with `--split both`."
        )
    first, second = (
        table.take([row for row, image in enumerate(table.images) if image in both])
        for table in (one.table, other.table)
    )
    return match_tables(first, second, names=names)


def _patients(images: Sequence[str], runs: Sequence[RunFiles]) -> list[str]:
    """Patient of each image, "" for an unknown one; where two runs know it, that of the last."""
    known = {record["image"]: str(record["patient"]) for run in runs for record in run.records if record.get("patient")}
    return [known.get(image, "") for image in images]


def different_options(one: RunFiles, other: RunFiles) -> dict[str, tuple[Any, Any]]:
    """Options of training that the two runs have different values of, without paths; only those that both know."""
    first, second = (completed(run.run.get("config") or {}) for run in (one, other))
    places = {name for name, one in marks(Training).items() if one.path}
    return {
        name: (value, second[name])
        for name, value in first.items()
        if name in second and value != second[name] and name not in places
    }


def _calibrated_apart(one: RunFiles, other: RunFiles, names: tuple[str, str]) -> str:
    """A sentence if only one run's probabilities are calibrated, else ""."""
    first, second = (
        run.unit.answers == "calibrated" or "calibrated" in (run.metrics.get(run.split) or {}) for run in (one, other)
    )
    if first == second:
        return ""
    calibrated, plain = names if first else names[::-1]
    return (
        f"The probabilities of {calibrated} are calibrated, those of {plain} are not, which alone makes a difference "
        "of log likelihood, Brier score and calibration errors: to compare these, evaluate both with calibrate, or "
        "both without."
    )


def _truth(labels: np.ndarray, k: int) -> np.ndarray:
    return labels[:, k] > 0 if labels.ndim == 2 else labels == k


def _metrics(
    p: np.ndarray, q: np.ndarray, labels: np.ndarray, patients: Sequence[str], resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    once = np.ones((1, len(labels)))
    values = [WeightedMetrics(side, labels, METRICS)(once).overall for side in (p, q)]
    several = patient_numbers(patients, len(labels)).any()  # else nothing can be resampled
    differences = paired_differences(p, q, labels, patients=patients, resamples=resamples, seed=seed)
    found = {}
    for name, difference in differences.items():
        numbers = {"one": values[0][name][0], "other": values[1][name][0], **difference._asdict()}
        numbers = {key: float(value) if np.isfinite(value) else None for key, value in numbers.items()}
        numbers["difference"] = numbers.pop("value")
        reason = "" if numbers["difference"] is not None else "not defined on the shared images: a class is absent"
        if not several:
            numbers |= {"low": None, "high": None, "p": None}
            reason = reason or "no interval: all images are of one patient"
        elif numbers["difference"] is not None and numbers["low"] is None:
            reason = f"no interval: undefined in more than {1 - DEFINED_SHARE:.0%} of the resamples, which miss a class"
        found[name] = {**numbers, "reason": reason}
    return found


def _without_p(entries: list[dict[str, Any]]) -> None:
    """Takes away the p values of tests for many patients, and says so."""
    for entry in entries:
        if entry["p"] is not None:
            entry |= {"p": None, "reason": f"no p value: fewer than {FEWEST} patients"}


def _correct(entries: list[dict[str, Any]]) -> None:
    """Adds ``p_holm`` to entries with a p value, and None to the others."""
    tested = [entry for entry in entries if entry.get("p") is not None]
    for entry in entries:
        entry["p_holm"] = None
    for entry, p in zip(tested, holm([entry["p"] for entry in tested]), strict=True):
        entry["p_holm"] = p


def shared_images(comparison: Mapping[str, Any], names: tuple[str, str]) -> str:
    """The sentence that says what is compared, and what is left out."""
    unit = comparison["unit"]
    patients = of_patients(comparison["patients"], comparison["images_without_patient"]) if unit == "image" else ""
    images = "" if unit == "image" else " images"
    left = [
        f"{comparison[key]}{images} only in {name}" for key, name in zip(("only_one", "only_other"), names, strict=True)
    ]
    shared = counted(comparison["shared"], unit)
    out = f"; left out are {left[0]} and {left[1]}" if comparison["only_one"] or comparison["only_other"] else ""
    return f"{shared}{patients} {'is' if comparison['shared'] == 1 else 'are'} in both{out}."
