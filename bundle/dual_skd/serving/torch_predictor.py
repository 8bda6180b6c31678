# SPDX-License-Identifier: Apache-2.0
"""Predictions by PyTorch: of every model, on every device; ``configs/inference.json`` takes its parts from here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from monai.utils import ensure_tuple_rep
from torch import Tensor

from dual_skd.data.reading.preprocessing import image_transforms
from dual_skd.errors import plain_input_errors
from dual_skd.metrics.probabilities import probabilities
from dual_skd.runs.devices import pick_device, to_device
from dual_skd.runs.model_file import auxiliary_temperature, conformal_rule, load_auxiliary, load_model, temperature_of
from dual_skd.serving.prediction import PredictionRules
from dual_skd.serving.predictor_base import Image, Predictor


class TorchPredictor(Predictor):
    """A model file in PyTorch.

    Args:
        path: the model file.
        disagreement: load the auxiliary too, where there is one.
        device, calibrate, alpha, unexpected_input: see :func:`dual_skd.serving.predictor.predict`.
    """

    runtime = "PyTorch"

    def __init__(
        self,
        path: str | Path,
        *,
        device: str | torch.device = "cpu",
        calibrate: bool = True,
        alpha: float = 0.1,
        unexpected_input: str = "refuse",
        disagreement: bool = True,
    ) -> None:
        path = Path(path)
        self.device = pick_device(device)
        network, self.info = load_model(path)
        auxiliary = load_auxiliary(path) if disagreement else None
        rules = PredictionRules(
            self.info["class_names"],
            bool(self.info.get("multi_label", False)),
            conformal_rule(path.parent.parent, self.info, alpha=alpha, calibrate=calibrate),
            auxiliary is not None,
        )
        super().__init__(path, self.info.get("preprocessing") or {}, rules)
        self.network = to_device(network, self.device)
        self.auxiliary = None if auxiliary is None else to_device(auxiliary, self.device)
        self.temperature = temperature_of(self.info) if calibrate else None
        self.auxiliary_temperature = auxiliary_temperature(path) if calibrate else None
        self.transform = image_transforms(**self.preprocessing, unexpected_input=unexpected_input)
        self.after_reading = Compose(self.transform.transforms[1:])

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of a prepared image, (1, H, W[, D])."""
        options = self.preprocessing
        return (1, *ensure_tuple_rep(options.get("image_size", 96), options.get("spatial_dims", 2)))

    def prepare(self, image: Image, *, spacing: float | Sequence[float] | None = None, hu: bool = False) -> Tensor:
        with plain_input_errors():
            if isinstance(image, str | Path):
                return self.transform({"image": str(image)})["image"]
            array, meta = self.read_array(image, spacing, hu)
            read = MetaTensor.ensure_torch_and_prune_meta(array.astype(np.float32), meta)  # as LoadImaged gives it
            return self.after_reading({"image": read})["image"]

    def probabilities(self, prepared: Sequence[Tensor]) -> list[np.ndarray]:
        batch = torch.stack(list(prepared)).to(self.device)
        with torch.inference_mode():
            found = [self.student_probabilities(self.network(batch).float())]
            if self.auxiliary is not None:
                found.append(self.auxiliary_probabilities(self.auxiliary(batch).float()))
        return [one.cpu().numpy() for one in found]

    def student_probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities of the student's logits, (N, K) or (K,) of one image."""
        return self._probabilities(logits, self.temperature)

    def auxiliary_probabilities(self, logits: Tensor) -> Tensor:
        """The same of the auxiliary's."""
        return self._probabilities(logits, self.auxiliary_temperature)

    def _probabilities(self, logits: Tensor, temperature: float | None) -> Tensor:
        rows = logits.reshape(-1, logits.shape[-1])
        return probabilities(rows, temperature, multi_label=self.rules.multi_label).reshape(logits.shape)
