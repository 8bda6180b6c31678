# SPDX-License-Identifier: Apache-2.0
"""The division that a run used, as a file: written beside the run, and able to be given back as ``dataset_dir``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from dual_skd.data.records.datalist import DataList
from dual_skd.data.records.rows import UNLABELLED
from dual_skd.data.records.training_records import load_records
from dual_skd.errors import InputError
from dual_skd.utils.files import write_json

SECTIONS = {"train": "training", "val": "validation", "test": "test"}  # names of MONAI's Decathlon data list


def save_split(data: DataList, path: str | Path) -> Path:
    """Writes a Decathlon data list: classes, and per section image (absolute locator), label, patient and site.

    "left_out" holds the near duplicates that are in no split, "twins_searched" whether they were searched for,
    "unusable" the files that were skipped, "unlabelled", where there are any, the images that are trained on without
    labels. Labels have their final names; "class_map" holds those that the user gave. The folder of the file is made.
    """
    path = Path(path)
    content = {
        "description": " ".join([data.source, *data.notes]),
        "labels": {str(index): name for index, name in enumerate(data.class_names)},
        "class_map": data.class_map,
        "spatial_dims": data.spatial_dims,
        **{SECTIONS[split]: [record.as_dict() for record in records] for split, records in data.splits.items()},
        **({UNLABELLED: [record.as_dict() for record in data.unlabelled]} if data.unlabelled else {}),
        "left_out": [record.as_dict() for record in data.left_out],
        "twins_searched": data.twins_searched,
        "unusable": data.unusable,
    }
    write_json(path, content, private=True)
    return path


def load_split(path: str | Path) -> DataList:
    """Reads what :func:`save_split` wrote, twins and divisions as they are.

    Raises:
        InputError: no such file, images of it have gone, or a patient stands in two splits.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path} is not there, so the images that this model was trained on aren't known; "
            "give the output_dir of a finished training run."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        spatial_dims = int(content["spatial_dims"])
    except (ValueError, TypeError, KeyError, OSError) as error:  # an unreadable or damaged file, or another list
        raise InputError(
            f"{path} is not the division that a training run wrote ({type(error).__name__}: {error}); give the "
            "output_dir of a finished training run."
        ) from error
    as_written: dict[str, Any] = {"val_fraction": 0.0, "test_fraction": 0.0, "keep_twins": True, "patient_pattern": ""}
    data = load_records(
        path, title="The model was trained on", spatial_dims=spatial_dims, on_bad_file=None, **as_written
    )
    return replace(data, class_map=content.get("class_map") or {})
