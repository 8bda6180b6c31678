# SPDX-License-Identifier: Apache-2.0
"""Two processes that evaluate shares of unequal length write what one process would."""

from __future__ import annotations

import json
import os

import pytest
import torch
import torch.distributed as dist
from ignite.engine import Engine
from torch import multiprocessing

from dual_skd.metrics import classification_metrics
from dual_skd.runs import MetricsRecorder

LOGITS = torch.tensor([[2.0, 0], [0, 1], [1, 0], [0, 3], [1, 2]])
LABELS = torch.tensor([0, 1, 1, 1, 0])
SHARES = (slice(0, 3), slice(3, 5))


def evaluate_share(rank: int, directory: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    dist.init_process_group("gloo", init_method=f"file://{directory}/meeting", rank=rank, world_size=2)
    engine = Engine(lambda engine, batch: {"pred": LOGITS[SHARES[rank]], "label": LABELS[SHARES[rank]]})
    engine.state.device, engine.state.rank = torch.device("cpu"), rank
    MetricsRecorder(directory, ["a", "b"]).attach(engine)
    engine.run([0])
    if rank == 1:
        torch.save(engine.state.metrics["student_nll"], f"{directory}/other.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(
    not hasattr(os, "fork") or not dist.is_gloo_available(), reason="needs fork and a PyTorch with gloo"
)
def test_unequal_shares_of_two_processes_are_joined(tmp_path):
    # Forked, as fresh processes would spend half a minute on imports.
    multiprocessing.start_processes(evaluate_share, (str(tmp_path),), nprocs=2, start_method="fork")
    found = json.loads((tmp_path / "metrics.json").read_text())["final"]
    wanted = classification_metrics(LOGITS, LABELS)
    assert found["images"] == 5
    assert found["student"] == pytest.approx(wanted)
    assert torch.load(tmp_path / "other.pt", weights_only=True) == pytest.approx(wanted["nll"])
