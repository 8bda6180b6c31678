# SPDX-License-Identifier: Apache-2.0
"""What a run's files say beside its predictions: data, training, size, selected weights, and how it was made."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dual_skd.data.records.record import positive_classes
from dual_skd.evaluation.run_files import RunFiles, at_home, unfinished
from dual_skd.metrics.estimates import Estimate
from dual_skd.options import Training as TrainingOptions
from dual_skd.options import completed, marks, training_command
from dual_skd.runs.recorder import LAST


@dataclass(frozen=True)
class Split:
    """Numbers of images and patients of one split of the training run."""

    images: int
    patients: int
    images_without_patient: int
    class_images: list[int]
    class_patients: list[int]  # known patients with an image of each class
    class_images_without_patient: list[int]


@dataclass(frozen=True)
class Twins:
    """Near-duplicates of training images that were left out: exact copies, and near ones."""

    exact: int
    near: int


@dataclass(frozen=True)
class Data:
    """The images measured, and how the training run divided its own."""

    known: bool  # whether there is a datalist.json
    classes: list[str]  # in the order of the splits' class_images
    splits: dict[str, Split]  # training, validation, test
    patients_in_several_splits: int
    external: bool  # whether the images measured are of another data set
    section: str  # of datalist.json that was measured; "" for another data set
    optimistic: bool  # whether the images measured chose the model
    twins: dict[str, Twins]  # left out of validation and test
    twins_searched: bool  # whether a search for them is recorded
    with_twins: Mapping[str, float | None] | None  # metrics, where twins were among the images
    without_twins: Mapping[str, float | None] | None  # the same without them
    unexpected_images: int  # of another kind than the training images, and accepted
    skipped_files: int  # that could not be used
    spatial_dims: int | None
    hash: str | None  # SHA-256 of the data list
    unlabelled_images: int = 0  # that were trained on without labels


@dataclass(frozen=True)
class Training:
    """The epochs of a run with their validation metrics, or the reason why there are none."""

    epochs: list[int]
    reason: str = ""
    series: Mapping[str, Mapping[str, list[float | None]]] = field(default_factory=dict)  # network -> metric -> epochs
    key_metric: str = ""  # by which the model was chosen
    best_epoch: int | None = None  # whose model was kept
    best: Mapping[str, float | None] | None = None  # its metrics


@dataclass(frozen=True)
class NetworkSize:
    """Parameters, MACs per image and architecture of a network, as far as known."""

    parameters: int | None
    macs: float | None
    architecture: str | None


@dataclass(frozen=True)
class Efficiency:
    """Size and speed of the networks, or the reason why nothing is known of them."""

    networks: dict[str, NetworkSize]  # student, auxiliary, large
    input_shape: Sequence[int] | None  # (C, H, W[, D])
    model_mb: float | None
    speed: Mapping[str, Any] | None  # network -> time per image
    reason: str


@dataclass(frozen=True)
class StageSelection:
    """The weights of one stage of a network, and how many of them come from the large one."""

    network: str
    stage: str
    tensors: int
    selected: int  # of the tensors
    parameters: int
    selected_parameters: int
    norm_share: float | None  # mean share of the large tensors' squared norm
    reasons: list[str]  # why other tensors don't come from there


@dataclass(frozen=True)
class Selection:
    """The selected weights of all networks by stage, or the reason why there are none."""

    stages: tuple[StageSelection, ...]
    reason: str


@dataclass(frozen=True)
class Run:
    """When, where and how a run was made, from ``run.json``."""

    versions: dict[str, str]
    seed: int | None
    started: str | None
    finished: str | None  # None of a training that was stopped
    unfinished: str  # the warning of such a training
    device: str | None
    total_seconds: float | None
    settings: dict[str, Any]  # all options without paths
    command: str  # that trains such a run
    reason: str  # why nothing is known


@dataclass(frozen=True)
class Home:
    """What the model reaches on the test images of its own data set, for the report of another one."""

    images: int | None
    metrics: dict[str, Estimate]
    reason: str


def data_of(files: RunFiles) -> Data:
    """The images of a run and of its evaluation."""
    datalist, entry = files.datalist, files.metrics.get(files.split) or {}
    names = {str(k): name for k, name in enumerate(files.table.class_names)} | dict(datalist.get("labels") or {})
    classes = [names[str(k)] for k in range(len(names))]
    left_out = datalist.get("left_out") or []
    with_twins = (entry.get("with_twins") or {}).get("student")
    divided = {name: datalist.get(name) or [] for name in ("training", "validation", "test")}
    patients = Counter(patient for records in divided.values() for patient in set(_patients(records)) - {""})
    return Data(
        known=bool(datalist),
        classes=classes,
        splits={name: _split(records, len(classes)) for name, records in divided.items()},
        patients_in_several_splits=sum(count > 1 for count in patients.values()),
        external=files.external,
        section=files.section,
        optimistic=files.section == "validation",
        twins={"validation": _twins(left_out, "val"), "test": _twins(left_out, "test")},
        twins_searched=bool(datalist.get("twins_searched")),
        with_twins=with_twins,
        without_twins=entry.get("student") if entry.get("with_twins") else None,
        unexpected_images=entry.get("unexpected_images", 0),
        skipped_files=len(datalist.get("unusable") or []),
        spatial_dims=datalist.get("spatial_dims"),
        hash=files.run.get("data_hash"),
        unlabelled_images=len(datalist.get("unlabelled") or []),
    )


def _split(records: Sequence[dict[str, Any]], classes: int) -> Split:
    patients = _patients(records)
    of_class: list[list[str]] = [[] for _ in range(classes)]  # the patient of each image
    for record, patient in zip(records, patients, strict=True):
        if record.get("label") is not None:
            for k in positive_classes(record["label"]):
                of_class[k].append(patient)
    return Split(
        images=len(records),
        patients=len(set(patients) - {""}),
        images_without_patient=patients.count(""),
        class_images=[len(one) for one in of_class],
        class_patients=[len(set(one) - {""}) for one in of_class],
        class_images_without_patient=[one.count("") for one in of_class],
    )


def _patients(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The patient of each record, "" where it isn't known."""
    return [str(record.get("patient") or "") for record in records]


def _twins(left_out: Sequence[Mapping[str, Any]], split: str) -> Twins:
    exact = [bool(record.get("exact")) for record in left_out if record.get("split") == split]
    return Twins(sum(exact), len(exact) - sum(exact))


def training_of(metrics: Mapping[str, Any]) -> Training:
    """The epochs of a run and their validation metrics, from the content of ``metrics.json``."""
    epochs, key = metrics.get("epochs") or [], metrics.get("key_metric", "macro_auc")
    if not epochs:
        return Training([], "no validation was recorded in training")
    shown = list(dict.fromkeys(["macro_auc" if key == LAST else key, "nll"]))
    best = metrics.get("best") or {}
    return Training(
        epochs=[entry["epoch"] for entry in epochs],
        series={
            network: {name: [entry.get(network, {}).get(name) for entry in epochs] for name in shown}
            for network in ("student", "auxiliary", "mean")
            if any(network in entry for entry in epochs)
        },
        key_metric=key,
        best_epoch=best.get("epoch"),
        best=best.get("student"),
    )


def efficiency_of(files: RunFiles, speed: Mapping[str, Any] | None) -> Efficiency:
    """Size and speed of a run's networks."""
    networks = {
        role: NetworkSize(one.get("parameters"), one.get("macs"), (one.get("architecture") or {}).get("name"))
        for role, one in (files.run.get("networks") or {}).items()
    }
    megabytes = None if files.model_bytes is None else round(files.model_bytes / 1e6, 3)
    reason = "" if networks else "run.json has no networks"
    return Efficiency(networks, files.run.get("input_shape"), megabytes, speed, reason)


def selection_of(rows: Sequence[Mapping[str, str]]) -> Selection:
    """The rows of ``selection_report.csv`` by network and stage."""
    stages: dict[tuple[str, str], list[Mapping[str, str]]] = {}
    for row in rows:
        stages.setdefault((row.get("network", ""), stage_of(row.get("name", ""))), []).append(row)
    found = tuple(_stage(network, stage, members) for (network, stage), members in stages.items())
    return Selection(found, "" if found else "no weights were selected: the run wrote no selection report")


def _stage(network: str, stage: str, rows: Sequence[Mapping[str, str]]) -> StageSelection:
    selected = [row for row in rows if not row.get("reason")]  # a tensor may have a source and be refused
    shares = [float(row["norm_share"]) for row in selected if row.get("norm_share")]
    return StageSelection(
        network,
        stage,
        tensors=len(rows),
        selected=len(selected),
        parameters=sum(_size(row.get("shape", "")) for row in rows),
        selected_parameters=sum(_size(row.get("shape", "")) for row in selected),
        norm_share=sum(shares) / len(shares) if shares else None,
        reasons=sorted({row.get("reason", "") for row in rows} - {""}),
    )


def stage_of(name: str) -> str:
    """The part of a network that a tensor belongs to: ``blocks.2`` of ``blocks.2.0.conv.weight``."""
    parts = name.split(".")
    return ".".join(parts[:2]) if len(parts) > 2 and parts[1].isdigit() else parts[0]


def _size(shape: str) -> int:
    """Number of numbers in a tensor of a shape such as 8x3x3x3."""
    return math.prod(int(side) for side in shape.split("x") if side.isdigit())


def run_of(run: Mapping[str, Any]) -> Run:
    """How a run was made, from the content of ``run.json``."""
    settings = completed(run.get("config") or {})
    paths = {name for name, mark in marks(TrainingOptions).items() if mark.path}
    command = training_command(settings)
    return Run(
        versions=dict(run.get("versions") or {}),
        seed=run.get("seed"),
        started=run.get("started"),
        finished=run.get("finished"),
        unfinished=unfinished(run, f"“{command}”"),
        device=run.get("device"),
        total_seconds=(run.get("timings") or {}).get("total_seconds"),
        settings={name: value for name, value in settings.items() if name not in paths},
        command=command,
        reason="" if run else "no run.json",
    )


def home_of(files: RunFiles) -> Home | None:
    """The metrics of the run's own test images; None where these are the ones measured."""
    if not files.external:
        return None
    metrics, reason = at_home(files.metrics, files.split)
    if reason and files.unit.name == "patient":
        reason = "the run's own test images weren't measured per patient, or with another setting of calibrate"
    estimates = {name: Estimate(**one) for name, one in metrics.items()}
    return Home((files.metrics.get("test") or {}).get("images"), estimates, reason)
