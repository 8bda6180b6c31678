# SPDX-License-Identifier: Apache-2.0
"""``python -m dual_skd check D``: integrity and leakage of a data set, before any training."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from dual_skd.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of ``check``."""
    parser.add_argument("dataset_dir", help="folder of class folders, folder with a datalist, the datalist, or demo")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was found to FILE")
    parser.add_argument("--spatial-dims", type=int, choices=(2, 3), default=2, help="2 for images, 3 for volumes")
    parser.add_argument("--label-column", action="append", help="column of the label; repeat it for multi-label tables")
    parser.add_argument("--patient-pattern", help="regular expression whose group finds the patient in a file name")


def main(args: argparse.Namespace) -> int:
    """Checks, prints what was found, and returns 0 when nothing is wrong, else 1."""
    from dual_skd.data.datalist import load_records
    from dual_skd.data.integrity import check_records

    columns = args.label_column or ["label"]
    try:
        data = load_records(
            args.dataset_dir,
            spatial_dims=args.spatial_dims,
            label_column=columns[0] if len(columns) == 1 else columns,
            patient_pattern=args.patient_pattern,
            val_fraction=0.0,
            test_fraction=0.0,
            keep_twins=True,
            refuse_shared_patients=False,
        )
    except InputError as error:
        _write_json(args.json, {"ok": False, "errors": [str(error)], "warnings": []})
        sys.stderr.write(f"Error: {error}\n")
        return 1
    findings = check_records(data)
    _write_json(args.json, {"data": str(args.dataset_dir), "hash": data.hash, **findings.as_dict()})
    lines = [data.describe()]
    lines += [f"ERROR    {sentence}" for sentence in findings.errors]
    lines += [f"warning  {sentence}" for sentence in findings.warnings]
    lines.append("No errors found." if findings.ok else f"{len(findings.errors)} kinds of errors found.")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if findings.ok else 1


def _write_json(path: Path | None, content: dict) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
