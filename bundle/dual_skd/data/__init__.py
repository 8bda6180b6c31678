# SPDX-License-Identifier: Apache-2.0
"""From a path to augmented batches: readers, lists of records, checks, near duplicates, augmentation, demo data.

The public names are loaded on first use, which keeps the command line fast.
"""

from __future__ import annotations

from dual_skd.utils.lazy import on_first_use

_HOME = {
    "DataList": "records.datalist",
    "DataSource": "records.data_source",
    "Record": "records.record",
    "load_records": "records.training_records",
    "find_images": "records.asked_images",
    "load_evaluation_records": "records.evaluation_records",
    "paths_of": "records.evaluation_records",
    "patients_of": "records.evaluation_records",
    "load_split": "records.split_file",
    "save_split": "records.split_file",
    "check_records": "checking.findings",
    "Findings": "checking.findings",
    "MedicalReader": "reading.preprocessing",
    "read_image": "reading.reader",
    "read_grey": "reading.grey",
    "to_grey": "reading.grey",
    "look_at_sample": "reading.facts",
    "describe": "reading.expectation",
    "refuse_unexpected": "reading.expectation",
    "image_transforms": "reading.preprocessing",
    "choose_window": "reading.intensity",
    "scale_intensity": "reading.intensity",
    "window_range": "reading.intensity",
    "cached_dataset": "cache",
    "loader_workers": "cache",
    "PairedDataset": "paired_dataset",
    "paired": "paired_dataset",
    "TolerantDataset": "tolerant_dataset",
    "BatchAugment": "augment",
    "AugmentBatch": "augment",
    "DEMO_NAMES": "demo",
    "demo_classes": "demo",
    "write_demo": "demo",
}
__all__ = [*_HOME]
__getattr__, __dir__ = on_first_use(__name__, _HOME)
