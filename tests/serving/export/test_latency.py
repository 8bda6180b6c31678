# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import time

import numpy as np
import pytest
import torch
from tiny_run import ARCHITECTURE

from dual_skd.networks.build import build_network
from dual_skd.serving.export import latency
from dual_skd.serving.export.worker import run_module


def test_the_median_is_of_the_processor_with_one_thread_and_of_the_clock_with_more():
    seen = []

    def sleeps(images):
        seen.append(images)
        time.sleep(0.01)

    clock = latency.milliseconds(sleeps, (4, 1, 3, 3), 2, 0.1)
    assert 10 <= clock < 200
    assert latency.milliseconds(sleeps, (4, 1, 3, 3), 1, 0.1) < 5
    assert seen[0].shape == (4, 1, 3, 3) and seen[0].dtype == np.float32 and np.ptp(seen[0]) > 1


def test_a_batch_that_would_fill_the_memory_is_left_out_but_one_image_never():
    assert latency.milliseconds(None, (32, 1, 128, 128, 128), 1, 0) is None
    few = latency.milliseconds(lambda images: None, (1, 1, 8, 8), 1, 0)
    assert few is not None


def test_peak_memory_counts_what_was_held_and_given_back_and_not_what_the_parent_holds(tmp_path):
    (tmp_path / "program.py").write_text(
        "import numpy, pathlib\n"
        "from dual_skd.serving.export.latency import peak_memory\n"
        "before = peak_memory()\n"
        "numpy.ones(10**7)\n"  # 80 MB, gone at once
        "pathlib.Path('seen').write_text(f'{before} {peak_memory()}')\n"
    )
    run_module("program", [], work=tmp_path, seconds=120)
    before, after = map(int, (tmp_path / "seen").read_text().split())
    assert before < 150e6 < latency.peak_memory() and 75e6 < after - before < 90e6


@pytest.mark.parametrize("wants_logits", [True, False])
def test_an_answer_has_times_memory_and_the_logits_of_all_images(tmp_path, wants_logits):
    images = np.random.default_rng(0).uniform(-1, 1, (35, 1, 16, 16)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    network = build_network(**ARCHITECTURE).eval()
    torch.jit.save(torch.jit.trace(network, torch.zeros(1, 1, 16, 16)), tmp_path / "model.ts")
    given = {
        "runtime": "torchscript", "source": str(tmp_path / "model.ts"), "shape": [1, 16, 16], "threads": 1,
        "images": str(tmp_path / "images.npy") if wants_logits else None, "seconds": 0.01,
        "logits": str(tmp_path / "logits.npy"), "answer": str(tmp_path / "answer.json"),
    }  # fmt: skip
    latency.main([json.dumps(given)])
    found = json.loads((tmp_path / "answer.json").read_text())
    assert found["ms"]["32"] > found["ms"]["1"] > 0 and found["peak_mb"] > 10
    assert (tmp_path / "logits.npy").is_file() == wants_logits
    if wants_logits:
        with torch.no_grad():
            expected = network(torch.from_numpy(images)).numpy()
        np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, atol=1e-6)
