# SPDX-License-Identifier: Apache-2.0
"""Results of training and evaluation, read from a run's files: for Python, notebooks, and the end of a command."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dual_skd.api.result_base import Result, RunResult, last_words
from dual_skd.errors import InputError, did_you_mean
from dual_skd.utils.csv_text import read_rows
from dual_skd.utils.files import read_json
from dual_skd.utils.wording import counted, estimate_in_words, metric_rows, metric_words, of_patients, quoted

logger = logging.getLogger(__name__)

MAIN_METRICS = ("macro_auc", "balanced_accuracy", "nll", "ece")  # of all metrics, in the text


@dataclass(frozen=True, repr=False)
class TrainingResult(RunResult):
    """A training run, read from its folder.

    Args:
        output_dir: of the run.

    Raises:
        InputError: there is no run in this folder.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self._run and not self._record:
            raise InputError(f"{self.output_dir} has no run.json, so no run was trained there; give its output_dir.")

    @cached_property
    def _best(self) -> dict[str, Any]:
        return self._record.get("best") or {}

    @property
    def _key(self) -> str:
        return self._record.get("key_metric", "macro_auc")  # absent in older files

    @property
    def finished(self) -> bool:
        """Whether the training came to its end."""
        return bool(self._run.get("finished"))

    @property
    def epochs(self) -> int:
        """Number of epochs that were trained."""
        return len(self.history)

    @property
    def kept_epoch(self) -> int | None:
        """The epoch whose student is the model, counted from 1; None where none is kept yet."""
        return self._best.get("epoch") or (self.epochs if self.finished else None)

    @property
    def kept_because(self) -> str:
        """The rule by which this epoch is kept."""
        key = self._key
        if not self._best:
            return "the last one, as there were no validation images"
        if key == "last":
            return f"the last one{'' if self.finished else ' so far'}, whatever its validation"
        if self.metrics.get(key) is None:
            return f"the lowest NLL on the validation images, for which {metric_words(key)} isn't defined"
        return f"the best {metric_words(key)} on the validation images"

    @property
    def metrics(self) -> dict[str, float | None]:
        """Metrics of the kept student on the validation images; empty without any."""
        return dict(self._best.get("student") or {})

    @property
    def images(self) -> int:
        """Number of validation images."""
        return self._best.get("images", 0)

    @cached_property
    def patients(self) -> int:
        """Number of patients among the validation images, 0 where none is known."""
        return _patients(self._validation)

    @cached_property
    def _validation(self) -> list[dict[str, Any]]:
        return read_json(self.output_dir / "datalist.json").get("validation") or []

    @property
    def class_names(self) -> list[str]:
        """In the order of the logits."""
        return list(self._record.get("class_names") or [])

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """A dict per epoch: ``epoch``, ``seconds``, and where it was validated the student's metrics."""
        measured = {entry["epoch"]: entry["student"] for entry in self._record.get("epochs") or []}
        timed = (self._run.get("timings") or {}).get("epochs") or []
        return [{**entry, **measured.get(entry["epoch"], {})} for entry in timed]

    @property
    def predictions(self) -> list[dict[str, str]]:
        """The rows of ``predictions_validation.csv``, uncalibrated; none without validation images."""
        return list(read_rows(self.output_dir / "predictions_validation.csv"))

    @property
    def model_file(self) -> Path:
        """The kept student's weights."""
        return self.output_dir / "models" / "model.pt"

    @property
    def report(self) -> Path | None:
        """The report of the test images, None before there is one."""
        return _report(self.output_dir, "test", self._record.get("test") or {})

    def _repr_html_(self) -> str:
        from dual_skd.api.notebook import training_html

        return training_html(self)

    def title(self) -> str:
        if self.finished:
            return f"Trained: {self.model_file}"
        planned = (self._run.get("config") or {}).get("epochs")
        done = counted(self.epochs, "epoch") + (f" of {planned}" if planned else "")
        return f"Not trained to the end: {done} done in {self.output_dir}"

    def rows(self) -> list[tuple[str, str | Path]]:
        from dual_skd.metrics.calibration import FEW

        of = f" of {self.epochs}" if self.finished else ""
        kept = f"epoch {self.kept_epoch}{of}, {self.kept_because}" if self.kept_epoch else ""
        numbers = _in_words(self.metrics)
        chose = self._key != "last"
        doubt = "they chose the epoch, so new images may fare worse" if chose else "not test images"
        doubt += ", and too few to say much" if self.images < FEW else ""
        measured = f"{numbers} on {_counted(self.images, self._validation)}; {doubt}" if numbers else ""
        return [
            ("kept", kept), ("validation", measured), ("temperature", self._temperature()),
            ("per epoch", self.output_dir / "metrics.json"), ("report", self.report or ""),
        ]  # fmt: skip

    def _temperature(self) -> str:
        from dual_skd.metrics.calibration import Calibration
        from dual_skd.networks.weight_files import read_info

        found = read_info(self.model_file).get("calibration") if self.model_file.is_file() else None
        return str(Calibration(**found)).removeprefix("Temperature ") if found else ""

    def next_command(self) -> str:
        if self.finished:
            return f"dual-skd evaluate {quoted(self.output_dir)}"
        return "give the same command again: the training goes on where it stopped"


@dataclass(frozen=True, repr=False)
class EvaluationResult(RunResult):
    """An evaluation, read from the folder of its run.

    Args:
        output_dir: of the run.
        name: of the evaluation: ``test``, ``val``, or what it was reported as.

    Raises:
        InputError: there is no such evaluation.
    """

    name: str = "test"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self._entry:
            known = [name for name, entry in self._record.items() if isinstance(entry, dict) and "source" in entry]
            remedy = (
                f"there are {', '.join(known)}" if known else f"`dual-skd evaluate {quoted(self.output_dir)}` makes one"
            )
            near = did_you_mean(self.name, known)
            raise InputError(f"{self.output_dir} has no evaluation {self.name!r}{near}; {remedy}.")

    @cached_property
    def _entry(self) -> dict[str, Any]:
        entry = self._record.get(self.name)
        return entry if isinstance(entry, dict) and "source" in entry else {}

    @cached_property
    def _measured(self) -> tuple[str, list[dict[str, Any]]]:
        from dual_skd.evaluation.run_files import measured_records

        section, _, records = measured_records(self.output_dir, self.name)
        return section, records

    @property
    def data(self) -> str:
        """Which images were measured, in words."""
        section = self._measured[0]
        return f"the run's own {section} images" if section else str(self._entry["source"])

    @property
    def images(self) -> int:
        """Number of images measured."""
        return self._entry["images"]

    @property
    def patients(self) -> int:
        """Number of their patients, 0 where none is known."""
        return _patients(self._measured[1])

    @property
    def metrics(self) -> dict[str, float | None]:
        """Metrics of the student without its temperature."""
        return dict(self._entry["student"])

    @property
    def calibrated(self) -> dict[str, float | None] | None:
        """The same with its temperature, as in its predictions; None where none was fitted."""
        found = self._entry.get("calibrated")
        return None if found is None else dict(found)

    @property
    def temperature(self) -> float | None:
        """Temperature by which the logits were divided for the predictions; None without one."""
        return self._entry.get("temperature")

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """Metric -> lower and upper limit, as in the report (of resampled patients, 95 %); empty without a report."""
        return {name: (one["low"], one["high"]) for name, one in self._overall.items() if one["low"] is not None}

    @property
    def per_patient(self) -> dict[str, dict[str, dict[str, Any]]]:
        """What reports of patients measured: ``mean`` or ``max`` -> metric -> ``value``, ``low``, ``high``, ``reason``.

        Empty where none was written, see the options ``per`` and ``combine``.
        """
        return {how: one["metrics"]["overall"] for how, one in self._of_patients.items()}

    @property
    def _of_patients(self) -> dict[str, Mapping[str, Any]]:
        """The analyses per patient, by the way their images were combined."""
        start = "patients_"
        keys = [key for key in self._entry if key.startswith(start)]
        return {key.removeprefix(start): self._entry[key]["analysis"] for key in keys}

    @property
    def _analysis(self) -> Mapping[str, Any]:
        return self._entry.get("analysis") or {}

    @property
    def _level(self) -> float:
        return (self._analysis.get("settings") or {}).get("level", 0.95)

    @property
    def _overall(self) -> Mapping[str, Any]:
        return (self._analysis.get("metrics") or {}).get("overall") or {}

    @property
    def predictions(self) -> list[dict[str, str]]:
        """The rows of ``predictions_<name>.csv``."""
        return list(read_rows(self._table))

    @property
    def report(self) -> Path | None:
        """The page, None where none was written."""
        return _report(self.output_dir, self.name, self._entry)

    @property
    def _table(self) -> Path:
        return self.output_dir / f"predictions_{self.name}.csv"

    @property
    def unfinished(self) -> str:
        """The warning of a run whose training hasn't come to its end; "" for one that has."""
        from dual_skd.evaluation.run_files import unfinished

        return unfinished(self._run, "the command below")

    def _repr_html_(self) -> str:
        from dual_skd.api.notebook import evaluation_html

        return evaluation_html(self)

    def title(self) -> str:
        return f"Evaluated: {self.output_dir}, kept as {self.name!r}"

    def rows(self) -> list[tuple[str, str | Path]]:
        from dual_skd.evaluation.analysis.recalibration import in_words
        from dual_skd.evaluation.run_files import at_home, estimates

        analysis = self._entry.get("analysis") or {}
        answered = self.calibrated or self.metrics
        twins = self._entry.get("with_twins", {}).get("images", self.images) - self.images
        left_out = f"; {counted(twins, 'image')} with a twin in training left out" if twins else ""
        rows: list[tuple[str, str | Path]] = [
            ("warning", self.unfinished),
            ("measured", f"{_counted(self.images, self._measured[1])}: {self.data}{left_out}"),
        ]
        own = bool(self._measured[0])
        home = ({}, "") if own else at_home(self._record, self.name)
        rows += metric_rows(estimates(self._entry), MAIN_METRICS[:2], home, self._level)
        rows += [row for how, one in self._of_patients.items() for row in self._patient_rows(how, one)]
        return [
            *rows, ("calibration", self._calibration(answered)),
            ("recalibrated", in_words(analysis.get("recalibration") or {})), ("per image", self._table),
            ("report", self.report or ""),
        ]  # fmt: skip

    def _patient_rows(self, how: str, found: Mapping[str, Any]) -> list[tuple[str, str | Path]]:
        """The rows of a report of patients."""
        overall = found["metrics"]["overall"]
        numbers = "; ".join(
            f"{metric_words(name)} {estimate_in_words(overall[name], self._level)}" for name in MAIN_METRICS[:2]
        )
        page = self._table.parent / ("report" if self.name == "test" else f"report_{self.name}") / f"patients_{how}"
        behind = f"{counted(found['rows'], 'patient')} ({how} of {counted(found['images'], 'image')})"
        return [("per patient", f"{behind}: {numbers}"), ("", page / "report.html")]

    def _calibration(self, answered: Mapping[str, float | None]) -> str:
        after, before = answered.get("ece"), self.metrics.get("ece")
        if after is None or before is None:
            return ""
        found = f"probabilities and the share that is right differ by {100 * after:.1f} points (ECE)"
        if self.temperature is None:
            return f"{found}; as the network gives them, without a temperature"
        if self.temperature == 1:
            return f"{found}, with a temperature of 1"
        return f"{found}; by {100 * before:.1f} without the temperature of {self.temperature:.2f}"

    def next_command(self) -> str:
        if self.unfinished:
            from dual_skd.options import training_command

            return training_command(self._run.get("config") or {}, self.output_dir)
        if (self.output_dir / "models" / "model.pt").is_file():
            return f"dual-skd predict IMAGES --model {quoted(self.output_dir)}"
        return "dual-skd train DATA -o OUT"  # measured was the model that comes with the bundle


def say(result: Callable[..., Result], *arguments: Any) -> None:
    """Prints the last words of a result, in the first process alone, and if the log shows information.

    Args:
        result: class of the result.
        arguments: its arguments.
    """
    first = os.environ.get("RANK", "0") == "0"
    if first and logger.isEnabledFor(logging.INFO) and sys.stdout is not None:  # None where it was closed (`>&-`)
        sys.stdout.write(f"\n{last_words(result(*arguments))}\n")
        sys.stdout.flush()


def _in_words(metrics: Mapping[str, float | None]) -> str:
    known = {name: value for name in MAIN_METRICS if (value := metrics.get(name)) is not None}
    return ", ".join(f"{metric_words(name)} {value:.3f}" for name, value in known.items())


def _counted(images: int, records: Sequence[Mapping[str, Any]]) -> str:
    without = sum(not record.get("patient") for record in records)
    return counted(images, "image") + of_patients(_patients(records), without)


def _patients(records: Sequence[Mapping[str, Any]]) -> int:
    return len({record["patient"] for record in records if record.get("patient")})


def _report(output_dir: Path, name: str, entry: Mapping[str, Any]) -> Path | None:
    """The page of an evaluation; one from before it isn't its own."""
    path = output_dir / ("report" if name == "test" else f"report_{name}") / "report.html"
    return path if entry.get("analysis") and path.is_file() else None
