# SPDX-License-Identifier: Apache-2.0
"""The answer of a model for one image, how it follows from probabilities, and its row in a table.

``dual_skd.predict``, ``dual-skd predict``, ``run inference`` and MONAI Label all answer by these functions.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dual_skd.metrics.predictions import named
from dual_skd.metrics.uncertainty import Conformal, disagreement, prediction_sets, predictive_entropy
from dual_skd.utils.csv_text import write_rows
from dual_skd.utils.files import Draft


@dataclass(frozen=True)
class Prediction:
    """The answer for one image.

    Attributes:
        image: its path or other locator; "array" for one in memory.
        label: the most probable class; with several labels per image all above one half, joined by "|".
        probabilities: class name -> probability, calibrated where the model has a temperature.
        uncertainty: entropy, 0 (sure) to 1 (all classes equally probable), see
            :func:`~dual_skd.metrics.uncertainty.predictive_entropy`; None for an image that can't be used.
        disagreement: Jensen-Shannon divergence of student and auxiliary, 0 to 1; None without an auxiliary.
        prediction_set: the classes that can't be ruled out; None where the model's run calibrated no sets.
        problem: why the image can't be used, "" for good ones; nothing else is filled in then.
    """

    image: str
    label: str = ""
    probabilities: dict[str, float] = field(default_factory=dict)
    uncertainty: float | None = None
    disagreement: float | None = None
    prediction_set: tuple[str, ...] | None = None
    problem: str = ""

    def row(self) -> dict[str, str]:
        """Its row in a :class:`PredictionTable`."""
        if self.problem:
            return {"image": self.image, "problem": self.problem}
        row = {"image": self.image, "predicted": self.label, "uncertainty": f"{self.uncertainty:.6f}"}
        row |= {f"p_{name}": f"{value:.9g}" for name, value in self.probabilities.items()}
        if self.disagreement is not None:
            row["disagreement"] = f"{self.disagreement:.6f}"
        if self.prediction_set is not None:
            row["prediction_set"] = "|".join(self.prediction_set)
        return row


@dataclass(frozen=True)
class PredictionRules:
    """The rules by which probabilities become predictions.

    Args:
        class_names: K names in the order of the probabilities.
        multi_label: each class has a probability of its own.
        sets: rule of the prediction sets, None without one.
        auxiliary: whether there is a second network, whose disagreement is stated.
    """

    class_names: Sequence[str]
    multi_label: bool = False
    sets: Conformal | None = None
    auxiliary: bool = False

    def predictions(
        self,
        images: Sequence[str],
        probabilities: np.ndarray,
        auxiliary: np.ndarray | None = None,
        *,
        problems: Sequence[str] | None = None,
    ) -> list[Prediction]:
        """Predictions for a batch.

        Args:
            images: N names.
            probabilities: (N, K) of the student.
            auxiliary: (N, K) of the auxiliary, for the disagreement.
            problems: N sentences, "" for an image that can be used.
        """
        p = np.asarray(probabilities, dtype=float)
        entropy = predictive_entropy(p, multi_label=self.multi_label)
        apart = None if auxiliary is None else disagreement(p, auxiliary, multi_label=self.multi_label)
        inside = None if self.sets is None else prediction_sets(p, self.sets)
        chosen = p > 0.5 if self.multi_label else p.argmax(axis=1)
        return [
            Prediction(image, problem=problem) if problem else Prediction(
                image,
                named(chosen[n], self.class_names),
                dict(zip(self.class_names, p[n].tolist(), strict=True)),
                float(entropy[n]),
                None if apart is None else float(apart[n]),
                None if inside is None else tuple(np.array(self.class_names)[inside[n]].tolist()),
            )
            for n, (image, problem) in enumerate(zip(images, problems or [""] * len(p), strict=True))
        ]  # fmt: skip

    def columns(self) -> list[str]:
        """Columns of a table of predictions."""
        extra = ["uncertainty", *["disagreement"] * self.auxiliary, *["prediction_set"] * (self.sets is not None)]
        return ["image", "predicted", *(f"p_{name}" for name in self.class_names), *extra, "problem"]


class PredictionTable:
    """A CSV table of predictions, written batch by batch to a draft that gets its name when it is complete.

    Args:
        path: the CSV file; its folder is made.
        columns: see :meth:`PredictionRules.columns`.

    Raises:
        NotWritten: on every use, if the file can't be written.
    """

    def __init__(self, path: str | Path, columns: Sequence[str]) -> None:
        self.path, self.columns = Path(path), columns
        self._draft: Draft | None = None

    def append(self, predictions: Iterable[Prediction]) -> None:
        """Writes a row for each, the first time after the header."""
        self._begun().write(lambda file: self._write(file, [one.row() for one in predictions]))

    def publish(self) -> None:
        """Puts the table in place of a former one."""
        self._begun().publish()

    def _begun(self) -> Draft:
        if self._draft is None:
            self._draft = Draft(self.path, private=True)
            self._draft.write(lambda file: self._write(file, [dict(zip(self.columns, self.columns, strict=True))]))
        return self._draft

    def _write(self, draft: Path, rows: Iterable[Mapping[str, str]]) -> None:
        with draft.open("r+", newline="", encoding="utf-8") as file:  # which must not begin anew without its header
            file.seek(0, os.SEEK_END)
            write_rows(file, ([row.get(name, "") for name in self.columns] for row in rows))
