# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from dual_skd.evaluation.analysis import analyse, to_json
from dual_skd.evaluation.analysis.calibration import tempered
from dual_skd.evaluation.analysis.run_facts import stage_of
from dual_skd.evaluation.analysis.subgroups import group_columns
from dual_skd.evaluation.run_files import read_run
from dual_skd.metrics.predictions import read_predictions, write_predictions
from dual_skd.metrics.sample_size import images_for_share
from dual_skd.options import Reporting

FEW = {"resamples": 100}


def analysed(directory, *, calibration=None, **options):
    found = to_json(analyse(read_run(directory, calibration=calibration), **FEW | options))
    json.dumps(found, allow_nan=False)
    return found


def numbers(content):
    """Every leaf of a dictionary."""
    if isinstance(content, dict):
        return [leaf for value in content.values() for leaf in numbers(value)]
    if isinstance(content, list | tuple):
        return [leaf for value in content for leaf in numbers(value)]
    return [content]


def test_metrics_and_matrix_are_those_of_scikit_learn(run_folder):
    directory = run_folder()
    found, table = analysed(directory), read_predictions(directory / "predictions_test.csv")
    p = table.probabilities / table.probabilities.sum(axis=1, keepdims=True)
    chosen = p.argmax(axis=1)
    overall = found["metrics"]["overall"]
    assert overall["accuracy"]["value"] == pytest.approx(metrics.accuracy_score(table.labels, chosen))
    area = metrics.roc_auc_score(table.labels, p, multi_class="ovr")
    assert overall["macro_auc"]["value"] == pytest.approx(area)
    assert overall["macro_auc"]["low"] < area < overall["macro_auc"]["high"]
    assert found["confusion"] == metrics.confusion_matrix(table.labels, chosen).tolist()
    assert found["class_images"] == [20, 20, 20]
    assert found["patients"] == {"known": 30, "images_without": 0, "reason": ""}
    assert found["metrics"]["patients"] == 30


def test_no_name_of_a_file_or_a_patient_is_in_it(run_folder):
    text = json.dumps(analysed(run_folder(columns={"sex": ["f", "m"] * 30})))
    for secret in ("secret_name", "patient0", "clinic", "broken"):
        assert secret not in text


def test_thresholds_are_chosen_on_validation_and_measured_on_the_split(run_folder):
    directory = run_folder()
    found = analysed(directory)
    first, second, third = found["operating_points"][3:6]
    assert (first["class"], first["wanted"], second["wanted"]) == ("nodule", None, 0.9)
    validation = read_predictions(directory / "predictions_validation.csv")
    scores, there = validation.probabilities[:, 1], validation.labels == 1
    false, true, _ = metrics.roc_curve(there, scores)
    assert first["chosen"]["sensitivity"] + first["chosen"]["specificity"] - 1 == pytest.approx((true - false).max())
    assert second["chosen"]["sensitivity"] >= 0.9
    assert (second["confidence"], third["confidence"], third["chosen"]) == (None, 0.95, None)
    assert third["reason"] == (
        "no threshold: 10 validation images of it and 20 of the rest are too few for a sensitivity of 0.9 with 95% "
        "confidence (29 and 5 needed)"
    )
    table = read_predictions(directory / "predictions_test.csv")
    called = table.probabilities[:, 1] >= first["chosen"]["threshold"]
    assert first["metrics"]["sensitivity"]["value"] == pytest.approx(called[table.labels == 1].mean())
    specificity = (~called)[table.labels != 1].mean()
    assert first["metrics"]["specificity"]["value"] == pytest.approx(specificity)
    ratio = first["metrics"]["lr_positive"]
    assert ratio["value"] == pytest.approx(called[table.labels == 1].mean() / (1 - specificity))
    assert ratio["low"] < ratio["value"] < ratio["high"]


def test_a_written_table_is_calibrated_and_goes_back_to_what_the_network_said(run_folder):
    random = np.random.default_rng(4)
    labels, logits = np.arange(60) % 3, random.normal(size=(60, 3)) * 3
    raw, cooled = (np.exp(z) / np.exp(z).sum(axis=1, keepdims=True) for z in (logits, logits / 2.5))
    calibration = {"temperature": 2.5, "images": 30}
    found = analysed(run_folder(labels, cooled, temperature=2.5), calibration=calibration)["calibration"]
    assert found["predictions_are"] == "scaled by the temperature" and found["fitted_here"] is False
    assert found["before"]["metrics"]["nll"]["value"] == pytest.approx(metrics.log_loss(labels, raw), abs=1e-3)
    assert found["after"]["metrics"]["nll"]["value"] == pytest.approx(metrics.log_loss(labels, cooled), abs=1e-3)
    assert sum(bin["count"] for bin in found["after"]["bins"]) == 60
    np.testing.assert_allclose(tempered(tempered(raw, 2.5), 1 / 2.5), raw, atol=1e-4)


def test_operating_points_and_sets_use_validation_probabilities_of_the_same_temperature(run_folder):
    labels = np.arange(60) % 3
    calibration = {"temperature": 3.0, "images": 30}
    directory = run_folder(labels, temperature=3.0)
    found = analysed(directory, calibration=calibration)
    validation = read_predictions(directory / "predictions_validation.csv")
    scores = tempered(validation.probabilities, 3.0)[:, 0]
    threshold = found["operating_points"][0]["chosen"]["threshold"]
    below, above = scores[scores < threshold].max(), scores[scores >= threshold].min()
    assert threshold == pytest.approx((below + above) / 2)  # halfway between two neighbours at that temperature


def test_without_a_stored_temperature_one_is_fitted_on_the_validation_images(run_folder):
    found = analysed(run_folder())["calibration"]
    assert found["fitted_here"] is True and found["predictions_are"] == "as the network gives them"
    assert found["temperature"] > 0 and found["after"]["metrics"] is not None


def test_thresholds_are_held_back_where_the_validation_images_of_a_class_are_few(run_folder):
    directory = run_folder()
    path = directory / "predictions_validation.csv"
    lines = path.read_text().splitlines()
    of_mass = [line for line in lines[1:] if line.split(",")[1] == "mass"]
    for kept, held in ((3, (True, True, True)), (8, (False, True, True)), (9, (False, False, True))):
        path.write_text("\n".join(line for line in lines if line not in of_mass[kept:]) + "\n")
        points = [point for point in analysed(directory)["operating_points"] if point["class"] == "mass"]
        assert tuple(point["chosen"] is None for point in points) == held
        for point in points:
            assert point["chosen"]["positives"] == kept if point["chosen"] else f"{kept} validation" in point["reason"]


def test_it_says_on_how_many_images_and_patients_the_temperature_rests(run_folder):
    directory = run_folder()
    found = analysed(directory)["calibration"]
    assert found["images"] == 30 and found["patients"] is None
    content = json.loads((directory / "datalist.json").read_text())
    content["validation"] = [{"image": f"/clinic/val_{n}.png", "patient": f"p{n // 2}"} for n in range(20)]
    (directory / "datalist.json").write_text(json.dumps(content))
    fewer = analysed(directory)["calibration"]
    assert fewer["images"] == 30 and fewer["patients"] == 10 + 10
    stored = analysed(directory, calibration={"temperature": 2.0, "images": 30})["calibration"]
    assert stored["images"] == 30 and stored["patients"] is None


def test_prediction_sets_say_what_was_promised_and_what_was_seen(run_folder):
    found = analysed(run_folder(), alpha=0.2)["prediction_sets"]
    assert found["on_average"] == 0.8 and found["validation_images"] == found["independent"] == 30
    assert found["least"] == pytest.approx(stats.beta.ppf(0.05, 25, 6), abs=1e-6)  # k = ceil(31 * 0.8) = 25
    assert sum(found["sizes"]) == 60
    assert found["mean_size"]["value"] == pytest.approx(np.dot(found["sizes"], [1, 2, 3]) / 60)
    assert found["coverage"]["low"] <= found["coverage"]["value"] <= found["coverage"]["high"]


def test_the_least_coverage_counts_a_patients_validation_images_as_one(run_folder):
    directory = run_folder()
    content = json.loads((directory / "datalist.json").read_text())
    content["validation"] = [{"image": f"/clinic/val_{n}.png", "patient": f"p{n // 3}"} for n in range(30)]
    (directory / "datalist.json").write_text(json.dumps(content))
    found = analysed(directory, alpha=0.2)["prediction_sets"]
    assert found["independent"] == 10 and found["least"] == pytest.approx(stats.beta.ppf(0.05, 9, 2), abs=1e-6)


def test_sets_that_say_nothing_are_said_to_say_nothing(run_folder):
    labels = np.arange(60) % 3
    alone = analysed(run_folder(labels, np.eye(3)[labels] * 0.97 + 0.01), alpha=0.5)["prediction_sets"]
    assert alone["remark"].startswith(
        "100% of the sets hold one class alone, so they say no more than the answer itself"
    )
    assert alone["remark"].endswith("on the validation images it was right for 90%, and 50% are asked of the sets")
    constant, known = run_folder(labels, np.full((60, 3), 1 / 3), name="constant"), np.arange(30) % 3
    write_predictions(
        constant / "predictions_validation.csv", [f"{k}.png" for k in known], known, np.full((30, 3), 1 / 3),
        ("normal", "nodule", "mass"), multi_label=False,
    )  # fmt: skip
    assert analysed(constant)["prediction_sets"]["remark"] == (
        "100% of the sets hold every class, so they rule nothing out"
    )
    assert analysed(run_folder(name="telling"), alpha=0.05)["prediction_sets"]["remark"] == ""
    surer = analysed(run_folder(labels, np.eye(3)[labels] * 0.9997 + 1e-4, name="surer"), alpha=0.05)["prediction_sets"]
    assert surer["remark"] == "100% of the sets hold one class alone, so they say no more than the answer itself"


def test_sets_that_hold_fewer_than_chance_explains_are_said_to_break_their_promise(run_folder):
    labels = np.arange(60) % 3
    wrong = run_folder(labels, np.eye(3)[(labels + 1) % 3] * 0.97 + 0.01)
    assert analysed(wrong, alpha=0.2)["prediction_sets"]["remark"].startswith(
        "These sets don't keep their promise: they hold the true class for 0.0% of these images, which differ from the "
        "validation images"
    )


def test_a_next_study_is_planned_for_the_worse_limit_too(run_folder):
    labels = np.arange(60) % 2
    p = np.eye(2)[np.where(np.arange(60) < 12, 1 - labels, labels)] * 0.8 + 0.1  # 24 of 30 right in each class
    found = analysed(run_folder(labels, p, patients=[f"p{n}" for n in range(60)], class_names=("well", "ill")))
    well, ill = found["metrics"]["per_class"]
    needed = {(one["class"], one["metric"]): one for one in found["sample_size"]["needed"]}
    sensitivity, specificity = needed["well", "sensitivity"], needed["well", "specificity"]
    assert sensitivity["with_class"] == images_for_share(0.8, 0.05)
    assert sensitivity["careful_with"] == images_for_share(well["sensitivity"]["low"], 0.05)
    assert specificity["careful_without"] == images_for_share(ill["sensitivity"]["low"], 0.05)
    assert needed["ill", "auc"]["careful_with"] > needed["ill", "auc"]["with_class"]


def test_a_next_study_needs_more_patients_where_their_images_are_alike(run_folder):
    labels, random = np.repeat(np.arange(30) % 2, 2), np.random.default_rng(5)
    score = np.repeat(random.normal(size=30), 2) + 1.2 * labels  # two equal images of each patient
    p = 1 / (1 + np.exp(-score + 0.6))
    two = {"class_names": ("well", "ill")}
    found = analysed(run_folder(labels, np.stack([1 - p, p], axis=1), **two), options=Reporting(half_width=0.1))[
        "sample_size"
    ]
    assert found["half_width"] == 0.1 and found["patients_known"] and len(found["needed"]) == 6
    sensitivity, specificity, area = found["needed"][3:]
    assert (sensitivity["class"], sensitivity["metric"], area["metric"]) == ("ill", "sensitivity", "auc")
    assert sensitivity["value"] == found["needed"][1]["value"]  # the other class' specificity
    # two images that are equal count as one: as many patients as independent images, but for 15/14 / (30/29)
    assert sensitivity["design_effect"] == pytest.approx(2 * 15 / 14 * 29 / 30)
    images = images_for_share(sensitivity["value"], 0.1)
    assert sensitivity["with_class"] == math.ceil(images * sensitivity["design_effect"] / 2)
    assert sensitivity["without_class"] is None and specificity["with_class"] is None
    assert area["with_class"] == area["without_class"] > 0 and area["design_effect"] == pytest.approx(2, rel=0.05)
    unknown = analysed(run_folder(labels, np.stack([1 - p, p], axis=1), patients=[""] * 60, name="unknown", **two))
    assert not unknown["sample_size"]["patients_known"] and unknown["sample_size"]["needed"][0]["design_effect"] == 1


def test_decision_curves_are_of_each_class_and_end_with_a_reason(run_folder):
    found = analysed(run_folder(np.arange(60) % 2))["decision_curves"]
    assert [one["class"] for one in found] == ["normal", "nodule", "mass"] and found[2]["reason"] == "no image of mass"
    assert found[0]["treat_all"][49] == pytest.approx(0.5 - 0.5) and found[0]["prevalence"] == 0.5
    assert len(found[0]["low"]) == len(found[0]["thresholds"]) == 99


def test_sets_of_one_class_each_have_a_mean_size_without_the_limit_of_a_proportion(run_folder):
    labels = np.arange(60) % 3
    found = analysed(run_folder(labels, np.eye(3)[labels] * 0.97 + 0.01))["prediction_sets"]
    assert found["mean_size"]["value"] == 1 and found["mean_size"]["high"] is None


def test_the_risk_of_all_images_is_the_error_rate(run_folder):
    found = analysed(run_folder())
    risk = found["risk_coverage"]
    assert risk["risk_at"]["100%"] == pytest.approx(1 - found["metrics"]["overall"]["accuracy"]["value"])
    assert risk["coverage"][-1] == 1 and len(risk["coverage"]) == len(risk["risk"]) == 60


def test_columns_that_divide_the_images_into_groups_are_used(run_folder):
    columns = {"sex": ["f", "m"] * 30, "scanner": [f"s{k}" for k in range(60)], "birth_date": ["1", "2"] * 30,
               "view": ["pa"] * 60, "": [""] * 60}  # fmt: skip
    found = analysed(run_folder(columns=columns))["subgroups"]
    assert list(found["columns"]) == ["sex"]
    assert [(group["name"], group["images"]) for group in found["columns"]["sex"]] == [("f", 30), ("m", 30)]
    assert len(found["notes"]) == 2 and "60 values" in found["notes"][0] and "persons" in found["notes"][1]


def test_columns_that_point_at_persons_are_passed_over():
    records = [{"image": "a", "PatientAge": k % 2, "study_id": k % 2, "side": "lr"[k % 2]} for k in range(8)]
    columns, notes = group_columns(records)
    assert columns == {"side": list("lrlrlrlr")} and len(notes) == 2


def test_data_training_selection_and_size_are_summed_up(run_folder):
    found = analysed(run_folder())
    assert found["data"]["splits"]["training"] == {
        "images": 9, "patients": 3, "images_without_patient": 0, "class_images": [9, 0, 0],
        "class_patients": [3, 0, 0], "class_images_without_patient": [0, 0, 0],
    }  # fmt: skip
    assert found["data"]["twins"]["test"] == {"exact": 1, "near": 0} and found["data"]["skipped_files"] == 1
    assert found["training"]["series"]["auxiliary"]["macro_auc"] == [0.8, 0.8]
    assert found["training"]["best_epoch"] == 1
    stages = {row["stage"]: row for row in found["selection"]["stages"]}
    assert list(stages) == ["conv_stem", "blocks.0", "classifier"]
    assert (stages["blocks.0"]["tensors"], stages["blocks.0"]["selected"]) == (2, 1)
    assert (stages["blocks.0"]["parameters"], stages["blocks.0"]["selected_parameters"]) == (32, 16)
    assert stages["classifier"]["reasons"] == ["the classes are new"]
    assert found["efficiency"]["networks"]["large"]["parameters"] == 10000
    assert "dataset_dir" not in found["run"]["settings"] and found["run"]["settings"]["epochs"] == 2
    assert stage_of("layer1.0.conv.weight") == "layer1.0" and stage_of("head.bias") == "head"


# --- what isn't defined -----------------------------------------------------------------------------------------------


def test_an_absent_class_leaves_gaps_with_reasons(run_folder):
    found = analysed(run_folder(np.arange(60) % 2))
    assert found["metrics"]["overall"]["macro_auc"]["value"] is None
    assert found["metrics"]["overall"]["macro_auc"]["reason"] == "no image of mass"
    assert found["metrics"]["per_class"][2]["sensitivity"]["value"] is None
    assert found["roc"][2]["reason"] == "no image of mass" and found["roc"][0]["x"]
    assert found["metrics"]["per_class"][2]["auc"]["reason"] == "no image of mass"
    assert found["sample_size"]["needed"][6]["reason"] == "no image is of mass"
    of_class = found["prediction_sets"]["coverage_per_class"]
    assert (of_class[2]["value"], of_class[2]["reason"]) == (None, "no image of mass")
    assert of_class[0]["low"] < of_class[0]["value"] <= of_class[0]["high"]
    assert found["metrics"]["overall"]["accuracy"]["value"] is not None


def test_one_class_alone_has_no_area(run_folder):
    found = analysed(run_folder(np.zeros(20, int)))
    assert found["metrics"]["overall"]["macro_auc"]["value"] is None
    assert found["roc"][0]["reason"] == "every image is of normal"
    assert found["operating_points"][0]["metrics"]["specificity"]["value"] is None


def test_one_patient_has_values_without_intervals(run_folder):
    found = analysed(run_folder(patients=["p"] * 60))
    estimate = found["metrics"]["overall"]["accuracy"]
    assert estimate["low"] is None and estimate["reason"] == "no interval: all images are of one patient"
    assert found["roc"][0]["reason"] == "no band: all images are of one patient"
    assert found["prediction_sets"]["coverage"]["low"] is None


def test_a_single_image_is_measured(run_folder):
    found = analysed(run_folder([1]))
    assert found["images"] == 1 and found["metrics"]["overall"]["accuracy"]["low"] is None
    assert found["risk_coverage"]["coverage"] == [1.0]


def test_a_constant_predictor_has_areas_of_one_half(run_folder):
    found = analysed(run_folder(p=np.full((60, 3), 1 / 3)))
    area = found["metrics"]["overall"]["macro_auc"]
    assert area["value"] == pytest.approx(0.5) and area["low"] + area["high"] == pytest.approx(1)
    assert found["metrics"]["per_class"][1]["ppv"]["reason"] == "no image is predicted as nodule"


def test_without_validation_predictions_there_are_no_thresholds_sets_or_temperature(run_folder):
    found = analysed(run_folder(validation=False))
    why = "the run kept no predictions of validation images"
    assert found["operating_points"][0]["reason"] == f"no threshold: {why}"
    assert found["prediction_sets"]["reason"] == f"no prediction sets: {why}"
    assert found["calibration"]["after"]["reason"] == f"no temperature is known: {why}"
    assert found["calibration"]["before"]["metrics"]["ece"]["value"] is not None


def test_a_run_without_auxiliary_has_the_students_curve_alone(run_folder):
    assert list(analysed(run_folder(auxiliary=False))["training"]["series"]) == ["student"]


def test_several_labels_per_image_are_measured_label_by_label(run_folder):
    random = np.random.default_rng(2)
    labels = (random.random((40, 3)) < 0.4).astype(int)
    p = np.clip(0.5 * labels + 0.5 * random.random((40, 3)), 0.01, 0.99)
    found = analysed(run_folder(labels, p, multi_label=True))
    assert found["multi_label"] and found["class_images"] == labels.sum(axis=0).tolist()
    table = found["confusion"][1]
    assert table == metrics.multilabel_confusion_matrix(labels, p.round(6) > 0.5)[1].ravel().tolist()
    assert found["metrics"]["per_class"][0]["auc"]["value"] == pytest.approx(
        metrics.roc_auc_score(labels[:, 0], p[:, 0])
    )
    assert "several labels" in found["prediction_sets"]["reason"]
    assert found["operating_points"][0]["metrics"]["sensitivity"]["value"] is not None


def test_empty_files_beside_the_predictions_are_sentences(run_folder):
    directory = run_folder()
    for name in ("metrics.json", "run.json", "datalist.json", "selection_report.csv"):
        (directory / name).unlink()
    found = analysed(directory)
    for part in ("training", "selection", "run", "efficiency"):
        assert found[part]["reason"]
    assert found["data"]["known"] is False and found["patients"]["known"] == 0
    assert all(not isinstance(leaf, float) or np.isfinite(leaf) for leaf in numbers(found))


def test_calibrated_probabilities_are_taken_for_such_without_the_model_file(run_folder):
    directory = run_folder(temperature=2.0)
    unknown = analysed(directory, resamples=5)  # no calibration: of a model file that isn't there
    assert unknown["calibration"]["predictions_are"] == "scaled by the temperature"
    assert unknown["calibration"]["before"]["metrics"] is None and unknown["calibration"]["after"]["metrics"]
    assert "without the model file" in unknown["operating_points"][0]["reason"]
    assert "without the model file" in unknown["prediction_sets"]["reason"]

    metrics = json.loads((directory / "metrics.json").read_text())
    metrics["test"]["temperature"] = 2.0
    (directory / "metrics.json").write_text(json.dumps(metrics))
    known = analysed(directory, resamples=5)
    with_model = analysed(directory, calibration={"temperature": 2.0, "images": 30}, resamples=5)
    assert known["operating_points"] == with_model["operating_points"] and known["operating_points"][0]["chosen"]
    assert known["prediction_sets"] == with_model["prediction_sets"]
