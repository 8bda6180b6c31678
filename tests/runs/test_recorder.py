# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import logging
import math

import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.handlers import CheckpointSaver
from torch import nn

from dual_skd.errors import InputError
from dual_skd.metrics import classification_metrics, mean_logits
from dual_skd.metrics.definitions import METRICS
from dual_skd.metrics.uncertainty import Conformal, disagreement, predictive_entropy
from dual_skd.runs import MetricsRecorder, score
from dual_skd.training.evaluator import DualModelEvaluator

NAMES = ["normal", "nodule"]
IMAGES = [torch.tensor([[[x]]]) for x in (-2.0, -1.0, 0.5, 1.0, -0.5)]
LABELS = [0, 0, 1, 1, 1]


class Line(nn.Module):
    """Logits (0, a x + b) of a 1 x 1 image."""

    def __init__(self, a: float, b: float = 0.0) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a))
        self.b = b

    def forward(self, x):
        score = self.a * x.flatten(1) + self.b
        return torch.cat([torch.zeros_like(score), score], dim=1)


def evaluator(*handlers, auxiliary=None, decollate=False, records=None):
    records = records or [{"image": image, "label": label} for image, label in zip(IMAGES, LABELS, strict=True)]
    loader = DataLoader(Dataset(records), batch_size=2)
    return DualModelEvaluator(
        device="cpu", val_data_loader=loader, network=Line(1.0), auxiliary=auxiliary, decollate=decollate,
        val_handlers=list(handlers),
    )  # fmt: skip


@pytest.mark.parametrize("decollate", [False, True])
def test_student_auxiliary_and_mean_are_measured_over_the_whole_epoch(tmp_path, decollate):
    engine = evaluator(MetricsRecorder(tmp_path, NAMES), auxiliary=Line(-1.0, 0.2), decollate=decollate)
    engine.run(global_epoch=3)
    student, auxiliary = Line(1.0)(torch.stack(IMAGES)), Line(-1.0, 0.2)(torch.stack(IMAGES))
    labels = torch.tensor(LABELS)
    wanted = {
        "student": classification_metrics(student, labels),
        "auxiliary": classification_metrics(auxiliary, labels),
        "mean": classification_metrics(mean_logits(student, auxiliary), labels),
    }
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["class_names"] == NAMES
    (epoch,) = written["epochs"]
    assert epoch["epoch"] == 3 and epoch["images"] == 5
    for who, values in wanted.items():
        assert epoch[who] == pytest.approx(values, abs=1e-6)
        assert engine.state.metrics[f"{who}_macro_auc"] == pytest.approx(values["macro_auc"])
    assert engine.state.metrics["accuracy"] == pytest.approx(0.8)
    assert written["best"] == written["final"] == epoch


def test_without_auxiliary_only_the_student_is_recorded(tmp_path):
    engine = evaluator(MetricsRecorder(tmp_path, NAMES))
    engine.run()
    assert "auxiliary" not in json.loads((tmp_path / "metrics.json").read_text())["final"]
    assert not any(name.startswith(("auxiliary", "mean")) for name in engine.state.metrics)


def test_with_last_as_key_metric_the_last_epoch_is_the_best(tmp_path):
    engine = evaluator(MetricsRecorder(tmp_path, NAMES, key_metric="last"))
    for epoch, slope in ((1, 1.0), (2, -1.0)):
        engine.network.a.data.fill_(slope)
        engine.run(global_epoch=epoch)
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["best"] == written["final"] and written["best"]["epoch"] == 2
    assert score({"nll": 0.25}, "last") == -0.25  # what early stopping watches


def test_the_best_epoch_is_the_earlier_of_equals_and_a_resumed_run_goes_on(tmp_path):
    engine = evaluator(MetricsRecorder(tmp_path, NAMES, key_metric="nll"))
    for epoch, slope in ((1, 0.1), (2, 1.0), (3, 1.0), (4, -1.0)):
        engine.network.a.data.fill_(slope)
        engine.run(global_epoch=epoch)
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert [entry["epoch"] for entry in written["epochs"]] == [1, 2, 3, 4]
    assert written["best"]["epoch"] == 2 and written["final"]["epoch"] == 4

    evaluator(MetricsRecorder(tmp_path, NAMES)).run(global_epoch=3)  # resumed after epoch 2
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert [entry["epoch"] for entry in written["epochs"]] == [1, 2, 3]

    evaluator(MetricsRecorder(tmp_path, NAMES, split="test")).run()
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["test"]["images"] == 5 and len(written["epochs"]) == 3

    evaluator(MetricsRecorder(tmp_path, NAMES)).run(global_epoch=1)  # a new run in the same folder
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert len(written["epochs"]) == 1 and "test" not in written


def test_monai_checkpoints_can_be_chosen_by_a_recorded_metric(tmp_path):
    saver = CheckpointSaver(str(tmp_path), {"net": nn.Linear(1, 1)}, save_key_metric=True, key_metric_name="macro_auc",
                            key_metric_filename="best.pt")  # fmt: skip
    evaluator(MetricsRecorder(tmp_path, NAMES), saver).run()
    assert (tmp_path / "best.pt").is_file()


def test_an_undefined_metric_is_null_in_the_file_and_absent_in_the_engine(tmp_path):
    records = [{"image": image, "label": 1} for image in IMAGES]
    engine = evaluator(MetricsRecorder(tmp_path, NAMES), records=records)
    engine.run()
    assert json.loads((tmp_path / "metrics.json").read_text())["final"]["student"]["macro_auc"] is None
    assert "macro_auc" not in engine.state.metrics and "accuracy" in engine.state.metrics


@pytest.mark.parametrize("decollate", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_predictions_name_image_label_and_probabilities(tmp_path, decollate, given):
    paths = [f"scan{i}.dcm" for i in range(5)]
    records = [
        {"image": image if given else MetaTensor(image, meta={"filename_or_obj": path}), "label": label}
        for image, label, path in zip(IMAGES, LABELS, paths, strict=True)
    ]
    path = tmp_path / "out" / "predictions.csv"
    recorder = MetricsRecorder(tmp_path, NAMES, "test", predictions=path, images=paths if given else None)
    evaluator(recorder, decollate=decollate, records=records).run()
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == paths
    assert rows[0]["label"] == rows[0]["predicted"] == "normal"
    assert rows[4]["label"] == "nodule" and rows[4]["predicted"] == "normal"
    assert float(rows[2]["p_nodule"]) == pytest.approx(1 / (1 + math.exp(-0.5)), abs=1e-5)


def test_the_predictions_of_the_auxiliary_have_a_file_of_their_own(tmp_path):
    recorder = MetricsRecorder(tmp_path, NAMES, "test", predictions=tmp_path / "p.csv", images="abcde")
    evaluator(recorder, auxiliary=Line(-1.0)).run()
    with (tmp_path / "p.csv").open() as file, (tmp_path / "p_auxiliary.csv").open() as other:
        pairs = list(zip(csv.DictReader(file), csv.DictReader(other), strict=True))
    assert [(one["image"], one["label"]) for one, _ in pairs] == [(two["image"], two["label"]) for _, two in pairs]
    for one, two in pairs:  # the logits of the auxiliary are those of the student with the other sign
        assert float(one["p_nodule"]) == pytest.approx(float(two["p_normal"]), abs=1e-6)


def test_multi_label_predictions_are_recorded(tmp_path):
    records = [
        {"image": image, "label": torch.tensor([1.0, label])} for image, label in zip(IMAGES, LABELS, strict=True)
    ]
    path = tmp_path / "predictions.csv"
    engine = evaluator(MetricsRecorder(tmp_path, NAMES, multi_label=True, predictions=path), records=records)
    engine.run()
    assert engine.state.metrics["accuracy"] == pytest.approx(0.4)  # first label never predicted, second 4 of 5
    assert path.read_text().splitlines()[3].split(",")[1] == "normal|nodule"


def test_wrong_classes_key_metric_or_file_are_said_plainly(tmp_path):
    for arguments, words in (
        ({"class_names": ["a", "b", "c"]}, "gives 2 logits, but there are 3 class names"),
        ({"class_names": NAMES, "key_metric": "auc"}, "Unknown key_metric 'auc'"),
    ):
        with pytest.raises(InputError, match=words):
            evaluator(MetricsRecorder(tmp_path, **arguments)).run()
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(InputError, match="metrics.json isn't JSON"):
        evaluator(MetricsRecorder(tmp_path, NAMES)).run()


def said(caplog, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


def test_an_evaluation_says_its_numbers_only_if_asked(tmp_path, caplog):
    caplog.set_level("DEBUG", logger="dual_skd")
    engine = evaluator(MetricsRecorder(tmp_path, NAMES, "test", temperature=2.0), auxiliary=Line(-1.0))
    engine.run()
    metrics = engine.state.metrics
    assert not said(caplog, logging.INFO)  # the last words of the command say what counts
    lines = {one.partition(":")[0]: one for one in said(caplog, logging.DEBUG)}
    assert list(lines) == ["Student", "Student, calibrated", "Auxiliary", "Mean"]
    assert f": macro AUC {metrics['macro_auc']:.3f}, balanced accuracy " in lines["Student, calibrated"]
    assert lines["Student, calibrated"].endswith(f" NLL {metrics['calibrated_nll']:.3f}.")
    assert all(f" accuracy {metrics[f'{who.lower()}_accuracy']:.3f}," in lines[who]
               for who in ("Student", "Auxiliary", "Mean"))  # fmt: skip


def test_a_validation_says_nothing_unless_asked_and_no_metric_that_is_undefined(tmp_path, caplog):
    caplog.set_level("DEBUG", logger="dual_skd")
    records = [{"image": image, "label": 1} for image in IMAGES]
    evaluator(MetricsRecorder(tmp_path, NAMES), records=records).run()
    assert said(caplog, logging.INFO) == []
    (line,) = said(caplog, logging.DEBUG)
    assert line.startswith("Student: balanced accuracy ") and "AUC" not in line


def test_the_names_of_the_metrics_are_those_that_are_measured():
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert tuple(classification_metrics(logits, torch.tensor([0, 1]))) == METRICS
    assert tuple(classification_metrics(logits, torch.eye(2), multi_label=True)) == METRICS


def test_images_with_a_twin_in_training_count_in_an_entry_of_their_own(tmp_path, caplog):
    recorder = MetricsRecorder(
        tmp_path, NAMES, split="test", twins=2, key_metric="accuracy", predictions=tmp_path / "p.csv", images="abcde"
    )
    engine = evaluator(recorder, auxiliary=Line(-1.0, 0.2))
    with caplog.at_level("INFO"):
        engine.run()
    entry = json.loads((tmp_path / "metrics.json").read_text())["test"]
    logits, labels = Line(1.0)(torch.stack(IMAGES)), torch.tensor(LABELS)
    assert entry["images"] == 3 and entry["with_twins"]["images"] == 5
    assert entry["student"] == pytest.approx(classification_metrics(logits[:3], labels[:3]), abs=1e-6)
    assert entry["with_twins"]["student"] == pytest.approx(classification_metrics(logits, labels), abs=1e-6)
    assert entry["with_twins"].keys() == {"images", "student", "auxiliary", "mean"}
    assert engine.state.metrics["accuracy"] == pytest.approx(1.0)
    assert [row["image"] for row in csv.DictReader((tmp_path / "p.csv").open())] == list("abc")
    assert "accuracy 1.000 without them, 0.800 with them" in caplog.text


def test_temperature_disagreement_and_sets_reach_the_table_and_the_entry(tmp_path):
    sets = Conformal("lac", 0.2, 40, 0.45)
    recorder = MetricsRecorder(
        tmp_path, NAMES, "test", predictions=tmp_path / "p.csv", images="abcde", temperature=2.0,
        auxiliary_temperature=0.5, sets=sets,
    )  # fmt: skip
    engine = evaluator(recorder, auxiliary=Line(-1.0))
    engine.run()
    logits, labels = Line(1.0)(torch.stack(IMAGES)).detach().double(), torch.tensor(LABELS)
    p, other = (logits / 2).softmax(1).numpy(), (Line(-1.0)(torch.stack(IMAGES)).detach() / 0.5).softmax(1).numpy()
    entry = json.loads((tmp_path / "metrics.json").read_text())["test"]
    assert entry["calibrated"] == pytest.approx(classification_metrics(logits / 2, labels), abs=1e-6)
    assert entry["student"] == pytest.approx(classification_metrics(logits, labels), abs=1e-6)
    with (tmp_path / "p.csv").open() as file:
        rows = list(csv.DictReader(file))
    column = {name: [row[name] for row in rows] for name in rows[0]}
    assert [float(value) for value in column["p_nodule"]] == pytest.approx(p[:, 1], abs=1e-6)
    assert [float(value) for value in column["uncertainty"]] == pytest.approx(predictive_entropy(p), abs=1e-6)
    assert [float(value) for value in column["disagreement"]] == pytest.approx(disagreement(p, other), abs=1e-6)
    # a class is in the set from 0.55 on; of 0.62 and 0.38, or 0.56 and 0.44, one
    assert column["prediction_set"] == ["normal", "normal", "nodule", "nodule", "normal"]
    rule = {"method": "lac", "alpha": 0.2, "validation_images": 40, "threshold": 0.45, "coverage": 0.8}
    rule |= {"mean_size": 1, "single": 1, "coverage_per_class": [1, pytest.approx(2 / 3)]}
    assert entry["prediction_sets"] == rule
    # by 1 - p: sure to unsure -2, then -1 and 1, then 0.5 and -0.5 of which the last is wrong
    assert entry["selective"]["aurc"] == pytest.approx((0.5 / 4 + 1 / 5) / 5)
    measured = engine.state.measured
    assert torch.allclose(measured.logits, logits) and measured.labels.tolist() == LABELS


def test_full_sets_of_too_few_validation_images_can_be_written(tmp_path):
    sets = Conformal("lac", 0.1, 3, math.inf)
    evaluator(MetricsRecorder(tmp_path, NAMES, "test", predictions=tmp_path / "p.csv", images="abcde", sets=sets)).run()
    entry = json.loads((tmp_path / "metrics.json").read_text())["test"]
    assert entry["prediction_sets"]["threshold"] is None and entry["prediction_sets"]["mean_size"] == 2
    assert (tmp_path / "p.csv").read_text().count("normal|nodule") == 5


def test_a_split_of_twins_only_says_nothing_of_new_images(tmp_path):
    with pytest.raises(InputError, match="All 5 images of the test split have a twin"):
        evaluator(MetricsRecorder(tmp_path, NAMES, split="test", twins=5)).run()
