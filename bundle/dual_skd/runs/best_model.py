# SPDX-License-Identifier: Apache-2.0
"""Which epoch's student a run keeps."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.engines.trainer import Trainer
from torch import Tensor, nn

from dual_skd.metrics.calibration import FEW, Calibration, fit_temperature
from dual_skd.metrics.predictions import write_predictions
from dual_skd.metrics.probabilities import probabilities
from dual_skd.runs.metrics_file import REVISION, brier_on_todays_scale
from dual_skd.runs.model_file import save_model
from dual_skd.runs.recorder import LAST, Measured, epoch_order

logger = logging.getLogger(__name__)


class BestModelSaver:
    """Handler of the evaluator that keeps the best student as ``model.pt`` and ``model.safetensors``.

    The evaluator needs a :class:`~dual_skd.runs.recorder.MetricsRecorder` attached before. Of equal epochs the one with
    the lower NLL is kept. Each saved model includes the temperature fitted on the images of the same evaluation. The
    auxiliary of that epoch goes to ``auxiliary.pt``. ``state_dict`` makes a resumed run remember the best: it is one of
    the objects of :class:`dual_skd.runs.checkpoint.Checkpoints`.

    Args:
        directory: ``output_dir/models``.
        network: the student.
        architecture: see :func:`dual_skd.runs.model_file.save_model`.
        class_names: in the order of the logits.
        preprocessing: see :func:`dual_skd.runs.model_file.save_model`.
        multi_label: see :func:`dual_skd.runs.model_file.save_model`.
        key_metric: name in ``engine.state.metrics``, lower is better for nll, ece and brier; or ``last``.
        auxiliary: the second network, or None.
        auxiliary_architecture: where it differs from the student's.
        predictions: CSV for the predictions of the best student, uncalibrated, in the form of ``predictions_test.csv``.
        patients: of each validation image, by its path, see :func:`dual_skd.metrics.fit_temperature`.
    """

    def __init__(
        self,
        directory: str | Path,
        network: nn.Module,
        *,
        architecture: Mapping[str, Any],
        class_names: Sequence[str],
        preprocessing: Mapping[str, Any] | None = None,
        multi_label: bool = False,
        key_metric: str = "macro_auc",
        auxiliary: nn.Module | None = None,
        auxiliary_architecture: Mapping[str, Any] | None = None,
        predictions: str | Path | None = None,
        patients: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = Path(directory)
        self.network = network
        self.auxiliary = auxiliary
        self.key_metric = key_metric
        self.described: dict[str, Any] = {
            "class_names": list(class_names), "preprocessing": dict(preprocessing or {}), "multi_label": multi_label,
        }  # fmt: skip
        self.architecture = dict(architecture)
        self.auxiliary_architecture = dict(auxiliary_architecture or architecture)
        self.predictions = Path(predictions) if predictions else None
        self.patients = dict(patients or {})
        self.best = (float("-inf"), float("-inf"))
        self.best_epoch = 0

    def attach(self, engine: Engine) -> None:
        """Registers at the end of every evaluation; with a trainer, see :meth:`keep_last`."""
        if isinstance(engine, Trainer):
            self.keep_last(engine)
        else:
            engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def keep_last(self, trainer: Engine) -> None:
        """Registers with the trainer as well: a run without validation images keeps the model of its last epoch."""
        trainer.add_event_handler(Events.COMPLETED, self._save_unless_best)

    def __call__(self, engine: Engine) -> None:
        if self.key_metric not in (LAST, *engine.state.metrics) and self.best_epoch == 0:
            defined = ", ".join(sorted(engine.state.metrics)) or "nothing; attach a MetricsRecorder before"
            logger.warning(
                "Key metric %s isn't defined on this validation data (a class without images?); until that "
                "changes the model with the lowest NLL is kept. Defined: %s.",
                self.key_metric,
                defined,
            )
        value = epoch_order(engine.state.metrics, self.key_metric, engine.state.epoch)
        if self.best_epoch and value <= self.best:
            return
        self._warn_if_few(engine)
        self.best, self.best_epoch = value, engine.state.epoch
        self._save(engine)
        if self.key_metric != LAST:
            logger.debug("Best %s so far in epoch %d: model saved.", self.key_metric, self.best_epoch)

    def _warn_if_few(self, engine: Engine) -> None:
        """Once, where chance rather than the network decides which epoch is kept."""
        measured = getattr(engine.state, "measured", None)
        if self.best_epoch == 0 and self.key_metric != LAST and measured is not None and len(measured.labels) < FEW:
            logger.warning(
                "%d validation images decide by %s which epoch is kept: so few tell epochs apart by chance; "
                "--key_metric last keeps the last epoch instead.", len(measured.labels), self.key_metric,
            )  # fmt: skip

    def _save_unless_best(self, trainer: Engine) -> None:
        if self.best_epoch == 0:
            logger.warning("There was no validation, so the model of the last epoch, %d, is kept.", trainer.state.epoch)
            self._save(trainer)
        elif self.key_metric == LAST and self.best_epoch < trainer.state.epoch:
            logger.warning(
                "The last epoch with a validation, %d, is kept; for the very last give a val_interval that divides "
                "the epochs.", self.best_epoch,
            )  # fmt: skip

    def _save(self, engine: Engine) -> None:
        if getattr(engine.state, "rank", 0) != 0:
            return
        measured = getattr(engine.state, "measured", None)  # by the MetricsRecorder; a trainer has none
        calibration = self._calibration(measured, measured and measured.logits)
        save_model(
            self.directory, self.network, architecture=self.architecture,
            calibration=calibration and calibration._asdict(), **self.described,
        )  # fmt: skip
        self._write_predictions(measured)
        if calibration is None:
            logger.warning("There are no validation predictions, so probabilities stay uncalibrated (temperature 1).")
        else:
            logger.debug("%s.", calibration)
        if self.auxiliary is not None:
            of_auxiliary = self._calibration(measured, measured and measured.auxiliary)
            save_model(
                self.directory, self.auxiliary, architecture=self.auxiliary_architecture, name="auxiliary",
                calibration=of_auxiliary and of_auxiliary._asdict(), safetensors=False, **self.described,
            )  # fmt: skip
        else:  # of a former run in this folder
            (self.directory / "auxiliary.pt").unlink(missing_ok=True)

    def _calibration(self, measured: Measured | None, logits: Tensor | None) -> Calibration | None:
        if measured is None or logits is None:
            return None
        patients = [self.patients.get(image, "") for image in measured.images] or None
        return fit_temperature(
            logits, measured.labels, multi_label=self.described["multi_label"], sharpen=False, patients=patients
        )

    def _write_predictions(self, measured: Measured | None) -> None:
        if self.predictions is None:
            return
        if measured is None or not measured.images:  # a former run's would be taken for this model's
            self.predictions.unlink(missing_ok=True)
            return
        multi_label = self.described["multi_label"]
        p = probabilities(measured.logits, multi_label=multi_label)
        write_predictions(
            self.predictions, measured.images, measured.labels.numpy(), p.numpy(), self.described["class_names"],
            multi_label=multi_label,
        )  # fmt: skip

    def state_dict(self) -> dict[str, float]:
        """What a resumed run needs to know."""
        return {
            "best": self.best[0], "best_nll": self.best[1], "best_epoch": self.best_epoch, "revision": REVISION,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Takes up the state of a former run."""
        best, revision = float(state["best"]), int(state.get("revision", 1))
        if self.key_metric == "brier":
            classes, multi_label = len(self.described["class_names"]), self.described["multi_label"]
            best = brier_on_todays_scale(best, revision, classes, multi_label=multi_label)
        self.best = best, float(state.get("best_nll", "-inf"))  # absent in older files
        self.best_epoch = int(state["best_epoch"])
