# SPDX-License-Identifier: Apache-2.0
"""What every predictor does, whichever runtime computes: images in, predictions out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np

from dual_skd.data.reading.reader import image_from_array
from dual_skd.data.records.asked_images import find_images
from dual_skd.errors import InputError
from dual_skd.serving.prediction import Prediction, PredictionRules

if TYPE_CHECKING:
    from torch import Tensor

Image: TypeAlias = Union[str, Path, np.ndarray, "Tensor"]


class Predictor(ABC):
    """A loaded model with all that its predictions need.

    Args:
        path: the model file.
        preprocessing: arguments of :func:`dual_skd.data.image_transforms`.
        rules: how its probabilities become predictions.
    """

    runtime: str  # what computes, in words

    def __init__(self, path: Path, preprocessing: Mapping[str, Any], rules: PredictionRules) -> None:
        self.path = path
        self.preprocessing = preprocessing
        self.rules = rules

    @abstractmethod
    def prepare(self, image: Image, *, spacing: float | Sequence[float] | None = None, hu: bool = False) -> Any:
        """One image as the network takes it, (1, H, W[, D]).

        Raises:
            InputError: it can't be read, or isn't what the model was trained on.
        """

    @abstractmethod
    def probabilities(self, prepared: Sequence[Any]) -> list[np.ndarray]:
        """Probabilities (N, K) of N prepared images: the student's, and with an auxiliary its own."""

    def __call__(
        self,
        images: Sequence[Image],
        *,
        spacing: float | Sequence[float] | None = None,
        hu: bool = False,
        on_bad_file: str = "error",
    ) -> list[Prediction]:
        """Predictions for a few images, which go through the network together; see
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
        usable = [not problem for problem in problems]
        classes = len(self.rules.class_names)
        both = []
        for found in self.probabilities(prepared) if prepared else [np.empty((0, classes))]:
            both.append(np.full((len(images), classes), 1 / classes))  # of the others nothing is used
            both[-1][usable] = found
        return self.rules.predictions(names, *both, problems=problems)

    def images_in(self, path: str | Path, **reading: Any) -> list[str]:
        """Locators of the images in a file, folder or table, see :func:`dual_skd.data.find_images`."""
        options = self.preprocessing
        return find_images(path, options.get("spatial_dims", 2), frame=options.get("frame"), **reading)

    def read_array(
        self, image: np.ndarray | Tensor, spacing: float | Sequence[float] | None, hu: bool
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """An array in the form in which :func:`~dual_skd.data.reading.reader.read_image` gives files."""
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
