# SPDX-License-Identifier: Apache-2.0
"""What a report's page is built of, and in which order."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from dual_skd.evaluation.analysis import analyse
from dual_skd.evaluation.analysis.predictions import Patients
from dual_skd.evaluation.pages import rendering
from dual_skd.evaluation.report import patients
from dual_skd.evaluation.report.cases import KINDS, Case
from dual_skd.evaluation.report.headline import question
from dual_skd.evaluation.report.page import SECTIONS, ReportContent, page
from dual_skd.evaluation.report.plots import all_plots
from dual_skd.evaluation.run_files import read_run


@pytest.fixture
def source(run_folder, monkeypatch) -> str:
    """The page of a run with all that a page can have."""
    names = ("normal", "nodule", "mass")
    files = read_run(run_folder(np.arange(60) % 3, class_names=names, columns={"site": ["one", "two"] * 30}))
    analysis = analyse(files, resamples=20, speed={"student": {"milliseconds": 2.0, "runs": 15}})
    cases = [Case(kind, 1, "", "normal", "normal", "normal", 0.9, (("image", b"1", b"2"),)) for kind in KINDS]
    monkeypatch.setattr(rendering, "today", lambda: "2026-01-02")
    content = ReportContent(analysis, all_plots(analysis), run="first_try", selection=files.selection, cases=cases)
    return page(content)


def test_the_result_comes_first_and_what_the_run_was_made_of_last(source):
    keys = list(SECTIONS)
    assert re.findall(r'<section id="(\w+)"', source) == re.findall(r'<a href="#(\w+)"', source) == keys
    assert keys.index("answers") < keys.index("images") < keys.index("thresholds") < keys.index("calibration")
    assert keys.index("calibration") < keys.index("subgroups") < keys.index("data") < keys.index("training")
    assert keys[-2:] == ["selection", "run"]
    assert source.index('class="lead"') < source.index('class="cards"') < source.index('class="matrix"')
    assert source.index('id="roc-title"') < source.index("Surest, and wrong") < source.index("Surest, and right")
    selection = source[source.index('<section id="selection"') : source.index('<section id="run"')]
    assert selection.index("<details>") < selection.index("<table")


def test_title_and_headline_say_task_run_data_date_and_result(source, run_folder):
    title = re.findall("<title>(.*?)</title>", source)
    assert title == ["Which is it: normal, nodule or mass? first_try, 60 test images of 30 patients, 2026-01-02"]
    analysis = analyse(read_run(run_folder(name="again")), resamples=20)
    right = sum(row[k] for k, row in enumerate(analysis.confusion))
    assert f'<p class="lead">{right} of 60 images were answered right ({right / 60:.1%}). With 30 patients' in source
    first = analysis.confusion[0]
    assert f"By class: normal {first[0]} of 20, " in source
    assert "Calling every image normal would be right for 20 of 60." in source


@pytest.mark.parametrize(
    ("section", "known", "unknown", "said"),
    [("test", 63, 0, "9 test images of 63 patients"), ("", 0, 9, "9 images of unknown patients (clinic)"),
     ("validation", 4, 2, "9 validation images of 4 patients or more")],
)  # fmt: skip
def test_the_measured_images_are_named(run_folder, section, known, unknown, said):
    analysis = analyse(read_run(run_folder()), resamples=5)
    analysis = replace(
        analysis, rows=9, split="clinic", data=replace(analysis.data, section=section),
        patients=Patients(known, unknown, ""),
    )  # fmt: skip
    assert patients.measured(analysis) == said


def test_the_heading_is_a_question():
    assert question(["a", "b", "c"], False) == "Which is it: a, b or c?" and question(["a"], False) == "Which is it: a?"
    assert question(["a", "b"], True) == "Which of these are there: a, b?"
    assert question(list("abcdefgh"), False) == "Which of 8 classes (a, b, c and 5 more)?"


def test_every_figure_has_its_explanation_and_every_table_its_frame(source):
    captions = re.findall(r"</svg><figcaption><b>([^<]+)</b>([^<]*)</figcaption>", source)
    assert len(captions) == source.count("<svg") == 9
    assert all(title and len(said.split()) > 10 for title, said in captions)
    framed = re.findall(r'<div class="scroll" tabindex="0" role="region" aria-label="[^"]+"><table', source)
    assert len(framed) == source.count("<table") > 10
    assert len(re.findall(r'<div class="card"><b>[^<]+</b>.*?<p>[^<]+</p></div>', source)) == 4


def test_drawings_take_the_colours_of_the_page(source):
    drawn = "".join(re.findall("<svg.*?</svg>", source, re.DOTALL))
    colours = set(re.findall(r"(.{0,12})(#[0-9a-f]{6}|#fff)", drawn, re.IGNORECASE))
    assert colours and all(re.search(r"var\(--\w+,$", before) for before, _ in colours)
    assert "currentColor" in drawn
