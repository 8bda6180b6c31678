# SPDX-License-Identifier: Apache-2.0
"""What MONAI Label 0.8.5 does with a bundle's configs, step by step, without MONAI Label.

``BundleInferTask`` parses inference.json alone and uses its parts one after the other; ``BundleTrainTask`` runs
train.json with overrides. tests/bundle/test_monai_label_live.py shows the same on its server.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import LoadImaged, SaveImaged

from dual_skd.errors import input_error_behind
from dual_skd.runs.model_file import bundle_root, load_model
from dual_skd.utils.files import DRAFT_SUFFIX

FOLDER = "dual_skd_classification"


@pytest.fixture
def bundle(trained, tmp_path, monkeypatch) -> Path:
    """A served bundle with the weights of a finished run; where the server was started lies another run's output."""
    root = tmp_path / "app" / "model" / FOLDER
    shutil.copytree(Path(bundle_root()) / "configs", root / "configs")
    shutil.copytree(trained / "models", root / "models")
    (tmp_path / "output" / "models").mkdir(parents=True)
    (tmp_path / "output" / "models" / "model.pt").write_bytes(b"of another network")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MONAI_LABEL_APP_DIR", str(tmp_path / "app"))
    return root


def parsed(root: Path) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(str(root / "configs" / "inference.json"))
    parser.config.update({"bundle_root": str(root), "use_click": False, "device": "cpu"})
    return parser


def test_image_and_pred_are_the_first_tensors_and_the_classes_have_names(bundle):
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())["network_data_format"]
    assert next(iter(metadata["inputs"])) == "image" and next(iter(metadata["outputs"])) == "pred"
    assert list(metadata["outputs"]["pred"]["channel_def"].values()) == load_model(bundle / "models")[1]["class_names"]
    assert len(metadata["inputs"]["image"]["spatial_shape"]) == 2  # MONAI Label's dimension of the model


def test_the_parts_of_inference_json_give_the_scores_of_plain_inference(bundle, trained, demo, run, tmp_path):
    assert "@_meta_" not in (bundle / "configs" / "inference.json").read_text()
    parser = parsed(bundle)
    network = parser.get_parsed_content("network_def", instantiate=True)
    assert isinstance(parser.get_parsed_content("network"), torch.nn.Module)
    content = torch.load(bundle / "models" / "model.pt", "cpu", weights_only=True)
    network.load_state_dict(content.get("model", content), strict=True)
    image = min((demo / "images").iterdir())
    data = {"image": str(image), "device": "cpu", "image_path": str(image)}
    loaders = 0
    for step in parser.get_parsed_content("preprocessing", instantiate=True).transforms:
        if isinstance(step, LoadImaged):
            loaders += 1
            step._loader.image_only = False
        data = step(data)
    assert loaders == 1
    inferer = parser.get_parsed_content("inferer", instantiate=True)
    with torch.no_grad():
        data["pred"] = inferer(data["image"][None], network.eval())[0]
    steps = parser.get_parsed_content("postprocessing", instantiate=True).transforms
    assert not any(isinstance(step, SaveImaged) for step in steps)
    last = parser.get("postprocessing")["transforms"][-1]
    assert last == {"_target_": "DeleteItemsd", "keys": ["image", "image_meta_dict"]}
    for step in steps:
        data = step(data)
    assert "image" not in data and isinstance(data["pred"], MetaTensor)  # whose .array MONAI Label logs
    output = shutil.copytree(trained, tmp_path / "run")
    run("inference.json", output_dir=str(output), dataset_dir=str(image))
    with (output / "predictions.csv").open() as file:
        (row,) = csv.DictReader(file)
    names = load_model(output)[1]["class_names"]
    assert [f"{float(score):.9g}" for score in data["pred"]] == [row[f"p_{name}"] for name in names]


def label_overrides(root: Path, data: list[dict], share: float) -> dict:
    """As ``BundleTrainTask`` makes them, with a loader of the present weights before the other handlers."""
    handlers = ConfigParser()
    handlers.read_config(str(root / "configs" / "train.json"))
    loader = {"_target_": "CheckpointLoader", "load_path": str(root / "models" / "model.pt"),
              "load_dict": {"model": "$@network"}, "strict": False}  # fmt: skip
    first = round(len(data) * (1 - share))
    return {
        "bundle_root": str(root), "train#trainer#max_epochs": 1, "device": "cpu",
        "train#handlers": [loader, *handlers.get("train#handlers")],
        "train#dataset#data": data[:first], "validate#dataset#data": data[first:],
    }  # fmt: skip


@pytest.fixture
def labelled(demo, tmp_path) -> list[dict]:
    """Images sorted by class, so that MONAI Label's own division puts one class alone into validation."""
    (tmp_path / "final").mkdir()
    records = []
    with (demo / "datalist.csv").open() as file:
        for row in sorted(csv.DictReader(file), key=lambda row: row["label"]):
            label = tmp_path / "final" / f"{Path(row['image']).stem}.json"
            label.write_text(json.dumps({"label": row["label"]}))
            records.append({"image": str(demo / row["image"]), "label": str(label)})
    return records


def test_train_json_trains_on_what_monai_label_gives_and_replaces_the_model(bundle, labelled, tiny, run):
    before = (bundle / "models" / "model.pt").read_bytes()
    settings = {name: value for name, value in tiny.items() if name not in ("dataset_dir", "epochs")}
    done = run("train.json", **settings, **label_overrides(bundle, labelled, 0.2), twin_search="never")
    (output,) = (bundle / "runs").iterdir()
    assert done.parser.get_parsed_content("steps") == len(done.parser.get_parsed_content("train#dataloader"))
    assert json.loads((output / "run.json").read_text())["config"]["epochs"] == 1
    parts = json.loads((output / "datalist.json").read_text())
    assert len(parts["training"]) + len(parts["validation"]) == len(labelled) and not parts["test"]
    for part in ("training", "validation"):
        assert {record["label"] for record in parts[part]} == {0, 1, 2}
    after = (bundle / "models" / "model.pt").read_bytes()
    assert after != before and after == (output / "models" / "model.pt").read_bytes()
    assert not list((bundle / "models").glob(f"*{DRAFT_SUFFIX}"))


def test_a_label_that_the_bundle_has_no_class_for_is_one_sentence(bundle, labelled, tiny, run):
    Path(labelled[3]["label"]).write_text('{"label": "fracture"}')
    settings = {name: value for name, value in tiny.items() if name not in ("dataset_dir", "epochs")}
    before = (bundle / "models" / "model.pt").read_bytes()
    with pytest.raises(Exception) as caught:
        run("train.json", **settings, **label_overrides(bundle, labelled, 0.2))
    assert "'fracture'" in str(input_error_behind(caught.value))
    assert (bundle / "models" / "model.pt").read_bytes() == before
