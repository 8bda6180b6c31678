# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import yaml

from dual_skd.evaluation.analysis import analyse
from dual_skd.evaluation.report.model_card import model_card
from dual_skd.evaluation.run_files import read_run


def card_of(directory, **options):
    analysis = analyse(read_run(directory), resamples=50)
    return analysis, model_card(analysis, **options)


def test_the_card_has_the_numbers_with_their_intervals(run_folder):
    analysis, card = card_of(run_folder())
    one = analysis.metrics.overall["accuracy"]
    assert f"| accuracy | {one.value:.3f} ({one.low:.3f} to {one.high:.3f}) |" in card
    assert "Twins of training images left out: 1. Files skipped: 1." in card
    assert "| student | small | 1,000 | 5,000 |" in card
    assert "dual-skd train DATA -o OUT --epochs 2 --fit stretch\n" in card


def test_the_card_has_the_thresholds_that_there_are_and_what_the_sets_promise(run_folder):
    analysis, card = card_of(run_folder())
    point = analysis.operating_points[1]
    ratio = point.metrics["lr_negative"]
    row = next(line for line in card.splitlines() if line.startswith("| normal | sensitivity ≥ 90% on the validation"))
    assert f"| {point.chosen.threshold:.4f} |" in row
    assert row.endswith(f"| {ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f}) |")
    assert "with 95% confidence" not in card  # 10 validation images of each class are too few
    assert "for 90% of such images or more, on average over calibrations; one in twenty calibrations has less" in card
    assert "LR+" not in card_of(run_folder(validation=False, name="without"))[1]


def test_its_head_is_yaml(run_folder):
    head = card_of(run_folder())[1].split("---\n")[1]
    assert yaml.safe_load(head)["pipeline_tag"] == "image-classification"


def test_topics_that_the_run_does_not_answer_stay_open(run_folder):
    answered, still_open = card_of(run_folder(validation=False))[1].split("Open, for the authors")
    assert "- **Reference standard**: what the labels rest on" in still_open
    assert "- **Operating point**: no threshold: the run kept no predictions of validation images\n" in answered
    assert "- **Explanations**: none were made\n" in answered
    assert "- **Initial weights**: 52 of 80 numbers" in answered
    assert "- **Model**: method coupled\n" in answered and "- **Preprocessing**: fit stretch\n" in answered


def test_strange_class_names_are_plain_text(run_folder):
    _, card = card_of(run_folder(np.arange(40) % 2, class_names=("a|b", "<script>*x*")))
    assert "<script>" not in card and "| a\\|b |" in card and "&lt;script&gt;\\*x\\*" in card


def test_missing_numbers_and_small_groups_are_among_the_limits(run_folder):
    sides = ["left"] * 4 + ["right"] * 56
    limits = card_of(run_folder(np.arange(60) % 2, columns={"side": sides}))[1].split("## Model\n")[0]
    assert "No number for macro\\_auc: no image of mass." in limits
    assert "side left: 4 images, fewer than 10" in limits


def test_no_file_and_no_patient_is_named(run_folder):
    card = card_of(run_folder())[1]
    assert "/clinic" not in card and "patient0" not in card
