# SPDX-License-Identifier: Apache-2.0
"""A model that learned on CT in Hounsfield units meets pictures made of CT, by every way of the bundle's configs."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from dicom_files import write_ct, write_dicom
from PIL import Image
from pydicom.uid import SecondaryCaptureImageStorage

from dual_skd.errors import input_error_behind
from dual_skd.runs.model_file import bundle_root, load_model, read_info


def slice_of(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    body = np.hypot(*np.mgrid[-16:16, -16:16]) < 12
    return np.where(body, -600.0, -1000.0) + rng.integers(0, 80, (32, 32)) + 200 * (seed % 2)


def picture(path: Path, seed: int) -> Path:
    values = np.clip((slice_of(seed) + 1350) / 1500 * 255, 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        Image.fromarray(values).save(path)
        return path
    return write_dicom(path, values, SOPClassUID=SecondaryCaptureImageStorage, PatientID=path.stem)


def ct_set(folder: Path, counts: dict[str, int], start: int = 0) -> Path:
    for split, count in counts.items():
        for seed in range(start, start + count):
            path = folder / split / ("ill" if seed % 2 else "well") / f"{split}{seed}.dcm"
            write_ct(path, slice_of(seed + 100 * len(split)), BodyPartExamined="CHEST", PatientID=f"{split}{seed}")
    return folder


@pytest.fixture(scope="module")
def of_ct(tmp_path_factory, run, tiny) -> Path:
    """A finished run on CT slices, with the window that `auto` gives them."""
    root = tmp_path_factory.mktemp("ct")
    data = ct_set(root / "data", {"train": 12, "val": 4, "test": 4})
    run("train.json", **tiny | {"dataset_dir": str(data)}, output_dir=str(root / "run"), twin_search="never")
    return root / "run"


@pytest.fixture
def finished(of_ct, tmp_path) -> Path:
    return shutil.copytree(of_ct, tmp_path / "run")


def refused(run, *arguments, **overrides) -> str:
    with pytest.raises(Exception) as caught:
        run(*arguments, **overrides)
    return str(input_error_behind(caught.value))


def test_both_model_files_say_what_training_had(of_ct):
    for name in ("model.pt", "model.safetensors", "auxiliary.pt"):
        kept = read_info(of_ct / "models" / name)["preprocessing"]
        assert kept["window"] == [-600.0, 1500.0]
        assert kept["expected"] == {
            "images": 12, "hounsfield": True, "modalities": ["CT"], "formats": ["DICOM"], "colour": False,
            "planes": [""], "sizes": [32, 32], "aspect_ratios": [1.0, 1.0],
        }  # fmt: skip
    config = json.loads((of_ct / "run.json").read_text())["config"]
    assert "expected" not in config and "expectation" not in config  # so no former run has other settings


def test_inference_gives_them_a_row_that_says_why(finished, run, tmp_path):
    good = write_ct(tmp_path / "new" / "ct.dcm", slice_of(7), BodyPartExamined="CHEST")
    bad = [picture(tmp_path / "new" / name, 7) for name in ("export.png", "shot.dcm")]
    run("inference.json", output_dir=str(finished), dataset_dir=str(tmp_path / "new"))
    with (finished / "predictions.csv").open() as file:
        rows = {Path(row["image"]): row for row in csv.DictReader(file)}
    assert rows[good]["predicted"] and not rows[good]["problem"]
    for path in bad:
        assert "aren't Hounsfield units" in rows[path]["problem"] and not rows[path]["predicted"]
        assert not rows[path]["p_ill"] and not rows[path]["p_well"]
    run("inference.json", output_dir=str(finished), dataset_dir=str(tmp_path / "new"), unexpected_input="accept")
    with (finished / "predictions.csv").open() as file:
        assert all(row["p_ill"] and not row["problem"] for row in csv.DictReader(file))


def test_the_preprocessing_that_monai_label_and_deploy_take_refuses_them(finished, workflow, tmp_path):
    built = workflow("inference.json", output_dir=str(finished), dataset_dir=str(picture(tmp_path / "a.png", 1)))
    built.initialize()
    with pytest.raises(Exception) as caught:
        built.parser.get_parsed_content("preprocessing")({"image": str(tmp_path / "a.png")})
    assert "aren't Hounsfield units" in str(input_error_behind(caught.value))


def test_evaluation_refuses_with_the_count_before_anything_is_measured(finished, run, tmp_path):
    other = ct_set(tmp_path / "other", {"test": 6}, start=50)
    picture(other / "test" / "ill" / "export.png", 3)
    picture(other / "test" / "well" / "shot.dcm", 4)
    options = {
        "output_dir": str(finished),
        "dataset_dir": str(other / "test"),
        "report_as": "b",
        "twin_search": "never",
    }
    before = (finished / "metrics.json").read_text()
    said = refused(run, "evaluate.json", **options)
    assert said.startswith("2 of 8 images aren't what this model was trained on") and "export.png" in said
    assert (finished / "metrics.json").read_text() == before and not (finished / "predictions_b.csv").exists()
    run("evaluate.json", **options, unexpected_input="accept")
    entry = json.loads((finished / "metrics.json").read_text())["b"]
    assert entry["images"] == 8 and entry["unexpected_input"] == "accept" and entry["unexpected_images"] == 2


def test_the_runs_own_images_are_as_expected_and_its_entry_has_no_word_of_it(finished, run):
    run("evaluate.json", output_dir=str(finished))
    entry = json.loads((finished / "metrics.json").read_text())["test"]
    assert entry["images"] == 4 and "unexpected_input" not in entry


def test_a_screenshot_that_the_sample_of_training_passed_over_ends_it_by_name(tmp_path, run, tiny):
    data = ct_set(tmp_path / "data", {"train": 60, "val": 2, "test": 2})
    # the third of 31 images of its class, where a sample of 12 has the first and the fourth
    picture(data / "train" / "ill" / "train11.dcm", 11)
    said = refused(run, "train.json", **tiny | {"dataset_dir": str(data)}, output_dir=str(tmp_path / "o"))
    assert "train11.dcm isn't like the other images" in said and "--window percentile" in said
    options = tiny | {"dataset_dir": str(data), "window": "percentile"}
    run("train.json", **options, output_dir=str(tmp_path / "p"))
    assert load_model(tmp_path / "p")[1]["preprocessing"]["window"] == "percentile"


def test_a_model_file_without_an_expectation_loads_and_compares_nothing(tmp_path, run, finished):
    state = torch.load(Path(bundle_root()) / "models" / "model.pt", weights_only=True)
    del state._metadata[""]["preprocessing"]["expected"]  # a model made before there was one
    (tmp_path / "old" / "models").mkdir(parents=True)
    torch.save(state, tmp_path / "old" / "models" / "model.pt")
    run("inference.json", output_dir=str(tmp_path / "old"), dataset_dir=str(picture(tmp_path / "a.png", 1)))
    with (tmp_path / "old" / "predictions.csv").open() as file:
        assert [row["problem"] for row in csv.DictReader(file)] == [""]
