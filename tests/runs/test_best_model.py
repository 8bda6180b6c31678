# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch
from ignite.engine import Engine

from dual_skd.metrics import fit_temperature, read_predictions
from dual_skd.networks.build import build_network
from dual_skd.runs.best_model import BestModelSaver
from dual_skd.runs.model_file import auxiliary_temperature, load_auxiliary, load_model, save_model, temperature_of
from dual_skd.runs.recorder import Measured

ARCHITECTURE = {"name": "resnet18", "num_classes": 2, "in_channels": 1, "spatial_dims": 2,
                "layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4]}  # fmt: skip
NAMES = ["normal", "nodule"]


def network():
    return build_network(**ARCHITECTURE)


def engine_with(metrics: dict, epoch: int) -> Engine:
    engine = Engine(lambda engine, batch: None)
    engine.state.metrics, engine.state.epoch = metrics, epoch
    return engine


def test_best_model_is_kept_and_the_earlier_of_equals(tmp_path):
    net, auxiliary = network(), network()
    saver = BestModelSaver(tmp_path, net, architecture=ARCHITECTURE, class_names=NAMES, auxiliary=auxiliary)
    for epoch, (value, mark) in enumerate([(0.7, 1.0), (0.9, 2.0), (0.9, 3.0), (0.8, 4.0)], start=1):
        net.fc.bias.data.fill_(mark)
        auxiliary.fc.bias.data.fill_(-mark)
        saver(engine_with({"macro_auc": value}, epoch))
    assert load_model(tmp_path)[0].fc.bias.tolist() == [2, 2]
    assert load_model(tmp_path / "auxiliary.pt")[0].fc.bias.tolist() == [-2, -2]
    assert not (tmp_path / "auxiliary.safetensors").exists()
    resumed = BestModelSaver(tmp_path, net, architecture=ARCHITECTURE, class_names=NAMES)
    resumed.load_state_dict(saver.state_dict())
    resumed(engine_with({"macro_auc": 0.85}, 5))
    assert load_model(tmp_path)[0].fc.bias.tolist() == [2, 2]


@pytest.mark.parametrize(("former", "epoch"), [(True, 1), (False, 2)])
def test_a_brier_score_that_was_kept_on_the_former_scale_is_taken_for_what_it_is(tmp_path, former, epoch):
    saver = BestModelSaver(tmp_path, network(), architecture=ARCHITECTURE, class_names=NAMES, key_metric="brier")
    saver(engine_with({"brier": 0.2, "nll": 0.5}, 1))
    state = saver.state_dict()
    resumed = BestModelSaver(tmp_path, network(), architecture=ARCHITECTURE, class_names=NAMES, key_metric="brier")
    if former:
        del state["revision"]  # 0.2 of 2 is 0.1 of 1
    resumed.load_state_dict(state)
    resumed(engine_with({"brier": 0.15, "nll": 0.5}, 2))
    assert resumed.best_epoch == epoch


def test_of_equal_epochs_the_one_with_the_lower_nll_is_kept_by_a_resumed_run_too(tmp_path):
    net = network()
    saver = BestModelSaver(tmp_path, net, architecture=ARCHITECTURE, class_names=NAMES)
    for epoch, nll in enumerate([0.4, 0.1, 0.2], start=1):
        saver(engine_with({"macro_auc": 1.0, "nll": nll}, epoch))
    assert saver.best_epoch == 2
    resumed = BestModelSaver(tmp_path, net, architecture=ARCHITECTURE, class_names=NAMES)
    resumed.load_state_dict(saver.state_dict())
    resumed(engine_with({"macro_auc": 1.0, "nll": 0.15}, 4))
    assert resumed.best_epoch == 2
    resumed(engine_with({"macro_auc": 1.0, "nll": 0.05}, 5))
    assert resumed.best_epoch == 5


def test_best_model_by_a_loss_is_the_smallest(tmp_path):
    net = network()
    saver = BestModelSaver(tmp_path, net, architecture=ARCHITECTURE, class_names=NAMES, key_metric="nll")
    for value, mark in [(0.7, 1.0), (0.5, 2.0), (0.9, 3.0)]:
        net.fc.bias.data.fill_(mark)
        saver(engine_with({"nll": value}, int(mark)))
    assert load_model(tmp_path)[0].fc.bias.tolist() == [2, 2]


def test_with_last_the_last_epoch_is_kept_and_a_missing_validation_is_said(tmp_path, caplog):
    net = network()
    saver = BestModelSaver(tmp_path, net, architecture=ARCHITECTURE, class_names=NAMES, key_metric="last")
    for value, mark in [(0.7, 1.0), (0.5, 2.0), (0.9, 3.0)]:
        net.fc.bias.data.fill_(mark)
        saver(engine_with({"nll": value}, int(mark)))
    assert load_model(tmp_path)[0].fc.bias.tolist() == [3, 3] and "is kept" not in caplog.text
    trainer = Engine(lambda engine, batch: None)
    saver.keep_last(trainer)
    trainer.run([0], max_epochs=4)
    assert "The last epoch with a validation, 3, is kept" in caplog.text


def test_an_undefined_key_metric_still_leaves_a_model_and_a_warning(tmp_path, caplog):
    saver = BestModelSaver(tmp_path, network(), architecture=ARCHITECTURE, class_names=NAMES)
    saver(engine_with({"accuracy": 0.5}, 1))
    assert (tmp_path / "model.pt").is_file()
    assert "Key metric macro_auc isn't defined" in caplog.text
    saver(engine_with({"macro_auc": 0.5}, 2))
    assert saver.best_epoch == 2


def test_an_auxiliary_is_found_beside_its_student_and_not_kept_from_a_former_run(tmp_path):
    net, auxiliary = network(), network()
    options = {"architecture": ARCHITECTURE, "class_names": NAMES}
    assert load_auxiliary(save_model(tmp_path, net, **options)) is None
    BestModelSaver(tmp_path, net, auxiliary=auxiliary, **options)(engine_with({"macro_auc": 0.5}, 1))
    found = load_auxiliary(tmp_path / "model.pt")
    assert torch.equal(found.conv1.weight, auxiliary.conv1.weight) and not found.training
    BestModelSaver(tmp_path, net, **options)(engine_with({"macro_auc": 0.5}, 1))  # a run without auxiliary
    assert load_auxiliary(tmp_path / "model.pt") is None


def measured(logits, labels=(0, 0, 1), images=("a", "b", "c"), auxiliary=None) -> Measured:
    return Measured(torch.tensor(logits).double(), torch.tensor(labels), list(images), auxiliary)


LOGITS = [[4.0, 0.0], [4.0, 0.0], [4.0, 0.0]]  # right twice of three times: log 2 were honest


def test_the_temperature_of_the_best_epoch_and_its_predictions_are_kept(tmp_path):
    path = tmp_path / "predictions_validation.csv"
    options = {"architecture": ARCHITECTURE, "class_names": NAMES, "predictions": path}
    saver = BestModelSaver(tmp_path, network(), auxiliary=network(), **options)
    for value, logits in ((0.5, [[9.0, 0.0]] * 3), (0.9, LOGITS), (0.7, [[0.0, 1.0]] * 3)):
        engine = engine_with({"macro_auc": value}, 1)
        engine.state.measured = measured(logits, auxiliary=-torch.tensor(logits))
        saver(engine)
    info = load_model(tmp_path)[1]
    assert info["calibration"] == fit_temperature(torch.tensor(LOGITS), torch.tensor([0, 0, 1]))._asdict()
    assert 1 < temperature_of(info) < 4 / math.log(2) and info["calibration"]["patients"] is None
    assert load_model(tmp_path / "model.safetensors")[1]["calibration"] == info["calibration"]
    assert auxiliary_temperature(tmp_path / "model.pt") > temperature_of(info)  # worse than none, of three images
    table = read_predictions(path)
    assert table.images == ["a", "b", "c"] and table.labels.tolist() == [0, 0, 1]
    assert table.probabilities == pytest.approx(torch.tensor(LOGITS).softmax(1).numpy(), abs=1e-6)


def test_the_log_and_the_file_say_on_how_many_images_and_patients_the_temperature_rests(tmp_path, caplog):
    caplog.set_level("DEBUG")
    engine = engine_with({"macro_auc": 0.5}, 1)
    engine.state.measured = measured(LOGITS)
    BestModelSaver(
        tmp_path, network(), architecture=ARCHITECTURE, class_names=NAMES, patients={"a": "one", "b": "one", "c": ""}
    )(engine)
    assert "from 3 images of 2 patients; so few say little, so it is held near 1: NLL" in caplog.text
    found = load_model(tmp_path)[1]["calibration"]
    assert found["images"] == 3 and found["patients"] == 2
    assert found == fit_temperature(torch.tensor(LOGITS), torch.tensor([0, 0, 1]), patients=["a", "a", ""])._asdict()


def test_without_validation_there_is_no_temperature_and_no_table_of_a_former_run(tmp_path, caplog):
    path = tmp_path / "predictions_validation.csv"
    path.write_text("of a former run")
    saver = BestModelSaver(tmp_path, network(), architecture=ARCHITECTURE, class_names=NAMES, predictions=path)
    trainer = Engine(lambda engine, batch: None)
    saver.keep_last(trainer)
    trainer.run([0])
    assert temperature_of(load_model(tmp_path)[1]) is None and not path.exists()
    assert "uncalibrated (temperature 1)" in caplog.text
    assert auxiliary_temperature(tmp_path / "model.pt") is None


@pytest.mark.parametrize("key_metric, images, said", [("nll", 29, 1), ("nll", 30, 0), ("last", 1, 0)])
def test_few_images_that_choose_the_epoch_are_told_once(tmp_path, caplog, key_metric, images, said):
    saver = BestModelSaver(tmp_path, network(), architecture=ARCHITECTURE, class_names=NAMES, key_metric=key_metric)
    for epoch, nll in enumerate((0.5, 0.4), start=1):
        engine = engine_with({"nll": nll}, epoch)
        engine.state.measured = measured([[1.0, 0.0]] * images, [0] * images, [])
        saver(engine)
    assert caplog.text.count(f"{images} validation images decide by nll which epoch is kept") == said
