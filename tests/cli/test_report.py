# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from dual_skd.cli.dispatch import main


def test_the_command_writes_the_page_and_says_where(run_folder, capsys):
    directory = run_folder()
    assert main(["report", str(directory), "--no-images", "--no-speed", "--resamples", "5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Report: {directory}/report/report.html"
    overall = json.loads((directory / "metrics.json").read_text())["test"]["analysis"]["metrics"]["overall"]
    auc = overall["macro_auc"]
    shown = f"{auc['value']:.3f} (95% interval {auc['low']:.3f} to {auc['high']:.3f})"
    assert f"  macro AUC          {shown}" in lines
    assert lines[-1] == f"  plots              {directory}/report/plots"  # without a model there is nothing to ask
    assert "Images were left out." in (directory / "report" / "report.html").read_text()


def test_another_data_set_has_the_numbers_at_home(run_folder, capsys):
    directory = run_folder()
    record = json.loads((directory / "metrics.json").read_text())
    (directory / "metrics.json").write_text(json.dumps(record | {"b": record["test"]}))
    (directory / "predictions_test.csv").rename(directory / "predictions_b.csv")
    options = ["--no-images", "--no-speed", "--resamples", "5"]
    assert main(["report", str(directory), "--split", "b", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [lines[k - 1].split()[0] for k, line in enumerate(lines) if "at home" in line] == ["macro", "NLL", "ECE"]
    assert "    at home          0.900" in lines


def test_a_run_that_was_stopped_is_said_before_its_numbers(run_folder, capsys):
    directory = run_folder()
    run = json.loads((directory / "run.json").read_text()) | {"finished": None}
    (directory / "run.json").write_text(json.dumps(run))
    assert main(["report", str(directory), "--no-images", "--no-speed", "--resamples", "5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("  warning            Training was stopped after epoch 0 of 2, or still runs;")
    assert lines[-1] == f"Next: dual-skd train /clinic -o {directory} --epochs 2 --fit stretch"


def test_the_half_width_of_a_next_study_is_an_option(run_folder, capsys):
    directory = run_folder()
    assert (
        main(["report", str(directory), "--no-images", "--no-speed", "--resamples", "5", "--half-width", "0.03"]) == 0
    )
    analysis = json.loads((directory / "metrics.json").read_text())["test"]["analysis"]
    assert analysis["sample_size"]["half_width"] == 0.03
    assert "within ± 0.03 (95% interval)" in (directory / "report" / "report.html").read_text("utf-8")
    assert main(["report", str(directory), "--half-width", "0.9"]) == 1
    assert capsys.readouterr().err == "Error: half_width is 0.9; expected a number above 0 and below 0.5.\n"


def test_options_that_it_does_not_have_are_refused(run_folder, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["report", str(run_folder()), "--image-size", "8"])
    assert "Unknown option --image-size" in capsys.readouterr().err


def test_errors_are_one_sentence(tmp_path, capsys):
    assert main(["report", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.startswith("Error: There is no folder")
