# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from dual_skd.errors import InputError
from dual_skd.evaluation.comparison import compare_runs, different_options, shared_images
from dual_skd.evaluation.run_files import read_run
from dual_skd.metrics.intervals import metric_intervals
from dual_skd.metrics.mcnemar import mcnemar_test
from dual_skd.metrics.paired import holm
from dual_skd.metrics.predictions import PredictionTable

LABELS = np.arange(60) % 3


def two(run_folder, **options):
    good = np.eye(3)[LABELS] * 0.7 + 0.1
    weak = good.copy()
    weak[:24] = weak[:24][:, ::-1] * 0.5 + np.full(3, 1 / 6)
    one = read_run(run_folder(LABELS, good, name="one", **options))
    return one, read_run(run_folder(LABELS, weak, name="other", **options))


def test_the_tests_are_those_of_the_library_and_corrected_as_one_family(run_folder):
    one, other = two(run_folder)
    found = compare_runs(one, other, resamples=200)
    json.dumps(found, allow_nan=False)
    calls = [side.table.probabilities.argmax(axis=1) for side in (one, other)]
    accuracy = found["metrics"]["accuracy"]
    patients = [record["patient"] for record in one.records]
    assert accuracy["p"] == mcnemar_test(*calls, LABELS, patients=patients).p
    assert found["right"] == {"both": 44, "only_one": 16, "only_other": 0, "neither": 0}
    assert accuracy["one"] == 1 and accuracy["other"] == pytest.approx((calls[1] == LABELS).mean())
    assert accuracy["difference"] == pytest.approx(accuracy["one"] - accuracy["other"])
    assert accuracy["low"] <= accuracy["difference"] <= accuracy["high"]
    entries = {**found["metrics"], **{area["class"]: area for area in found["areas"]}}
    family = [entry for entry in entries.values() if entry["p"] is not None]
    assert [name for name, entry in entries.items() if entry["p"] is None] == ["ece", "nodule"]  # perfect in both
    assert [entry["p_holm"] for entry in family] == holm([entry["p"] for entry in family])
    assert found["hypotheses"][:2] == [["accuracy"], ["balanced accuracy"]] and len(found["hypotheses"]) == len(family)


def test_two_classes_have_one_area_and_six_hypotheses(run_folder):
    labels, random = np.arange(60) % 2, np.random.default_rng(0)
    pair = [read_run(run_folder(labels, random.dirichlet(np.ones(2), 60), name=name, class_names=["well", "ill"]))
            for name in "ab"]  # fmt: skip
    found = compare_runs(*pair, resamples=50)
    words = ["accuracy", "balanced accuracy", "macro AUC", "F1", "NLL", "Brier score"]
    assert found["areas"] == [] and found["hypotheses"] == [[name] for name in words]


def test_a_label_that_is_the_opposite_of_another_is_no_hypothesis_of_its_own(run_folder):
    random = np.random.default_rng(0)
    first = random.integers(2, size=(40, 1))
    labels = np.hstack([first, 1 - first, random.integers(2, size=(40, 1))])
    pair = []
    for name in "ab":
        score = random.random((40, 1)).round(3)
        pair.append(read_run(run_folder(labels, np.hstack([score, 1 - score, random.random((40, 1))]),
                                        multi_label=True, name=name)))  # fmt: skip
    found = compare_runs(*pair)
    assert found["hypotheses"] == [["AUC of normal", "AUC of nodule"], ["AUC of mass"]]
    holms = [area["p_holm"] for area in found["areas"]]
    assert holms[0] == holms[1] and [holms[0], holms[2]] == holm([found["areas"][k]["p"] for k in (0, 2)])


def test_fifty_classes_leave_a_clear_difference_beyond_chance(run_folder):
    # 200 images, NLL 1.8 against 0.9: with p values of 2,000 resamples, 0.047 after Holm for 58 hypotheses
    random, labels = np.random.default_rng(0), np.arange(200) % 50
    pair = []
    for name, strength in (("a", 3.2), ("b", 4.6)):
        p = np.exp(random.normal(size=(200, 50)) + strength * np.eye(50)[labels])
        names = [f"class {k}" for k in range(50)]
        pair.append(read_run(run_folder(labels, p / p.sum(axis=1, keepdims=True), name=name, class_names=names)))
    found = compare_runs(*pair, resamples=20)
    nll = found["metrics"]["nll"]
    assert nll["one"] > 1.4 and nll["other"] < 1 and len(found["hypotheses"]) > 40
    assert all(len(same) == 1 for same in found["hypotheses"])  # equal values of other classes are a coincidence
    assert nll["p"] < 1e-6 and nll["p_holm"] < 1e-4


def test_a_calibration_error_has_an_interval_and_no_test(run_folder):
    random, labels = np.random.default_rng(3), np.arange(80) % 2
    unsure = np.clip(0.5 + (labels - 0.5) * 0.6 + random.normal(0, 0.3, 80), 0.02, 0.98)
    sides = [np.stack([1 - risk, risk], axis=1) for risk in (unsure, unsure > 0.5)]
    runs = [read_run(run_folder(labels, p, name=name, class_names=["well", "ill"]))
            for p, name in zip(sides, "ab", strict=True)]  # fmt: skip
    found = compare_runs(*runs, resamples=100)["metrics"]["ece"]
    assert found["low"] < found["difference"] < found["high"] and found["p"] is found["p_holm"] is None
    assert found["difference"] == pytest.approx(found["one"] - found["other"])
    assert found["reason"].startswith("not tested: chance alone raises a calibration error")
    patients = [record["patient"] for record in runs[0].records]
    one, other = (
        metric_intervals(run.table.probabilities, labels, patients, metrics=["ece"], level=0.975, resamples=100)
        for run in runs
    )  # two intervals of 97.5 % both hold in 95 % of the cases, at least
    assert found["low"] == pytest.approx(one.overall["ece"].low - other.overall["ece"].high)
    assert found["high"] == pytest.approx(one.overall["ece"].high - other.overall["ece"].low)
    same = compare_runs(*two(run_folder), resamples=100)["metrics"]["ece"]  # right answers, all equally sure
    assert same["low"] is same["high"] is None and "the same value" in same["reason"]


def test_patients_that_only_one_run_knows_count_in_either_order(run_folder):
    one, other = two(run_folder, patients=[f"p{place // 6}" for place in range(60)])
    whole = compare_runs(one, other, resamples=100)
    named, nameless = one.records, tuple(record | {"patient": ""} for record in one.records)
    for records in ((named, ()), (named, nameless), ((), named), (nameless, named)):
        sides = (replace(run, records=known) for run, known in zip((one, other), records, strict=True))
        found = compare_runs(*sides, resamples=100)
        assert found["metrics"] == whole["metrics"] and found["areas"] == whole["areas"]
    alone = compare_runs(replace(one, records=()), replace(other, records=()), resamples=100)
    assert alone["areas"] != whole["areas"]


def test_images_of_one_run_only_are_left_out_and_counted(run_folder):
    one, other = two(run_folder)
    table = other.table
    order = np.arange(59, 9, -1)  # 50 images in another order, and one of its own
    images = [table.images[row] for row in order] + ["new.png"]
    rows = [*order, 0]
    other = replace(other, table=PredictionTable(images, table.labels[rows], table.probabilities[rows],
                                                 table.class_names, {}))  # fmt: skip
    found = compare_runs(one, other, resamples=50)
    assert (found["shared"], found["only_one"], found["only_other"]) == (50, 10, 1)
    said = "50 images of 25 patients are in both; left out are 10 only in A and 1 only in B."
    assert found["patients"] == 25 and shared_images(found, ("A", "B")) == said
    alone = one.table.probabilities[10:].argmax(axis=1) == LABELS[10:]
    assert found["metrics"]["accuracy"]["one"] == alone.mean()


def test_runs_without_a_common_image_or_with_other_labels_are_refused(run_folder):
    one, other = two(run_folder)
    moved = other.table._replace(images=[f"x{image}" for image in other.table.images])
    with pytest.raises(InputError, match="No image is among"):
        compare_runs(one, replace(other, table=moved))
    relabelled = other.table._replace(labels=(LABELS + 1) % 3)
    with pytest.raises(InputError, match="different labels of 60 images"):
        compare_runs(one, replace(other, table=relabelled))
    with pytest.raises(InputError, match="several labels per image"):
        compare_runs(one, replace(other, multi_label=True))


def test_one_patient_and_absent_classes_give_sentences_instead_of_numbers(run_folder):
    one, other = two(run_folder, patients=["p"] * 60)
    found = compare_runs(one, other, resamples=20)
    for name, entry in found["metrics"].items():
        assert entry["difference"] is not None and entry["low"] is None and entry["reason"], name
    assert "one patient" in found["metrics"]["ece"]["reason"] and "six patients" in found["metrics"]["nll"]["reason"]
    assert found["few"] and found["metrics"]["accuracy"]["p"] == 0.5
    labels = np.arange(60) % 2
    pair = [read_run(run_folder(labels, p, name=name)) for name, p in
            (("a", np.full((60, 3), 1 / 3)), ("b", np.eye(3)[labels]))]  # fmt: skip
    found = compare_runs(*pair, resamples=20)
    assert found["metrics"]["macro_auc"]["difference"] is None and "absent" in found["metrics"]["macro_auc"]["reason"]
    assert found["areas"][2]["p_holm"] is None and found["areas"][2]["reason"]
    json.dumps(found, allow_nan=False)


def test_a_class_of_one_patient_leaves_means_over_classes_without_interval(run_folder):
    labels, random = np.r_[np.arange(29) % 2, 2], np.random.default_rng(0)
    pair = [read_run(run_folder(labels, random.dirichlet(np.ones(3), 30), name=name, patients=[""] * 30))
            for name in ("a", "b")]  # fmt: skip
    found = compare_runs(*pair, resamples=200)["metrics"]
    area = found["macro_auc"]
    assert area["difference"] is not None and area["low"] is area["high"] is area["p"] is area["p_holm"] is None
    assert area["reason"] == "no interval: only one patient of mass"
    assert found["accuracy"]["p"] is not None and not found["accuracy"]["reason"]
    alone = metric_intervals(pair[0].table.probabilities, labels, metrics=["macro_auc"], resamples=200)
    assert alone.overall["macro_auc"].low is None


def test_a_calibrated_run_beside_one_that_is_not_is_said(run_folder):
    calibrated, plain = (read_run(run_folder(name=name, temperature=t)) for name, t in (("a", 2.0), ("b", None)))
    for pair, names in (((calibrated, plain), ("A", "B")), ((plain, calibrated), ("B", "A"))):
        said = compare_runs(*pair, resamples=10, names=names)["reason"]
        assert said.startswith("The probabilities of A are calibrated, those of B are not")
    for run in (calibrated, plain):
        assert compare_runs(run, run, resamples=10)["reason"] == ""


def test_several_labels_per_image_compare_the_areas(run_folder):
    random = np.random.default_rng(0)
    labels = (random.random((40, 3)) < 0.5).astype(int)
    pair = [
        read_run(run_folder(labels, random.random((40, 3)) * 0.98 + 0.01, multi_label=True, name=name))
        for name in ("a", "b")
    ]
    found = compare_runs(*pair)
    assert found["metrics"] == {} and found["right"] is None and "several labels" in found["reason"]
    assert all(0 <= area["p_holm"] <= 1 for area in found["areas"])


@pytest.mark.parametrize(("patients", "few"), [(6, True), (12, False)])
def test_a_handful_of_patients_has_honest_p_values_and_is_said_to_be_few(run_folder, patients, few):
    one, other = two(run_folder, patients=[f"p{place * patients // 60}" for place in range(60)])
    found = compare_runs(one, other, resamples=50)
    assert found["few"] is few
    assert found["metrics"]["nll"]["p"] >= 0.5**patients and found["metrics"]["nll"]["low"] is not None


def test_images_of_unknown_patients_are_patients_of_their_own(run_folder):
    pair = two(run_folder, patients=[""] * 60)
    found = compare_runs(*pair, resamples=20)
    assert found["patients"] == 0 and found["metrics"]["accuracy"]["p"] is not None
    assert shared_images(found, ("A", "B")) == "60 images are in both."


def test_options_that_differ_are_those_that_both_runs_know_without_paths(run_folder):
    one, other = two(run_folder)
    first = {"dataset_dir": "/a", "epochs": 2, "method": "coupled", "new": 1}
    second = {"dataset_dir": "/b", "epochs": 3, "method": "coupled", "fit": "pad"}
    pair = (replace(run, run={"config": config}) for run, config in zip((one, other), (first, second), strict=True))
    # a run of a version before the option fit squeezed its images
    assert different_options(*pair) == {"epochs": (2, 3), "fit": ("stretch", "pad")}


def test_files_of_weights_that_differ_are_told_without_their_paths_and_images_without_labels_by_number(run_folder):
    runs = two(run_folder)

    def pair(first: dict, second: dict, unlabelled: tuple[int, int] = (0, 0)):
        chosen = zip(runs, (first, second), unlabelled, strict=True)
        return [
            replace(run, run={"config": config}, datalist=run.datalist | {"unlabelled": [{"image": "u.png"}] * count})
            for run, config, count in chosen
        ]

    taught = {"selection_auxiliary": "teacher", "teacher_checkpoint": "/t/model.pt", "unlabelled_loss": "soft"}
    alone = {"selection_auxiliary": "complement", "teacher_checkpoint": None, "unlabelled_loss": "hard"}
    differ = {"selection_auxiliary": ("teacher", "complement"), "teacher_checkpoint": ("a file", "none")}
    assert different_options(*pair(taught, alone)) == differ  # without such images their loss makes no difference
    assert different_options(*pair(taught, taught, (160, 0))) == {"unlabelled": ("160 images", "0 images")}
    more = differ | {"unlabelled_loss": ("soft", "hard"), "unlabelled": ("160 images", "1 image")}
    assert different_options(*pair(taught, alone, (160, 1))) == more
    other = taught | {"teacher_checkpoint": "/u/model.pt"}
    assert different_options(*pair(taught, other)) == {"teacher_checkpoint": ("a file", "another file")}
    own = {"selection_student": "uniform", "pretrained": "/p/weights.pt"}
    assert different_options(*pair(own | {"pretrained": "wheel"}, own)) == {"pretrained": ("wheel", "a file")}
    assert different_options(*pair(own | {"pretrained": "hub"}, own | {"pretrained": "none"})) == {
        "pretrained": ("hub", "none")
    }
