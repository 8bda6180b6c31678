# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax

from dual_skd.metrics.probabilities import probabilities

LOGITS = np.array([[-3.0, 0.5, 2.0], [900.0, -900.0, 0.0]])


@pytest.mark.parametrize("temperature", [None, 2.5])
def test_probabilities_are_scipys_for_arrays_and_tensors(temperature):
    scaled = LOGITS / (temperature or 1)
    for multi_label, wanted in ((False, softmax(scaled, axis=1)), (True, expit(scaled))):
        found = probabilities(LOGITS, temperature, multi_label=multi_label)
        tensor = probabilities(torch.from_numpy(LOGITS), temperature, multi_label=multi_label)
        assert isinstance(found, np.ndarray) and isinstance(tensor, torch.Tensor)
        np.testing.assert_allclose(found, wanted)
        np.testing.assert_allclose(tensor.numpy(), wanted)
