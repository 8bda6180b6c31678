# SPDX-License-Identifier: Apache-2.0
"""Predictions without a config: ``dual_skd.predict("scan.dcm")``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dual_skd.data.records.bad_files import require_policy
from dual_skd.errors import InputError
from dual_skd.runs.places import bundle_root, model_file, refuse_demo_model
from dual_skd.serving.onnx_predictor import OnnxPredictor, find_export, sidecar_of
from dual_skd.serving.prediction import Prediction
from dual_skd.serving.predictor_base import Image, Predictor
from dual_skd.utils.files import expanded

if TYPE_CHECKING:
    import torch

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
    """Predicts the classes of an image, as ``run inference`` writes it into ``predictions.csv``.

    Files are read and prepared as in training. The model is loaded with the first call and kept for the next ones.
    Where ``export`` made an ONNX file of this very model, ONNX Runtime computes on the CPU: the same to 1e-5, without
    waiting for PyTorch and MONAI.

    Args:
        image: a DICOM, NIfTI, PNG, JPEG, TIFF or .npy file, the folder of a DICOM series, a folder of images, any other
            :mod:`locator <dual_skd.data.reading.locators>`, or an array or tensor: (H, W), also with channels last, or
            (H, W, D) as :func:`dual_skd.data.reading.reader.image_from_array` describes it. A list or tuple is several.
        model: a run's ``output_dir``, or its model.pt or model.safetensors; None takes the model in the bundle:
            the demo's, unless you replaced it. The demo's model refuses real images; ``demo`` uses it anyway.
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
        a :class:`~dual_skd.serving.prediction.Prediction`; for several images, or a folder of them, a list in their
        order.

    Raises:
        InputError: there is no model, it is the demo's and wasn't asked for by name, or, unless they are skipped, an
            image can't be used.

    Example:
        >>> import numpy as np
        >>> sorted(predict(np.zeros((64, 64)), model="demo").probabilities)
        ['interstitial', 'nodule', 'normal']
    """
    loading: dict[str, Any] = {
        "model": model, "device": device, "calibrate": calibrate, "alpha": alpha, "unexpected_input": unexpected_input,
    }  # fmt: skip
    several = isinstance(image, list | tuple)
    images: Any = image if several else [image]
    if isinstance(image, str | Path) and (folder := expanded(image).absolute()).is_dir():
        images = load_predictor(**loading).images_in(folder)
        several = images != [str(folder)]  # else the slices of one volume
    found = predict_iter(images, spacing=spacing, hu=hu, on_bad_file=on_bad_file, **loading)
    return list(found) if several else next(found)


def predict_iter(
    images: Iterable[Image],
    *,
    model: str | Path | None = None,
    spacing: float | Sequence[float] | None = None,
    hu: bool = False,
    on_bad_file: str = "error",
    batch_size: int = 8,
    **loading: Any,
) -> Iterator[Prediction]:
    """Predicts many images one after the other; no more than ``batch_size`` are held at a time.

    The other arguments are those of :func:`predict`. They are looked at when the first prediction is asked for.
    """
    require_policy(on_bad_file)
    predictor = load_predictor(model, **loading)
    remaining = iter(images)
    while batch := list(islice(remaining, batch_size)):
        if model is None:
            refuse_demo_model(predictor.path, batch, "Give model: the output_dir or model file of a run")
        yield from predictor(batch, spacing=spacing, hu=hu, on_bad_file=on_bad_file)


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
    shipped = model is None or str(model) == DEMO_MODEL
    path = model_file(bundle_root() if model is None or shipped else model).absolute()
    if shipped and not path.is_file():
        raise InputError(
            f"The bundle has no model of its own, {path}; give model: output_dir, model.pt or model.safetensors of a "
            "run."
        )
    changed = tuple(file.stat().st_mtime_ns if file.is_file() else 0 for file in (path, sidecar_of(path)))
    return _loaded(path, changed, str(device), calibrate, alpha, unexpected_input)


@lru_cache(maxsize=4)
def _loaded(
    path: Path, changed: tuple[int, ...], device: str, calibrate: bool, alpha: float, unexpected_input: str
) -> Predictor:
    if device == "cpu" and calibrate and (export := find_export(path, alpha=alpha)):
        return OnnxPredictor(path, export, unexpected_input=unexpected_input)
    from dual_skd.serving.torch_predictor import TorchPredictor  # brings PyTorch and MONAI

    return TorchPredictor(path, device=device, calibrate=calibrate, alpha=alpha, unexpected_input=unexpected_input)
