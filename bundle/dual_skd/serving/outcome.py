# SPDX-License-Identifier: Apache-2.0
"""What a model says of one image, the same whether Python asks or ``run inference``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dual_skd.metrics.predictions import named
from dual_skd.metrics.uncertainty import Conformal, disagreement, prediction_sets, predictive_entropy


@dataclass(frozen=True)
class Prediction:
    """The answer for one image.

    Attributes:
        image: its path or other locator; "array" for one in memory.
        label: the most probable class; with several labels per image all above one half, joined by "|".
        probabilities: class name -> probability, calibrated where the model has a temperature.
        uncertainty: entropy, 0 (sure) to 1 (all classes alike), see
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


def predictions_of(
    images: Sequence[str],
    probabilities: np.ndarray,
    class_names: Sequence[str],
    *,
    auxiliary: np.ndarray | None = None,
    sets: Conformal | None = None,
    multi_label: bool = False,
    problems: Sequence[str] | None = None,
) -> list[Prediction]:
    """Answers for a batch.

    Args:
        images: N names.
        probabilities: (N, K) of the student.
        class_names: K names in the order of the probabilities.
        auxiliary: (N, K) of the auxiliary, for the disagreement.
        sets: rule of the prediction sets.
        multi_label: each class has a probability of its own.
        problems: N sentences, "" for an image that can be used.
    """
    p = np.asarray(probabilities, dtype=float)
    entropy = predictive_entropy(p, multi_label=multi_label)
    apart = None if auxiliary is None else disagreement(p, auxiliary, multi_label=multi_label)
    inside = None if sets is None else prediction_sets(p, sets)
    chosen = p > 0.5 if multi_label else p.argmax(axis=1)
    return [
        Prediction(image, problem=problem) if problem else Prediction(
            image,
            named(chosen[n], class_names),
            dict(zip(class_names, p[n].tolist(), strict=True)),
            float(entropy[n]),
            None if apart is None else float(apart[n]),
            None if inside is None else tuple(np.array(class_names)[inside[n]].tolist()),
        )
        for n, (image, problem) in enumerate(zip(images, problems or [""] * len(p), strict=True))
    ]  # fmt: skip


def columns_of(class_names: Sequence[str], *, auxiliary: bool, sets: bool) -> list[str]:
    """Columns of a table of predictions.

    Args:
        class_names: in the order of the probabilities.
        auxiliary: whether there is a disagreement.
        sets: whether there are prediction sets.
    """
    extra = ["uncertainty", *["disagreement"] * auxiliary, *["prediction_set"] * sets]
    return ["image", "predicted", *(f"p_{name}" for name in class_names), *extra, "problem"]


def row_of(found: Prediction) -> dict[str, str]:
    """A row of that table; an image that can't be used has its problem alone."""
    if found.problem:
        return {"image": found.image, "problem": found.problem}
    row = {"image": found.image, "predicted": found.label, "uncertainty": f"{found.uncertainty:.6f}"}
    row |= {f"p_{name}": f"{value:.9g}" for name, value in found.probabilities.items()}
    if found.disagreement is not None:
        row["disagreement"] = f"{found.disagreement:.6f}"
    if found.prediction_set is not None:
        row["prediction_set"] = "|".join(found.prediction_set)
    return row
