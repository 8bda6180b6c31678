# SPDX-License-Identifier: Apache-2.0
"""Answers by PyTorch: of every model, on every device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from torch import Tensor

from dual_skd.data.reading.preprocessing import image_transforms
from dual_skd.errors import InputError, input_error_behind
from dual_skd.metrics.probabilities import probabilities
from dual_skd.runs.devices import pick_device, to_device
from dual_skd.runs.model_file import auxiliary_temperature, conformal_rule, load_auxiliary, load_model, temperature_of
from dual_skd.serving.answering import Image, Predictor


class TorchPredictor(Predictor):
    """A model file in PyTorch.

    Args:
        path: the model file.
        device, calibrate, alpha, unexpected_input: see :func:`dual_skd.serving.predictor.predict`.
    """

    runtime = "PyTorch"

    def __init__(
        self,
        path: Path,
        *,
        device: str = "cpu",
        calibrate: bool = True,
        alpha: float = 0.1,
        unexpected_input: str = "refuse",
    ) -> None:
        self.device = pick_device(device)
        network, info = load_model(path)
        auxiliary = load_auxiliary(path)
        super().__init__(
            path, class_names=info["class_names"], preprocessing=info.get("preprocessing") or {},
            multi_label=bool(info.get("multi_label", False)),
            sets=conformal_rule(path.parent.parent, info, alpha=alpha, calibrate=calibrate),
        )  # fmt: skip
        self.networks = [(to_device(network, self.device), temperature_of(info) if calibrate else None)]
        if auxiliary is not None:
            temperature = auxiliary_temperature(path) if calibrate else None
            self.networks.append((to_device(auxiliary, self.device), temperature))
        self.transform = image_transforms(**self.preprocessing, unexpected_input=unexpected_input)
        self.after_reading = Compose(self.transform.transforms[1:])

    def prepare(self, image: Image, *, spacing: float | Sequence[float] | None = None, hu: bool = False) -> Tensor:
        try:
            if isinstance(image, str | Path):
                return self.transform({"image": str(image)})["image"]
            array, meta = self.in_memory(image, spacing, hu)
            whole = MetaTensor.ensure_torch_and_prune_meta(array.astype(np.float32), meta)  # as LoadImaged gives it
            return self.after_reading({"image": whole})["image"]
        except Exception as error:
            cause = input_error_behind(error)
            if cause is None:
                raise
            raise InputError(str(cause)) from error

    def probabilities(self, prepared: Sequence[Tensor]) -> list[np.ndarray]:
        batch = torch.stack(list(prepared)).to(self.device)
        with torch.inference_mode():
            return [
                probabilities(network(batch).float(), temperature, multi_label=self.multi_label).cpu().numpy()
                for network, temperature in self.networks
            ]
