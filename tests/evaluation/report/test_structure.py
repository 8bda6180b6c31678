# SPDX-License-Identifier: Apache-2.0
"""What a page is built of, and whether the example in docs/example is still what today's code writes."""

from __future__ import annotations

import hashlib
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

import dual_skd
from dual_skd.evaluation.analysis import analyse
from dual_skd.evaluation.report.cases import KINDS, Case
from dual_skd.evaluation.report.content import Content
from dual_skd.evaluation.report.page import PARTS, page
from dual_skd.evaluation.report.plots import all_plots
from dual_skd.evaluation.report.words import measured, task
from dual_skd.evaluation.run_files import read_run
from scripts import ROOT
from scripts.release import example_report

EXAMPLE = ROOT / "docs" / "example" / "report.html"
SHOWN = ("h2", "h3", "summary", "figcaption", "th")


class Outline(HTMLParser):
    """Headings, heads of tables, captions and explanations of a page in their order, numbers as n.

    Tables that are folded depend on the run, and are left out.
    """

    def __init__(self, source: str) -> None:
        super().__init__()
        self.parts: list[tuple[str, str]] = []
        self._open: list[str] = []  # what is shown
        self._folded = 0
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self._folded += tag == "details"
        row = tag == "th" and given.get("scope") != "col"
        kind = "how" if given.get("class") == "how" else tag if tag in SHOWN and not row else ""
        if kind == "summary" or (kind and not self._folded):
            self._open.append(tag)
            self.parts.append((kind, ""))

    def handle_endtag(self, tag):
        self._folded -= tag == "details"
        if self._open and self._open[-1] == tag:
            self._open.pop()

    def handle_data(self, data):
        if self._open:
            kind, said = self.parts[-1]
            self.parts[-1] = (kind, said + re.sub(r"\d[\d,.]*\d|\d", "n", data))

    def classes(self) -> list[str]:
        """Names of the classes, from the head of the confusion matrix."""
        start = self.parts.index(("th", "true \\ predicted"))
        end = next(k for k in range(start + 1, len(self.parts)) if self.parts[k][0] != "th")
        return [name for _, name in self.parts[start + 1 : end]]

    def columns(self) -> list[str]:
        """Columns that divide the images into groups."""
        head = [("th", name) for name in ("images", "patients", "macro AUC (one against the rest)")]
        return [said for k, (_, said) in enumerate(self.parts) if self.parts[k + 1 : k + 4] == head]


def today(run_folder, class_names, columns) -> str:
    """The page of a run with all that a page can have, of these classes and columns."""
    labels = np.arange(60) % len(class_names)
    groups = {name: ["one", "two"] * 30 for name in columns}
    files = read_run(run_folder(labels, class_names=class_names, columns=groups))
    analysis = analyse(files, resamples=20)
    analysis["efficiency"]["speed"] = {"student": {"milliseconds": 2.0, "runs": 15}}
    analysis["efficiency"]["model_mb"] = 4.0
    analysis["run"]["command"] = "dual-skd train demo -o OUT"
    first = class_names[0]
    cases = [Case(kind, 1, "", first, first, first, 0.9, (("image", b"1", b"2"),)) for kind in KINDS]
    return page(Content(analysis, all_plots(analysis), run="first_try", selection=files.selection, cases=cases,
                        written="2026-01-02", version=dual_skd.__version__))  # fmt: skip


@pytest.fixture
def source(run_folder):
    return today(run_folder, ("normal", "nodule", "mass"), ["site"])


def test_the_result_comes_first_and_what_the_run_was_made_of_last(source):
    keys = [key for key, *_ in PARTS]
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
    right = sum(row[k] for k, row in enumerate(analysis["confusion"]))
    assert f'<p class="lead">{right} of 60 images were answered right ({right / 60:.1%}). With 30 patients' in source
    first = analysis["confusion"][0]
    assert f"By class: normal {first[0]} of 20, " in source
    assert "Calling every image normal would be right for 20 of 60." in source


@pytest.mark.parametrize(
    ("section", "known", "unknown", "said"),
    [("test", 63, 0, "9 test images of 63 patients"), ("", 0, 9, "9 images of unknown patients (clinic)"),
     ("validation", 4, 2, "9 validation images of 4 patients or more")],
)  # fmt: skip
def test_the_measured_images_are_named(section, known, unknown, said):
    patients = {"known": known, "images_without": unknown}
    assert measured({"images": 9, "split": "clinic", "data": {"section": section}, "patients": patients}) == said


def test_a_task_is_a_question():
    assert task(["a", "b", "c"], False) == "Which is it: a, b or c?" and task(["a"], False) == "Which is it: a?"
    assert task(["a", "b"], True) == "Which of these are there: a, b?"
    assert task(list("abcdefgh"), False) == "Which of 8 classes (a, b, c and 5 more)?"


def test_every_figure_has_its_explanation_and_every_table_its_frame(source):
    captions = re.findall(r"</svg><figcaption><b>([^<]+)</b>([^<]*)</figcaption>", source)
    assert len(captions) == source.count("<svg") == 7
    assert all(title and len(said.split()) > 10 for title, said in captions)
    framed = re.findall(r'<div class="scroll" tabindex="0" role="region" aria-label="[^"]+"><table', source)
    assert len(framed) == source.count("<table") > 10
    assert len(re.findall(r'<div class="card"><b>[^<]+</b>.*?<p>[^<]+</p></div>', source)) == 4


def test_drawings_take_the_colours_of_the_page(source):
    drawn = "".join(re.findall("<svg.*?</svg>", source, re.DOTALL))
    colours = set(re.findall(r"(.{0,12})(#[0-9a-f]{6}|#fff)", drawn, re.IGNORECASE))
    assert colours and all(re.search(r"var\(--\w+,$", before) for before, _ in colours)
    assert "currentColor" in drawn


def test_the_example_is_what_this_version_writes(run_folder):
    example = EXAMPLE.read_text(encoding="utf-8")
    outline = Outline(example)
    fresh = today(run_folder, outline.classes(), outline.columns())
    remedy = "docs/example is stale; scripts/release/example_report.py says how to make it again"
    for once in ('<meta name="generator" content="[^"]*">', "<style>.*?</style>"):
        of_each = [re.findall(once, one, re.DOTALL) for one in (example, fresh)]
        assert of_each[0] == of_each[1] and len(of_each[0]) == 1, remedy
    assert outline.parts == Outline(fresh).parts, remedy


def test_the_picture_is_of_the_example():
    with Image.open(EXAMPLE.with_suffix(".png")) as picture:
        assert picture.text["generator"] == f"dual-skd {dual_skd.__version__}"
        assert picture.text["page"] == hashlib.sha256(EXAMPLE.read_bytes()).hexdigest()
        assert picture.width >= 1000


def test_a_report_that_names_its_computer_is_no_example(tmp_path):
    report = tmp_path / "run" / "report" / "report.html"
    with pytest.raises(SystemExit, match="dual-skd evaluate"):
        example_report.copy_report(tmp_path / "run", tmp_path / "out")
    report.parent.mkdir(parents=True)
    report.write_text('<meta name="generator" content="dual-skd 9">', encoding="utf-8")
    page_of_it = example_report.copy_report(tmp_path / "run", tmp_path / "out")
    Image.new("RGB", (8, 8)).save(tmp_path / "shot.png")
    with Image.open(example_report.mark_picture(tmp_path / "shot.png", page_of_it)) as picture:
        assert picture.text["generator"] == "dual-skd 9" and len(picture.text["page"]) == 64
    report.write_text(f"<p>{tmp_path}/a.png</p>", encoding="utf-8")
    with pytest.raises(SystemExit, match="without --show-names"):
        example_report.copy_report(tmp_path / "run", tmp_path / "out")
