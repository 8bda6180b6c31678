# SPDX-License-Identifier: Apache-2.0
"""The script that ships the model of a real task."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dual_skd.networks.build import build_network
from dual_skd.runs.model_file import load_model, save_model
from scripts.release.ship_task_model import METRICS, main

SMALL = {"name": "resnet18", "num_classes": 2, "in_channels": 1, "layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
ABOUT = {
    "description": "Ill or well.", "data": "A set, doi:1", "data_licence": "CC0", "licence": "apache-2.0",
    "limits": ["Research only."], "commands": ["dual-skd train x"],
}  # fmt: skip


@pytest.fixture
def finished(tmp_path) -> Path:
    run = tmp_path / "run"
    save_model(run / "models", build_network(**SMALL), architecture=SMALL, class_names=["ill", "well"])
    found = {name: {"value": 0.51237, "low": 0.4, "high": 0.6} for name in METRICS}
    entry = {"images": 7, "analysis": {"metrics": {"overall": found}}}
    (run / "metrics.json").write_text(json.dumps({"test": entry}))
    (run / "run.json").write_text(json.dumps({"seed": 3, "config": {"dataset_dir": "/secret/place"}}))
    (run / "report").mkdir()
    text = "---\nlicense: unknown\n---\n\n# Model card: x\n\nyours to state\n\n## Intended use\n\nResearch.\n"
    (run / "report" / "model_card.md").write_text(text)
    (tmp_path / "about.json").write_text(json.dumps(ABOUT))
    return run


def ship(run: Path) -> Path:
    models = run.parent / "models"
    main([str(run), "--name", "task", "--about", str(run.parent / "about.json"), "--models", str(models)])
    return models / "task"


def test_a_shipped_model_has_its_weights_its_record_and_its_card(finished):
    folder = ship(finished)
    assert load_model(folder)[1]["class_names"] == ["ill", "well"]
    record = json.loads((folder / "model.json").read_text())
    assert record["test"]["macro_auc"] == [0.5124, 0.4, 0.6] and record["test"]["images"] == 7
    assert record["made"]["seed"] == 3 and "secret" not in json.dumps(record)
    card = (folder / "README.md").read_text()
    assert "license: apache-2.0" in card and "yours to state" not in card and "## Intended use\n\nResearch." in card
    assert card.index("Ill or well.") < card.index("- Research only.") < card.index("## Intended use")


def test_a_run_without_evaluation_and_a_record_without_limits_are_refused(finished):
    (finished.parent / "about.json").write_text(json.dumps({**ABOUT, "limits": []}))
    with pytest.raises(SystemExit, match="about.json lacks limits"):
        ship(finished)
    (finished.parent / "about.json").write_text(json.dumps(ABOUT))
    (finished / "metrics.json").write_text("{}")
    with pytest.raises(SystemExit, match="no evaluated test images.*run dual-skd evaluate"):
        ship(finished)
    assert not (finished.parent / "models").exists()
