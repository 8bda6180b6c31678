# SPDX-License-Identifier: Apache-2.0
"""Handler that measures student, auxiliary and their mean after every evaluation, and keeps ``metrics.json``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.utils import evenly_divisible_all_gather
from torch import Tensor

from dual_skd.errors import InputError
from dual_skd.metrics.classification import classification_metrics, mean_logits
from dual_skd.metrics.definitions import LOWER_IS_BETTER, METRICS
from dual_skd.metrics.predictions import named, write_predictions
from dual_skd.metrics.probabilities import probabilities
from dual_skd.metrics.uncertainty import (
    Conformal,
    decisions,
    disagreement,
    prediction_sets,
    predictive_entropy,
    risk_coverage,
    set_coverage,
)
from dual_skd.runs.distributed import several_processes
from dual_skd.runs.metrics_file import read_metrics, write_metrics
from dual_skd.utils.former_names import renamed
from dual_skd.utils.wording import metric_words

logger = logging.getLogger(__name__)

LOGGED_METRICS = ("macro_auc", "balanced_accuracy", "accuracy", "f1", "ece", "nll")
LAST = "last"  # as key metric: the last epoch is kept, whatever its metrics
__getattr__ = renamed(__name__, goodness="score")


class Measured(NamedTuple):
    """What an evaluation measured, kept as ``engine.state.measured`` for the handlers after the recorder.

    Attributes:
        logits: the student's (N, K), float64 on the CPU, of all processes.
        labels: class indices (N,), or (N, K) with several labels per image.
        images: paths, in the same order; empty where they aren't known.
        auxiliary: logits of the second network, or None.
    """

    logits: Tensor
    labels: Tensor
    images: list[str]
    auxiliary: Tensor | None = None


class MetricsRecorder:
    """Collects the logits of an evaluation and measures them.

    Attach it first: handlers after it (EarlyStopping, TensorBoardStatsHandler) read ``engine.state.metrics``:
    ``student_macro_auc``, ``auxiliary_macro_auc``, ``mean_macro_auc`` and so on, and ``macro_auc``, the student's. A
    metric that isn't defined, such as the AUC of a class without images, is null in the file and absent there.

    ``metrics.json`` holds ``class_names``; for the ``validation`` split ``epochs``, the ``best`` of them by the key
    metric (of equals the one with the lower NLL) and the ``final`` one; and the last evaluation of any other split
    under its name.

    Args:
        output_dir: folder of ``metrics.json``.
        class_names: names of the classes, in the order of the logits.
        split: which data the engine evaluates. ``validation`` is recorded per epoch.
        key_metric: the student's metric that decides which epoch is best, lower is better for nll, ece and brier; or
            ``last``: the last one, whatever its metrics.
        multi_label: see :func:`dual_skd.metrics.classification.classification_metrics`.
        predictions: CSV to write, one row per image: image, label, predicted, a probability per class; of an auxiliary
            a second one, ``<name>_auxiliary.csv``. The student's has columns ``uncertainty`` (entropy, 0 to 1), with an
            auxiliary ``disagreement`` (Jensen-Shannon, 0 to 1), with ``sets`` ``prediction_set``, joined by "|".
        source: which data are measured, for the entry of a split other than ``validation``.
        images: paths of the images in the order of evaluation, for ``predictions``; without them the paths come from
            the images' metadata, where the transforms keep it.
        twins: how many images at the end of the evaluation have a twin among the training images. They count in the
            entry ``with_twins`` only, beside the numbers without them, and are not in ``predictions``.
        temperature: of the student's logits, for ``predictions`` and for a second set of its metrics, ``calibrated``;
            None where none was fitted. The other metrics are of the networks as they are.
        auxiliary_temperature: the same for the auxiliary, for its predictions and the disagreement.
        notes: further entries of a split other than ``validation``.
        sets: rule of the prediction sets; ``prediction_sets`` in the entry has their coverage.

    An entry with predictions has their ``temperature``, null where they are as the network gives them.

    Raises:
        InputError: there is no such key metric.
    """

    def __init__(
        self,
        output_dir: str | Path,
        class_names: Sequence[str],
        split: str = "validation",
        *,
        key_metric: str = "macro_auc",
        multi_label: bool = False,
        predictions: str | Path | None = None,
        source: str | None = None,
        images: Sequence[str] | None = None,
        twins: int = 0,
        temperature: float | None = None,
        auxiliary_temperature: float | None = None,
        sets: Conformal | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> None:
        if key_metric not in (*METRICS, LAST):
            raise InputError(f"Unknown key_metric {key_metric!r}; valid: {', '.join((*METRICS, LAST))}.")
        self.directory = Path(output_dir)
        self.class_names = [str(name) for name in class_names]
        self.split = split
        self.key_metric = key_metric
        self.multi_label = multi_label
        self.predictions = Path(predictions) if predictions else None
        self.source = source
        self.images = images
        self.twins = twins
        self.temperature = temperature
        self.auxiliary_temperature = auxiliary_temperature
        self.sets = sets
        self.notes = dict(notes or {})
        self._first_of_run = True
        self._collected: dict[str, list[Any]] = {}

    def attach(self, engine: Engine) -> None:
        """Registers the handler; call it before those that read the metrics."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)

    def _start(self, engine: Engine) -> None:
        self._collected = {"pred": [], "auxiliary_pred": [], "label": [], "image": []}

    def _collect(self, engine: Engine) -> None:
        output = engine.state.output
        for item in output if isinstance(output, list) else [output]:
            single = isinstance(output, list)
            for key in ("pred", "auxiliary_pred", "label"):
                if item.get(key) is not None:
                    # On the CPU in double: bf16 and fp16 logits are rounded once, by the network, and not again.
                    value = torch.as_tensor(item[key]).detach()
                    value = getattr(value, "as_tensor", lambda value=value: value)().double().cpu()
                    self._collected[key].append(value[None] if single else value)
            if self.predictions and self.images is None:
                self._collected["image"] += _file_names(item.get("image"), len(self._collected["label"][-1]))

    def _finish(self, engine: Engine) -> None:
        collected = {key: torch.cat(values) for key, values in self._collected.items() if values and key != "image"}
        if "pred" not in collected or "label" not in collected:
            raise InputError(f"The {self.split} split gave no predictions; check that the data set has images for it.")
        images = self._collected["image"] if self.images is None else list(self.images)
        if several_processes():
            collected, images = _gather(collected, images, engine.state.device)
        clean = len(collected["label"]) - self.twins
        if clean < 1:
            raise InputError(
                f"All {self.twins} images of the {self.split} split have a twin among the training images, so nothing "
                "can be said of new images; evaluate on other data, or with keep_twins."
            )
        without_twins = {key: values[:clean] for key, values in collected.items()}
        metrics = self._measure_all(without_twins)
        engine.state.metrics.update(_flat(metrics))
        engine.state.measured = Measured(
            without_twins["pred"], without_twins["label"], images[:clean], without_twins.get("auxiliary_pred")
        )
        if getattr(engine.state, "rank", 0) == 0:
            entry: dict[str, Any] = {"images": clean, **metrics}
            if self.twins:
                entry["with_twins"] = {"images": clean + self.twins, **self._measure_all(collected)}
                self._log_twins(entry)
            if self.predictions:
                columns, summary = self._uncertainty(engine.state.measured)
                entry |= summary | {"temperature": self.temperature}
                self._write_predictions(engine.state.measured, columns)
            self._write(engine.state.epoch, entry)
            self._log(metrics)
        self._collected = {}

    def _log(self, metrics: Mapping[str, Mapping[str, float | None]]) -> None:
        """A line per network, shown with ``--verbose``."""
        for network, values in metrics.items():
            known = {metric: values[metric] for metric in LOGGED_METRICS if values[metric] is not None}
            text = ", ".join(f"{metric_words(metric)} {value:.3f}" for metric, value in known.items())
            name = "Student, calibrated" if network == "calibrated" else network.capitalize()
            logger.debug("%s: %s.", name, text)

    def _log_twins(self, entry: Mapping[str, Any]) -> None:
        shown = "nll" if self.key_metric == LAST else self.key_metric
        without, within = entry["student"][shown], entry["with_twins"]["student"][shown]
        logger.info(
            "%d images with a twin in training are left out of the numbers below: %s %s without them, %s with them.",
            self.twins,
            shown,
            *("undefined" if value is None else f"{value:.3f}" for value in (without, within)),
        )

    def _measure_all(self, collected: Mapping[str, Tensor]) -> dict[str, dict[str, float | None]]:
        student, labels = collected["pred"], collected["label"]
        metrics = {"student": self._measure(student, labels)}
        if self.temperature is not None:
            metrics["calibrated"] = self._measure(student / self.temperature, labels)
        if "auxiliary_pred" in collected:
            auxiliary = collected["auxiliary_pred"]
            metrics["auxiliary"] = self._measure(auxiliary, labels)
            metrics["mean"] = self._measure(mean_logits(student, auxiliary, multi_label=self.multi_label), labels)
        return metrics

    def _measure(self, logits: Tensor, labels: Tensor) -> dict[str, float | None]:
        if logits.shape[1] != len(self.class_names):
            raise InputError(
                f"The network gives {logits.shape[1]} logits, but there are {len(self.class_names)} class names "
                f"({', '.join(self.class_names)}); evaluate with the classes it was trained on."
            )
        return classification_metrics(logits, labels, multi_label=self.multi_label)

    def _write(self, epoch: int, entry: dict[str, Any]) -> None:
        record = read_metrics(self.directory)
        record["class_names"] = self.class_names
        if self.split == "validation":
            entry = {"epoch": epoch, **entry}
            # A resumed run goes on where it stopped; a new run in the same folder starts afresh.
            earlier = [old for old in record.get("epochs", []) if old["epoch"] < epoch]
            if self._first_of_run and not earlier:
                record = {"class_names": self.class_names}
            record["key_metric"] = self.key_metric
            record["epochs"] = [*earlier, entry]
            record["best"] = max(
                record["epochs"], key=lambda old: epoch_order(old["student"], self.key_metric, old["epoch"])
            )
            record["final"] = entry
        else:
            record[self.split] = {"source": self.source, **self.notes, **entry}
        self._first_of_run = False
        write_metrics(self.directory, record)

    def _uncertainty(self, measured: Measured) -> tuple[dict[str, list[str]], dict[str, Any]]:
        """Columns of the table of predictions, and what they are worth: entries of the split."""
        p, labels = self._probabilities(measured.logits, self.temperature), measured.labels.numpy()
        labels = labels.reshape(p.shape) if self.multi_label else labels.reshape(-1).astype(int)
        confidence, right = decisions(p, labels, self.multi_label)
        errors = (~right).mean(axis=1)
        numbers = {"uncertainty": predictive_entropy(p, multi_label=self.multi_label)}
        selective = {"aurc": risk_coverage(1 - confidence.mean(axis=1), errors).aurc}
        if measured.auxiliary is not None:
            other = self._probabilities(measured.auxiliary, self.auxiliary_temperature)
            numbers["disagreement"] = disagreement(p, other, multi_label=self.multi_label)
            selective["aurc_disagreement"] = risk_coverage(numbers["disagreement"], errors).aurc
        columns = {name: [f"{value:.6f}" for value in values] for name, values in numbers.items()}
        summary: dict[str, Any] = {"selective": selective}
        if self.sets is not None:
            sets = prediction_sets(p, self.sets)
            columns["prediction_set"] = [named(row, self.class_names) for row in sets]
            threshold = self.sets.threshold if np.isfinite(self.sets.threshold) else None
            rule = {"method": self.sets.method, "alpha": self.sets.alpha, "validation_images": self.sets.images}
            summary["prediction_sets"] = rule | {"threshold": threshold, **set_coverage(sets, labels)}
        return columns, summary

    def _write_predictions(self, measured: Measured, columns: Mapping[str, Sequence[str]]) -> None:
        if self.predictions is None:
            return
        path, labels = self.predictions, measured.labels.numpy()
        for where, logits, temperature, extra in (
            (path, measured.logits, self.temperature, columns),
            (path.with_stem(path.stem + "_auxiliary"), measured.auxiliary, self.auxiliary_temperature, {}),
        ):
            if logits is not None:
                p = self._probabilities(logits, temperature)
                write_predictions(
                    where, measured.images, labels, p, self.class_names, multi_label=self.multi_label, extra=extra
                )

    def _probabilities(self, logits: Tensor, temperature: float | None) -> np.ndarray:
        return probabilities(logits, temperature, multi_label=self.multi_label).numpy()


def epoch_order(metrics: Mapping[str, float | None], name: str, epoch: int) -> tuple[float, float]:
    """Key that orders epochs by a metric, and equal ones by NLL: on few images AUC and accuracy are soon perfect.

    With ``last`` the order is that of the epochs.
    """
    return float(epoch) if name == LAST else score(metrics, name), score(metrics, "nll")


def score(metrics: Mapping[str, float | None], name: str) -> float:
    """A metric with the sign that makes larger better; minus infinity where it isn't defined.

    For ``last``, which prefers no epoch, it is that of the NLL: early stopping then watches this.
    """
    name = "nll" if name == LAST else name
    value = metrics.get(name)
    if value is None:
        return float("-inf")
    return -value if name in LOWER_IS_BETTER else value


def _flat(metrics: Mapping[str, Mapping[str, float | None]]) -> dict[str, float]:
    named = {f"{network}_{name}": value for network, values in metrics.items() for name, value in values.items()}
    return {name: value for name, value in (named | dict(metrics["student"])).items() if value is not None}


def _file_names(image: Any, count: int) -> list[str]:
    names = getattr(image, "meta", {}).get("filename_or_obj", "")
    return [str(name) for name in names] if isinstance(names, list | tuple) else [str(names)] * count


def _gather(collected: Mapping[str, Tensor], images: list[str], device: torch.device) -> tuple[dict, list[str]]:
    """Joins the shares of all processes; they may differ in length."""
    joined = {key: evenly_divisible_all_gather(value.to(device), concat=True).cpu() for key, value in collected.items()}
    shares: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(shares, images)
    return joined, [name for share in shares for name in share]
