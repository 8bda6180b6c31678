# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import logging
import shutil
from pathlib import Path

import pytest
import torch

from dual_skd.data import load_records, write_demo
from dual_skd.errors import input_error_behind
from dual_skd.runs.model_file import load_model


@pytest.fixture
def finished(trained, tmp_path) -> Path:
    """A copy of the finished run, to write into."""
    return shutil.copytree(trained, tmp_path / "run")


def rows(path: Path) -> list[dict]:
    with path.open() as file:
        return list(csv.DictReader(file))


def section(directory: Path, name: str) -> list[dict]:
    return json.loads((directory / "datalist.json").read_text())[name]


def table(path: Path, records: list[dict], names: list[str]) -> Path:
    """A CSV data list without splits."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", "patient"])
        writer.writerows([r["image"], names[r["label"]], r["patient"]] for r in records)
    return path


def refused(run, *arguments, **overrides) -> str:
    with pytest.raises(Exception) as caught:
        run(*arguments, **overrides)
    return str(input_error_behind(caught.value))


def test_the_images_of_the_runs_own_test_split_are_measured(finished, run):
    before = json.loads((finished / "metrics.json").read_text())
    run("evaluate.json", output_dir=str(finished))
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["epochs"] == before["epochs"]
    assert metrics["test"]["images"] == 9
    assert {"student", "auxiliary", "mean"} <= metrics["test"].keys()
    predictions = rows(finished / "predictions_test.csv")
    names = metrics["class_names"]
    assert [row["image"] for row in predictions] == [record["image"] for record in section(finished, "test")]
    assert [names.index(row["label"]) for row in predictions] == [r["label"] for r in section(finished, "test")]
    assert list(predictions[0])[:6] == ["image", "label", "predicted", *(f"p_{name}" for name in names)]
    right = sum(row["label"] == row["predicted"] for row in predictions)
    assert metrics["test"]["student"]["accuracy"] == pytest.approx(right / 9)
    assert sum(float(predictions[0][f"p_{name}"]) for name in names) == pytest.approx(1, abs=1e-5)


def test_the_validation_images_give_the_metrics_of_the_best_epoch(finished, run):
    run("evaluate.json", output_dir=str(finished), split="val", batch_size=9)
    metrics = json.loads((finished / "metrics.json").read_text())
    for who in ("student", "auxiliary"):
        assert metrics["val"][who] == pytest.approx(metrics["best"][who], abs=1e-5)


def test_the_folder_of_the_training_data_means_its_test_split(finished, run, demo):
    for given in (str(demo), str(demo / "datalist.csv"), "demo"):
        run("evaluate.json", output_dir=str(finished), dataset_dir=given)
        assert len(rows(finished / "predictions_test.csv")) == 9


def test_an_external_set_with_patients_of_the_training_data_is_refused(finished, run, tmp_path):
    names = json.loads((finished / "metrics.json").read_text())["class_names"]
    records = section(finished, "test") + section(finished, "training")[:1]
    other = table(tmp_path / "other.csv", records, names)
    message = refused(run, "evaluate.json", output_dir=str(finished), dataset_dir=str(other))
    assert "1 patient " in message and records[-1]["patient"] in message


def test_twins_of_training_images_are_dropped_from_an_external_set(finished, run, tmp_path, caplog, capsys):
    names = json.loads((finished / "metrics.json").read_text())["class_names"]
    elsewhere = write_demo(tmp_path / "elsewhere", seed=7, counts={"test": 6})
    copied = shutil.copy(section(finished, "training")[0]["image"], elsewhere / "images" / "copy.dcm")
    listed = rows(elsewhere / "datalist.csv")
    records = [{"image": row["image"], "label": names.index(row["label"]), "patient": ""} for row in listed]
    other = table(elsewhere / "all.csv", [*records, {"image": copied, "label": 0, "patient": ""}], names)
    # the phantoms' PatientIDs are those of the training data, but these are other people
    run("evaluate.json", output_dir=str(finished))
    of_the_run = [(finished / name).read_bytes() for name in ("predictions_test.csv", "datalist.json")]
    tested = json.loads((finished / "metrics.json").read_text())["test"]
    with caplog.at_level(logging.INFO):
        run("evaluate.json", output_dir=str(finished), dataset_dir=str(other), patient_pattern="")
    found = {Path(row["image"]).name for row in rows(finished / "predictions_elsewhere_all.csv")}
    assert found == {Path(row["image"]).name for row in listed}
    metrics = json.loads((finished / "metrics.json").read_text())
    own = metrics["elsewhere_all"]
    assert metrics["test"] == tested and not (finished / "datalist_test.json").exists()
    assert of_the_run == [(finished / name).read_bytes() for name in ("predictions_test.csv", "datalist.json")]
    assert f"Measured: {other}\n  6 images (2 interstitial, 2 nodule, 2 normal)" in caplog.text
    assert "The model was trained on: " not in caplog.text and "Data: " not in caplog.text
    assert f"  per image          {finished}/predictions_elsewhere_all.csv\n" in capsys.readouterr().out
    assert own["images"] == 6 and own["with_twins"]["images"] == 7
    assert own["student"] != own["with_twins"]["student"]
    run(
        "evaluate.json", output_dir=str(finished), dataset_dir=str(other), keep_twins=True, report_as="elsewhere",
        patient_pattern="",
    )  # fmt: skip
    assert len(rows(finished / "predictions_elsewhere.csv")) == 7
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["elsewhere_all"] == own and metrics["elsewhere"]["images"] == 7
    assert metrics["elsewhere"]["student"] == pytest.approx(own["with_twins"]["student"])
    assert str(other) in metrics["elsewhere"]["source"]


def test_without_a_model_or_a_known_label_the_remedy_is_said(finished, run, tmp_path):
    assert "or train one" in refused(run, "evaluate.json", output_dir=str(tmp_path / "none"), bundle_root="nowhere")
    records = section(finished, "test")[:2]
    other = table(tmp_path / "other.csv", records, ["cat"] * 3)
    message = refused(run, "evaluate.json", output_dir=str(finished), dataset_dir=str(other))
    assert "labels that this model doesn't know: cat" in message


def test_multi_label_data_train_evaluate_and_predict(tmp_path, run, tiny, demo):
    """Every image has the label of its class, and every other one "odd" too."""
    listed = rows(demo / "datalist.csv")
    path = demo / "multi.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", "split", "patient"])
        for place, row in enumerate(listed):
            label = row["label"] + ("|odd" if place % 2 else "")
            writer.writerow([row["image"], label, row["split"], row["patient"]])
    settings = tiny | {"dataset_dir": str(path), "output_dir": str(tmp_path)}
    run("train.json", **settings)
    info = load_model(tmp_path)[1]
    assert info["multi_label"] and info["class_names"] == ["interstitial", "nodule", "normal", "odd"]
    run("evaluate.json", output_dir=str(tmp_path))
    evaluated = rows(tmp_path / "predictions_test.csv")
    given = {str(demo / row["image"]): set(row["label"].split("|")) for row in rows(path)}
    assert all(set(row["label"].split("|")) == given[row["image"]] for row in evaluated)
    run("inference.json", output_dir=str(tmp_path), dataset_dir=str(demo / "datalist.csv"))
    predicted = {row["image"]: row for row in rows(tmp_path / "predictions.csv")}
    assert len(predicted) == len(listed)
    for row in evaluated:
        same = predicted[row["image"]]
        assert same["predicted"] == row["predicted"]
        assert float(same["p_odd"]) == pytest.approx(float(row["p_odd"]), abs=2e-6)


def test_the_evaluation_config_has_every_property_that_monai_asks_for(finished, workflow):
    built = workflow("evaluate.json", output_dir=str(finished))
    built.initialize()
    assert built.check_properties() == []
    assert isinstance(built.network_def, torch.nn.Module) and len(built.dataset) == 9


def test_corrupted_images_are_measured_beside_the_evaluation(finished, run):
    run("evaluate.json", output_dir=str(finished))
    plain = json.loads((finished / "metrics.json").read_text())["test"]
    run("evaluate.json", "corruption.json", output_dir=str(finished), corruptions=["noise", "jpeg"], strengths=[1, 5])
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["test"] == plain
    found = metrics["robustness"]
    assert found["images"] == 9 and found["source"] == plain["source"]
    assert {name: list(of) for name, of in found["corrupted"].items()} == {"noise": ["1", "5"], "jpeg": ["1", "5"]}
    for who in ("student", "auxiliary"):
        assert found["clean"][who] == pytest.approx(plain[who], abs=1e-6)
        assert found["corrupted"]["noise"]["5"][who]["nll"] != pytest.approx(plain[who]["nll"], abs=1e-5)


def test_a_class_map_and_a_column_of_images_go_through_all_workflows(run, tiny, demo, tmp_path):
    names = ["interstitial", "nodule", "normal"]
    found = load_records(demo, keep_twins=True)

    def numbers(split: str, name: str, code: dict[str, int]) -> Path:
        lines = [
            f"{record['image']};{demo / 'no_mask'};{code[names[record['label']]]};{record['patient']}"
            for record in found.splits[split]
        ]
        (tmp_path / name).write_text("\n".join(["Datei;Maske;Nummer;patient", *lines]))
        return tmp_path / name

    own = numbers("train", "own.csv", {"normal": 0, "nodule": 1, "interstitial": 2})
    class_map = {"0": "normal", "1": "nodule", "2": "interstitial"}
    read_as = {"label_column": "Nummer", "image_column": "Datei"}
    settings = tiny | read_as | {"dataset_dir": str(own), "output_dir": str(tmp_path / "run")}
    run("train.json", **settings, class_map=class_map)
    assert load_model(tmp_path / "run")[1]["class_names"] == names
    assert json.loads((tmp_path / "run" / "run.json").read_text())["config"]["class_map"] == class_map
    run("train.json", **settings, class_map=class_map)  # the same run, of which nothing is left to train
    assert "class_map" in refused(run, "train.json", **settings, class_map={**class_map, "2": "other"})
    other = numbers("test", "other.csv", {"normal": 2, "nodule": 1, "interstitial": 0})
    evaluated = {"output_dir": str(tmp_path / "run"), "dataset_dir": str(other), "report_as": "other"} | read_as
    assert "isn't the data of this run" in refused(run, "evaluate.json", **evaluated)
    run("evaluate.json", **evaluated, class_map={"2": "normal", "1": "nodule", "0": "interstitial"})
    labels = {row["image"]: row["label"] for row in rows(tmp_path / "run" / "predictions_other.csv")}
    assert labels == {record["image"]: names[record["label"]] for record in found.test}
    run("inference.json", output_dir=str(tmp_path / "run"), dataset_dir=str(other), image_column="Datei")
    assert len(rows(tmp_path / "run" / "predictions.csv")) == len(found.test)
