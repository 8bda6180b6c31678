# SPDX-License-Identifier: Apache-2.0
"""Everything that a run's files say about it, as one dictionary of plain JSON: what the report shows.

What isn't defined is None beside a ``reason``. No entry holds the name of a file or of a patient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from dual_skd.data.records.evaluation_records import patients_of
from dual_skd.data.records.rows import cell_text
from dual_skd.evaluation.run_files import RunFiles, at_home, unfinished
from dual_skd.metrics.bootstrap import RESAMPLES, bootstrap_intervals
from dual_skd.metrics.calibration import fit_temperature, logits_of
from dual_skd.metrics.curves import precision_recall_curve, roc_curve
from dual_skd.metrics.delong import class_auc_intervals, macro_auc_interval
from dual_skd.metrics.estimates import LEVEL, Estimate, from_resamples, percentiles, proportion_at_its_end
from dual_skd.metrics.operating_point import choose_operating_point, too_few
from dual_skd.metrics.probabilities import probabilities as probabilities_of
from dual_skd.metrics.reliability_diagram import reliability
from dual_skd.metrics.resampling import drawn_weights, patient_numbers
from dual_skd.metrics.subgroups import subgroup_metrics
from dual_skd.metrics.uncertainty import decisions, fit_conformal, prediction_sets, risk_coverage, set_coverage
from dual_skd.options import Training, completed, marks, training_command
from dual_skd.runs.recorder import LAST
from dual_skd.utils.spelling import known_group

SENSITIVITY = 0.9  # of the second operating point
MOST_CLASSES = 12  # with curves and operating points of their own; of more, those with the most images
MOST_GROUPS = 12
MOST_COLUMNS = 8
DRAWN = 200  # points of the risk-coverage curve
OWN_KEYS = ("image", "label", "patient", "split", "twin", "similarity", "exact")
# columns that point at a person rather than at a group of them
PERSONAL = ("patient", "name", "birth", "date", "time", "accession", "uid", "mrn", "id")
# settings that are paths, or patterns of them, and may name persons
CALIBRATED_METRICS = ("ece", "ece_equal_mass", "nll", "brier")


def analyse(
    files: RunFiles,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
    alpha: float = 0.1,
    sensitivity: float = SENSITIVITY,
) -> dict[str, Any]:
    """Measures a run from its files.

    Intervals are of bootstrap resamples of whole patients, those of areas also of DeLong's variance; thresholds and
    prediction sets are chosen on the validation images and applied to these.

    Args:
        files: from :func:`~dual_skd.evaluation.run_files.read_run`.
        level: of the intervals.
        resamples: number of bootstrap resamples; half as many for each subgroup, a quarter for curves.
        seed: of the resampling.
        alpha: share of images whose prediction set may miss the label; that of the evaluation, where it had sets.
        sensitivity: of the second operating point; the first one has the largest sensitivity + specificity.

    Returns:
        plain JSON, without nan: ``split``, ``images``, ``class_names``, ``patients``, ``metrics``, ``delong``,
        ``operating_points``, ``calibration``, ``prediction_sets``, ``risk_coverage``, ``subgroups``, ``confusion``,
        ``roc``, ``precision_recall``, ``data``, ``training``, ``efficiency``, ``selection``, ``run``, and of another
        data set than that of the training ``home``: the numbers of the run's own test images.
    """
    table, names, multi_label = files.table, files.table.class_names, files.multi_label
    p, labels = _normal(table.probabilities, multi_label), table.labels
    by_image = {record["image"]: record for record in files.records}
    records = [by_image.get(image, {}) for image in table.images]
    patients = [str(record.get("patient") or "") for record in records]
    shared: dict[str, Any] = {"level": level, "resamples": resamples, "seed": seed, "class_names": names}
    delong: dict[str, Any] = {"patients": patients, "level": level, "class_names": names, "multi_label": multi_label}
    metrics = bootstrap_intervals(p, labels, patients, multi_label=multi_label, **shared)
    scaled = _scaled(files, p)
    return {
        "split": files.split,
        "images": len(table.images),
        "class_names": list(names),
        "class_images": _class_images(labels, len(names), multi_label),
        "multi_label": multi_label,
        "patients": _patients(patients),
        "settings": {"level": level, "resamples": resamples, "seed": seed},
        "metrics": asdict(metrics),
        "delong": {
            "macro": asdict(macro_auc_interval(p, labels, **delong)),
            "per_class": [asdict(one) for one in class_auc_intervals(p, labels, **delong)],
        },
        "operating_points": _operating_points(p, labels, patients, scaled, files, sensitivity, shared),
        "calibration": _calibration(labels, patients, scaled, multi_label, shared),
        "prediction_sets": _prediction_sets(p, labels, patients, scaled, files, alpha, shared),
        "risk_coverage": _risk_coverage(p, labels, multi_label),
        "subgroups": _subgroups(p, labels, records, patients, multi_label, shared),
        "confusion": _confusion(p, labels, len(names), multi_label),
        "roc": _curves(roc_curve, p, labels, patients, multi_label, shared),
        "precision_recall": _curves(precision_recall_curve, p, labels, patients, multi_label, shared),
        "data": _data(files),
        "training": training_of(files.metrics),
        "efficiency": _efficiency(files),
        "selection": _selection(files.selection),
        "run": _run(files.run),
        "home": _home(files) if files.external else None,
    }


# --- probabilities before and after calibration -----------------------------------------------------------------------


def _normal(probabilities: np.ndarray, multi_label: bool) -> np.ndarray:
    """Probabilities of a table, whose digits needn't add up to 1."""
    return probabilities if multi_label else probabilities / probabilities.sum(axis=1, keepdims=True)


def tempered(probabilities: np.ndarray, temperature: float, multi_label: bool = False) -> np.ndarray:
    """Probabilities after their logits are divided by a temperature.

    Args:
        probabilities: (N, K), as they are written.
        temperature: 1 leaves them as they are.
        multi_label: each number by itself, through a sigmoid.
    """
    return probabilities_of(
        logits_of(probabilities, multi_label=multi_label), temperature, multi_label=multi_label
    ).numpy()


def _scaled(files: RunFiles, p: np.ndarray) -> dict[str, Any]:
    """Both forms of the probabilities of the split and of the validation images, and which one the table holds."""
    entry = files.metrics.get(files.split) or {}
    temperature = entry.get("temperature") or (files.calibration or {}).get("temperature")
    written = "calibrated" in entry
    fitted_here, rests_on = False, files.calibration or {}
    validation, reason = files.validation, files.validation_reason
    if written and temperature is None:
        reason = "the probabilities are calibrated, by a temperature that isn't known without the model file"
        return {"temperature": None, "written": True, "reason": reason, "before": None, "after": p,
                "validation": None, "fitted_here": False, "rests_on": {}}  # fmt: skip
    if temperature is None and validation is not None:
        logits = logits_of(validation.probabilities, multi_label=files.multi_label)
        known = patients_of(files.datalist.get("validation") or [])
        fitted = fit_temperature(
            logits, torch.from_numpy(validation.labels), multi_label=files.multi_label, sharpen=False,
            patients=[known.get(image, "") for image in validation.images],
        )  # fmt: skip
        temperature, rests_on, fitted_here = fitted.temperature, fitted._asdict(), True
    found = {"temperature": temperature, "written": written, "reason": reason, "before": p, "after": None}
    found |= {"validation": None, "fitted_here": fitted_here, "rests_on": rests_on}
    if temperature is not None:
        found["before"] = tempered(p, 1 / temperature, files.multi_label) if written else p
        found["after"] = p if written else tempered(p, temperature, files.multi_label)
    if validation is not None:
        own = _normal(validation.probabilities, files.multi_label)
        undo = temperature if written else None
        found["validation"] = own if undo is None else tempered(own, undo, files.multi_label)
    return found


def _calibration(labels, patients, scaled, multi_label: bool, shared) -> dict[str, Any]:
    found: dict[str, Any] = {
        "temperature": scaled["temperature"],
        "fitted_here": scaled["fitted_here"],
        "images": scaled["rests_on"].get("images"),
        "patients": scaled["rests_on"].get("patients"),
        "predictions_are": "calibrated" if scaled["written"] else "as the network gives them",
    }
    for name in ("before", "after"):
        p = scaled[name]
        if p is None:
            why = scaled["reason"] or "no temperature was fitted"
            found[name] = {"metrics": None, "bins": [], "reason": f"no temperature is known: {why}"}
            continue
        confidence, right = (side.ravel() for side in decisions(p, labels, multi_label))
        measured = bootstrap_intervals(
            p, labels, patients, metrics=CALIBRATED_METRICS, multi_label=multi_label, **shared
        ).overall
        bins = [bin._asdict() for bin in reliability(np.minimum(confidence, 1), right, bins=10)]
        found[name] = {"metrics": {key: asdict(value) for key, value in measured.items()}, "bins": bins, "reason": ""}
    return found


# --- decisions --------------------------------------------------------------------------------------------------------


def _operating_points(p, labels, patients, scaled, files, sensitivity: float, shared) -> list[dict[str, Any]]:
    """Two thresholds of every class, chosen on the validation images and applied to these."""
    names, validation, points = files.table.class_names, scaled["validation"], []
    wishes: tuple[dict[str, Any], ...] = ({}, {"sensitivity": sensitivity})
    for k in _most_frequent(labels, len(names), files.multi_label):
        for wish in wishes:
            entry = {"class": names[k], "wanted": wish.get("sensitivity"), "chosen": None, "metrics": None}
            points.append(entry)
            if validation is None:
                entry["reason"] = f"no threshold: {scaled['reason']}"
                continue
            chosen_on, truth = validation, files.validation.labels
            if files.multi_label:
                chosen_on, truth = _yes_or_no(validation[:, k]), truth[:, k]
            there = truth > 0 if files.multi_label else truth == k
            if few := too_few(there, **wish):
                entry["reason"] = f"no threshold: {few}"
                continue
            positive = 1 if files.multi_label else k
            point = choose_operating_point(chosen_on, truth, positive=positive, **wish)
            of_class, true = (_yes_or_no(p[:, k]), labels[:, k]) if files.multi_label else (p, labels)
            measured = bootstrap_intervals(
                of_class, true, patients, metrics=("sensitivity", "specificity", "ppv", "npv"), operating_point=point,
                **shared | ({"class_names": [f"not {names[k]}", names[k]]} if files.multi_label else {}),
            ).overall  # fmt: skip
            entry |= {
                "chosen": asdict(point),
                "metrics": {name: asdict(value) for name, value in measured.items() if name != "harmonic_mean"},
                "reason": "",
            }
    return points


def _yes_or_no(p: np.ndarray) -> np.ndarray:
    return np.stack([1 - p, p], axis=1)


def _most_frequent(labels: np.ndarray, classes: int, multi_label: bool) -> list[int]:
    counts = np.array(_class_images(labels, classes, multi_label))
    return sorted(np.argsort(-counts, kind="stable")[:MOST_CLASSES].tolist())


def _class_images(labels: np.ndarray, classes: int, multi_label: bool) -> list[int]:
    return (labels.sum(axis=0) if multi_label else np.bincount(labels, minlength=classes)).astype(int).tolist()


def _confusion(p: np.ndarray, labels: np.ndarray, classes: int, multi_label: bool) -> list[list[int]]:
    """Images by true class (rows) and predicted class; with several labels a row tn, fp, fn, tp per label."""
    if multi_label:
        truth, called = labels > 0, p > 0.5
        cells = (~truth & ~called, ~truth & called, truth & ~called, truth & called)
        return np.stack([cell.sum(axis=0) for cell in cells], axis=1).tolist()
    return np.bincount(labels * classes + p.argmax(axis=1), minlength=classes**2).reshape(classes, classes).tolist()


def _prediction_sets(p, labels, patients, scaled, files: RunFiles, alpha: float, shared) -> dict[str, Any]:
    alpha = ((files.metrics.get(files.split) or {}).get("prediction_sets") or {}).get("alpha", alpha)
    if files.multi_label or scaled["validation"] is None:
        reason = scaled["reason"] or "there are none with several labels per image"
        return {"alpha": alpha, "coverage": None, "reason": f"no prediction sets: {reason}"}
    validation: Any = files.validation
    rule = fit_conformal(scaled["validation"], validation.labels, alpha=alpha)
    sets = prediction_sets(p, rule)
    found = set_coverage(sets, labels)
    hit = sets[np.arange(len(labels)), labels]
    sizes = sets.sum(axis=1)
    return {
        "alpha": alpha,
        "stated": 1 - alpha,
        "method": rule.method,
        "validation_images": rule.images,
        "coverage": asdict(_mean_interval(hit, patients, shared, proportion=True)),
        "mean_size": asdict(_mean_interval(sizes, patients, shared)),
        "single": found["single"],
        "sizes": np.bincount(sizes, minlength=p.shape[1] + 1)[1:].tolist(),
        "coverage_per_class": found["coverage_per_class"],
        "reason": rule.reason,
    }


def _mean_interval(
    values: np.ndarray, patients: Sequence[str], shared: Mapping[str, Any], *, proportion: bool = False
) -> Estimate:
    """A mean over images with the percentiles of resampled patients; a proportion of 0 or 1 with its exact limit."""
    values, units = np.asarray(values, dtype=float), patient_numbers(patients, len(values))
    value, count = float(values.mean()), int(units.max()) + 1
    if count < 2:
        return Estimate(value, reason="no interval: all images are of one patient")
    if proportion and value in (0, 1):
        return proportion_at_its_end(value, count, shared["level"])
    drawn = [w @ values / w.sum(axis=1) for w in
             drawn_weights(np.random.default_rng(shared["seed"]), units, shared["resamples"])]  # fmt: skip
    low, high, share = percentiles(np.concatenate(drawn), shared["level"])
    return from_resamples(value, float(low), float(high), float(share))


def _risk_coverage(p: np.ndarray, labels: np.ndarray, multi_label: bool) -> dict[str, Any]:
    confidence, right = decisions(p, labels, multi_label)
    errors = (~right).mean(axis=1)
    curve = risk_coverage(1 - confidence.mean(axis=1), errors)
    shown = np.unique(np.linspace(0, len(errors) - 1, min(len(errors), DRAWN)).round().astype(int))
    answered = {share: max(int(np.ceil(share * len(errors))), 1) for share in (1, 0.9, 0.8, 0.5)}
    return {
        "coverage": [round(float(value), 5) for value in curve.coverage[shown]],
        "risk": [round(float(value), 5) for value in curve.risk[shown]],
        "risk_at": {f"{share:.0%}": float(curve.risk[count - 1]) for share, count in answered.items()},
        "aurc": curve.aurc,
        "excess": curve.excess,
    }


def _curves(curve, p, labels, patients, multi_label: bool, shared) -> list[dict[str, Any]]:
    names, found = shared["class_names"], []
    options = {"level": shared["level"], "seed": shared["seed"], "resamples": max(shared["resamples"] // 4, 1)}
    for k in _most_frequent(labels, len(names), multi_label):
        there = labels[:, k] > 0 if multi_label else labels == k
        found.append({"class": names[k], **curve(p[:, k], there, patients, name=names[k], **options)._asdict()})
    return found


# --- groups -----------------------------------------------------------------------------------------------------------


def _patients(patients: Sequence[str]) -> dict[str, Any]:
    known = [name for name in patients if name]
    unknown = len(patients) - len(known)
    reason = ""
    if unknown:
        reason = (
            f"the patients of {unknown} of {len(patients)} images aren't known; each of those images counts as a "
            "patient of its own, which makes intervals too narrow where a patient has several"
        )
    return {"known": len(set(known)), "images_without": unknown, "reason": reason}


def group_columns(records: Sequence[Mapping[str, Any]]) -> tuple[dict[str, list[str]], list[str]]:
    """Columns of a data list that divide its images into a few groups.

    Args:
        records: of the images, in order.

    Returns:
        name -> group of each image, "" for an unknown one; and a sentence per column that was passed over. Columns
        that name or date a person aren't used, nor those with more than ``MOST_GROUPS`` values or a value per image.
    """
    columns: dict[str, list[str]] = {}
    notes: list[str] = []
    for name in dict.fromkeys(key for record in records for key in record if key not in OWN_KEYS):
        words = name.lower().replace("-", "_").replace(" ", "_").split("_")
        values = [known_group(cell_text(record.get(name))) for record in records]
        groups = set(values) - {""}
        if len(groups) < 2:
            continue
        if any(word in PERSONAL for word in words) or any(mark in name.lower() for mark in PERSONAL[:4]):
            notes.append(f"{name} isn't used: it seems to name or date persons")
        elif len(groups) > MOST_GROUPS or 2 * len(groups) > len(values):
            notes.append(f"{name} isn't used: it has {len(groups)} values for {len(values)} images")
        elif len(columns) == MOST_COLUMNS:
            notes.append(f"{name} isn't used: {MOST_COLUMNS} columns are shown at most")
        else:
            columns[name] = values
    return columns, notes


def _subgroups(p, labels, records, patients, multi_label: bool, shared) -> dict[str, Any]:
    columns, notes = group_columns(records)
    binary = p.shape[1] == 2 and not multi_label
    metrics = ["accuracy", "balanced_accuracy", "macro_auc", *(["sensitivity", "specificity"] if binary else [])]
    options = shared | {"resamples": max(shared["resamples"] // 2, 1), "metrics": metrics}
    found = {
        name: [asdict(group) for group in
               subgroup_metrics(p, labels, values, patients, multi_label=multi_label, **options).values()]
        for name, values in columns.items()
    }  # fmt: skip
    reason = "" if found else "no subgroups: the data list has no column, such as site or sex, with two groups or more"
    return {"columns": found, "notes": notes, "reason": reason}


# --- what else the files say ------------------------------------------------------------------------------------------


def _data(files: RunFiles) -> dict[str, Any]:
    datalist, names = files.datalist, files.table.class_names
    labels = {str(index): name for index, name in enumerate(names)} | dict(datalist.get("labels") or {})
    splits = {}
    for split in ("training", "validation", "test"):
        records = datalist.get(split) or []
        counts = Counter(k for record in records for k in _positive(record.get("label")))
        patients = [record.get("patient") for record in records]
        splits[split] = {
            "images": len(records),
            "patients": len({name for name in patients if name}),
            "images_without_patient": sum(not name for name in patients),
            "class_images": [counts[k] for k in range(len(labels))],
        }
    left_out = datalist.get("left_out") or []
    entry = files.metrics.get(files.split) or {}
    return {
        "known": bool(datalist),
        "classes": [labels[str(k)] for k in range(len(labels))] if datalist else list(names),
        "splits": splits,
        "external": files.external,
        "section": files.section,
        "optimistic": files.section == "validation",
        "twins": {
            section: {
                "exact": sum(bool(r.get("exact")) for r in left_out if r.get("split") == split),
                "near": sum(not r.get("exact") for r in left_out if r.get("split") == split),
            }
            for section, split in (("validation", "val"), ("test", "test"))
        },
        "twins_searched": bool(datalist.get("twins_searched")),
        "with_twins": (entry.get("with_twins") or {}).get("student"),
        "without_twins": entry.get("student") if entry.get("with_twins") else None,
        "unexpected_images": entry.get("unexpected_images", 0),
        "skipped_files": len(datalist.get("unusable") or []),
        "spatial_dims": datalist.get("spatial_dims"),
        "hash": files.run.get("data_hash"),
    }


def _positive(label: Any) -> list[int]:
    if isinstance(label, list):
        return [k for k, there in enumerate(label) if there]
    return [] if label is None else [int(label)]


def training_of(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The epochs of a run and their validation numbers, from the content of ``metrics.json``."""
    epochs, key = metrics.get("epochs") or [], metrics.get("key_metric", "macro_auc")
    if not epochs:
        return {"epochs": [], "reason": "no validation was recorded in training"}
    shown = list(dict.fromkeys(["macro_auc" if key == LAST else key, "nll"]))
    series = {
        who: {name: [entry.get(who, {}).get(name) for entry in epochs] for name in shown}
        for who in ("student", "auxiliary", "mean") if any(who in entry for entry in epochs)
    }  # fmt: skip
    best = metrics.get("best") or {}
    return {
        "epochs": [entry["epoch"] for entry in epochs], "series": series, "key_metric": key,
        "best_epoch": best.get("epoch"), "best": best.get("student"), "reason": "",
    }  # fmt: skip


def _efficiency(files: RunFiles) -> dict[str, Any]:
    networks = {
        role: {"parameters": one.get("parameters"), "macs": one.get("macs"),
               "architecture": (one.get("architecture") or {}).get("name")}
        for role, one in (files.run.get("networks") or {}).items()
    }  # fmt: skip
    return {
        "networks": networks,
        "input_shape": files.run.get("input_shape"),
        "model_mb": None if files.model_bytes is None else round(files.model_bytes / 1e6, 3),
        "speed": None,
        "reason": "" if networks else "run.json has no networks",
    }


def _selection(rows: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Per network and stage: how many tensors and numbers come from the large network, and what share of its norm."""
    stages: dict[tuple[str, str], list[Mapping[str, str]]] = {}
    for row in rows:
        stages.setdefault((row.get("network", ""), stage_of(row.get("name", ""))), []).append(row)
    table = []
    for (network, stage), members in stages.items():
        chosen = [row for row in members if not row.get("reason")]  # a tensor may have a source and be refused
        shares = [float(row["norm_share"]) for row in chosen if row.get("norm_share")]
        reasons = sorted({row.get("reason", "") for row in members} - {""})
        table.append({
            "network": network, "stage": stage, "tensors": len(members), "selected": len(chosen),
            "parameters": sum(_size(row.get("shape", "")) for row in members),
            "selected_parameters": sum(_size(row.get("shape", "")) for row in chosen),
            "norm_share": sum(shares) / len(shares) if shares else None,
            "reasons": reasons,
        })  # fmt: skip
    return {"stages": table, "reason": "" if table else "no weights were selected: the run wrote no selection report"}


def stage_of(name: str) -> str:
    """The part of a network that a tensor belongs to: ``blocks.2`` of ``blocks.2.0.conv.weight``."""
    parts = name.split(".")
    return ".".join(parts[:2]) if len(parts) > 2 and parts[1].isdigit() else parts[0]


def _size(shape: str) -> int:
    sides = [int(side) for side in shape.split("x") if side.isdigit()]
    return int(np.prod(sides)) if sides else 1


def _home(files: RunFiles) -> dict[str, Any]:
    metrics, reason = at_home(files.metrics, files.split)
    return {"images": (files.metrics.get("test") or {}).get("images"), "metrics": metrics, "reason": reason}


def _run(run: Mapping[str, Any]) -> dict[str, Any]:
    timings = run.get("timings") or {}
    settings = completed(run.get("config") or {})
    places = {name for name, one in marks(Training).items() if one.path}
    command = training_command(settings)
    return {
        "versions": dict(run.get("versions") or {}),
        "seed": run.get("seed"),
        "started": run.get("started"),
        "finished": run.get("finished"),
        "unfinished": unfinished(run, f"“{command}”"),
        "device": run.get("device"),
        "total_seconds": timings.get("total_seconds"),
        "settings": {name: value for name, value in settings.items() if name not in places},
        "command": command,
        "reason": "" if run else "no run.json",
    }
