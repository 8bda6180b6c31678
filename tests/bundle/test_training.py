# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dual_skd.errors import input_error_behind
from dual_skd.networks.build import build_network
from dual_skd.options import METHODS
from dual_skd.runs.model_file import load_model

NAMES = ["interstitial", "nodule", "normal"]
OWN = """
from torch import nn


class Tiny(nn.Module):
    def __init__(self, num_classes, in_channels, spatial_dims, width=4):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(in_channels, width, 3, stride=2), nn.BatchNorm2d(width), nn.ReLU())
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))
"""


def student(directory: Path, name: str = "last.pt") -> dict[str, torch.Tensor]:
    """Weights of the student after the last epoch."""
    return torch.load(directory / name, weights_only=True)["network"]


def assert_equal(first: dict, second: dict) -> None:
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


def test_metrics_are_written_for_student_auxiliary_and_mean(trained):
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["class_names"] == NAMES and metrics["key_metric"] == "last"
    assert [epoch["epoch"] for epoch in metrics["epochs"]] == [1, 2]
    for who in ("student", "auxiliary", "mean"):
        for name in ("accuracy", "balanced_accuracy", "macro_auc", "f1", "ece"):
            assert 0 <= metrics["final"][who][name] <= 1
    assert metrics["final"]["images"] == 9


def test_the_run_is_recorded(trained, tiny):
    record = json.loads((trained / "run.json").read_text())
    assert {"versions", "seed", "config", "data_hash", "networks", "timings", "started", "finished", "device",
            "selection"} <= record.keys()  # fmt: skip
    assert record["config"]["image_size"] == 32 and record["config"]["method"] == "coupled"
    assert record["config"]["pretrained"] == tiny["pretrained"] and record["config"]["loss"] == "cross_entropy"
    assert record["networks"]["student"]["parameters"] < record["networks"]["large"]["parameters"]
    assert record["selection"]["student"]["rule"] == "uniform"
    assert record["selection"]["auxiliary"]["rule"] == "complement"
    assert [epoch["epoch"] for epoch in record["timings"]["epochs"]] == [1, 2] and record["finished"]


def test_the_selection_report_has_a_row_per_tensor_of_both_networks(trained):
    with (trained / "selection_report.csv").open() as file:
        rows = list(csv.DictReader(file))
    tensors = set(student(trained))
    for who in ("student", "auxiliary"):
        assert {row["name"] for row in rows if row["network"] == who} == tensors
    reasons = {row["name"]: row["reason"] for row in rows}
    assert reasons["fc.weight"] and not reasons["conv1.weight"]


def test_the_model_file_holds_the_student_alone_and_rebuilds_it(trained):
    state = torch.load(trained / "models" / "model.pt", weights_only=True)
    content = state._metadata[""]
    network = build_network(**content["architecture"])
    network.load_state_dict(state)
    assert content["class_names"] == NAMES and content["multi_label"] is False
    settings = {
        "spatial_dims": 2, "image_size": 32, "window": "percentile", "spacing": None, "fit": "pad", "frame": None,
    }  # fmt: skip
    expected = content["preprocessing"].pop("expected")
    assert content["preprocessing"] == settings
    assert expected == {  # of the demo's X-rays
        "images": 24, "hounsfield": False, "modalities": ["X-ray"], "formats": ["DICOM"], "colour": False,
        "planes": [""], "sizes": [128, 128], "aspect_ratios": [1.0, 1.0],
    }  # fmt: skip
    assert_equal(load_file(trained / "models" / "model.safetensors"), state)
    assert load_model(trained / "models" / "auxiliary.pt")[1]["architecture"] == content["architecture"]


def test_the_division_of_the_data_is_kept(trained, demo):
    written = json.loads((trained / "datalist.json").read_text())
    assert {key: len(written[key]) for key in ("training", "validation", "test")} == {
        "training": 24, "validation": 9, "test": 9,
    }  # fmt: skip
    assert list(written["labels"].values()) == NAMES
    assert written["test"][0].keys() == {"image", "label", "patient", "site", "machine"}
    assert list((trained / "tensorboard").glob("events.*"))


def test_the_default_pair_trains_from_the_wheel(tmp_path, run, demo):
    run("train.json", dataset_dir=str(demo), output_dir=str(tmp_path), image_size=32, epochs=1, batch_size=8)
    record = json.loads((tmp_path / "run.json").read_text())
    small, large = (record["networks"][role]["parameters"] for role in ("student", "large"))
    assert small < large / 5
    assert record["selection"]["student"]["verified"]


@pytest.mark.parametrize("word", [word for word in METHODS if word not in ("coupled", "distill")])
def test_every_control_is_one_word(tmp_path, run, tiny, word):
    run("train.json", **tiny, output_dir=str(tmp_path), method=word)
    record = json.loads((tmp_path / "run.json").read_text())
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    row = METHODS[word]
    assert record["selection"]["student"]["rule"] == row.student
    assert (row.auxiliary is None) == ("auxiliary" not in metrics["final"])
    assert (row.auxiliary is None) == (not (tmp_path / "models" / "auxiliary.pt").exists())
    if row.auxiliary:
        assert record["selection"]["auxiliary"]["rule"] == row.auxiliary


OTHER = {"large": "monai_resnet18", "large_options": {"block_inplanes": [4, 4, 8, 8]}, "small": "monai_resnet18"}


@pytest.mark.parametrize(("network", "word"), [({}, "single"), (OTHER, "scratch")])
def test_a_fine_tuned_network_teaches_the_large_one_or_another(tmp_path, run, tiny, network, word):
    as_large = tiny | network
    as_large["small_options"] = as_large["large_options"]
    run("train.json", **as_large, output_dir=str(tmp_path / "t"), method=word)
    teacher = tmp_path / "t" / "models" / "model.pt"
    run("train.json", **tiny, output_dir=str(tmp_path / "s"), method="distill", teacher_checkpoint=str(teacher))
    # the best student of one epoch lies beside the teacher, which has not moved
    assert_equal(
        torch.load(tmp_path / "s" / "models" / "auxiliary.pt", weights_only=True),
        torch.load(teacher, weights_only=True),
    )
    assert load_model(tmp_path / "s")[1]["architecture"]["channels"] == tiny["small_options"]["channels"]
    rows = (Path(tiny["dataset_dir"]) / "datalist.csv").read_text()
    for changed, reason in (
        (rows.replace("nodule", "tumour"), f"trained with class_names {NAMES}"),
        (rows.replace(",train", ",now").replace(",test", ",train").replace(",now", ",test"), "has learned from"),
    ):
        other = Path(tiny["dataset_dir"]) / "other.csv"
        other.write_text(changed)
        options = tiny | {"dataset_dir": str(other), "output_dir": str(tmp_path / "o")}
        with pytest.raises(Exception) as caught:
            run("train.json", **options, method="distill", teacher_checkpoint=str(teacher))
        assert reason in str(input_error_behind(caught.value))


def test_distill_without_a_teacher_says_how_to_get_one(tmp_path, run, tiny):
    with pytest.raises(Exception) as caught:
        run("train.json", **tiny, output_dir=str(tmp_path), method="distill")
    assert "teacher_checkpoint" in str(input_error_behind(caught.value))


def test_label_free_epochs_come_before_the_labels(tmp_path, run, tiny):
    done = run("train.json", **tiny | {"epochs": 2, "method": "dual"}, output_dir=str(tmp_path), label_free_epochs=1)
    trainer = done.parser.get_parsed_content("train#trainer")
    assert [trainer.task.schedule.stage(epoch) for epoch in range(2)] == ["label_free", "skd"]
    assert "label_free_heads" in torch.load(tmp_path / "last.pt", weights_only=True)
    assert "label_free_heads" not in str(load_model(tmp_path)[0].state_dict().keys())


def test_a_method_of_ones_own_is_named_in_the_config(tmp_path, run, tiny, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "howto" / "own_method.md").read_text(encoding="utf-8")
    (tmp_path / "mymethod.py").write_text(page.split("```python\n")[1].split("\n\nshape = ")[0])
    monkeypatch.syspath_prepend(tmp_path)
    settings = tiny | {"epochs": 2, "method": "frozen", "task#_target_": "mymethod.FeatureTask"}
    done = run("train.json", **settings, output_dir=str(tmp_path / "own"))
    trainer = done.parser.get_parsed_content("train#trainer")
    assert type(trainer.task).__name__ == "FeatureTask" and trainer.state.iteration == 6


def test_one_seed_gives_equal_weights_and_another_seed_others(tmp_path, run, tiny, trained):
    run("train.json", **tiny | {"epochs": 2}, output_dir=str(tmp_path / "a"))
    assert_equal(student(tmp_path / "a"), student(trained))
    run("train.json", **tiny | {"epochs": 2}, output_dir=str(tmp_path / "b"), seed=1)
    assert not torch.equal(student(tmp_path / "b")["conv1.weight"], student(trained)["conv1.weight"])


def test_the_learning_rate_warms_up_and_falls_to_zero(tmp_path, run, tiny):
    done = run("train.json", **tiny | {"epochs": 4}, output_dir=str(tmp_path), method="single")
    scheduler = done.parser.get_parsed_content("lr_scheduler")
    assert scheduler.last_epoch == done.parser.get_parsed_content("steps") == 12
    assert scheduler.get_last_lr()[0] == pytest.approx(0, abs=1e-9)


def test_the_training_config_has_every_property_that_monai_asks_for(workflow, tiny, tmp_path):
    built = workflow("train.json", **tiny, output_dir=str(tmp_path))
    built.initialize()
    assert built.check_properties() == []
    assert built.bundle_root and built.max_epochs == 1 and built.val_interval == 1


def test_without_validation_images_the_model_of_the_last_epoch_is_kept(tmp_path, run, tiny, demo, caplog):
    rows = list(csv.DictReader((demo / "datalist.csv").open()))
    path = demo / "no_validation.csv"
    lines = [f"{row['image']},{row['label']},{row['split']}" for row in rows if row["split"] != "val"]
    path.write_text("\n".join(["image,label,split", *lines]))
    settings = {"dataset_dir": str(path), "output_dir": str(tmp_path), "val_fraction": 0.0, "patient_pattern": ""}
    with caplog.at_level("WARNING"):
        run("train.json", **tiny | settings)
    assert "the model of the last epoch, 1, is kept" in caplog.text
    assert "probabilities stay uncalibrated (temperature 1)" in caplog.text
    assert "calibration" not in load_model(tmp_path)[1] and not (tmp_path / "predictions_validation.csv").exists()
    assert_equal(load_model(tmp_path)[0].state_dict(), student(tmp_path))
    run("evaluate.json", output_dir=str(tmp_path))
    assert json.loads((tmp_path / "metrics.json").read_text())["test"]["images"] == 9


def test_the_loss_on_the_labels_knows_the_frequencies_of_the_training_images(tmp_path, workflow, tiny, demo):
    with (demo / "datalist.csv").open() as file:
        rows = list(csv.DictReader(file))
    rows = [row | {"image": str(demo / row["image"])} for row in rows]
    rare = [row for row in rows if row["split"] == "train" and row["label"] == rows[0]["label"]][2:]
    with (tmp_path / "data.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row for row in rows if row not in rare)
    settings = tiny | {"dataset_dir": str(tmp_path / "data.csv"), "output_dir": str(tmp_path / "run")}
    training = workflow("train.json", **settings, logit_adjustment=1.0)
    training.initialize()
    loss = training.trainer.loss_function
    prior = torch.tensor(training.parser.get_parsed_content("datalist").class_counts()).float()
    assert prior.min() == 2 and prior.max() > 4
    assert torch.allclose(loss.offsets.softmax(0), prior / prior.sum())
    training.run()
    training.finalize()


def test_a_network_of_ones_own_is_trained_and_used_again(tmp_path, run, tiny, demo, monkeypatch):
    (tmp_path / "own_net_of_training.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("DUAL_SKD_NETWORKS", "own_net_of_training:Tiny")
    output = tmp_path / "run"
    own = {"small": "own_net_of_training:Tiny", "small_options": {"width": 6}, "method": "scratch"}
    run("train.json", **tiny | own, output_dir=str(output))
    network, info = load_model(output)
    assert type(network).__name__ == "Tiny" and info["architecture"]["width"] == 6
    assert json.loads((output / "run.json").read_text())["networks"]["student"]["parameters"] == 6 * 9 + 6 + 12 + 21
    run("evaluate.json", output_dir=str(output), report=True)
    assert json.loads((output / "metrics.json").read_text())["test"]["images"] == 9
    run("inference.json", output_dir=str(output), dataset_dir=str(demo / "images"))
    monkeypatch.setenv("DUAL_SKD_NETWORKS", "")
    with pytest.raises(Exception) as caught:
        run("evaluate.json", output_dir=str(output))
    assert "DUAL_SKD_NETWORKS=own_net_of_training:Tiny" in str(input_error_behind(caught.value))


def test_a_network_def_that_could_not_be_loaded_again_is_refused_before_the_first_step(tmp_path, run, tiny):
    other = "$monai.networks.nets.DenseNet121(spatial_dims=2, in_channels=1, out_channels=3)"
    with pytest.raises(Exception) as caught:
        run("train.json", **tiny | {"method": "scratch"}, network_def=other, output_dir=str(tmp_path))
    message = str(input_error_behind(caught.value))
    assert "network_def is another network than resnet18" in message and "--small package.module:Name" in message
    assert not (tmp_path / "models").exists() and not (tmp_path / "last.pt").exists()
