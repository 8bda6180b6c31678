# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pydicom
import pytest
import torch
from PIL import Image

from dual_skd.cli.dispatch import main
from dual_skd.errors import input_error_behind
from dual_skd.runs.model_file import bundle_root, load_model

CONFIGS = Path(bundle_root()) / "configs"


@pytest.fixture
def finished(trained, tmp_path) -> Path:
    """A copy of the finished run, to write into."""
    return shutil.copytree(trained, tmp_path / "run")


def predictions(directory: Path) -> list[dict]:
    with (directory / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_image_of_a_folder_gets_named_probabilities(finished, run, demo):
    done = run("inference.json", output_dir=str(finished), dataset_dir=str(demo / "images"))
    found = predictions(finished)
    assert [row["image"] for row in found] == [str(path) for path in sorted((demo / "images").iterdir())]
    names = load_model(finished)[1]["class_names"]
    for row in found:
        probabilities = {name: float(row[f"p_{name}"]) for name in names}
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert row["predicted"] == max(probabilities, key=probabilities.get)
    images = done.parser.get_parsed_content("dataset")
    assert images[0]["image"].shape == (1, 32, 32)


def test_inference_and_evaluation_agree(finished, run):
    run("evaluate.json", output_dir=str(finished))
    run("inference.json", output_dir=str(finished), dataset_dir=str(finished / "datalist.json"), batch_size=5)
    probabilities = {row["image"]: float(row["p_nodule"]) for row in predictions(finished)}
    with (finished / "predictions_test.csv").open() as file:
        for row in csv.DictReader(file):
            assert probabilities[row["image"]] == pytest.approx(float(row["p_nodule"]), abs=2e-6)


def test_one_image_is_enough(finished, run, demo):
    image = min((demo / "images").iterdir())
    for given in (image, shutil.copytree(demo / "images", finished / "a" / "b") / image.name):
        run("inference.json", output_dir=str(finished), dataset_dir=str(given))
        assert [row["image"] for row in predictions(finished)] == [str(given)]


def test_inference_and_predict_write_the_same_table(finished, run, demo):
    # nine digits tell a float32 from its neighbours, so the probabilities are equal bit for bit
    run("inference.json", output_dir=str(finished), dataset_dir=str(demo / "images"))
    table = finished / "answers.csv"
    assert main(["predict", str(demo / "images"), "--model", str(finished), "--csv", str(table)]) == 0
    assert table.read_bytes() == (finished / "predictions.csv").read_bytes()
    assert {"uncertainty", "disagreement", "prediction_set"} <= set(predictions(finished)[0])
    run("inference.json", output_dir=str(finished), dataset_dir=str(demo / "images"), disagreement=False)
    assert "disagreement" not in predictions(finished)[0]


def test_damaged_files_and_reports_among_images_have_a_row_that_says_why(finished, run, demo, tmp_path):
    folder = shutil.copytree(demo / "images", tmp_path / "export" / "study 1" / "series")
    good = sorted(folder.iterdir())
    (folder / "cut.dcm").write_bytes(good[0].read_bytes()[:5000])
    (folder / "empty.png").touch()
    (folder / "notes.txt").write_text("no image")
    (folder / "DICOMDIR").write_bytes(good[0].read_bytes())
    report = pydicom.dcmread(good[0])
    del report.PixelData, report.Rows, report.Columns
    report.save_as(folder.parent / "report.dcm")
    run("inference.json", output_dir=str(finished), dataset_dir=str(tmp_path / "export"), explain=True)
    rows = {Path(row["image"]).relative_to(folder.parent): row for row in predictions(finished)}
    bad = {str(name): row["problem"] for name, row in rows.items() if row["problem"]}
    assert set(bad) == {"report.dcm", "series/cut.dcm", "series/empty.png"} and len(rows) == len(good) + 3
    assert all(str(folder.parent / name) in problem for name, problem in bad.items())
    assert all(row["predicted"] and row["uncertainty"] for row in rows.values() if not row["problem"])
    pictures = sorted((finished / "explanations").iterdir())
    assert [int(path.stem) for path in pictures] == [n for n, row in enumerate(rows.values(), 1) if not row["problem"]]
    with Image.open(pictures[0]) as picture:
        assert picture.size == (64, 32)


def test_a_folder_without_images_is_one_sentence(finished, run, tmp_path):
    (tmp_path / "empty").mkdir()
    for given, words in ((tmp_path / "empty", "holds no images"), (tmp_path / "nowhere", "does not exist")):
        with pytest.raises(Exception) as caught:
            run("inference.json", output_dir=str(finished), dataset_dir=str(given))
        assert words in str(input_error_behind(caught.value))


def test_the_inference_config_is_what_monai_label_and_deploy_need(finished, workflow, demo):
    built = workflow("inference.json", output_dir=str(finished), dataset_dir=str(demo / "images"))
    built.initialize()
    assert built.check_properties() == []
    network = built.parser.get_parsed_content("network")
    assert isinstance(network, torch.nn.Module) and not network.training
    last = built.parser.get("postprocessing")["transforms"][-1]
    assert last == {"_target_": "DeleteItemsd", "keys": ["image", "image_meta_dict"]}
    assert "@_meta_" not in (CONFIGS / "inference.json").read_text()
