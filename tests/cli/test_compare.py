# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

from dual_skd.cli.compare import compare, names_of
from dual_skd.cli.dispatch import main
from dual_skd.errors import InputError
from dual_skd.evaluation.comparison import compare_runs
from dual_skd.evaluation.report.comparison_page import comparison_page, family, p_value, terminal_lines, verdict
from dual_skd.evaluation.run_files import read_run
from dual_skd.options import PerPatient

LABELS = np.arange(60) % 3


@pytest.fixture
def pair(run_folder):
    """Two runs: one right about all 60 images of 30 patients, one about 40 of them, with the other classes swapped."""
    good = np.eye(3)[LABELS] * 0.7 + 0.1
    weak = good.copy()
    wrong = np.flatnonzero(LABELS != 1)[:20]
    weak[wrong] = weak[wrong][:, ::-1]
    return run_folder(LABELS, good, name="good"), run_folder(LABELS, weak, name="weak")


def shown(pair: tuple[Path, Path]) -> str:
    return "\n".join(compare(*pair, "test", PerPatient()))


def words_of(path: Path) -> str:
    body = path.read_text(encoding="utf-8").split("</head>")[1]
    return " ".join(html.unescape(re.sub("<[^>]+>", " ", body)).split())


def test_the_command_says_what_differs_and_where_the_page_is(pair, capsys):
    good, weak = pair
    record = json.loads((weak / "run.json").read_text())
    record["config"] |= {"epochs": 4}
    (weak / "run.json").write_text(json.dumps(record))
    assert main(["compare", str(good), str(weak)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == ["A  good", "B  weak", "60 images of 30 patients are in both.", "They differ in epochs (2, 4)."]
    table = {line[:20].strip(): line[20:].split() for line in lines[4:]}
    assert table["accuracy"][:3] == ["1.000", "0.667", "+0.333"] and table["accuracy"][4] == "to"
    # squared errors: 0.04 + 2 * 0.01 of an image that is right, 0.81 + 0.64 + 0.01 of one that is swapped
    assert table["Brier score"][:3] == ["0.060", f"{(40 * 0.06 + 20 * 1.46) / 60:.3f}", f"{-20 * 1.4 / 60:+.3f}"]
    places = {line.strip(): place for place, line in enumerate(lines)}
    lower = places["lower is better"]
    assert places["higher is better"] < lower and all(
        (lines.index(line) > lower) == (name in ("ECE", "NLL", "Brier score"))
        for line in lines
        for name in ("accuracy", "macro AUC", "F1", "ECE", "NLL", "Brier score")
        if line.startswith(f"  {name} ")
    )
    said = " ".join(lines)
    assert "Both are right about 40 images, A alone about 20, B alone about 0, neither about 0; the p value" in said
    assert "Holm's correction is for 8 hypotheses: accuracy, balanced accuracy, macro AUC" in said
    page = good / "report" / "compared_with_weak.html"
    *lines, title, adds, following = lines
    assert title == f"Page: {page}" and adds == "  adds  the AUC of each class, and p before Holm's correction"
    assert following == f"Next: dual-skd report {good}" and all(len(line) <= 80 for line in [*lines, adds])


def test_the_page_has_names_directions_and_leaves_the_report_alone(pair):
    good, weak = pair
    (good / "report").mkdir()
    (good / "report" / "report.html").write_text("the run's own")
    before = (good / "metrics.json").read_bytes()
    shown(pair)
    assert (good / "report" / "report.html").read_text() == "the run's own" and "Next:" not in shown(pair)
    assert (good / "metrics.json").read_bytes() == before and not (weak / "report").exists()
    source = (good / "report" / "compared_with_weak.html").read_text(encoding="utf-8")
    words = words_of(good / "report" / "compared_with_weak.html")
    assert "good and weak compared on 60 images (test)" in words
    assert "metric direction good weak good − weak p p (Holm)" in words
    assert "accuracy higher is better 1.000 0.667" in words and "Brier score lower is better 0.060" in words
    assert "AUC of nodule higher is better" in words and "None that both runs know" in words
    assert "<script" not in source and "http" not in source.split("</style>")[1]


def test_a_run_that_was_stopped_is_said_before_its_numbers(pair):
    good, weak = pair
    assert "was stopped" not in shown(pair)
    record = json.loads((weak / "run.json").read_text())
    record["finished"] = None
    (weak / "run.json").write_text(json.dumps(record))
    printed = " ".join(shown(pair).split())
    assert printed.startswith("Training was stopped after epoch") and "the training command of weak goes on" in printed
    assert "the training command of weak goes on" in words_of(good / "report" / "compared_with_weak.html")


def test_reasons_are_notes_and_stand_in_no_cell(run_folder):
    labels, random = np.r_[np.arange(29) % 2, 2], np.random.default_rng(0)
    pair = [run_folder(labels, random.dirichlet(np.ones(3), 30), name=name, patients=[""] * 30) for name in "ab"]
    said = " ".join(shown(pair).split())
    assert "macro AUC: no interval: only one patient of mass." in said
    assert "ECE: not tested: chance alone raises a calibration error" in said
    path = pair[0] / "report" / "compared_with_b.html"
    source = path.read_text(encoding="utf-8")
    assert "only one patient" not in source[source.index("<tbody>") : source.index("</tbody>")]
    assert "no interval: only one patient of mass" in words_of(path)


def test_another_split_has_its_own_folder_and_several_labels_have_areas(run_folder):
    random = np.random.default_rng(0)
    labels = (random.random((40, 3)) < 0.5).astype(int)
    pair = [run_folder(labels, random.random((40, 3)), multi_label=True, name=name) for name in ("a", "b")]
    for run in pair:
        (run / "predictions_test.csv").rename(run / "predictions_clinic.csv")
    lines = list(compare(*pair, "clinic", PerPatient()))
    assert f"Page: {pair[0] / 'report_clinic' / 'compared_with_b.html'}" in lines
    assert lines[-1] == f"Next: dual-skd report {pair[0]} --split clinic"
    assert [line.split()[2] for line in lines if line.startswith("  AUC of ")] == ["normal", "nodule", "mass"]
    assert not any(line.startswith("Both are right") for line in lines)


def share_few(pair: tuple[Path, Path], images: int) -> None:
    """Leaves the first run its first images, and the second all but a few of the others."""
    for run, kept in zip(pair, (slice(images), slice(50)), strict=True):
        head, *rows = (run / "predictions_test.csv").read_text().splitlines()
        (run / "predictions_test.csv").write_text("\n".join([head, *rows[kept], ""]))


def test_where_images_are_left_out_the_next_command_trains_on_one_division(pair, tmp_path):
    good, weak = pair
    share_few(pair, 40)
    record = json.loads((weak / "run.json").read_text())
    record["config"] |= {"epochs": 5, "seed": 1, "label_column": "finding", "val_fraction": 0.3, "num_workers": 0}
    (weak / "run.json").write_text(json.dumps(record))
    *_, advice, following = shown(pair).splitlines()
    assert advice.split()[:3] == ["for", "all", "images"]
    assert following == f"Next: dual-skd train {good / 'datalist.json'} -o NEW --epochs 5 --seed 1 --fit stretch"
    (weak / "run.json").write_text(json.dumps(record | {"config": record["config"] | {"compensate": 64}}))
    assert shown(pair).endswith("--fit stretch  # the run had compensate 64, which this version no longer has")
    for run in pair:  # of other data there is no division
        (run / "predictions_test.csv").rename(run / "predictions_clinic.csv")
    lines = list(compare(*pair, "clinic", PerPatient()))
    assert lines[-1] == f"Next: dual-skd report {good} --split clinic" and not any("division" in one for one in lines)


@pytest.mark.parametrize(("patients", "units"), [(None, "2 patients"), ([""] * 60, "3 images")])
def test_of_few_images_it_is_said_that_nothing_can_be_beyond_chance(run_folder, patients, units):
    pair = [run_folder(LABELS, name=name, patients=patients) for name in "ab"]
    share_few(pair, 3)
    few = f"No difference is beyond chance (p below 0.05 after Holm): {units} are too few for that."
    assert few in " ".join(shown(pair).split())
    assert few in words_of(pair[0] / "report" / "compared_with_b.html")


def test_what_is_beyond_chance_is_said_for_the_better_one():
    def entry(difference, p):
        return {"difference": difference, "p_holm": p}

    found = {
        "metrics": {"accuracy": entry(0.1, 0.01), "nll": entry(0.2, 0.04), "f1": entry(0.3, 0.05)},
        "areas": [{"class": "ill", **entry(None, None)}],
        "hypotheses": [["accuracy"], ["NLL"], ["F1", "AUC of ill"]],
    }
    assert verdict(found, ("A", "B")) == (
        "Beyond chance (p below 0.05 after Holm): A is better in accuracy; B is better in NLL."
    )
    assert family(found) == "Holm's correction is for 3 hypotheses: accuracy, NLL, F1 = AUC of ill."
    assert family(found, 2) == "Holm's correction is for 3 hypotheses: accuracy, NLL and 1 more."
    chance = {"metrics": {"f1": entry(0.3, 0.05)}, "areas": [], "hypotheses": [["F1"]], "few": False, "patients": 9}
    assert verdict(chance, ("A", "B")) == "No difference is beyond chance (p below 0.05 after Holm)."
    untested = {"metrics": {}, "areas": [{"class": "ill", **entry(None, None)}], "hypotheses": []}
    assert verdict(untested, ("A", "B")) == "No metric could be tested for chance." and family(untested) == ""
    assert [p_value(p) for p in (None, 0.0001, 0.04)] == ["–", "< 0.001", "0.040"]


def test_names_are_text_and_as_short_as_they_tell_apart(pair, tmp_path):
    assert names_of(tmp_path / "a", tmp_path / "b") == ("a", "b")
    assert names_of(tmp_path / "a" / "output", tmp_path / "b" / "output") == ("a/output", "b/output")
    evil = "<script>alert('x')</script>"
    found = compare_runs(*map(read_run, pair), resamples=5)
    page = comparison_page(found, (evil, evil), {evil: (evil, 1)}, split=evil)
    assert "<script" not in page and page.count("&lt;script") > 5
    assert f"A  {evil}" in list(terminal_lines(found, (evil, "B"), {}))


def test_what_can_not_be_compared_is_one_sentence(pair, tmp_path, capsys):
    good, weak = pair
    (tmp_path / "new").mkdir()
    for other, said in (
        (tmp_path / "none", f"There is no folder {tmp_path / 'none'}"),
        (tmp_path / "new", f"make them: dual-skd evaluate {tmp_path / 'new'}"),
        (good.parent / "." / "good", "are the same run; give two to compare"),
    ):
        assert main(["compare", str(good), str(other)]) == 1
        assert said in capsys.readouterr().err
    table = weak / "predictions_test.csv"
    table.write_text(table.read_text().replace("/clinic/", "/elsewhere/"))
    with pytest.raises(InputError, match="both good and weak: images are matched by their paths.*--report-as both"):
        shown(pair)


def test_patients_are_compared_where_that_is_asked(run_folder, capsys):
    labels, names = np.arange(80) // 4 % 2, [f"p{image // 4}" for image in range(80)]
    p = np.random.default_rng(0).dirichlet([1, 1], size=80)
    options = {"class_names": ("well", "ill"), "patients": names}
    one, two = (run_folder(labels[:n], side[:n], name=name, **options | {"patients": names[:n]})
                for name, side, n in (("a", p, 80), ("b", p[:, ::-1], 78)))  # fmt: skip
    assert main(["compare", str(one), str(two), "--per", "patient"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "20 patients are in both; left out are 2 images only in A and 0 images only in B."
    assert f"Page: {one}/report/patients_mean/compared_with_b.html" in lines
    mean = np.array([p[[image for image in range(78) if names[image] == name], 1].mean() for name in names[::4]])
    right = ((mean > 0.5) == labels[::4]).mean()
    table = {line[:20].strip(): line[20:].split() for line in lines}
    assert table["accuracy"][:2] == [f"{right:.3f}", f"{1 - right:.3f}"]
    page = words_of(one / "report" / "patients_mean" / "compared_with_b.html")
    assert "compared on 20 patients (test)" in page and "Both are right about" in page and " patients, a alone" in page


def test_the_next_command_after_comparing_patients_is_of_patients(pair, capsys):
    assert main(["compare", *map(str, pair), "--per", "patient", "--combine", "max"]) == 1
    assert "found 30 of 30 with images of different labels" in capsys.readouterr().err
    for run in pair:
        content = json.loads((run / "datalist.json").read_text())
        for place, record in enumerate(content["test"]):
            record["patient"] = f"p{place % 15}"
        (run / "datalist.json").write_text(json.dumps(content))
    assert main(["compare", *map(str, pair), "--per", "patient", "--combine", "max"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"Next: dual-skd report {pair[0]} --per patient --combine max"
