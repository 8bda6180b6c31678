# SPDX-License-Identifier: Apache-2.0
"""Data of one image, one class, or batches of one: trained and measured, or refused in one sentence."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from dual_skd.errors import input_error_behind


@pytest.fixture
def few(tmp_path, demo):
    """Writes a list of the demo data with so many images of each split, the classes by turns, or of some alone."""

    def write(classes: tuple[str, ...] = ("interstitial", "nodule", "normal"), **numbers: int) -> Path:
        with (demo / "datalist.csv").open(newline="") as file:
            rows = [row | {"image": str(demo / row["image"])} for row in csv.DictReader(file)]
        kept = [row for row in rows if row["split"] not in numbers]
        for split, number in numbers.items():
            of_class = [[row for row in rows if (row["split"], row["label"]) == (split, name)] for name in classes]
            kept += [row for together in zip(*of_class, strict=True) for row in together][:number]
        path = tmp_path / "list.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, kept[0])
            writer.writeheader()
            writer.writerows(kept)
        return path

    return write


@pytest.mark.parametrize(
    ("numbers", "options"),
    [
        ({"train": 9}, {}),  # batches of eight, and one image more
        ({"train": 4}, {"batch_size": 1, "image_size": 64}),
        ({"val": 3, "classes": ("normal",)}, {"key_metric": "macro_auc"}),
        ({"val": 1}, {}),
        ({"val": 0}, {}),
        ({"test": 3, "classes": ("normal",)}, {}),
        ({"test": 1}, {}),
    ],
)
def test_few_images_are_trained_on_and_measured(numbers, options, few, run, tiny, tmp_path):
    arguments: dict[str, Any] = tiny | {"dataset_dir": str(few(**numbers)), "output_dir": str(tmp_path / "run")}
    run("train.json", **arguments | options)
    run("evaluate.json", output_dir=str(tmp_path / "run"), report=True)
    measured = json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]
    assert measured["images"] == numbers.get("test", 9)
    assert (tmp_path / "run" / "report" / "report.html").is_file()


@pytest.mark.parametrize(
    ("numbers", "options", "said"),
    [
        ({"train": 1}, {}, "No training images of nodule, normal are left"),
        ({"train": 4}, {"batch_size": 1}, "raise batch_size or image_size"),
        ({"train": 8, "val": 3, "test": 3, "classes": ("normal",)}, {}, "class"),
    ],
)
def test_too_few_images_are_one_sentence(numbers, options, said, few, run, tiny, tmp_path):
    with pytest.raises(Exception) as caught:
        run(
            "train.json",
            **tiny | {"dataset_dir": str(few(**numbers)), "output_dir": str(tmp_path / "run")} | options,
        )
    sentence = str(input_error_behind(caught.value))
    assert said in sentence and len(sentence.splitlines()) == 1
