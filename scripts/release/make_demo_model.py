# SPDX-License-Identifier: Apache-2.0
"""Ships the student of a finished run on the demo data with the bundle: bundle/models/model.pt and model.json.

    python -m monai.bundle run training --config_file bundle/configs/train.json
    python -m scripts.release.make_demo_model output

model.json has the SHA-256 of model.pt, with what it was trained, and its metrics on the demo's test images, which
tests/bundle/test_shipped_model.py measures again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from dual_skd import load_model, predict
from dual_skd.data import load_split
from dual_skd.metrics import classification_metrics
from dual_skd.runs.model_file import save_model
from dual_skd.utils.files import read_json, sha256_of, write_json
from scripts import ROOT

DESCRIPTION = "trained on generated chest phantoms to try the bundle with; it knows no patients"
COMMAND = "python -m monai.bundle run training --config_file bundle/configs/train.json"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="output_dir of the run")
    parser.add_argument("--models", type=Path, default=ROOT / "bundle" / "models", help="default: bundle/models")
    given = parser.parse_args(arguments)
    network, info = load_model(given.run)
    path = save_model(given.models, network, safetensors=False, **info)
    test = load_split(given.run / "datalist.json").splits["test"]
    answers = predict([record["image"] for record in test], model=path)
    p = torch.tensor([list(answer.probabilities.values()) for answer in answers], dtype=torch.float64)
    labels = torch.tensor([record["label"] for record in test])
    record = read_json(given.run / "run.json")
    write_json(given.models / "model.json", {
        "description": DESCRIPTION,
        "sha256": sha256_of(path),
        "bytes": path.stat().st_size,
        "command": COMMAND,
        "made": {key: record.get(key) for key in ("started", "seed", "versions", "data_hash")},
        "demo_test": {"images": len(test), **classification_metrics(p.clamp(min=1e-30).log(), labels)},
    })  # fmt: skip


if __name__ == "__main__":
    main()
