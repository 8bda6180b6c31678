# SPDX-License-Identifier: Apache-2.0
"""A trained model without the framework around it: ``dual_skd.predict("scan.dcm")``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from monai.utils import ensure_tuple_rep
from torch import Tensor

from dual_skd.data.bad_files import POLICIES
from dual_skd.data.reading.preprocessing import image_transforms
from dual_skd.data.reading.reader import image_from_array
from dual_skd.devices import pick_device, to_device
from dual_skd.errors import InputError, input_error_behind
from dual_skd.evaluation.calibration import probabilities
from dual_skd.outputs import auxiliary_temperature, conformal_rule, load_auxiliary, load_model, temperature_of
from dual_skd.places import bundle_root, model_file, refuse_demo_model
from dual_skd.prediction.outcome import Prediction, predictions_of

Image = str | Path | np.ndarray | Tensor
DEMO_MODEL = "demo"  # the bundle's own model, asked for by name


def predict(
    image: Image | Sequence[Image],
    *,
    model: str | Path | None = None,
    device: str | torch.device = "cpu",
    spacing: float | Sequence[float] | None = None,
    hu: bool = False,
    calibrate: bool = True,
    alpha: float = 0.1,
    on_bad_file: str = "error",
    unexpected_input: str = "refuse",
) -> Prediction | list[Prediction]:
    """What a trained model says of an image, as ``run inference`` would write it into ``predictions.csv``.

    Files are read and prepared as in training. The model is loaded with the first call and kept for the next ones.

    Args:
        image: a DICOM, NIfTI, PNG, JPEG, TIFF or .npy file, the folder of a DICOM series, any other
            :mod:`locator <dual_skd.data.reading.locators>`, or an array or tensor: (H, W), also with channels last, or
            (H, W, D) as :func:`dual_skd.data.reading.reader.image_from_array` describes it. A list or tuple is several.
        model: a run's ``output_dir``, or its model.pt or model.safetensors; None takes the bundle's own. Unless you
            packed another one this is the demo's, which knows generated phantoms only and is refused for other images;
            ``demo`` asks it all the same.
        device: where the network computes, such as ``cpu``, ``cuda:1`` or ``auto``.
        spacing: of arrays, mm from one value to the next along each axis (or one number for all); models that were
            trained with a spacing need it.
        hu: whether arrays hold Hounsfield units (stored value * RescaleSlope + RescaleIntercept). A model with an
            intensity window refuses others, because an array doesn't tell its unit.
        calibrate: divide the logits by the model's temperature.
        alpha: share of prediction sets that may miss the label.
        on_bad_file: ``error``, or ``skip``, which gives a Prediction that has only ``problem``.
        unexpected_input: ``refuse``, or ``accept`` for images of another kind than the model was trained on, see
            :mod:`dual_skd.data.reading.expectation`.

    Returns:
        a :class:`~dual_skd.prediction.outcome.Prediction`; for several images a list of them, in their order.

    Raises:
        InputError: there is no model, it is the demo's and wasn't asked for by name, or, unless they are skipped, an
            image can't be used.

    Example:
        >>> sorted(predict(np.zeros((64, 64)), model="demo").probabilities)
        ['interstitial', 'nodule', 'normal']
    """
    several = isinstance(image, list | tuple)
    images: Any = image if several else [image]
    found = predict_iter(
        images, model=model, device=device, spacing=spacing, hu=hu, calibrate=calibrate,
        alpha=alpha, on_bad_file=on_bad_file, unexpected_input=unexpected_input,
    )  # fmt: skip
    return list(found) if several else next(found)


def predict_iter(
    images: Iterable[Image],
    *,
    model: str | Path | None = None,
    device: str | torch.device = "cpu",
    spacing: float | Sequence[float] | None = None,
    hu: bool = False,
    calibrate: bool = True,
    alpha: float = 0.1,
    on_bad_file: str = "error",
    unexpected_input: str = "refuse",
    batch_size: int = 8,
) -> Iterator[Prediction]:
    """:func:`predict` for many images, one after the other: no more than ``batch_size`` are held at a time.

    The arguments are looked at when the first answer is asked for.
    """
    if on_bad_file not in POLICIES:
        raise InputError(f"on_bad_file is {on_bad_file!r}; use one of {', '.join(POLICIES)}.")
    predictor = load_predictor(
        model, device=device, calibrate=calibrate, alpha=alpha, unexpected_input=unexpected_input
    )
    remaining = iter(images)
    while some := list(islice(remaining, batch_size)):
        if model is None:
            refuse_demo_model(predictor.path, some, "Give model: the output_dir or model file of a run")
        yield from predictor(some, spacing=spacing, hu=hu, on_bad_file=on_bad_file)


class Predictor:
    """A loaded model with all that its answers need; :func:`load_predictor` keeps the last ones.

    Args:
        path: the model file.
        device, calibrate, alpha, unexpected_input: see :func:`predict`.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: torch.device,
        calibrate: bool = True,
        alpha: float = 0.1,
        unexpected_input: str = "refuse",
    ) -> None:
        self.path = path
        network, self.info = load_model(path)
        auxiliary = load_auxiliary(path)
        self.device = device
        self.multi_label = bool(self.info.get("multi_label", False))
        self.networks = [(to_device(network, device), temperature_of(self.info) if calibrate else None)]
        if auxiliary is not None:
            self.networks.append((to_device(auxiliary, device), auxiliary_temperature(path) if calibrate else None))
        self.sets = conformal_rule(path.parent.parent, self.info, alpha=alpha, calibrate=calibrate)
        self.preprocessing = self.info.get("preprocessing") or {}
        self.transform = image_transforms(**self.preprocessing, unexpected_input=unexpected_input)
        self.after_reading = Compose(self.transform.transforms[1:])

    def __call__(
        self,
        images: Sequence[Image],
        *,
        spacing: float | Sequence[float] | None = None,
        hu: bool = False,
        on_bad_file: str = "error",
    ) -> list[Prediction]:
        """Answers for a few images, which go through the network together; see :func:`predict`."""
        names = ["array" if isinstance(image, np.ndarray | Tensor) else str(image) for image in images]
        prepared, problems = [], []
        for image in images:
            try:
                prepared.append(self.prepare(image, spacing=spacing, hu=hu))
                problems.append("")
            except InputError as error:
                if on_bad_file == "error":
                    raise
                problems.append(str(error))
        classes = len(self.info["class_names"])
        student, auxiliary = np.full((len(images), classes), 1 / classes), None
        good = [not problem for problem in problems]
        if prepared:
            batch = torch.stack(prepared).to(self.device)
            with torch.inference_mode():
                answers = [
                    probabilities(network(batch).float(), temperature, multi_label=self.multi_label).cpu().numpy()
                    for network, temperature in self.networks
                ]
            student[good] = answers[0]
            if len(answers) > 1:
                auxiliary = student.copy()
                auxiliary[good] = answers[1]
        return predictions_of(
            names, student, self.info["class_names"], auxiliary=auxiliary, sets=self.sets,
            multi_label=self.multi_label, problems=problems,
        )  # fmt: skip

    def prepare(self, image: Image, *, spacing: float | Sequence[float] | None = None, hu: bool = False) -> Tensor:
        """One image as the network takes it, (1, H, W[, D]).

        Raises:
            InputError: it can't be read, or isn't what the model was trained on.
        """
        try:
            if isinstance(image, np.ndarray | Tensor):
                return self.after_reading({"image": self._in_memory(image, spacing, hu)})["image"]
            return self.transform({"image": str(image)})["image"]
        except Exception as error:
            cause = input_error_behind(error)
            if cause is None:
                raise
            raise InputError(str(cause)) from error

    def _in_memory(self, image: np.ndarray | Tensor, spacing: float | Sequence[float] | None, hu: bool) -> MetaTensor:
        """An array as ``LoadImaged`` would give it."""
        window = self.preprocessing.get("window")
        if not isinstance(window, str | None) and not hu:
            raise InputError(
                f"This model scales values by the window {list(window)} (centre and width, in Hounsfield units for "
                "CT), and an array doesn't tell its unit; give hu=True if it holds them: stored value * RescaleSlope "
                "+ RescaleIntercept."
            )
        dims = self.preprocessing.get("spatial_dims", 2)
        spacing = None if spacing is None else ensure_tuple_rep(spacing, dims)
        array, meta = image_from_array(np.asarray(image), spatial_dims=dims, spacing=spacing, hounsfield=hu or None)
        return MetaTensor.ensure_torch_and_prune_meta(array.astype(np.float32), meta)


def load_predictor(
    model: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
    calibrate: bool = True,
    alpha: float = 0.1,
    unexpected_input: str = "refuse",
) -> Predictor:
    """Loads a model once: the next call with the same arguments gives the same object, unless its file has changed.

    Raises:
        InputError: there is no such model, or it can't be used.
    """
    own = model is None or str(model) == DEMO_MODEL
    path = model_file(bundle_root() if model is None or own else model).absolute()
    if own and not path.is_file():
        raise InputError(
            f"The bundle has no model of its own, {path}; give model: output_dir, model.pt or model.safetensors of a "
            "run."
        )
    changed = path.stat().st_mtime_ns if path.is_file() else 0
    return _loaded(path, changed, pick_device(device), calibrate, alpha, unexpected_input)


@lru_cache(maxsize=4)
def _loaded(
    path: Path, changed: int, device: torch.device, calibrate: bool, alpha: float, unexpected_input: str
) -> Predictor:
    return Predictor(path, device=device, calibrate=calibrate, alpha=alpha, unexpected_input=unexpected_input)
