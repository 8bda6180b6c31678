# SPDX-License-Identifier: Apache-2.0
"""A run measured per patient: its numbers, what is chosen on validation patients, its pages."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from ignite.engine import Engine
from sklearn import metrics

from dual_skd.api.results import EvaluationResult
from dual_skd.cli.dispatch import main
from dual_skd.errors import InputError
from dual_skd.evaluation.analysis import analyse, to_json
from dual_skd.evaluation.analysis.calibration import tempered
from dual_skd.evaluation.analysis.per_patient import files_per_patient
from dual_skd.evaluation.report import patients
from dual_skd.evaluation.report.commands import commands
from dual_skd.evaluation.report.model_card import model_card
from dual_skd.evaluation.report.page import ReportContent, page
from dual_skd.evaluation.report.writer import ReportWriter
from dual_skd.evaluation.run_files import read_run
from dual_skd.metrics.operating_point import choose_operating_point
from dual_skd.metrics.predictions import read_predictions
from dual_skd.metrics.uncertainty import fit_conformal

NAMES = ("well", "ill")
LABELS = np.array([image % 6 == 0 for image in range(90)]).astype(int)  # of three images per patient the first
OF_THREE = [f"patient{image // 3}" for image in range(90)]
QUICK = ["--no-images", "--no-speed", "--resamples", "10"]


@pytest.fixture
def run(run_folder):
    """Two classes, three images per patient, the patients of the validation images known."""

    def write(**options):
        given = {"class_names": NAMES, "patients": OF_THREE} | options
        directory = run_folder(LABELS if "labels" not in given else given.pop("labels"), **given)
        content = json.loads((directory / "datalist.json").read_text())
        count = 10 * len(given["class_names"])
        content["validation"] = [{"image": f"/clinic/val_{k}.png", "label": k % 2, "patient": f"v{k // 2}"}
                                 for k in range(count)]  # fmt: skip
        (directory / "datalist.json").write_text(json.dumps(content))
        return directory

    return write


def grouped(values, of):
    """Values of images by patient, in the order of the patients."""
    found = {}
    for value, name in zip(values, of, strict=True):
        found.setdefault(name, []).append(value)
    return list(found.values())


@pytest.mark.parametrize(("how", "combine"), [("mean", np.mean), ("max", np.max)])
def test_numbers_are_those_of_a_table_grouped_by_patient(run, how, combine):
    directory = run()
    found = to_json(analyse(files_per_patient(read_run(directory), how), resamples=50))
    json.dumps(found, allow_nan=False)
    table = read_predictions(directory / "predictions_test.csv")
    scores = np.array([combine(one) for one in grouped(table.probabilities[:, 1], OF_THREE)])
    truth = np.array([max(one) for one in grouped(table.labels, OF_THREE)])
    assert found["unit"]["name"] == "patient" and found["unit"]["combine"] == how
    assert (found["rows"], found["images"]) == (30, 90) and found["class_images"] == [45, 45]
    assert found["class_patients"] == [15, 15] and found["metrics"]["patients"] == 30
    overall = found["metrics"]["overall"]
    assert overall["macro_auc"]["value"] == pytest.approx(metrics.roc_auc_score(truth, scores), abs=1e-9)
    assert overall["accuracy"]["value"] == pytest.approx(np.mean((scores > 0.5) == truth))
    assert overall["nll"]["value"] == pytest.approx(metrics.log_loss(truth, scores), abs=1e-7)
    assert found["confusion"] == metrics.confusion_matrix(truth, scores > 0.5).tolist()
    assert "secret_name" not in json.dumps(found) and "patient0" not in json.dumps(found)


def test_thresholds_sets_and_temperature_are_chosen_on_validation_patients(run):
    directory = run()
    content = json.loads((directory / "datalist.json").read_text())
    of_images = [f"v{k % 10}" for k in range(20)]
    for record, patient in zip(content["validation"], of_images, strict=True):
        record["patient"] = patient
    (directory / "datalist.json").write_text(json.dumps(content))
    files = files_per_patient(read_run(directory))
    found = analyse(files, resamples=20, alpha=0.2)
    validation = read_predictions(directory / "predictions_validation.csv")
    p = np.array([np.mean(one, axis=0) for one in grouped(validation.probabilities, of_images)])
    p /= p.sum(axis=1, keepdims=True)
    truth = np.array([max(one) for one in grouped(validation.labels, of_images)])
    assert truth.tolist() == [0, 1] * 5
    (point,) = [one.chosen for one in found.operating_points if one.class_name == "ill" and one.chosen]
    assert point.images == 10 and point.threshold == pytest.approx(choose_operating_point(p, truth).threshold)
    rule = fit_conformal(p, truth, alpha=0.2)
    assert found.prediction_sets.validation_images == 10 == rule.images
    assert found.calibration.fitted_here and (found.calibration.images, found.calibration.patients) == (10, 10)
    assert found.calibration.predictions_are == "combined from those of images, which are as the network gives them"


def test_of_calibrated_answers_those_of_validation_are_calibrated_too_before_they_are_combined(run):
    directory = run(temperature=2.0)
    files = files_per_patient(read_run(directory, calibration={"temperature": 2.0, "images": 20}))
    validation = read_predictions(directory / "predictions_validation.csv").probabilities
    cooled = tempered(validation, 2.0)
    assert np.allclose(files.validation.probabilities[0], cooled[:2].mean(axis=0), atol=1e-8)
    assert files.unit.answers == "calibrated" and files.calibration is None


def test_a_temperature_that_nobody_knows_leaves_no_validation(run):
    files = files_per_patient(read_run(run(temperature=2.0)))
    assert files.validation is None and "by a temperature that isn't known" in files.validation_reason


def test_validation_images_without_patients_choose_nothing(run, run_folder):
    files = files_per_patient(read_run(run_folder(LABELS, class_names=NAMES, patients=OF_THREE)))
    assert files.validation is None
    found = analyse(files, resamples=10)
    assert found.operating_points[0].reason == "no threshold: the patients of the validation images aren't known"
    assert found.calibration.temperature is None and found.prediction_sets.coverage is None


def test_validation_patients_of_several_classes_choose_nothing(run):
    labels = np.arange(90) // 3 % 3
    directory = run(labels=labels, class_names=("normal", "nodule", "mass"))
    files = files_per_patient(read_run(directory))  # of whose validation patients no two images are alike
    assert (
        files.validation is None
        and files.validation_reason == "most validation patients have images of different labels"
    )


def test_without_any_patient_it_is_refused(run, capsys):
    directory = run(patients=[""] * 90)
    with pytest.raises(InputError, match="of 90 images no patient is known"):
        files_per_patient(read_run(directory))
    assert main(["report", str(directory), *QUICK, "--per", "patient"]) == 1
    assert "or by patient_pattern; or measure per image." in capsys.readouterr().err


def test_unknown_patients_count_as_one_each_and_the_page_says_so(run):
    names = ["" if image >= 87 else name for image, name in enumerate(OF_THREE)]
    found = analyse(files_per_patient(read_run(run(patients=names))), resamples=10)
    assert (found.rows, found.images, found.patients.known, found.patients.images_without) == (32, 90, 29, 3)
    assert found.patients.reason.startswith("the patients of 3 of 90 images aren't known; each of those images counts")
    text = page(ReportContent(found))
    assert "With 29 patients and 3 images without a known one, counted as one each, the 95% interval" in text
    assert "32 test patients with 90 images" in text


def test_patients_of_several_classes_are_left_out_and_counted(run):
    labels = np.arange(90) // 3 % 3
    labels[[0, 4]] = 1
    directory = run(labels=labels, class_names=("normal", "nodule", "mass"))
    found = analyse(files_per_patient(read_run(directory), "max"), resamples=10)
    assert (found.unit.left_out_patients, found.unit.left_out_images, found.rows, found.images) == (1, 3, 29, 87)
    said = patients.combined(found)
    assert said.endswith("Left out: 1 patient (3 images) whose images are of different classes.")
    assert "for each class the largest probability among the images of the patient, divided by the sum" in said
    assert said in page(ReportContent(found)) and "A patient has the class of all images." in said


def test_of_several_labels_a_patient_has_those_of_any_image(run):
    labels = np.stack([LABELS, 1 - LABELS], axis=1)
    p = np.random.default_rng(0).random((90, 2))
    directory = run(labels=labels, p=p, multi_label=True)
    found = analyse(files_per_patient(read_run(directory), "max"), resamples=10)
    assert found.class_patients == [15, 30] and found.rows == 30
    assert "for each label the largest probability" in patients.combined(found)
    assert "A patient has the labels of any image." in patients.combined(found)


def test_columns_are_those_of_patients(run):
    columns = {
        "site": ["a", "a", "a", "b", "b", "b"] * 15,
        "view": ["front", "side", "top"] * 30,
        "sex": (["f", "m", "f"] + ["f"] * 42) + ["m"] * 45,
        "study_date": [str(image) for image in range(90)],
    }
    found = analyse(files_per_patient(read_run(run(columns=columns))), resamples=20)
    assert {name: [group.images for group in groups] for name, groups in found.subgroups.columns.items()} == {
        "site": [15, 15], "sex": [14, 15, 1],
    }  # fmt: skip
    assert "view: of 30 patients the images differ in it, so it isn't used" in found.subgroups.notes
    assert "sex: of 1 patient the images differ in it, so these are of no known group" in found.subgroups.notes
    assert not any("study_date: of" in note for note in found.subgroups.notes)
    assert found.subgroups.columns["sex"][2].too_small.startswith("1 patient, fewer than 10; no patient of ")
    (difference,) = found.subgroups.differences["sex"]
    assert (difference.name, difference.reference) == ("f", "m")
    text, card = page(ReportContent(found)), model_card(found)
    assert "Differences by sex" in text and "f − m" in card and "patients by class" in text


def test_the_report_of_patients_leaves_that_of_images_as_it_is(run, capsys):
    directory = run()
    assert main(["report", str(directory), *QUICK]) == 0
    of_images = (directory / "report" / "report.html").read_text()
    before = json.loads((directory / "metrics.json").read_text())["test"]["analysis"]
    capsys.readouterr()
    assert main(["report", str(directory), *QUICK, "--per", "patient", "--combine", "max"]) == 0
    lines = capsys.readouterr().out.splitlines()
    folder = directory / "report" / "patients_max"
    assert lines[0] == f"Report: {folder}/report.html"
    assert [line.split() for line in lines[1:3]] == [["patients", "30"], ["images", "90"]]
    assert {path.name for path in folder.iterdir()} == {"report.html", "model_card.md", "plots"}
    assert (directory / "report" / "report.html").read_text() == of_images
    entry = json.loads((directory / "metrics.json").read_text())["test"]
    assert entry["analysis"] == before and entry["patients_max"]["analysis"]["rows"] == 30
    text = (folder / "report.html").read_text()
    for words in ("30 test patients with 90 images", "patients were answered right", "Calling every patient"):
        assert words in text
    assert "dual-skd evaluate OUT --per patient --combine max" in text
    assert "dual-skd report OUT --per patient --combine max" in text


def test_commands_of_images_are_as_they_were(run):
    assert commands(analyse(read_run(run()), resamples=5)).splitlines()[1:] == [
        "dual-skd evaluate OUT",
        "dual-skd report OUT",
    ]


def test_python_has_the_numbers_too(run):
    directory = run()
    record = json.loads((directory / "metrics.json").read_text())
    record["test"] |= {"source": "own", "student": record["test"]["student"] | {"balanced_accuracy": 0.8}}
    (directory / "metrics.json").write_text(json.dumps(record))
    assert EvaluationResult(directory).per_patient == {}
    assert main(["report", str(directory), *QUICK, "--per", "patient"]) == 0
    result = EvaluationResult(directory)
    assert set(result.per_patient) == {"mean"} and 0 <= result.per_patient["mean"]["accuracy"]["value"] <= 1
    text = repr(result)
    assert "30 patients (mean of 90 images): macro AUC" in " ".join(text.split())
    assert f"{directory}/report/patients_mean/report.html" in text


def test_the_numbers_at_home_are_those_of_patients(run):
    directory = run()
    main(["report", str(directory), *QUICK, "--per", "patient"])
    record = json.loads((directory / "metrics.json").read_text())
    (directory / "metrics.json").write_text(
        json.dumps(record | {"b": {"images": 90, "student": record["test"]["student"]}})
    )
    (directory / "predictions_test.csv").rename(directory / "predictions_b.csv")
    content = json.loads((directory / "datalist.json").read_text())
    (directory / "datalist_b.json").write_text(json.dumps({"test": content["test"]}))
    files = read_run(directory, "b")
    found = analyse(files_per_patient(files), resamples=10)
    home = record["test"]["patients_mean"]["analysis"]["metrics"]["overall"]["macro_auc"]
    assert found.home.images == 30 and found.home.metrics["macro_auc"].value == home["value"]
    missing = analyse(files_per_patient(files, "max"), resamples=10).home
    assert missing.reason.startswith("the run's own test images weren't measured per patient")
    assert "evaluate OUT --per patient” does that" in page(ReportContent(replace(found, home=missing)))


def test_an_evaluation_writes_both_reports(run):
    directory = run()
    ReportWriter(directory, resamples=5, per="patient")(Engine(lambda *_: None))
    entry = json.loads((directory / "metrics.json").read_text())["test"]
    assert entry["analysis"]["rows"] == 90 and entry["patients_mean"]["analysis"]["rows"] == 30


def test_without_patients_an_evaluation_has_its_report_of_images(run, caplog):
    directory = run(patients=[""] * 90)
    ReportWriter(directory, resamples=5, per="patient")(Engine(lambda *_: None))
    assert (
        directory / "report" / "report.html"
    ).is_file() and "There is no report of patients: Expected" in caplog.text


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--combine", "max"], "combine is 'max', but images are measured one by one; give per patient, too."),
     (["--per", "patients"], "Unknown per 'patients' (did you mean patient?); valid: image, patient.")],
)  # fmt: skip
def test_options_that_do_not_go_together_are_refused(run, capsys, words, said):
    assert main(["report", str(run()), *words]) == 1
    assert said in capsys.readouterr().err
