# SPDX-License-Identifier: Apache-2.0
"""Makes a folder of a finished run that can be shared on the Hugging Face Hub. Nothing is uploaded.

    python -m scripts.release.share_folder output --license cc-by-4.0 [--output share] [--dataset-name "Chest X-rays"]

The folder, ``share/dual_skd_classification``, is the bundle with the weights of the run, as ``package_bundle`` packs
it and as ``monai.bundle.download`` expects it, with four files more: ``README.md`` (the run's model card, with the
metrics of its test images as the Hub reads them), ``config.json``, ``model.safetensors`` and the zip. The bundle's own
``docs/README.md`` ends the card instead of being a file: ``monai.bundle.push_to_hf_hub`` would put it over the card.

The licence is asked for because it is not the code's alone: your images may ask for another. Names of data folders,
files and patients aren't in it; look at the card before you share it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from scripts import ROOT
from scripts.release.bundle import FOLDER
from scripts.release.package_bundle import bundle_files, description_of, files_of_run, zip_bytes

DOCS = "docs/README.md"
# name in metrics.json -> type and name on the Hub
METRICS = {
    "accuracy": ("accuracy", "Accuracy"),
    "balanced_accuracy": ("balanced_accuracy", "Balanced accuracy"),
    "macro_auc": ("roc_auc", "AUC, mean of the classes"),
    "f1": ("f1", "F1, mean of the classes"),
}


def front_matter(licence: str, measured: Mapping[str, Any], dataset: str) -> str:
    """What the Hub reads of a model card, as YAML between two lines of dashes.

    Args:
        licence: identifier of the Hub, such as apache-2.0 or other.
        measured: metrics of the test images; without any the card names none.
        dataset: what to call them.
    """
    found = {name: measured[name] for name in METRICS if isinstance(measured.get(name), (int, float))}
    about: dict[str, Any] = {
        "license": licence,
        "library_name": "monai",
        "pipeline_tag": "image-classification",
        "tags": ["monai", "medical", "dual-skd"],
    }
    if found:
        task = {"type": "image-classification", "name": "Image classification"}
        values = [
            {"type": METRICS[name][0], "name": METRICS[name][1], "value": round(value, 4)}
            for name, value in found.items()
        ]
        result = {"task": task, "dataset": {"type": "private", "name": dataset}, "metrics": values}
        about |= {
            "metrics": [METRICS[name][0] for name in found],
            "model-index": [{"name": FOLDER, "results": [result]}],
        }
    return f"---\n{yaml.safe_dump(about, sort_keys=False, allow_unicode=True)}---\n"


def card(run: Path, docs: str, licence: str, dataset: str) -> str:
    """The model card of an evaluated run, else what the bundle says of itself."""
    path, metrics = run / "report" / "model_card.md", run / "metrics.json"
    measured = json.loads(metrics.read_text(encoding="utf-8")) if metrics.is_file() else {}
    measured = measured.get("test", {}).get("student", {})
    if path.is_file():
        body = path.read_text(encoding="utf-8").split("\n---\n", 1)[-1].lstrip()
    else:
        body = "# Light image classifier\n\nThis run has no report, so its quality is unknown.\n"
    # headings of the bundle's page one level down
    own = "\n".join("#" + line if line.startswith("#") else line for line in docs.splitlines())
    return f"{front_matter(licence, measured, dataset)}\n{body}\n{own}\n"


def config(weights: bytes) -> bytes:
    """``config.json``: what the .safetensors file says of its network, with the names that the Hub's tools know."""
    about = description_of(weights)
    names = about["class_names"]
    given = {
        "model_type": "dual_skd",
        "architectures": [about["architecture"]["name"]],
        "id2label": {str(place): name for place, name in enumerate(names)},
        "label2id": {name: place for place, name in enumerate(names)},
    }
    return (json.dumps(given | about, indent=2, ensure_ascii=False) + "\n").encode()


def shared_files(run: Path, licence: str, dataset: str, repository: Path, commit: str) -> dict[str, bytes]:
    """Path in the folder -> content."""
    files = files_of_run(repository, commit, run / "models")
    version, packed = bundle_files(files)
    docs = files.pop(DOCS).decode()
    weights = files["models/model.safetensors"]
    return {
        **bundle_files(files)[1],  # with a manifest of what is there
        "README.md": card(run, docs, licence, dataset).encode(),
        "config.json": config(weights),
        "model.safetensors": weights,
        f"{FOLDER}_v{version}.zip": zip_bytes(packed),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="output_dir of a finished run, best after evaluating")
    parser.add_argument("--license", required=True, help="as the Hub calls it: apache-2.0, cc-by-4.0, other ...")
    parser.add_argument("--dataset-name", default="unnamed images", help="what the card calls the test images")
    parser.add_argument("--output", type=Path, default=Path("share"), help="where the folder is made (default: share)")
    parser.add_argument("--commit", default="HEAD", help="the commit to take the bundle from (default: HEAD)")
    parser.add_argument("--repository", type=Path, default=ROOT, help="the checkout (default: this script's)")
    given = parser.parse_args(arguments)
    folder = given.output / FOLDER
    if folder.exists() and any(folder.iterdir()):
        raise SystemExit(f"Error: {folder} isn't empty; remove it, or give another --output.")
    for name, content in shared_files(
        given.run, given.license, given.dataset_name, given.repository, given.commit
    ).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    sys.stdout.write(
        f"{folder}: read README.md, then\n  python -m monai.bundle push_to_hf_hub --repo NAME/{FOLDER} "
        f"--name {FOLDER} --bundle_dir {given.output}\n"
    )


if __name__ == "__main__":
    main()
