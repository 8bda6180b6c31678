# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import zipfile
from pathlib import Path
from types import SimpleNamespace

import monai.bundle.scripts
import pytest
import torch
import yaml
from safetensors.torch import save_file

from scripts.release import share_folder

FOLDER = "dual_skd_classification"
TENSORS = {"inputs": {"image": {}}, "outputs": {"pred": {}}}
FILES = {
    "LICENSE": "Apache License\n",
    "configs/metadata.json": json.dumps({
        "version": "0.1.0", "changelog": {"0.1.0": "first"},
        "network_data_format": TENSORS, "auxiliary_data_format": TENSORS,
    }),
    "configs/train.json": '{"small": "resnet18"}',
    "docs/README.md": "# The bundle\n\n## Limits\n\nFew.\n",
}  # fmt: skip
ABOUT = {
    "architecture": {"name": "resnet18", "num_classes": 2},
    "preprocessing": {"spatial_dims": 2, "image_size": 32},
    "class_names": ["ill", "well"],
}

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="packing asks git which files are tracked")


@pytest.fixture
def repository(tmp_path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "repository" / "bundle" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    settings = ["user.name=t", "user.email=t@example.org", "core.hooksPath=", "commit.gpgsign=false"]
    options = [part for setting in settings for part in ("-c", setting)]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "one"]):
        subprocess.run(["git", "-C", str(tmp_path / "repository"), *options, *command], check=True)
    return tmp_path / "repository"


@pytest.fixture
def run(tmp_path) -> Path:
    """An evaluated run, as far as it is read here."""
    folder = tmp_path / "run"
    (folder / "models").mkdir(parents=True)
    (folder / "report").mkdir()
    texts = {key: json.dumps(value) for key, value in ABOUT.items()}
    save_file({"w": torch.arange(3.0)}, folder / "models" / "model.safetensors", texts)
    torch.save({"w": torch.arange(3.0)}, folder / "models" / "model.pt")
    measured = {"accuracy": 0.87654, "macro_auc": 0.9, "f1": None, "nll": 0.3}
    (folder / "metrics.json").write_text(json.dumps({"test": {"student": measured}}))
    (folder / "report" / "model_card.md").write_text("---\nlicense: unknown\n---\n\n# Model card: it\n\nNumbers.\n")
    return folder


def share(repository: Path, run: Path, output: Path, *more: str) -> Path:
    share_folder.main(
        [str(run), "--license", "cc-by-4.0", "--repository", str(repository), "--output", str(output), *more]
    )
    return output / FOLDER


def split_card(text: str) -> tuple[dict, str]:
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def test_the_card_names_licence_library_and_the_metrics_of_the_test_images(repository, run, tmp_path):
    folder = share(repository, run, tmp_path / "share", "--dataset-name", "X-rays")
    front, body = split_card((folder / "README.md").read_text())
    assert (front["license"], front["library_name"], front["pipeline_tag"]) == (
        "cc-by-4.0", "monai", "image-classification",
    )  # fmt: skip
    (result,) = front["model-index"][0]["results"]
    assert result["dataset"]["name"] == "X-rays"
    assert {one["type"]: one["value"] for one in result["metrics"]} == {"accuracy": 0.8765, "roc_auc": 0.9}
    assert (
        body.index("# Model card: it") < body.index("Numbers.") < body.index("## The bundle") < body.index("### Limits")
    )
    assert "unknown" not in body


def test_the_hub_s_own_library_reads_the_card(repository, run, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    data = hub.ModelCard((share(repository, run, tmp_path / "share") / "README.md").read_text()).data
    assert (data.license, data.library_name, data.model_name) == ("cc-by-4.0", "monai", FOLDER)
    assert [(one.metric_type, one.metric_value) for one in data.eval_results] == [
        ("accuracy", 0.8765),
        ("roc_auc", 0.9),
    ]


def test_a_run_without_evaluation_has_a_card_without_numbers(repository, run, tmp_path):
    shutil.rmtree(run / "report")
    (run / "metrics.json").write_text("{}")
    front, body = split_card((share(repository, run, tmp_path / "share") / "README.md").read_text())
    assert "model-index" not in front and "metrics" not in front
    assert "its quality is unknown" in body


def test_the_folder_is_the_bundle_with_weights_and_its_manifest_is_true(repository, run, tmp_path):
    folder = share(repository, run, tmp_path / "share")
    weights = (run / "models" / "model.safetensors").read_bytes()
    assert (folder / "model.safetensors").read_bytes() == weights == (folder / "models/model.safetensors").read_bytes()
    config = json.loads((folder / "config.json").read_text())
    assert config["id2label"] == {"0": "ill", "1": "well"} and config["architectures"] == ["resnet18"]
    assert config["preprocessing"] == ABOUT["preprocessing"]
    listed = json.loads((folder / "manifest.json").read_text())["files"]
    for name, entry in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == entry["sha256"]
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    added = {"README.md", "config.json", "model.safetensors", f"{FOLDER}_v0.1.0.zip", "manifest.json"}
    assert there - listed.keys() == added
    with zipfile.ZipFile(folder / f"{FOLDER}_v0.1.0.zip") as archive:
        assert archive.read(f"{FOLDER}/docs/README.md").decode() == FILES["docs/README.md"]
        assert archive.read(f"{FOLDER}/models/model.safetensors") == weights


def test_what_monai_pushes_is_the_folder_with_this_card(repository, run, tmp_path, monkeypatch):
    folder = share(repository, run, tmp_path / "share")
    card, pushed = (folder / "README.md").read_bytes(), {}

    def upload(repo_id, folder_path):
        pushed.update({path.name: path.read_bytes() for path in Path(folder_path).iterdir() if path.is_file()})

    api = SimpleNamespace(create_repo=lambda **_: None, upload_folder=upload)
    monkeypatch.setattr(monai.bundle.scripts, "huggingface_hub", SimpleNamespace(HfApi=lambda token: api))
    monai.bundle.scripts.push_to_hf_hub(repo="me/it", name=FOLDER, bundle_dir=str(tmp_path / "share"))
    assert pushed["README.md"] == card and {"config.json", "model.safetensors", "LICENSE"} <= pushed.keys()


def test_nothing_is_written_over(repository, run, tmp_path):
    share(repository, run, tmp_path / "share")
    with pytest.raises(SystemExit, match="isn't empty"):
        share(repository, run, tmp_path / "share")
