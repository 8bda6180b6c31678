# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import warnings
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from dual_skd.evaluation.analysis import analyse
from dual_skd.evaluation.report.drawing import save
from dual_skd.evaluation.report.plots import all_plots
from dual_skd.evaluation.run_files import read_run

STRANGE = ("<script>alert(1)</script>", "$\\frac{", "結核\x00 and a name that is longer than a plot is wide")


def analysed(directory):
    return analyse(read_run(directory), resamples=20)


def flat(plots):
    return {plot.name: plot for several in plots.values() for plot in several}


def test_every_part_of_an_analysis_that_has_numbers_is_drawn(run_folder):
    found = flat(all_plots(analysed(run_folder(columns={"sex": ["f", "m"] * 30}))))
    assert set(found) == {
        "training", "roc", "precision_recall", "confusion", "reliability", "risk_calibration", "risk_coverage",
        "subgroups_macro_auc", "subgroups_balanced_accuracy", "decision_curves",
    }  # fmt: skip
    axis = found["roc"].figure.axes[0]
    assert len(axis.lines) == 4 and len(axis.collections) == 3  # three classes with bands, and the diagonal
    assert [text.get_text() for text in found["confusion"].figure.axes[0].texts[:1]]
    forest = found["subgroups_macro_auc"].figure.axes[0]
    assert [label.get_text() for label in forest.get_yticklabels()] == ["all images", "sex: f (30)", "sex: m (30)"]


def test_a_decision_curve_has_its_band_and_that_of_acting_for_all_in_its_colour(run_folder):
    analysis = analysed(run_folder(np.arange(60) % 2))  # without an image of mass
    (plot,) = all_plots(analysis)["decision_curves"]
    (axis,) = plot.figure.axes
    assert [len(axis.lines), len(axis.collections)] == [2 + 2 + 1, 2]
    for treat_all, acting, curve in zip(
        axis.lines[0:4:2], axis.lines[1:4:2], analysis.decision_curves[:2], strict=True
    ):
        assert treat_all.get_color() == acting.get_color() and treat_all.get_linewidth() < acting.get_linewidth()
        assert list(acting.get_ydata()) == curve.net_benefit and list(treat_all.get_ydata()) == curve.treat_all
    assert [text.get_text() for text in plot.figure.legends[0].get_texts()] == ["normal", "nodule"]
    low, high = axis.get_ylim()
    assert low > -0.1 and 0.5 < high < 0.6  # acting for all costs 49.5 at 99 %, which would flatten all else
    first = analysis.decision_curves[0]
    assert f"normal {first.net_benefit[9]:.3f} from 10% on ({first.treat_all[9]:.3f} for all)" in plot.description


def test_of_two_classes_one_roc_curve_is_drawn(run_folder):
    plots = all_plots(analysed(run_folder(np.arange(40) % 2, class_names=("well", "ill"))))
    assert len(plots["roc"][0].figure.axes[0].lines) == 2 and "ill" in plots["roc"][0].description


def test_a_calibration_curve_has_a_point_per_bin_and_of_two_classes_it_is_that_of_the_second(run_folder):
    labels = np.random.default_rng(0).integers(2, size=80)
    analysis = analysed(run_folder(labels, class_names=("well", "ill")))
    (plot,) = all_plots(analysis)["risk_calibration"]
    diagonal, curve = plot.figure.axes[0].lines[:2]
    assert list(diagonal.get_xdata()) == [0, 1] and "ill in 8 groups" in plot.description
    ill = analysis.risk_calibration[1].curve
    assert list(curve.get_xdata()) == [point.risk for point in ill]
    assert list(curve.get_ydata()) == [point.observed for point in ill]


def test_many_classes_have_their_curves_in_several_plots(run_folder):
    names = [f"class {k}" for k in range(6)]
    plots = all_plots(analysed(run_folder(np.arange(90) % 6, class_names=names)))["risk_calibration"]
    assert [plot.name for plot in plots] == ["risk_calibration_1", "risk_calibration_2"]
    assert plots[1].reading == "The next classes, read as the first ones."


def test_the_reliability_diagram_says_what_it_counts(run_folder):
    labels = np.arange(60).reshape(20, 3) % 2
    several = analysed(run_folder(labels, labels * 0.5 + 0.3, multi_label=True, name="several"))
    for analysis, counted in ((analysed(run_folder()), "images"), (several, "labels")):
        assert all_plots(analysis)["calibration"][0].figure.axes[1].get_ylabel() == counted


def test_no_legend_covers_a_curve(run_folder):
    plots = flat(all_plots(analysed(run_folder())))
    for name in ("training", "reliability", "risk_coverage", "roc", "precision_recall", "decision_curves"):
        figure = plots[name].figure
        figure.canvas.draw()
        (legend,) = figure.legends
        assert all(axis.get_legend() is None for axis in figure.axes)
        assert not any(axis.get_tightbbox().overlaps(legend.get_window_extent()) for axis in figure.axes)


def test_a_class_that_begins_with_an_underscore_is_in_the_legend(run_folder):
    plots = flat(all_plots(analysed(run_folder(np.arange(60) % 3, class_names=("_normal", "nodule", "mass")))))
    for name in ("roc", "precision_recall"):
        (legend,) = plots[name].figure.legends
        assert [text.get_text().split()[0] for text in legend.get_texts()] == ["_normal", "nodule", "mass"]


def test_many_classes_are_divided_into_plots_of_four(run_folder):
    names = [f"c{k}" for k in range(6)]
    plots = all_plots(analysed(run_folder(np.arange(60) % 6, class_names=names)))
    assert [plot.name for plot in plots["roc"]] == ["roc_1", "roc_2"]
    assert [plot.name for plot in plots["decision_curves"]] == ["decision_curves_1", "decision_curves_2"]


def test_strange_names_are_text_in_every_drawing(run_folder):
    labels = np.arange(60) % 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots = flat(all_plots(analysed(run_folder(labels, class_names=STRANGE))))
        drawn = {name: plot.inline() for name, plot in plots.items()}
    for svg in drawn.values():
        ElementTree.fromstring(svg)
        assert "<script" not in svg and "\x00" not in svg
    assert "&lt;script&gt;" in drawn["roc"] and "$\\frac{" in drawn["roc"]


def test_inline_drawings_have_words_their_own_ids_and_no_links(run_folder):
    plots = flat(all_plots(analysed(run_folder())))
    ids = []
    for plot in plots.values():
        svg = plot.inline()
        drawing = ElementTree.fromstring(svg)
        assert "http" not in svg and "<style" not in svg and "<metadata" not in svg
        assert drawing.find("title").text == plot.title and drawing.find("desc").text == plot.description
        own = [node.get("id") for node in drawing.iter() if node.get("id")]
        used = {node.get("href")[1:] for node in drawing.iter() if node.get("href")}
        assert used <= set(own)
        ids += own
    assert len(ids) == len(set(ids))


def test_files_are_written_in_both_forms_and_always_the_same(run_folder, tmp_path):
    directory = run_folder()
    for turn in ("first", "second"):
        save(flat(all_plots(analysed(directory)))["risk_coverage"], tmp_path / turn)
    with Image.open(tmp_path / "first" / "risk_coverage.png") as image:
        assert image.width == pytest.approx(660, abs=2)
    first, second = ((tmp_path / turn / "risk_coverage.svg").read_bytes() for turn in ("first", "second"))
    assert first == second
