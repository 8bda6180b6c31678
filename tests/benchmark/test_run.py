# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re
import shutil

import pytest
from tiny_benchmark import changed, grid_line, lines

from scripts.benchmark import report
from scripts.benchmark.store import write_rows


def test_only_the_model_that_another_row_needs_is_kept(done):
    assert [path.parent.parent.name for path in done.rglob("*.pt")] == ["phantoms_1.0_large_0"]
    kept = {path.name for path in (done / "work" / "phantoms_1.0_single_0").iterdir()}
    assert {"metrics.json", "run.json", "predictions_test.csv"} <= kept and "models" not in kept


def test_a_second_start_runs_what_is_left_and_stops_when_the_minutes_are_over(done, start, tmp_path):
    folder = shutil.copytree(done, tmp_path / "copy")
    assert start(folder, "--only", "1.0") == []
    assert start(folder, "--minutes", "0") == []
    assert start(folder, "--only", "_0$") == ["phantoms_0.5_single_0", "phantoms_0.5_dual_0"]
    assert len(lines(folder)) == len(lines(done)) + 4


def test_a_failed_cell_is_noted_with_its_reason_and_run_again_only_on_request(start, plan, tmp_path, capsys):
    tiers = [{"on": [["phantoms", 1.0]], "rows": ["broken", "single"], "seeds": [0]}]
    path = changed(plan, "failing.json", lambda content: content.update(tiers=tiers))

    assert start(tmp_path, plan=path) == ["phantoms_1.0_single_0"]  # the others go on
    failed = json.loads((tmp_path / "work" / "failed.json").read_text())
    assert list(failed) == ["phantoms_1.0_broken_0"] and "none_such" in failed["phantoms_1.0_broken_0"]
    assert "1 failed: phantoms_1.0_broken_0" in capsys.readouterr().out
    assert start(tmp_path, plan=path) == []
    assert "failed" not in capsys.readouterr().out.replace("0 failed", "")
    start(tmp_path, "--list", plan=path)
    assert re.search(r"phantoms_1.0_broken_0 +failed: .*none_such", capsys.readouterr().out)

    mended = changed(path, "mended.json", lambda content: content["rows"].update(broken={"method": "scratch"}))
    assert start(tmp_path, "--retry", plan=mended) == ["phantoms_1.0_broken_0"]
    assert json.loads((tmp_path / "work" / "failed.json").read_text()) == {}


def test_cells_that_ran_with_other_settings_are_named_and_run_again_on_request(done, start, plan, tmp_path, capsys):
    path = changed(plan, "longer.json", lambda content: content["rows"]["single"].update(weight_decay=0.5))
    start(done, "--list", plan=path)
    assert "than the plan has now, and again with --renew: phantoms_1.0_single_0\n" in capsys.readouterr().out
    start(done, "--list", plan=changed(plan, "revised.json", lambda content: content.update(revision=1)))
    named = capsys.readouterr().out.split("--renew: ")[1].splitlines()[0].split(", ")
    assert set(named) == {f"phantoms_1.0_{line['row']}_{line['seed']}" for line in lines(done)} != set()
    folder = shutil.copytree(done, tmp_path / "copy")
    assert start(folder, "--only", "1.0_(single|dual)", plan=path) == []
    assert start(folder, "--only", "1.0_(single|dual)", "--renew", plan=path) == ["phantoms_1.0_single_0"]
    assert len(lines(folder)) == len(lines(done))
    assert start(folder, "--only", "1.0_(single|dual)", "--renew", plan=path) == []


def test_learning_rates_are_chosen_by_validation_alone_and_used_by_the_cells(start, plan, tmp_path):
    assert start(tmp_path, "--tune", "--only", "1.0_single") == [
        "phantoms_1.0_single_0_tune_0.001", "phantoms_1.0_single_0_tune_0.01",
    ]  # fmt: skip
    assert not (tmp_path / "results" / "benchmark.csv").exists()
    validation = {}
    for line in lines(tmp_path, "tuned"):
        assert (line["data"], line["fraction"], line["row"], line["seed"]) == ("phantoms", "1.0", "single", "0")
        folder = tmp_path / "work" / f"phantoms_1.0_single_0_tune_{line['learning_rate']}"
        metrics = json.loads((folder / "metrics.json").read_text())
        assert "test" not in metrics
        validation[float(line["learning_rate"])] = metrics["best"]["student"]["nll"]
        assert float(line["nll"]) == pytest.approx(metrics["best"]["student"]["nll"], abs=1e-6)
        assert int(line["images"]) == metrics["best"]["images"]
        assert json.loads((folder / "settings.json").read_text())["val_fraction"] == 0.4
    assert list(validation) == [0.001, 0.01]
    chosen = min(validation, key=validation.get)
    assert start(tmp_path, "--tune", "--only", "1.0_single") == []
    report.main(["--results", str(tmp_path / "results"), "--plan", str(plan), "--no_pictures"])
    means = [f"**{value:.3f}**" if rate == chosen else f"{value:.3f}" for rate, value in validation.items()]
    text = (tmp_path / "results" / "tables.md").read_text()
    assert f"| single | mean |  |  | {' | '.join(means)} |" in text
    at_best = next(line for line in lines(tmp_path, "tuned") if float(line["learning_rate"]) == chosen)
    values = " | ".join(f"{float(at_best[name]):.3f}" for name in ("balanced_accuracy", "macro_auc", "nll", "ece"))
    assert f"| phantoms, 100% | single | 1 | {at_best['images']} | {chosen:g} | {values} |" in text
    start(tmp_path, "--only", "1.0_single")
    assert float(lines(tmp_path)[0]["learning_rate"]) == chosen
    assert "val_fraction" not in json.loads((tmp_path / "work" / "phantoms_1.0_single_0" / "settings.json").read_text())


def test_cells_that_ran_with_another_rate_than_the_chosen_one_are_named(start, done, tmp_path, capsys):
    shutil.copytree(done / "results", tmp_path / "results")
    (line,) = [line for line in lines(tmp_path) if line["row"] == "single"]
    for rate, named in ((float(line["learning_rate"]), False), (0.5, True)):
        write_rows(tmp_path / "results", [grid_line("phantoms", "single", rate, 1.0)], "tuned")
        start(tmp_path, "--list")
        assert ("and again with --renew: phantoms_1.0_single_0" in capsys.readouterr().out) == named


def test_cells_that_were_finished_without_corruptions_stay_finished(start, plan, tmp_path):
    def without(content):
        del content["data"]["phantoms"]["robustness"]

    path = changed(plan, "plain.json", without)
    assert start(tmp_path, "--only", "1.0_single", plan=path) == ["phantoms_1.0_single_0"]
    assert not (tmp_path / "results" / "robustness.csv").exists()
    assert start(tmp_path, "--only", "1.0_single") == []
