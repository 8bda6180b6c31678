# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.handlers import CheckpointLoader
from safetensors.torch import load_file
from torch import nn

from dual_skd import outputs
from dual_skd.errors import InputError
from dual_skd.evaluation import fit_conformal, fit_temperature, read_predictions, write_predictions
from dual_skd.evaluation.recorder import Measured
from dual_skd.networks import build_network
from dual_skd.outputs import (
    BestModelSaver,
    RunRecord,
    auxiliary_temperature,
    bundle_root,
    conformal_rule,
    describe_architecture,
    find_model,
    load_auxiliary,
    load_model,
    save_model,
    temperature_of,
)
from dual_skd.pretrained import load_pretrained

ARCHITECTURE = {"name": "resnet18", "num_classes": 2, "in_channels": 1, "spatial_dims": 2,
                "layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4]}  # fmt: skip
NAMES = ["normal", "nodule"]


def network():
    return build_network(**ARCHITECTURE)


def save(directory, net, **options):
    return save_model(directory, net, **({"architecture": ARCHITECTURE, "class_names": NAMES} | options))


@pytest.mark.parametrize("chosen", ["model.pt", "model.safetensors", "", ".."])
def test_a_saved_model_is_rebuilt_with_the_same_logits(tmp_path, chosen):
    net = network().train()
    net(torch.randn(4, 1, 32, 32))  # moves the normalisation statistics
    save(tmp_path / "models", net, preprocessing={"image_size": (32, 32), "window": None})
    loaded, info = load_model(tmp_path / "models" / chosen)
    assert not loaded.training
    x = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(loaded(x), net.eval()(x), rtol=0, atol=0)
    assert info == {
        "architecture": ARCHITECTURE, "class_names": NAMES, "preprocessing": {"image_size": [32, 32], "window": None},
        "multi_label": False,
    }  # fmt: skip


def test_model_file_is_plain_and_fits_monai_and_our_own_pretrained(tmp_path):
    net = network()
    path = save(tmp_path, nn.DataParallel(net), preprocessing={"mean": np.float32(0.5), "file": Path("a")})
    content = torch.load(path, weights_only=True)
    assert content._metadata[""]["preprocessing"] == {"mean": 0.5, "file": "a"}
    assert content.keys() == load_file(tmp_path / "model.safetensors").keys() == net.state_dict().keys()
    fresh = network()
    fresh.load_state_dict(content)
    assert torch.equal(fresh.conv1.weight, net.conv1.weight)
    other, engine = network(), Engine(lambda engine, batch: None)
    CheckpointLoader(str(path), {"model": other}).attach(engine)
    engine.run([0])
    assert torch.equal(other.conv1.weight, net.conv1.weight)
    options = {"layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4]}
    assert torch.equal(load_pretrained("resnet18", str(path), **options)["conv1.weight"], net.conv1.weight)


def test_a_file_of_an_older_version_with_a_nested_state_dict_is_read(tmp_path):
    net = network().eval()
    torch.save({"model": net.state_dict(), "architecture": ARCHITECTURE, "class_names": NAMES}, tmp_path / "model.pt")
    loaded, info = load_model(tmp_path)
    assert info == {"architecture": ARCHITECTURE, "class_names": NAMES}
    assert torch.equal(loaded.conv1.weight, net.conv1.weight)


def test_no_half_written_file_is_left(tmp_path, monkeypatch):
    save(tmp_path, network())
    before = (tmp_path / "model.pt").read_bytes()

    def killed(content, path):
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(outputs.torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, network())
    assert (tmp_path / "model.pt").read_bytes() == before


def test_unusable_model_files_are_named(tmp_path):
    with pytest.raises(InputError, match="No weights file"):
        load_model(tmp_path)
    torch.save({"model": network().state_dict()}, tmp_path / "model.pt")
    with pytest.raises(InputError, match="no architecture"):
        load_model(tmp_path)
    save(tmp_path, network(), architecture=ARCHITECTURE | {"channels": [8, 8, 8, 8]})
    with pytest.raises(InputError, match="don't belong together"):
        load_model(tmp_path)
    with pytest.raises(InputError, match="plain values only"):
        save(tmp_path, network(), preprocessing={"transform": object()})


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


def test_run_record_holds_what_made_the_model(tmp_path):
    record = RunRecord(
        tmp_path, seed=7, config={"epochs": 2, "output_dir": Path("out")}, data_hash="abc", input_shape=(1, 32, 32),
        architectures={"student": ARCHITECTURE}, extra={"selection": {"student": {"rule": "uniform"}}},
    )  # fmt: skip
    trainer = Engine(lambda engine, batch: None)
    trainer.state.device = torch.device("cpu")
    seen = []
    record.attach(trainer)
    trainer.add_event_handler(
        Events.EPOCH_COMPLETED, lambda: seen.append(json.loads((tmp_path / "run.json").read_text()))
    )
    trainer.run([0], max_epochs=2)
    assert seen[0]["finished"] is None and len(seen[0]["timings"]["epochs"]) == 1
    written = json.loads((tmp_path / "run.json").read_text())
    assert written["seed"] == 7 and written["data_hash"] == "abc" and written["config"]["output_dir"] == "out"
    assert written["finished"] >= written["started"]
    assert [entry["epoch"] for entry in written["timings"]["epochs"]] == [1, 2]
    assert written["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert written["selection"]["student"]["rule"] == "uniform"
    student = written["networks"]["student"]
    assert student["parameters"] == sum(p.numel() for p in network().parameters())
    assert student["macs"] == describe_architecture(ARCHITECTURE, (1, 32, 32))["macs"] > 0
    assert written["device"].startswith("cpu")


def test_the_bundle_is_found_from_any_folder(tmp_path, monkeypatch):
    root = Path(bundle_root())
    monkeypatch.chdir(tmp_path)
    assert Path(bundle_root()) == root
    assert (root / "configs").is_dir()


def test_the_model_of_the_run_is_preferred_to_that_of_the_bundle(tmp_path):
    run, root = tmp_path / "run", tmp_path / "bundle"
    with pytest.raises(InputError, match="train one first"):
        find_model(run, root)
    ours = save(root / "models", network())
    assert find_model(run, root) == str(ours)
    assert find_model(run, root) != find_model(save(run / "models", network()).parent.parent, root)


def test_an_auxiliary_is_found_beside_its_student_and_not_kept_from_a_former_run(tmp_path):
    net, auxiliary = network(), network()
    options = {"architecture": ARCHITECTURE, "class_names": NAMES}
    assert load_auxiliary(save(tmp_path, net)) is None
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
    assert temperature_of(info) == pytest.approx(4 / math.log(2)) and info["calibration"]["images"] == 3
    assert load_model(tmp_path / "model.safetensors")[1]["calibration"] == info["calibration"]
    assert auxiliary_temperature(tmp_path / "model.pt") == pytest.approx(20)  # worse than none: the upper bound
    table = read_predictions(path)
    assert table.images == ["a", "b", "c"] and table.labels.tolist() == [0, 0, 1]
    assert table.probabilities == pytest.approx(torch.tensor(LOGITS).softmax(1).numpy(), abs=1e-6)


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


def test_prediction_sets_are_calibrated_on_the_models_own_validation_predictions(tmp_path, caplog):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(40, 2, generator=generator).double()
    labels = torch.multinomial((logits / 2).softmax(1), 1, generator=generator)[:, 0]
    path = tmp_path / "predictions_validation.csv"
    write_predictions(path, list(map(str, range(40))), labels.numpy(), logits.softmax(1).numpy(), NAMES)
    fitted = fit_temperature(logits, labels)
    info = {"class_names": NAMES, "multi_label": False, "calibration": fitted._asdict()}
    for calibrate, divisor in ((True, fitted.temperature), (False, 1.0)):
        wanted = fit_conformal((logits / divisor).softmax(1), labels, alpha=0.2)
        found = conformal_rule(tmp_path, info, alpha=0.2, calibrate=calibrate)
        assert found[:3] == wanted[:3] and found.threshold == pytest.approx(wanted.threshold, abs=1e-5)
    for other in ({"calibration": fitted._asdict() | {"nll_before": fitted.nll_before * 1.1}},
                  {"calibration": fitted._asdict() | {"images": 41}}, {"class_names": NAMES[::-1]}):  # fmt: skip
        caplog.clear()
        assert conformal_rule(tmp_path, info | other) is None and "isn't of this model" in caplog.text
    assert conformal_rule(tmp_path, info | {"multi_label": True}) is None
    assert conformal_rule(tmp_path, {"class_names": NAMES}) is None
    assert conformal_rule(tmp_path / "elsewhere", info) is None
