# SPDX-License-Identifier: Apache-2.0
"""Two runs side by side, on the images that both were evaluated on, with paired tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from dual_skd.data.records.rows import UNLABELLED
from dual_skd.errors import InputError
from dual_skd.evaluation.analysis.per_patient import files_per_patient
from dual_skd.evaluation.run_files import RunFiles
from dual_skd.metrics.definitions import METRICS
from dual_skd.metrics.delong import delong_test
from dual_skd.metrics.differences import MetricDifference, paired_tests
from dual_skd.metrics.estimates import LEVEL
from dual_skd.metrics.intervals import RESAMPLES, metric_intervals
from dual_skd.metrics.mcnemar import match_tables, mcnemar_test
from dual_skd.metrics.paired import SIGNIFICANCE, holm
from dual_skd.metrics.predictions import PredictionTable
from dual_skd.metrics.resampling import patient_numbers
from dual_skd.options import Training, completed, marks, weight_files
from dual_skd.options.training import Unlabelled
from dual_skd.utils.wording import counted, metric_words, of_patients

NOT_TESTED = "not tested: chance alone raises a calibration error, that of the surer method more"


def compare_runs(
    one: RunFiles, other: RunFiles, *, resamples: int = RESAMPLES, seed: int = 0, names: tuple[str, str] = ("A", "B"),
    combine: str = "",
) -> dict[str, Any]:  # fmt: skip
    """Compares the predictions of two runs on the images that both have.

    The metrics and the area of every class are tested over patients (:mod:`dual_skd.metrics.differences`), right and
    wrong by McNemar's test, whose p value is that of the accuracy. Calibration errors have an interval,
    from those of the two runs, but no test: their expected difference isn't 0 where both runs are calibrated equally
    well. All p values of different hypotheses are one family, corrected by Holm. Patients are those in the data list of
    either run.

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
        has, of known ``patients`` of the shared ones, of those without (``images_without_patient``); ``metrics`` (per
        name one, other, difference, low, high, p, p_holm, reason), ``areas`` (the same per class; none with two
        classes, whose area is the macro AUC) and ``right``, the images by who is right about them; ``hypotheses``, the
        family, each a list of what is the same one, in words; ``few``, whether the patients are so few that differences
        of one sign may be chance; ``reason``, why there are areas only (several labels per image), or that the
        probabilities of one run alone are calibrated.

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
        "areas": [],
        "right": None,
        "reason": "With several labels per image only the areas of each label are compared.",
    }
    if not one.multi_label:
        found["reason"] = _calibrated_apart(one, other, names)
        p, q = (side / side.sum(axis=1, keepdims=True) for side in (p, q))
        tested = paired_tests(p, q, labels, patients=patients, class_names=first.class_names)
        found["metrics"] = {
            name: asdict(
                tested[name] if name in tested else _calibration(name, p, q, labels, patients, resamples, seed)
            )
            for name in METRICS
        }
        calls = mcnemar_test(p.argmax(axis=1), q.argmax(axis=1), labels, patients=patients)
        found["right"] = {key: count for key, count in asdict(calls).items() if key != "p"}
    entries = {metric_words(name): entry for name, entry in found["metrics"].items()}
    truths = {}
    if one.multi_label or len(first.class_names) > 2:
        for k, name in enumerate(first.class_names):
            truth = _truth(labels, k)
            found["areas"].append({"class": name, **asdict(delong_test(p[:, k], q[:, k], truth, patients=patients))})
            truths[f"AUC of {name}"] = truth
    entries |= dict(zip(truths, found["areas"], strict=True))
    found["hypotheses"] = _corrected(entries, truths)
    units = len(set(patient_numbers(patients, len(labels))))
    found["few"] = len(found["hypotheses"]) * 2 * 0.5**units >= SIGNIFICANCE
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
    """Options of training that the two runs have different values of; only those that both know.

    Paths aren't told. Of files of weights it says that they differ, and of images without labels how many there were.
    """
    first, second = (completed(run.run.get("config") or {}) for run in (one, other))
    counts = [len(run.datalist.get(UNLABELLED) or []) for run in (one, other)]
    untold = {name for name, mark in marks(Training).items() if mark.path}
    untold |= set() if any(counts) else Unlabelled.model_fields.keys()  # which had nothing to act on
    found = {
        name: (value, second[name])
        for name, value in first.items()
        if name in second and value != second[name] and name not in untold
    }
    for name in ("pretrained", "teacher_checkpoint"):
        (before, one_file), (after, other_file) = (_weights(settings, name) for settings in (first, second))
        if (before, one_file) != (after, other_file):
            found[name] = before, "another file" if before == after else after
    if counts[0] != counts[1]:
        found["unlabelled"] = counted(counts[0], "image"), counted(counts[1], "image")
    return found


def _weights(settings: Mapping[str, Any], name: str) -> tuple[str, str]:
    """What may be told of the weights that an option names: a word, ``a file`` or ``none``; and the file, if any."""
    file, given = weight_files(settings).get(name, ""), settings.get(name)
    return ("a file" if file else given if given in marks(Training)[name].words else "none"), file


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


def _calibration(
    name: str, p: np.ndarray, q: np.ndarray, labels: np.ndarray, patients: Sequence[str], resamples: int, seed: int
) -> MetricDifference:
    """The difference of a calibration error, from the two errors' own intervals (Bonferroni).

    Chance raises the error of the surer method more, so that differences of resamples lie around a wrong value. Each
    error's own interval allows for that: at half the risk for each, both hold, and with them all differences that they
    allow.
    """
    given: dict[str, Any] = {"metrics": [name], "level": (1 + LEVEL) / 2, "resamples": resamples, "seed": seed}
    one, other = (metric_intervals(side, labels, patients, **given).overall[name] for side in (p, q))
    found = MetricDifference(one.value, other.value, (one.value or 0.0) - (other.value or 0.0), reason=NOT_TESTED)
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return replace(found, reason=one.reason or other.reason)
    return replace(found, low=one.low - other.high, high=one.high - other.low)


def _corrected(entries: Mapping[str, dict[str, Any]], truths: Mapping[str, np.ndarray]) -> list[list[str]]:
    """Adds ``p_holm`` to the entries, None to those without a p value, and returns the names that are one hypothesis.

    Areas are the same one if they are of the same images against the same others, or of these against those, and have
    the same values: those of a label that is the opposite of another.
    """
    family: dict[tuple[Any, ...], list[str]] = {}
    for name, entry in entries.items():
        entry["p_holm"] = None
        if entry["p"] is not None:
            values = tuple(round(entry[key], 9) for key in ("one", "other", "p"))
            same = ((truths[name] ^ truths[name][0]).tobytes(), *values) if name in truths else (name,)
            family.setdefault(same, []).append(name)
    p_values = [entries[names[0]]["p"] for names in family.values()]
    for names, p in zip(family.values(), holm(p_values), strict=True):
        for name in names:
            entries[name]["p_holm"] = p
    return list(family.values())


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
