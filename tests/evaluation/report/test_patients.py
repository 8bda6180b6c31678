# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dual_skd.evaluation.analysis import analyse
from dual_skd.evaluation.analysis.run_facts import Split
from dual_skd.evaluation.report import patients, tables
from dual_skd.evaluation.report.model_card import model_card
from dual_skd.evaluation.report.page import ReportContent, page
from dual_skd.evaluation.run_files import read_run


@pytest.fixture
def analysis(run_folder):
    """Of two classes with 60 and 5 patients, each with two images."""
    labels = np.array([0] * 120 + [1] * 10)
    return analyse(read_run(run_folder(labels, class_names=("well", "ill"))), resamples=10)


def test_few_patients_of_a_class_are_said_in_words(analysis):
    said = patients.few_patients(analysis)
    assert said == (
        "Few patients are of a class: ill 5. Below 30 patients the intervals of a class hold, but they are wide: even "
        "if all 5 of ill were found, its sensitivity could be as low as 57%."  # Wilson: 5 / (5 + 1.96²)
    )
    text = page(ReportContent(analysis))
    assert text.index('class="lead"') < text.index(said) < text.index('class="cards"') and said in model_card(analysis)
    enough = replace(analysis, class_patients=[60, 30])
    assert patients.few_patients(enough) == "" and "Few patients" not in page(ReportContent(enough))
    absent = replace(analysis, class_patients=[60, 0])
    assert patients.few_patients(absent) == ""  # no number is shown of it


def test_images_without_a_patient_count_as_one_each_there(analysis):
    unknown = replace(
        analysis, class_patients=[0, 0], class_images_without_patient=[120, 10],
        patients=replace(analysis.patients, known=0, images_without=130),
    )  # fmt: skip
    assert patients.few_patients(unknown).startswith(
        "Few patients are of a class: ill 10. Images without a known patient count as one each."
    )
    assert patients.measured(unknown) == "130 test images of unknown patients"
    assert tables.measured_classes(unknown).rows == [["well", 120, "not known"], ["ill", 10, "not known"]]


def test_patients_stand_beside_images(analysis):
    assert tables.measured_classes(analysis).rows == [["well", 120, "60"], ["ill", 10, "5"]]
    head, rows = tables.splits(analysis.data)
    assert list(head[4:]) == ["well", "ill"] and rows[2][4:] == ["120 (60)", "10 (5)"]
    mixed = replace(analysis, class_images_without_patient=[1, 0])
    assert tables.measured_classes(mixed).rows[0] == ["well", 120, "60, and 1 image without a known one"]
    assert "| test | 130 | 65 | 0 | 120 (60) | 10 (5) |" in model_card(analysis)


def split(images: int, without: int) -> Split:
    return Split(images, 3, without, [images], [3], [without])


@pytest.mark.parametrize(
    ("without", "shared", "said"),
    [((0, 0), 0, "disjoint at the level of patients"),
     ((9, 4), 0, "disjoint at the level of images: patients aren't known"),
     ((8, 4), 0, "disjoint at the level of patients where they are known; 12 of 13 images have none"),
     ((0, 0), 2, "not disjoint at the level of patients: 2 patients are in more than one split"),
     ((3, 0), 1, "not disjoint at the level of patients: 1 patient is in more than one split")],
)  # fmt: skip
def test_partitions_are_said_as_far_as_they_are_known(analysis, without, shared, said):
    splits = {"training": split(9, without[0]), "test": split(4, without[1])}
    data = replace(analysis.data, splits=splits, patients_in_several_splits=shared)
    assert patients.partitions(data) == said
    assert f"- **Partitions**: {said}; " in model_card(replace(analysis, data=data)).replace("\\", "")
    assert patients.partitions(replace(data, splits={})) == "not recorded"


def test_patients_in_several_splits_are_found(run_folder):
    names = ["t1" if image < 2 else f"patient{image // 2}" for image in range(60)]
    found = analyse(read_run(run_folder(patients=names)), resamples=5)
    assert found.data.patients_in_several_splits == 1
