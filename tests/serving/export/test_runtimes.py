# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_run import ARCHITECTURE, save_tiny

from dual_skd.runs.model_file import load_model
from dual_skd.serving.export.formats import definition
from dual_skd.serving.export.runtimes import open_artefact


@pytest.fixture(autouse=True)
def same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_model_file_gives_its_logits_on_the_threads_asked_for(tmp_path):
    model = save_tiny(tmp_path)
    images = np.random.default_rng(0).uniform(-1, 1, (3, 1, 32, 32)).astype(np.float32)
    found = open_artefact("eager", str(model), 2)(images)
    assert torch.get_num_threads() == 2 and found.dtype == np.float32
    with torch.no_grad():
        np.testing.assert_allclose(found, load_model(model)[0](torch.from_numpy(images)).numpy(), atol=1e-6)


def test_an_architecture_is_built_with_random_weights():
    found = open_artefact("eager", definition(ARCHITECTURE), 1)(np.zeros((2, 1, 32, 32), np.float32))
    assert found.shape == (2, 2) and np.isfinite(found).all()
