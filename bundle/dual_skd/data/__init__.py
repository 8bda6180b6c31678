# SPDX-License-Identifier: Apache-2.0
"""From a path to augmented batches: lists of records, integrity, image steps, demo data.

The public names are loaded on first use, so that the command line does not pay for what it does not need.
"""

from __future__ import annotations

from importlib import import_module

_HOME = {
    "DataList": "datalist",
    "load_records": "datalist",
    "find_images": "evaluation_records",
    "load_evaluation_records": "evaluation_records",
    "paths_of": "evaluation_records",
    "load_split": "split_file",
    "save_split": "split_file",
    "check_records": "findings",
    "quick_check": "findings",
    "Findings": "findings",
    "MedicalReader": "reader",
    "read_image": "reader",
    "read_grey": "reader",
    "to_grey": "transforms",
    "image_transforms": "preprocessing",
    "choose_window": "intensity",
    "scale_intensity": "intensity",
    "window_range": "intensity",
    "cached_dataset": "caching",
    "loader_workers": "caching",
    "TolerantDataset": "bad_files",
    "BatchAugment": "augment",
    "AugmentBatch": "augment",
    "write_demo": "demo",
}
__all__ = [*_HOME]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
