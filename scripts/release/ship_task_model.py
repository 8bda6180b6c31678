# SPDX-License-Identifier: Apache-2.0
"""Ships the student of a finished and evaluated run of a real task with the bundle, under a name.

    python -m scripts.release.ship_task_model RUN --name chest_xray_pneumonia --about FILE

``bundle/models/NAME`` gets model.pt; model.json with its SHA-256, how it was made and its test metrics with intervals;
and README.md, the model card of the run's report with what ``--about`` says. That is JSON: "description", "data"
(source, with address), "data_licence", "licence" (an SPDX name, for the weights), "limits" (sentences), and "commands",
what made the run from the published data; the model.json of a former one is such a file. No image, name or path of the
data is in what is written.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dual_skd import load_model
from dual_skd.runs.model_file import save_model
from dual_skd.utils.files import read_json, sha256_of, write_json, write_text
from scripts import ROOT

ABOUT = ("description", "data", "data_licence", "licence", "limits", "commands")
METRICS = ("macro_auc", "balanced_accuracy", "accuracy", "f1", "nll", "brier", "ece")
LARGEST = 5_000_000  # bytes of a file


def measured(run: Path) -> dict[str, Any]:
    """Images and metrics of the test entry, each metric as [value, low, high]."""
    entry = read_json(run / "metrics.json").get("test")
    if not entry or "analysis" not in entry:
        raise SystemExit(f"Error: {run} has no evaluated test images with a report; run dual-skd evaluate {run} first.")
    found = entry["analysis"]["metrics"]["overall"]
    missing = [name for name in METRICS if name not in found]
    if missing:
        raise SystemExit(f"Error: the report of {run} has no {', '.join(missing)}.")
    return {"images": entry["images"], **{name: _rounded(found[name]) for name in METRICS}}


def _rounded(metric: Mapping[str, Any]) -> list[float | None]:
    values = (metric.get("value"), metric.get("low"), metric.get("high"))
    return [None if value is None else round(value, 4) for value in values]


def card(run: Path, name: str, about: Mapping[str, Any]) -> str:
    """The model card of the run's report, with what its authors know."""
    text = (run / "report" / "model_card.md").read_text(encoding="utf-8")
    text = text.replace("license: unknown", f"license: {about['licence']}", 1)
    commands = "\n".join(f"    {command}" for command in about["commands"])
    limits = "\n".join(f"- {limit}" for limit in about["limits"])
    known = (
        f"# {name}\n\n{about['description']} Data: {about['data']} ({about['data_licence']}).\n\n"
        f"    dual-skd predict IMAGE --model {name}\n\nMade by:\n\n{commands}\n\n## What to know first\n\n{limits}\n\n"
    )
    return re.sub(r"# Model card:.*?(?=## Intended use)", lambda _: known, text, count=1, flags=re.DOTALL)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="output_dir of the run")
    parser.add_argument("--name", required=True, help="name to load the model by")
    parser.add_argument("--about", type=Path, required=True, help="JSON file, see above")
    parser.add_argument("--models", type=Path, default=ROOT / "bundle" / "models", help="default: bundle/models")
    given = parser.parse_args(arguments)
    about = read_json(given.about)
    if missing := [key for key in ABOUT if not about.get(key)]:
        raise SystemExit(f"Error: {given.about} lacks {', '.join(missing)}.")
    test = measured(given.run)
    network, info = load_model(given.run)
    path = save_model(given.models / given.name, network, safetensors=False, **info)
    if path.stat().st_size > LARGEST:
        raise SystemExit(f"Error: {path} has {path.stat().st_size} bytes, more than {LARGEST}; ship a smaller student.")
    record = read_json(given.run / "run.json")
    write_json(path.with_name("model.json"), {
        **{key: about[key] for key in ABOUT},
        "sha256": sha256_of(path),
        "bytes": path.stat().st_size,
        "made": {key: record.get(key) for key in ("started", "seed", "versions", "data_hash")},
        "test": test,
    })  # fmt: skip
    write_text(path.with_name("README.md"), card(given.run, given.name, about))
    print(f"{path.parent}: {path.stat().st_size} bytes, test macro AUC {test['macro_auc'][0]}")


if __name__ == "__main__":
    main()
