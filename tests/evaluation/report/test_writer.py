# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from ignite.engine import Engine, Events

from dual_skd.errors import InputError
from dual_skd.evaluation.report import ReportWriter, write_report
from dual_skd.networks.build import build_network
from dual_skd.runs.model_file import save_model

SMALL = {"name": "resnet18", "num_classes": 3, "in_channels": 1, "layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4]}


def with_model(directory):
    save_model(
        directory / "models", build_network(**SMALL), architecture=SMALL, class_names=("normal", "nodule", "mass"),
        preprocessing={"spatial_dims": 2, "image_size": 32, "window": "percentile"},
    )  # fmt: skip
    return directory


def test_page_card_plots_and_analysis_are_written(run_folder):
    directory = with_model(run_folder())
    path = write_report(directory, resamples=20)
    assert path == directory / "report" / "report.html"
    text = path.read_text(encoding="utf-8")
    assert "their files are gone" in text and "CPU ms: median of" in text
    assert (path.parent / "model_card.md").is_file()
    assert {file.name for file in (path.parent / "plots").iterdir()} >= {"roc.svg", "roc.png", "confusion.svg"}
    metrics = json.loads((directory / "metrics.json").read_text())
    analysis = metrics["test"]["analysis"]
    assert analysis["metrics"]["overall"]["accuracy"]["low"] is not None
    assert metrics["test"]["student"]["macro_auc"] == 0.9 and metrics["best"]["epoch"] == 1
    assert analysis["efficiency"]["model_mb"] > 0 and analysis["efficiency"]["speed"]["student"]["milliseconds"] > 0


def test_the_time_per_image_is_measured_once_per_run(run_folder):
    directory = with_model(run_folder())
    write_report(directory, resamples=5)
    metrics = json.loads((directory / "metrics.json").read_text())
    first = metrics["speed"]
    assert first == metrics["test"].pop("analysis")["efficiency"]["speed"]
    (directory / "metrics.json").write_text(json.dumps(metrics))  # as another evaluation leaves it
    write_report(directory, resamples=5)
    assert json.loads((directory / "metrics.json").read_text())["test"]["analysis"]["efficiency"]["speed"] == first


def test_pictures_and_times_may_be_left_out_and_a_run_may_have_no_model(run_folder):
    directory = run_folder()
    assert "the run has no model file" in write_report(directory, resamples=5).read_text()
    text = write_report(with_model(directory), images=False, speed=False, resamples=5).read_text()
    assert "Images were left out." in text and "time per image was not measured" in text


def test_a_report_again_recalibrates_as_the_last_one_did_unless_told_otherwise(run_folder):
    directory = run_folder(np.random.default_rng(0).integers(3, size=240))

    def written(**options):
        write_report(directory, images=False, speed=False, resamples=5, **options)
        found = json.loads((directory / "metrics.json").read_text())["test"]["analysis"]["recalibration"]
        return found["form"], found["share"], found.get("intercepts", {}).get("normal")

    assert written() == ("none", 0.33, None)
    assert written(recalibrate="intercept", recalibrate_share=0.5) == written() == ("intercept", 0.5, 0)
    assert written(recalibrate="none")[0] == written()[0] == "none"
    with pytest.raises(InputError, match="Unknown recalibrate 'slop'"):
        written(recalibrate="slop")
    with pytest.raises(InputError, match="recalibrate_share"):
        written(recalibrate_share=2.0)


def test_what_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        write_report(tmp_path / "none")


def engine_after_a_run(handler):
    engine = Engine(lambda *_: None)
    handler.attach(engine)
    engine.fire_event(Events.COMPLETED)


def test_the_handler_writes_at_the_end_and_an_impossible_report_is_a_warning(run_folder, tmp_path, caplog):
    directory = run_folder()
    with caplog.at_level(logging.INFO, logger="dual_skd"):
        engine_after_a_run(ReportWriter(directory, resamples=5, half_width=0.1))
        engine_after_a_run(ReportWriter(tmp_path / "none", resamples=5))
    assert "within ± 0.1 (" in (directory / "report" / "report.html").read_text("utf-8")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "There is no report" in caplog.text
