# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import re
import shutil
from importlib import metadata as installed
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from jsonschema import Draft202012Validator
from monai.bundle import ConfigParser, verify_net_in_out
from packaging.requirements import Requirement
from PIL import Image

from dual_skd.data import scale_intensity, write_demo
from dual_skd.data.demo import CLASSES_2D
from dual_skd.errors import input_error_behind
from dual_skd.runs.model_file import bundle_root, load_model

CONFIGS = Path(bundle_root()) / "configs"
WORKFLOWS = ("train.json", "evaluate.json", "inference.json")
# what the overrides are laid over; the others are of train.json
BEFORE = {"corruption.json": "evaluate.json", "multi_gpu_evaluate.json": "evaluate.json",
          "inference_trt.json": "inference.json"}  # fmt: skip
OVERRIDES = sorted(path.name for path in CONFIGS.glob("*.json") if path.name not in (*WORKFLOWS, "metadata.json"))

# The fields that MONAI's meta_schema_20240725.json requires, written out: a test has no network access.
TENSORS = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": {
        "type": "object",
        "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range", "is_patch_data",
                     "channel_def"],
        "properties": {
            "num_channels": {"type": "integer", "minimum": 1},
            "spatial_shape": {"type": "array", "items": {"type": ["integer", "string"]}},
            "dtype": {"type": "string"},
            "value_range": {"type": "array", "items": {"type": "number"}},
            "is_patch_data": {"type": "boolean"},
            "channel_def": {"type": "object", "patternProperties": {"^[0-9]+$": {"type": "string"}},
                            "additionalProperties": False},
        },
    },
}  # fmt: skip
DATA_FORMAT = {
    "type": "object", "required": ["inputs", "outputs"], "properties": {"inputs": TENSORS, "outputs": TENSORS},
}  # fmt: skip
VERSION = {"type": "string", "pattern": r"^\d+\.\d+\.\d+"}
TEXT = {"type": "string", "minLength": 1}
SCHEMA = {
    "type": "object",
    "required": ["schema", "version", "changelog", "monai_version", "pytorch_version", "numpy_version",
                 "required_packages_version", "task", "description", "authors", "copyright", "network_data_format"],
    "properties": {
        "schema": {"const": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
                            "meta_schema_20240725.json"},
        "version": VERSION, "monai_version": VERSION, "pytorch_version": VERSION, "numpy_version": VERSION,
        "changelog": {"type": "object", "minProperties": 1, "additionalProperties": TEXT},
        "required_packages_version": {"type": "object", "additionalProperties": VERSION},
        "task": TEXT, "description": TEXT, "authors": TEXT, "copyright": TEXT,
    },
    "patternProperties": {"_data_format$": DATA_FORMAT},
}  # fmt: skip


def read(name: str) -> dict:
    return json.loads((CONFIGS / name).read_text())


def test_images_are_prepared_alike_in_training_evaluation_and_inference():
    # whether an image is one as expected changes nothing about the others; in training the options say what the model's
    # file says afterwards
    judged = ("expected", "unexpected_input")
    steps = {
        name: {
            key: re.sub(r"^\$@(?:options\.(\w+)|input(?:\.get\(|\[)'(\w+)'[)\]])$", r"@\1\2", str(value))
            for key, value in read(name)["preprocessing"].items()
            if key not in judged
        }
        for name in WORKFLOWS[:2]
    }
    assert steps["train.json"] == steps["evaluate.json"] | {"window": "@intensity"}
    # what training keeps in the model's file is what the two others read from it, and all that decides the images
    kept = read("train.json")["input_settings"]
    assert {name: re.sub(r"^\$@options\.", "@", value) for name, value in kept.items()} == {
        name: steps["train.json"][name] for name in kept
    }
    assert set(kept) == set(steps["evaluate.json"]) - {"_target_", "with_label"}
    assert read("evaluate.json")["input"] == "$@info['preprocessing']"
    assert read("inference.json")["preprocessing"] == "$@predictor.transform"


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_misspelt_option_ends_a_workflow_before_anything_is_read_or_written(workflow, tiny, tmp_path, name):
    with pytest.raises(Exception) as caught:
        workflow(name, dataset_dir="nowhere", batch_size="many", output_dir=str(tmp_path / "run")).initialize()
    assert str(input_error_behind(caught.value)) == "batch_size is 'many'; expected a whole number of at least 1."
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "method"), [("pretrained", "coupled"), ("teacher_checkpoint", "distill")])
def test_weights_that_are_not_there_end_a_training_before_anything_is_read_or_written(workflow, tmp_path, name, method):
    with pytest.raises(Exception) as caught:
        given = {
            name: str(tmp_path / "gone.pt"),
            "method": method,
            "dataset_dir": "nowhere",
            "output_dir": str(tmp_path / "run"),
        }
        workflow("train.json", **given).initialize()
    assert str(input_error_behind(caught.value)).startswith(f"No weights file '{tmp_path / 'gone.pt'}'")
    assert not list(tmp_path.iterdir())


def test_the_epochs_are_those_that_other_programs_set_for_the_trainer(workflow, tiny, tmp_path):
    parser = workflow("train.json", **tiny, **{"train#trainer#max_epochs": 7}, output_dir=str(tmp_path)).parser
    assert parser.get_parsed_content("options").epochs == parser.get_parsed_content("settings")["epochs"] == 7
    assert read("train.json")["train"]["trainer"]["max_epochs"] == "@epochs"


@pytest.mark.parametrize("name", ["small_options", "large_options"])
def test_what_the_run_decides_is_no_option_of_a_network(workflow, tiny, tmp_path, name):
    built = workflow("train.json", **tiny | {name: {"in_channels": 3}}, output_dir=str(tmp_path))
    with pytest.raises(Exception) as caught:
        built.parser.get_parsed_content("options")
    assert f"{name} sets in_channels" in str(input_error_behind(caught.value))


def workflow_of(name: str) -> list[str]:
    """The file, after the one that it overrides."""
    before = [] if name in WORKFLOWS else [BEFORE.get(name, "train.json")]
    return [str(CONFIGS / file) for file in (*before, name)]


@pytest.mark.parametrize("name", OVERRIDES)
def test_an_override_is_short_and_names_what_its_workflow_has(name):
    text = (CONFIGS / name).read_text()
    assert len(text.splitlines()) < 30
    parser = ConfigParser()
    parser.read_config(workflow_of(name))
    known = read(Path(workflow_of(name)[0]).name)
    for key, value in json.loads(text).items():
        plain = key.removeprefix("+")
        used = f"@{plain}" in text  # an option that the file itself brings
        assert plain.split("#")[0] in known or plain == "finalize" or used
        if key == plain:
            assert parser[key] == value
        else:
            assert all(item in parser[plain] for item in value) and len(parser[plain]) > len(value)


def test_every_override_of_the_design_is_there():
    assert set(OVERRIDES) == {
        "volume.json", "vit.json", "convnext.json", "finetune.json", "resume.json", "multi_gpu_train.json",
        "corruption.json", "multi_gpu_evaluate.json", "inference_trt.json",
    }  # fmt: skip


FAMILIES = {
    "vit.json": (
        {"embed_dim": 128, "num_heads": 2, "depth": 2}, {"embed_dim": 64, "num_heads": 1, "depth": 1}, 28,
    ),
    "convnext.json": (
        {"depths": [1, 1, 2, 1], "dims": [16, 24, 32, 40]}, {"depths": [1, 1, 1, 1], "dims": [8, 12, 16, 20]}, 32,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_the_other_families_train_from_a_file(tmp_path, run, demo, name):
    large_options, small_options, size = FAMILIES[name]
    large = timm.create_model(read(name)["large"], num_classes=0, **large_options)
    torch.save(large.state_dict(), tmp_path / "large.pt")
    run(
        "train.json", name, dataset_dir=str(demo), output_dir=str(tmp_path), epochs=1, batch_size=8, image_size=size,
        pretrained=str(tmp_path / "large.pt"), large_options=large_options, small_options=small_options,
    )  # fmt: skip
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["config"]["small"] == read(name)["large"]
    for who in ("student", "auxiliary"):
        summary = record["selection"][who]
        assert summary["verified"] and summary["selected"] >= summary["tensors"] - 4  # head and fresh layers at most
    assert load_model(tmp_path)[1]["architecture"]["name"] == read(name)["large"]


def test_volumes_train_from_weights_of_images(tmp_path, run, tiny):
    data = write_demo(tmp_path / "demo", spatial_dims=3, counts={"train": 6, "val": 3, "test": 3})
    settings = tiny | {"dataset_dir": str(data), "image_size": [16, 16, 8], "batch_size": 3}
    output = str(tmp_path / "run")
    run("train.json", "volume.json", **settings, output_dir=output)
    network, info = load_model(output)
    assert network(torch.zeros(2, 1, 16, 16, 8)).shape == (2, 3)
    assert network.conv1.weight.ndim == 5 and info["preprocessing"]["spatial_dims"] == 3
    run("evaluate.json", output_dir=output)
    assert json.loads(Path(output, "metrics.json").read_text())["test"]["images"] == 3
    run("inference.json", output_dir=output, dataset_dir=str(data / "images"))
    assert len(Path(output, "predictions.csv").read_text().splitlines()) == 13


def test_fine_tuning_starts_from_a_model_of_other_classes(tmp_path, run, tiny, trained):
    generator = np.random.default_rng(0)
    for label in ("ill", "well"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for place in range(12):
            picture = Image.fromarray(generator.integers(0, 256, (8, 8), dtype=np.uint8)).resize((32, 32))
            picture.save(tmp_path / "data" / label / f"{place}.png")
    settings = {name: tiny[name] for name in ("image_size", "epochs", "batch_size", "small", "small_options")}
    run(
        "train.json", "finetune.json", **settings, dataset_dir=str(tmp_path / "data"), output_dir=str(tmp_path / "run"),
        pretrained=str(trained / "models" / "model.pt"), learning_rate=0.0,
    )  # fmt: skip
    before, after = (load_model(directory)[0].state_dict() for directory in (trained, tmp_path / "run"))
    assert after["fc.weight"].shape[0] == 2 and before["fc.weight"].shape[0] == 3
    weights = [name for name in before if name.endswith(("weight", "bias")) and not name.startswith("fc")]
    assert all(torch.equal(before[name], after[name]) for name in weights)
    with (tmp_path / "run" / "selection_report.csv").open() as file:
        assert {row["name"] for row in csv.DictReader(file) if row["reason"]} == {"fc.weight", "fc.bias"}


def test_one_folder_holds_a_whole_run_where_its_path_begins_with_home(tmp_path, run, tiny, demo, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    run("train.json", **tiny | {"cache": "disk"}, output_dir="~/run")
    run("evaluate.json", "corruption.json", output_dir="~/run", corruptions=["noise"], strengths=[1], report=True)
    run("inference.json", output_dir="~/run", dataset_dir=str(demo))
    run("train.json", "resume.json", **tiny | {"cache": "disk"}, output_dir="~/run")  # finds that it is finished
    assert [path.name for path in tmp_path.iterdir()] == ["home"] and not (tmp_path / "home" / "~").exists()
    written = {path.name for path in (tmp_path / "home" / "run").iterdir()}
    assert written >= {
        "models", "last.pt", "metrics.json", "predictions_test.csv", "predictions.csv", "predictions_validation.csv",
        "selection_report.csv", "run.json", "datalist.json", "tensorboard", "report", "cache",
    }  # fmt: skip
    assert (tmp_path / "home" / "run" / "models" / "model.pt").is_file()


def test_the_number_of_processes_is_a_setting(workflow, tiny, tmp_path):
    # a run goes on only where all settings that both have are equal
    settings = workflow("train.json", **tiny, output_dir=str(tmp_path)).parser.get_parsed_content("settings")
    assert settings["processes"] == read("train.json")["processes"] == 1
    assert "processes" in read("multi_gpu_train.json")


def test_the_metadata_have_the_fields_of_the_schema():
    content = read("metadata.json")
    errors = [error.message for error in Draft202012Validator(SCHEMA).iter_errors(content)]
    assert errors == []
    assert content["version"] in content["changelog"]


def test_the_metadata_describe_the_default_run():
    content, config = read("metadata.json"), read("train.json")
    image = content["network_data_format"]["inputs"]["image"]
    pred = content["network_data_format"]["outputs"]["pred"]
    assert image["spatial_shape"] == [config["image_size"]] * config["spatial_dims"]
    assert list(pred["channel_def"].values()) == sorted(CLASSES_2D) and pred["num_channels"] == len(CLASSES_2D)
    scaled = scale_intensity("percentile")({"image": torch.arange(100.0)[None]})["image"]
    assert image["value_range"] == [scaled.min(), scaled.max()]
    # a second network has a data format of its own, under its id
    assert content["auxiliary_data_format"] == content["network_data_format"]


def test_packages_of_the_metadata_are_declared_installed_and_recent_enough():
    project = Path(bundle_root()).parent / "pyproject.toml"
    if not project.is_file():
        pytest.skip("the bundle folder alone, without the repository's pyproject.toml")
    block = re.search(r"^dependencies = \[(.*?)^\]", project.read_text(), re.DOTALL | re.MULTILINE)[1]
    declared = {found.name.lower(): found for found in map(Requirement, re.findall(r'"(.+?)"', block))}
    content = read("metadata.json")
    wanted = content["required_packages_version"] | {
        "monai": content["monai_version"], "torch": content["pytorch_version"], "numpy": content["numpy_version"],
    }  # fmt: skip
    for name, version in wanted.items():
        assert name.lower() in declared and declared[name.lower()].specifier.contains(version), name
        assert installed.version(name)


def test_the_metrics_of_the_metadata_are_those_of_the_shipped_weights():
    measured = json.loads((Path(bundle_root()) / "models" / "model.json").read_text())["demo_test"]
    stated = read("metadata.json")["eval_metrics"]
    assert stated == {name: round(measured[name], 3) for name in stated} and "accuracy" in stated


def test_without_tensorrt_its_config_answers_as_inference_does(run, demo, tmp_path):
    image = str(min((demo / "images").iterdir()))
    for name, files in {"plain": ["inference.json"], "trt": ["inference.json", "inference_trt.json"]}.items():
        shutil.copytree(Path(bundle_root()) / "models", tmp_path / name / "models")
        run(*files, output_dir=str(tmp_path / name), dataset_dir=image)
    plain, compiled = ((tmp_path / name / "predictions.csv").read_text() for name in ("plain", "trt"))
    assert plain == compiled and image in plain


def test_the_network_takes_and_gives_what_the_metadata_say(demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    verify_net_in_out(
        net_id="network_def", meta_file=str(CONFIGS / "metadata.json"), config_file=str(CONFIGS / "train.json"),
        device="cpu", dataset_dir=str(demo),
    )  # fmt: skip


def test_the_fit_of_a_run_is_in_its_model_and_in_every_use_of_it(workflow, run, tiny, tmp_path):
    run("train.json", **tiny, output_dir=str(tmp_path), fit="crop")
    assert load_model(tmp_path / "models" / "model.pt")[1]["preprocessing"]["fit"] == "crop"
    evaluate, inference = (
        workflow(name, output_dir=str(tmp_path), dataset_dir=tiny["dataset_dir"]).parser for name in WORKFLOWS[1:]
    )
    assert evaluate.get_parsed_content("preprocessing", instantiate=False).get_config()["fit"] == "crop"
    assert inference.get_parsed_content("predictor").preprocessing["fit"] == "crop"


def test_images_resampled_to_a_spacing_have_no_fit(workflow, tiny, tmp_path):
    plain = workflow("train.json", **tiny, output_dir=str(tmp_path)).parser
    resampled = workflow("train.json", **tiny, output_dir=str(tmp_path), spacing=1.5).parser
    assert [one.get_parsed_content("options").fit for one in (plain, resampled)] == ["pad", None]
