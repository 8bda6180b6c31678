# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from dual_skd.data.corruptions import CORRUPTIONS, corrupt_input
from dual_skd.errors import InputError
from dual_skd.evaluation.robustness import RobustnessRecorder
from dual_skd.metrics import classification_metrics
from dual_skd.runs import MetricsRecorder
from dual_skd.training.evaluator import DualModelEvaluator

GENERATOR = torch.Generator().manual_seed(0)
LABELS = torch.tensor([0, 1] * 6)
# the classes differ in contrast
IMAGES = (torch.rand(12, 1, 16, 16, generator=GENERATOR) - 0.5) * (0.4 + LABELS.reshape(-1, 1, 1, 1))


class Spread(nn.Module):
    """Logits (0, a (s - 0.3)) of an image with standard deviation s."""

    def __init__(self, a: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a))

    def forward(self, x):
        score = self.a * (x.flatten(1).std(dim=1, keepdim=True) - 0.3)
        return torch.cat([torch.zeros_like(score), score], dim=1)


def evaluate(recorder, *, batch_size: int = 5, auxiliary: bool = True) -> None:
    batches = zip(IMAGES.split(batch_size), LABELS.split(batch_size), strict=True)
    DualModelEvaluator(
        device="cpu", val_data_loader=[{"image": image, "label": label} for image, label in batches],
        network=Spread(9.0), auxiliary=Spread(-9.0) if auxiliary else None, val_handlers=[recorder], decollate=False,
    ).run()  # fmt: skip


def entry(folder) -> dict:
    return json.loads((folder / "metrics.json").read_text())["robustness"]


def test_every_corruption_and_strength_is_measured_as_if_the_images_were_given_so(tmp_path):
    evaluate(RobustnessRecorder(tmp_path, source="here"))
    found = entry(tmp_path)
    assert found["images"] == 12 and found["source"] == "here" and found["split"] == "test"
    assert list(found["corrupted"]) == list(CORRUPTIONS)
    assert all(list(of) == ["1", "2", "3", "4", "5"] for of in found["corrupted"].values())
    for who, a in (("student", 9.0), ("auxiliary", -9.0)):
        assert found["clean"][who] == pytest.approx(classification_metrics(Spread(a)(IMAGES), LABELS), abs=1e-6)
        for name in ("contrast", "noise", "blur"):
            logits = Spread(a)(corrupt_input(IMAGES, name, 4))
            assert found["corrupted"][name]["4"][who] == pytest.approx(classification_metrics(logits, LABELS), abs=1e-6)
    values = [of["student"]["nll"] for name in CORRUPTIONS for of in found["corrupted"][name].values()]
    assert found["mean"]["student"]["nll"] == pytest.approx(sum(values) / 35)
    # the network tells the classes by their contrast, and without it calls all images normal
    assert found["clean"]["student"]["accuracy"] == 1
    assert found["corrupted"]["contrast"]["5"]["student"]["accuracy"] == 0.5


def test_the_size_of_batches_changes_nothing(tmp_path):
    evaluate(RobustnessRecorder(tmp_path / "a"), batch_size=12)
    evaluate(RobustnessRecorder(tmp_path / "b"), batch_size=1)
    for name in CORRUPTIONS:
        one, two = (entry(tmp_path / side)["corrupted"][name]["3"]["student"] for side in "ab")
        assert one == pytest.approx(two, abs=1e-5)


def test_some_corruptions_strengths_and_the_student_alone_can_be_asked_for_beside_the_other_entries(tmp_path):
    (tmp_path / "metrics.json").write_text('{"test": {"images": 12}}')
    evaluate(RobustnessRecorder(tmp_path, corruptions=["jpeg"], strengths=[2], auxiliary=False))
    assert json.loads((tmp_path / "metrics.json").read_text())["test"] == {"images": 12}
    assert list(entry(tmp_path)["clean"]) == ["student"]
    assert entry(tmp_path)["corrupted"].keys() == {"jpeg"} and entry(tmp_path)["corrupted"]["jpeg"].keys() == {"2"}
    evaluate(RobustnessRecorder(tmp_path, strengths=[1]), auxiliary=False)
    assert list(entry(tmp_path)["clean"]) == ["student"]


def test_those_of_another_data_set_stand_beside_the_runs_own(tmp_path):
    evaluate(RobustnessRecorder(tmp_path, corruptions=["jpeg"], strengths=[2]))
    own = entry(tmp_path)
    (tmp_path / "metrics.json").write_text(json.dumps({"robustness": own, "hospB": {"images": 12}}))
    evaluate(RobustnessRecorder(tmp_path, split="hospB", corruptions=["noise"], strengths=[1]))
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["robustness"] == own and found["hospB"]["images"] == 12
    assert found["hospB"]["robustness"]["corrupted"].keys() == {"noise"}


def test_images_with_a_twin_in_training_do_not_count(tmp_path):
    evaluate(RobustnessRecorder(tmp_path, corruptions=["blur"], twins=4))
    logits = Spread(9.0)(corrupt_input(IMAGES[:8], "blur", 1))
    assert entry(tmp_path)["images"] == 8
    assert entry(tmp_path)["corrupted"]["blur"]["1"]["student"] == pytest.approx(
        classification_metrics(logits, LABELS[:8]), abs=1e-6
    )


def test_a_mean_over_an_undefined_metric_is_null(tmp_path):
    evaluate(RobustnessRecorder(tmp_path, corruptions=["blur"], twins=11))  # one image: no AUC
    assert entry(tmp_path)["mean"]["student"]["macro_auc"] is None
    assert entry(tmp_path)["mean"]["student"]["accuracy"] in (0, 1)


def test_the_evaluation_itself_is_left_as_it_is(tmp_path):
    for folder, handlers in (("alone", []), ("beside", [RobustnessRecorder(tmp_path / "beside", strengths=[5])])):
        DualModelEvaluator(
            device="cpu", val_data_loader=[{"image": IMAGES, "label": LABELS}], network=Spread(9.0), decollate=False,
            val_handlers=[MetricsRecorder(tmp_path / folder, ["flat", "rich"], "test"), *handlers],
        ).run()  # fmt: skip
    one, two = (json.loads((tmp_path / name / "metrics.json").read_text())["test"] for name in ("alone", "beside"))
    assert one == two


def test_unknown_corruptions_and_strengths_are_refused(tmp_path):
    for arguments in ({"corruptions": ["fog"]}, {"strengths": [0]}, {"strengths": []}):
        with pytest.raises(InputError, match="corruptions are some of noise, .* and strengths of 1 to 5, found"):
            RobustnessRecorder(tmp_path, **arguments)
