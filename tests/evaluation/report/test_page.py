# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from types import MappingProxyType

import numpy as np
import pytest

from dual_skd import __version__
from dual_skd.evaluation.analysis import analyse, to_json
from dual_skd.evaluation.report import decision_tables
from dual_skd.evaluation.report.cases import Case
from dual_skd.evaluation.report.commands import commands
from dual_skd.evaluation.report.model_card import model_card
from dual_skd.evaluation.report.page import ReportContent, page
from dual_skd.evaluation.report.plots import all_plots
from dual_skd.evaluation.report.writer import write_report
from dual_skd.evaluation.run_files import read_run
from dual_skd.options import Reporting

EMPTY = {"meta", "img", "br", "hr"}


class Reader(HTMLParser):
    """Tags, their attributes and the words of a page; fails on tags that don't close."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open, self.tags, self.ids, self.targets, self.words = [], [], [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append((tag, given))
        self.ids += [given["id"]] if "id" in given else []
        self.targets += [given[key] for key in ("href", "src") if given.get(key)]
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in EMPTY:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def rendered(directory, split="test", *, recalibrating=MappingProxyType({}), **options):
    files = read_run(directory, split)
    analysis = analyse(files, resamples=20, options=Reporting(**recalibrating))
    given = {"cases_reason": "Images were left out.", **options}
    content = ReportContent(analysis, all_plots(analysis), selection=files.selection, **given)
    source = page(content)
    reader = Reader(source)
    return source, reader, " ".join("".join(reader.words).split())


def test_the_page_is_one_file_without_scripts_links_or_repeated_ids(run_folder):
    source, reader, _ = rendered(run_folder(columns={"sex": ["f", "m"] * 30}))
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in reader.tags}
    assert "http:" not in source and "https:" not in source and "url(//" not in source
    assert not any(name.startswith("on") for _, given in reader.tags for name in given)
    assert len(reader.ids) == len(set(reader.ids))
    for target in reader.targets:
        assert target.startswith("data:image/png") or target[1:] in reader.ids
    assert dict(reader.tags)["html"] == {"lang": "en"}
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert any(given.get("content") == policy for tag, given in reader.tags if tag == "meta")
    assert any(given.get("content") == f"dual-skd {__version__}" for tag, given in reader.tags if tag == "meta")
    assert any(given.get("name") == "viewport" for _, given in reader.tags)


def test_numbers_stand_with_their_intervals(run_folder):
    directory = run_folder()
    _, _, words = rendered(directory)
    accuracy = analyse(read_run(directory), resamples=20).metrics.overall["accuracy"]
    assert f"accuracy{accuracy.value:.3f} {accuracy.low:.3f} to {accuracy.high:.3f}" in words
    assert "1 image was left out because a twin is in training (1 exact copies, 0 near copies)" in words
    assert "1 file could not be used: skipped" in words
    assert "Thresholds were chosen on 30 validation images" in words
    assert "The model of epoch 1 was kept, the best by macro AUC" in words
    assert "10.0% of the large network" in words
    assert words.count("Chance alone makes it larger than 0; the interval takes that off,") == 1
    assert "The 95% bars take images as independent, not patients" in words


def test_what_is_decided_and_planned_is_said_in_words_that_promise_no_more_than_they_keep(run_folder):
    directory = run_folder(np.arange(60) % 2, class_names=("well", "ill"))  # ten validation images of each
    _, _, words = rendered(directory)
    for said in (
        "sensitivity ≥ 90% on the validation images", "on new images about every second one finds fewer",
        "are too few for a sensitivity of 0.9 with 95% confidence (29 and 5 needed)",
        "Don't use the curves where the risks of the class are wrong", "(well 50.0%, ill 50.0%)",
        "coverage that such calibrations have on average90% or more", "that 5% of such calibrations stay below",
        "How many patients a next study needs", "classmetricexpected, as heredesign effectpatients with it",
    ):  # fmt: skip
        assert said in words, said
    assert "stated coverage" not in words and "all images of a patient count as one" not in words
    needed = {(one.class_name, one.metric): one for one in analyse(read_run(directory), resamples=5).sample_size.needed}
    well, ill = (decision_tables.span(one.with_class, one.careful_with)
                 for one in (needed[name, "sensitivity"] for name in ("well", "ill")))  # fmt: skip
    start = "finds what these images show, or the worse limit of it, needs"
    assert f"{start} {well} patients of well and {ill} patients of ill." in words and " to " in well
    unknown = run_folder(patients=[""] * 60, name="unknown")
    words = rendered(unknown)[2]
    assert "How many images a next study needs" in words and "No patient is known, so every image counts" in words


def test_a_threshold_that_finds_fewer_than_wanted_is_named(run_folder):
    labels = np.arange(60) % 2
    directory = run_folder(
        labels, np.stack([labels == 1, labels == 0], axis=1) * 0.8 + 0.1, class_names=("well", "ill")
    )
    assert (
        "isn't reached, by its whole interval: well 0.000 (sensitivity ≥ 90% on the validation images)"
        in (rendered(directory)[2])
    )  # every answer is wrong here
    right = run_folder(labels, np.eye(2)[labels] * 0.8 + 0.1, class_names=("well", "ill"), name="right")
    assert "by its whole interval" not in rendered(right)[2]


def test_patients_who_are_not_known_are_the_same_in_every_table(run_folder):
    _, _, words = rendered(run_folder(np.arange(60) % 2, patients=[""] * 60, class_names=("well", "ill")))
    assert words.count("ill30not known") == 3  # by class, the risk, what was measured


def test_tables_scroll_by_themselves_and_drawings_have_a_title(run_folder):
    _, reader, _ = rendered(run_folder())
    tables = sum(tag == "table" for tag, _ in reader.tags)
    assert tables == sum(given.get("class") == "scroll" for _, given in reader.tags) > 5
    drawings = sum(tag == "svg" for tag, _ in reader.tags)
    assert drawings == sum(given.get("role") == "img" for _, given in reader.tags) == 7


@pytest.mark.parametrize("show", [False, True])
def test_names_of_files_and_the_data_are_shown_when_asked_for_only(run_folder, show):
    case = Case("confident_right", 7, "secret_name_6.png", "mass", "mass", "mass", 0.9, (("image", b"1", b"2"),))
    source, _, words = rendered(run_folder(), cases=[case], show_names=show, description="read from /clinic",
                                skipped=[{"image": "/clinic/broken.png", "problem": "damaged"}])  # fmt: skip
    assert ("secret_name" in source) == ("/clinic" in source) == ("broken" in source) == show
    assert "patient0" not in source and "Row 7: mass, predicted mass; mass 90.0%" in words


def test_class_and_group_names_are_text_wherever_they_stand(run_folder):
    evil = "<script>alert('x')</script>"
    labels = np.arange(60) % 3
    case = Case("confident_wrong", 1, evil, evil, evil, evil, 0.5, ((evil, b"1", b"2"),))
    directory = run_folder(labels, class_names=(evil, '"onload="x', "&"), columns={evil: [evil, "b"] * 30})
    source, reader, words = rendered(directory, cases=[case], show_names=True)
    assert "<script" not in source and "onload" not in {name for _, given in reader.tags for name in given}
    assert words.count(evil) > 10


def degenerate(run_folder):
    """Runs in which something isn't there."""
    labels = (np.random.default_rng(0).random((20, 3)) < 0.5).astype(int)
    return {
        "one class": (lambda: run_folder(np.zeros(20, int)), "Every image is of normal"),
        "an absent class": (lambda: run_folder(np.arange(60) % 2), "no image of mass"),
        "one patient": (lambda: run_folder(patients=["p"] * 60), "all images are of one patient"),
        "a single image": (lambda: run_folder([1]), "all images are of one patient"),
        "a constant predictor": (lambda: run_folder(p=np.full((60, 3), 1 / 3)), "no image is predicted as nodule"),
        "no validation": (lambda: run_folder(validation=False), "the run kept no predictions of validation images"),
        "no auxiliary": (lambda: run_folder(auxiliary=False), "The model of epoch 1 was kept"),
        "several labels": (lambda: run_folder(labels, labels * 0.5 + 0.3, multi_label=True),
                           "there are none with several labels per image"),
    }  # fmt: skip


@pytest.mark.parametrize("kind", degenerate(None))
def test_what_is_not_there_is_a_sentence(run_folder, kind):
    build, sentence = degenerate(run_folder)[kind]
    _, _, words = rendered(build())
    assert sentence.lower() in words.lower()
    assert "nan" not in words.split() and "None" not in words.split() and "inf" not in words.split()


def test_means_over_classes_name_those_that_they_are_without(run_folder):
    labels = np.arange(60) % 2
    p = np.where(np.eye(3)[labels] > 0, 0.8, 0.1)
    directory, said = run_folder(labels, p), " without mass: no image of it"
    _, _, words = rendered(directory)
    overall = analyse(read_run(directory), resamples=20).metrics.overall
    assert overall["balanced_accuracy"].value == overall["f1"].value == 1
    assert words.count(said) == 2 and f"{said}see above accuracy" in words  # of balanced accuracy
    p[0] = [0.1, 0.1, 0.8]  # once predicted, it counts in F1
    _, _, words = rendered(run_folder(labels, p, name="predicted"))
    assert words.count(said) == 1
    _, _, words = rendered(run_folder(name="whole"))
    assert "without mass" not in words


def test_of_many_classes_the_most_frequent_confusions_are_listed(run_folder):
    labels = np.arange(120) % 60
    called = labels.copy()
    called[[3, 63, 4]] = 7, 7, 9  # class 3 twice for 7, class 4 once for 9
    directory = run_folder(labels, np.eye(60)[called] * 0.9 + 0.1 / 60, class_names=[f"class {k}" for k in range(60)])
    source, _, words = rendered(directory)
    assert "these are the 2 most frequent of 2 confusions; 3 images are confused in all." in words
    assert "truepredictedimages class 3class 72 class 4class 91" in words
    assert "true \\ predicted" not in source and len(source) < 1_000_000


def test_a_name_at_the_start_of_a_sentence_keeps_its_letters(run_folder):
    directory = run_folder(np.arange(60) % 2, class_names=("a", "b", "c"))
    _, _, words = rendered(directory)
    assert "c: no image of c." in words and "C: no" not in words
    analysis = analyse(read_run(directory), resamples=5)
    notes = ["room isn't used: 8 columns are shown at most"]
    source = page(ReportContent(replace(analysis, subgroups=replace(analysis.subgroups, notes=notes))))
    assert "room isn&#39;t used: 8 columns are shown at most." in source


@pytest.mark.parametrize("searched", [True, False, None])
def test_no_twin_is_known_only_where_twins_were_looked_for(run_folder, searched):
    directory = run_folder()
    content = json.loads((directory / "datalist.json").read_text()) | {"left_out": [], "twins_searched": searched}
    if searched is None:  # of a run of a former version
        del content["twins_searched"]
    (directory / "datalist.json").write_text(json.dumps(content))
    _, _, words = rendered(directory)
    assert ("No image that is kept has a known twin in training." in words) == bool(searched)
    assert ("No search for images with a twin in training is recorded." in words) == (not searched)
    card = model_card(analyse(read_run(directory), resamples=5))
    assert f"left out: {'0' if searched else 'unknown, as no search for them is recorded'}. " in card


def test_of_several_labels_per_image_the_labels_are_counted(run_folder):
    labels = np.arange(60).reshape(20, 3) % 2
    p = np.where(labels > 0, 0.9, 0.1)
    p[np.arange(20), np.arange(20) % 3] = 1 - p[np.arange(20), np.arange(20) % 3]  # one wrong label in every image
    _, _, words = rendered(run_folder(labels, p, multi_label=True))
    assert "Wrong are 33.3% of the labels of all images, 33.3% of the surest 90%" in words
    _, _, words = rendered(run_folder(name="single"))
    assert "of all images, " in words and "labels of all images" not in words


def test_a_table_of_predictions_alone_makes_a_page(run_folder):
    directory = run_folder()
    for name in ("metrics.json", "run.json", "datalist.json", "selection_report.csv", "predictions_validation.csv"):
        (directory / name).unlink()
    _, _, words = rendered(directory)
    assert "run.json has no networks." in words and "Run.json" not in words
    for sentence in ("There is no datalist.json", "No validation was recorded", "No weights were selected"):
        assert sentence.lower() in words.lower()


def test_commands_make_the_run_and_measure_the_same_images(run_folder):
    directory = run_folder()
    first, evaluating, report = commands(analyse(read_run(directory), resamples=5)).splitlines()
    # its run.json is of the time before there was a choice of fit
    assert first == "dual-skd train DATA -o OUT --epochs 2 --fit stretch"
    assert (evaluating, report) == ("dual-skd evaluate OUT", "dual-skd report OUT")

    (directory / "predictions_test.csv").rename(directory / "predictions_b c.csv")
    _, evaluating, report = commands(analyse(read_run(directory, "b c"), resamples=5)).splitlines()
    assert evaluating.endswith(" OUT --dataset-dir DATASET_DIR --report-as 'b c'") and report.endswith(" --split 'b c'")
    (directory / "datalist_b c.json").write_text('{"own": "validation"}')
    _, evaluating, _ = commands(analyse(read_run(directory, "b c"), resamples=5)).splitlines()
    assert evaluating.endswith(" --split val --report-as 'b c'")


def elsewhere(directory, *, calibrated=False, home=True):
    """The run as if its images were of another data set, kept as clinic; its own were measured before."""
    (directory / "predictions_test.csv").rename(directory / "predictions_clinic.csv")
    record = json.loads((directory / "metrics.json").read_text())
    own = {"images": 44, "student": {"macro_auc": 0.9281, "nll": None}}
    own["analysis"] = {"metrics": {"overall": {"macro_auc": {"value": 0.928, "low": 0.87, "high": 0.974}}}}
    record |= {"clinic": record["test"] | ({"calibrated": {}} if calibrated else {}), "test": own if home else None}
    (directory / "metrics.json").write_text(json.dumps(record))
    return directory


def test_another_data_set_has_the_numbers_at_home_beside_its_own(run_folder):
    _, _, words = rendered(elsewhere(run_folder()), "clinic")
    assert "at home 0.928 (0.870 to 0.974)" in words[: words.index("Right and wrong answers")]
    assert words.count("at home 0") == 1 and "At home are the 44 test images" in words
    assert "at home" not in rendered(run_folder(name="own"))[2].lower()


@pytest.mark.parametrize(
    ("given", "why"),
    [({"home": False}, "the run's own test images weren't evaluated"),
     ({"calibrated": True}, "the run's own test images weren't evaluated with the same setting of calibrate")],
)  # fmt: skip
def test_without_numbers_at_home_the_page_says_how_to_have_them(run_folder, given, why):
    _, _, words = rendered(elsewhere(run_folder(), **given), "clinic")
    assert f"How the model does at home isn't shown: {why}. “dual-skd evaluate OUT” does that;" in words
    assert "at home 0" not in words


def stopped(directory, **metrics):
    """The run as if its training had been stopped after epoch 2 of 12."""
    run = json.loads((directory / "run.json").read_text())
    run |= {"finished": None, "config": run["config"] | {"epochs": 12}, "timings": {"epochs": [{}, {}]}}
    (directory / "run.json").write_text(json.dumps(run))
    record = json.loads((directory / "metrics.json").read_text())
    (directory / "metrics.json").write_text(json.dumps(record | metrics))
    return directory


def test_a_training_that_was_stopped_is_said_before_the_numbers_and_on_the_card(run_folder):
    warning = "These numbers are of an unfinished model."
    source, _, words = rendered(run_folder())
    assert warning not in source and "so far" not in source
    directory = stopped(run_folder(name="stopped"), key_metric="last", best={"epoch": 2})
    source, _, words = rendered(directory)
    assert source.index(warning) < source.index('class="lead"') and "/clinic" not in source
    assert "after epoch 2 of 12, or still runs; “dual-skd train DATA -o OUT --fit stretch” goes on." in words
    assert "The model of epoch 2 was kept, the last so far, whatever its validation." in words
    card = model_card(analyse(read_run(directory), resamples=5))
    assert card.index(warning) < card.index("## Intended use") and "epoch 2, the last so far" in card


def test_a_column_of_doubts_is_there_where_a_group_needs_it(run_folder):
    assert "read with care" not in rendered(run_folder(columns={"site": ["a", "b"] * 30}))[2]
    words = rendered(run_folder(columns={"site": ["a"] * 55 + ["b"] * 5}, name="small"))[2]
    assert "read with care" in words and "5 images, fewer than" in words


def test_of_a_temperature_of_1_the_numbers_are_shown_once(run_folder):
    analysis = analyse(read_run(run_folder()), resamples=5)
    for temperature in (1.0004, 1.2):
        found = replace(analysis, calibration=replace(analysis.calibration, temperature=temperature))
        source, once = page(ReportContent(found)), temperature < 1.1
        assert ("At 1 it does nothing, and what follows is shown once" in source) == once
        assert (
            ('<th scope="col">before</th>' in source) == ("Before: as the network gives them" in source) == (not once)
        )
        legend = [text.get_text() for text in all_plots(found)["calibration"][0].figure.legends[0].get_texts()]
        assert ("with the temperature" in legend) == (not once) and "as the network gives them" in legend


def test_the_capital_words_of_the_commands_are_explained_and_no_others(run_folder):
    directory = run_folder()
    assert "In them stand DATA for the data of the training, OUT for the folder of the run." in rendered(directory)[2]
    run = json.loads((directory / "run.json").read_text())
    run["config"] |= {"dataset_dir": "demo", "teacher_checkpoint": "/clinic/teacher.pt"}
    (directory / "run.json").write_text(json.dumps(run))
    words = rendered(elsewhere(directory), "clinic")[2]
    assert "In them stand OUT for the folder of the run, DATASET_DIR for the data measured. Other capital" in words


def test_images_of_another_kind_that_were_accepted_are_counted(run_folder):
    directory = run_folder()
    assert "were accepted" not in rendered(directory)[2]
    metrics = json.loads((directory / "metrics.json").read_text())
    metrics["test"] |= {"unexpected_input": "accept", "unexpected_images": 7}
    (directory / "metrics.json").write_text(json.dumps(metrics))
    assert "7 images aren't of the kind that was trained on, and were accepted." in rendered(directory)[2]


def test_the_risk_of_each_class_stands_with_its_limits_and_on_the_card(run_folder):
    labels = np.random.default_rng(1).integers(2, size=240)
    directory = run_folder(labels, class_names=("well", "ill"))
    _, _, words = rendered(directory)
    analysis = analyse(read_run(directory), resamples=20)
    ill = analysis.risk_calibration[1]
    one = ill.slope
    assert f"ill{ill.events}{ill.event_patients}{one.value:.3f} {one.low:.3f} to {one.high:.3f}" in words
    assert "A class here has fewer than 100 patients with it, or without it: too few for a firm statement." in words
    assert "The mean squared error of the risk of ill, 0 to 1." in words and "Recalibration" not in words
    card = model_card(analysis)
    assert f"| ill | {ill.events} | {ill.event_patients} | {one.value:.3f} ({one.low:.3f} to {one.high:.3f}) |" in card
    assert "| Brier score, 0 to 1 |" in card and "Recalibrated by" not in card


@pytest.mark.parametrize(("classes", "multi_label"), [(2, False), (3, False), (3, True)])
def test_a_recalibration_stands_beside_the_numbers_as_they_are(run_folder, classes, multi_label):
    random = np.random.default_rng(1)
    labels = random.integers(2, size=(400, classes)) if multi_label else random.integers(classes, size=400)
    p = random.random((400, classes)) if multi_label else None
    directory = run_folder(labels, p, class_names=("a", "b", "c")[:classes], multi_label=multi_label)
    recalibrating = {"recalibrate": "intercept"}
    _, _, words = rendered(directory, recalibrating=recalibrating)
    found = analyse(read_run(directory), resamples=20, options=Reporting(**recalibrating))
    one = found.recalibration
    assert "The intercept was fitted on" in words and f"measured on {one.images} images of" in words
    assert f"b{one.intercepts['b']:.6f}1.000000" in words
    before, after = (side.metrics["nll"].value for side in (one.before, one.after))
    row = words.split("numberas it isrecalibrated")[1].split("Brier")[0]
    assert f"nats{before:.3f} " in row and f"{after:.3f} " in row
    formula = "sigmoid(slope · logit p + intercept)" if multi_label else "softmax(slope · log p + intercept)"
    assert formula in words
    assert ("Which class is the most probable may change" in words) == (classes == 3 and not multi_label)
    card = model_card(found)
    assert f"Recalibrated by intercept, fitted on {one.fitted_images} images of {one.fitted_patients} patients" in card
    assert f"| b | {one.intercepts['b']:.6f} | 1.000000 |" in card.replace("\\", "")
    assert "--recalibrate intercept" in commands(found) and "recalibrate-share" not in commands(found)


def test_a_recalibration_that_can_not_be_is_explained_in_its_place(run_folder):
    directory = run_folder(np.arange(24) % 3)
    _, _, words = rendered(directory, recalibrating={"recalibrate": "slope", "recalibrate_share": 0.5})
    reason = "of those left to measure on 4 patients with normal, at least 10 are needed"
    assert f"Recalibration No recalibration: {reason}" in words
    analysis = analyse(read_run(directory), resamples=20, options=Reporting(recalibrate="slope"))
    assert "No recalibration: of those left" in model_card(analysis)
    assert set(to_json(analysis)["recalibration"]) == {"form", "share", "reason"}


def test_a_page_of_patients_does_not_count_patients_as_images(run_folder):
    labels = np.repeat(np.arange(80) % 2, 2)
    p = np.random.default_rng(2).dirichlet(np.ones(2), 160)
    patients = [f"p{image // 2}" for image in range(160)]
    directory = run_folder(labels, p, class_names=("well", "ill"), patients=patients)
    asked = {"per": "patient", "combine": "max", "recalibrate": "intercept", "recalibrate_share": 0.5}
    made = write_report(directory, images=False, speed=False, resamples=20, **asked)
    words = " ".join(made.read_text(encoding="utf-8").split())
    assert "fitted on 40 patients, drawn at random" in words and "measured on 40 patients, the others" in words
    assert "images of it" not in words and "Patients are sorted by the risk of the class" in words
