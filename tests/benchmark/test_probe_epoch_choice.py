# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from scripts.benchmark.probes import epoch_choice
from scripts.benchmark.probes.epoch_choice import draws

LABELS = torch.tensor([0, 1] * 10)


def logits_of(certainty: float) -> torch.Tensor:
    return torch.stack([certainty * (LABELS == 0), certainty * (LABELS == 1)], dim=1)


def test_a_metric_chooses_its_best_epoch_and_last_the_last_one():
    logits = torch.stack([logits_of(1.0), logits_of(4.0), logits_of(-1.0)])
    found = draws(logits, LABELS, [str(n) for n in range(20)], images=6, count=5)
    assert [epoch for epoch, _ in found["nll"]] == [2] * 5 and [epoch for epoch, _ in found["last"]] == [3] * 5
    # of the first two, both perfect by AUC, the one with the lower NLL
    assert [epoch for epoch, _ in found["macro_auc"]] == [2] * 5
    assert found["nll"][0][1]["nll"] == pytest.approx(torch.tensor(-4.0).exp().log1p().item(), rel=1e-4)
    assert found["last"][0][1]["accuracy"] == 0


def test_images_of_a_patient_are_drawn_together(monkeypatch):
    patients = [str(n // 4) for n in range(20)]
    seen = []
    measure = epoch_choice.classification_metrics
    monkeypatch.setattr(epoch_choice, "classification_metrics", lambda z, y: seen.append(len(y)) or measure(z, y))
    draws(logits_of(1.0)[None], LABELS, patients, images=5, count=3)
    assert set(seen) == {8, 12}  # two patients of four images, and the other three


@pytest.mark.parametrize(
    ("labels", "images", "words"),
    [
        (LABELS, 1, "draws of 1 from 20 validation images, which are of 2 of the 2 classes, can't hold and leave"),
        (LABELS, 20, "draws of 20 from 20"),
        (0 * LABELS, 6, "which are of 1 of the 2 classes, can't hold"),
        ((torch.arange(20) == 3).long(), 6, "hardly ever hold and leave every class; choose another --images"),
    ],
)
def test_draws_that_can_not_have_every_class_end_with_a_sentence(labels, images, words):
    with pytest.raises(SystemExit, match=words):
        draws(logits_of(1.0)[None], labels, [str(n) for n in range(20)], images=images, count=3)
