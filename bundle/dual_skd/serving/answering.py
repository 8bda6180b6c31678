# SPDX-License-Identifier: Apache-2.0
"""How images become answers, whichever runtime computes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np

from dual_skd.data.reading.reader import image_from_array
from dual_skd.errors import InputError
from dual_skd.metrics.uncertainty import Conformal
from dual_skd.serving.outcome import Prediction, predictions_of

if TYPE_CHECKING:
    from torch import Tensor

Image: TypeAlias = Union[str, Path, np.ndarray, "Tensor"]


class Predictor(ABC):
    """A loaded model with all that its answers need; ``load_predictor`` keeps the last ones.

    Args:
        path: the model file.
        class_names: in the order of the probabilities.
        preprocessing: arguments of :func:`dual_skd.data.image_transforms`.
        multi_label: each class has a probability of its own.
        sets: rule of the prediction sets, None without one.
    """

    runtime: str  # what computes, in words
    networks: Sequence[Any]  # the student's, and where there is an auxiliary its own

    def __init__(
        self,
        path: Path,
        *,
        class_names: Sequence[str],
        preprocessing: Mapping[str, Any],
        multi_label: bool,
        sets: Conformal | None,
    ) -> None:
        self.path = path
        self.class_names = class_names
        self.preprocessing = preprocessing
        self.multi_label = multi_label
        self.sets = sets

    @abstractmethod
    def prepare(self, image: Image, *, spacing: float | Sequence[float] | None = None, hu: bool = False) -> Any:
        """One image as the network takes it, (1, H, W[, D]).

        Raises:
            InputError: it can't be read, or isn't what the model was trained on.
        """

    @abstractmethod
    def probabilities(self, prepared: Sequence[Any]) -> list[np.ndarray]:
        """Probabilities (N, K) of N prepared images: the student's, and where there is an auxiliary its own."""

    def __call__(
        self,
        images: Sequence[Image],
        *,
        spacing: float | Sequence[float] | None = None,
        hu: bool = False,
        on_bad_file: str = "error",
    ) -> list[Prediction]:
        """Answers for a few images, which go through the network together; see
        :func:`~dual_skd.serving.predictor.predict`."""
        names = [str(image) if isinstance(image, str | Path) else "array" for image in images]
        prepared, problems = [], []
        for image in images:
            try:
                prepared.append(self.prepare(image, spacing=spacing, hu=hu))
                problems.append("")
            except InputError as error:
                if on_bad_file == "error":
                    raise
                problems.append(str(error))
        classes = len(self.class_names)
        student, auxiliary = np.full((len(images), classes), 1 / classes), None
        good = [not problem for problem in problems]
        if prepared:
            answers = self.probabilities(prepared)
            student[good] = answers[0]
            if len(answers) > 1:
                auxiliary = student.copy()
                auxiliary[good] = answers[1]
        return predictions_of(
            names, student, self.class_names, auxiliary=auxiliary, sets=self.sets,
            multi_label=self.multi_label, problems=problems,
        )  # fmt: skip

    def in_memory(
        self, image: np.ndarray | Tensor, spacing: float | Sequence[float] | None, hu: bool
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """An array as :func:`~dual_skd.data.reading.reader.read_image` gives files."""
        window = self.preprocessing.get("window")
        if not isinstance(window, str | None) and not hu:
            raise InputError(
                f"This model scales values by the window {list(window)} (centre and width, in Hounsfield units for "
                "CT), and an array doesn't tell its unit; give hu=True if it holds them: stored value * RescaleSlope "
                "+ RescaleIntercept."
            )
        dims = self.preprocessing.get("spatial_dims", 2)
        each = None if spacing is None else np.broadcast_to(spacing, dims).tolist()
        return image_from_array(np.asarray(image), spatial_dims=dims, spacing=each, hounsfield=hu or None)
