# SPDX-License-Identifier: Apache-2.0
"""What takes parts of train.json instead of running it: MONAI's federated client, a server, a notebook."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.fl.client import MonaiAlgo
from monai.fl.client.monai_algo import MonaiAlgoStats
from monai.fl.utils.constants import ExtraItems, FlStatistics
from monai.fl.utils.exchange_object import ExchangeObject

from dual_skd.data import demo_classes
from dual_skd.errors import input_error_behind
from dual_skd.networks.weight_files import read_weights
from dual_skd.runs.model_file import load_model
from dual_skd.runs.places import bundle_root
from dual_skd.selection import plan_selection
from dual_skd.serving.data_statistics import statistics_transforms

BUNDLE = Path(bundle_root())
CONFIGS = BUNDLE / "configs"
SMALL = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
HERE = {"device": "cpu", "num_workers": 0}


def client(output: Path, **settings: Any) -> MonaiAlgo:
    """A site with MONAI's defaults: train.json, and evaluate.json over it."""
    return MonaiAlgo(
        bundle_root=str(BUNDLE), send_weight_diff=False,
        train_kwargs=HERE | {"output_dir": str(output)} | settings,
        eval_kwargs=HERE | {"output_dir": str(output), "report": False},
    )  # fmt: skip


def copied(weights: ExchangeObject) -> ExchangeObject:
    return ExchangeObject(weights={name: value.clone() for name, value in weights.weights.items()})


@pytest.mark.filterwarnings("ignore:executing the bundle config")
def test_a_client_with_the_defaults_trains_selected_weights_and_measures_what_it_is_sent(tiny, tmp_path):
    site = client(tmp_path / "site", **tiny)
    site.initialize({})
    start = copied(site.get_weights())
    large, _ = read_weights(tiny["pretrained"])
    student = site.trainer.network
    chosen = plan_selection(large, student).apply()
    assert len(chosen) > 60
    for name, value in chosen.items():
        assert torch.equal(start.weights[name], value), name
    before = site.evaluate(copied(start)).metrics
    assert not (tmp_path / "site" / "models").exists()  # nothing is trained yet; the weights came from elsewhere
    site.train(copied(start))
    sent = site.get_weights()
    assert not torch.equal(sent.weights["conv1.weight"], start.weights["conv1.weight"])
    assert site.evaluate(copied(start)).metrics == pytest.approx(before)
    for name in ("selection_report.csv", "run.json", "datalist.json", "metrics.json", "models/model.pt"):
        assert (tmp_path / "site" / name).is_file(), name
    site.finalize()


@pytest.mark.filterwarnings("ignore:executing the bundle config")
def test_evaluate_json_alone_still_wants_a_trained_model(tiny, tmp_path, run):
    client(tmp_path / "site", **tiny).initialize({})
    with pytest.raises(Exception) as caught:
        run("evaluate.json", output_dir=str(tmp_path / "site"))
    assert "hasn't kept a model yet" in str(input_error_behind(caught.value))


def test_evaluate_json_over_train_json_measures_as_it_does_alone(tiny, tmp_path, run, workflow):
    run("train.json", **tiny, output_dir=str(tmp_path))
    alone = run("evaluate.json", output_dir=str(tmp_path))
    over = workflow("train.json", "evaluate.json", **tiny, output_dir=str(tmp_path), report=False)
    over.initialize()
    assert over.check_properties() == []
    over.run()
    expected = alone.parser.get_parsed_content("evaluator").state.metrics
    assert over.evaluator.state.metrics == pytest.approx(expected) and len(over.val_dataset_data) == 9


def test_the_trainer_alone_keeps_the_record_and_the_model(tiny, tmp_path, workflow):
    built = workflow("train.json", **tiny, output_dir=str(tmp_path))
    built.initialize()
    built.trainer.run()
    assert load_model(tmp_path)[1]["class_names"] == demo_classes()
    assert '"finished": "2' in (tmp_path / "run.json").read_text()


def test_the_network_is_defined_without_any_image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parser = ConfigParser()
    parser.read_config(str(CONFIGS / "train.json"))
    parser.update({"small": "resnet18", "small_options": SMALL})
    assert parser.get_parsed_content("network_def").fc.out_features == 3
    named = ConfigParser()
    named.read_config(str(CONFIGS / "train.json"))
    named.update({"small": "resnet18", "small_options": SMALL, "dataset_dir": "nowhere", "class_names": ["a", "b"]})
    assert named.get_parsed_content("network_def").fc.out_features == 2
    assert list(tmp_path.iterdir()) == []


def test_known_classes_are_the_networks_and_the_labels_have_to_be_among_them(tiny, demo, tmp_path, run):
    names = ["normal", "odd", "nodule", "interstitial"]
    run("train.json", **tiny, output_dir=str(tmp_path / "four"), class_names=names)
    network, info = load_model(tmp_path / "four")
    assert info["class_names"] == names and network.fc.out_features == 4
    with pytest.raises(Exception) as caught:
        run("train.json", **tiny, output_dir=str(tmp_path / "two"), class_names=["normal", "nodule"])
    assert "none of the classes: interstitial; expected normal, nodule" in str(input_error_behind(caught.value))


def test_numbers_are_not_taken_for_the_places_of_named_classes(tiny, demo, tmp_path, run):
    numbers = {"interstitial": "0", "nodule": "1", "normal": "2"}
    with (demo / "datalist.csv").open(newline="") as file:
        rows = [(demo / row["image"], numbers[row["label"]], row["patient"]) for row in csv.DictReader(file)]
    with (tmp_path / "numbers.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label", "patient"), *rows])
    settings = tiny | {"dataset_dir": str(tmp_path / "numbers.csv"), "allow_outside": True}
    names = ["normal", "nodule", "interstitial"]
    with pytest.raises(Exception) as caught:
        run("train.json", **settings, output_dir=str(tmp_path / "guessed"), class_names=names)
    assert "none of the classes: 0, 1, 2; expected normal, nodule" in str(input_error_behind(caught.value))
    said = {number: name for name, number in numbers.items()}
    run("train.json", **settings, output_dir=str(tmp_path / "said"), class_names=names, class_map=said)
    assert load_model(tmp_path / "said")[1]["class_names"] == names


@pytest.mark.filterwarnings("ignore:executing the bundle config", "ignore:'pin_memory' argument")
def test_the_images_of_a_site_are_described(tiny, tmp_path):
    built = ConfigWorkflow(
        [str(CONFIGS / "train.json")], logging_file=False, workflow_type="train",
        **HERE, **tiny, output_dir=str(tmp_path / "out"),
    )  # fmt: skip
    client = MonaiAlgoStats(str(BUNDLE), workflow=built, data_stats_transform_list=statistics_transforms())
    client.initialize({ExtraItems.APP_ROOT: str(tmp_path)})
    asked = {FlStatistics.HIST_BINS: [10], FlStatistics.HIST_RANGE: [[0, 4096]]}
    found = client.get_data_stats(asked).statistics
    assert found["train"]["data_count"] == 24 and found["eval"]["data_count"] == 9
    assert found["train"]["fail_count"] == 0
    described = found["train"]["data_stats"]
    assert described["label_stats"]["labels"] == [1, 2, 3]
    assert described["image_stats"]["shape"]["max"] == [128, 128]
    assert found["total_data"]["data_count"] == 33


def test_a_bundle_elsewhere_answers_with_its_own_weights(tmp_path, monkeypatch, demo):
    other = tmp_path / "other"
    shutil.copytree(CONFIGS, other / "configs")
    shutil.copytree(BUNDLE / "models", other / "models")
    monkeypatch.chdir(tmp_path)
    built = ConfigWorkflow(
        str(other / "configs" / "inference.json"), logging_file=False, workflow_type="inference", **HERE,
        dataset_dir=str(demo), output_dir=str(tmp_path / "none"),
    )  # fmt: skip
    built.initialize()
    assert built.parser.get_parsed_content("checkpoint") == str(other / "models" / "model.pt")  # not the package's own
    (other / "models" / "model.pt").unlink()
    built.initialize()
    with pytest.raises(Exception) as caught:
        built.parser.get_parsed_content("checkpoint")
    assert "No model in" in str(input_error_behind(caught.value))
