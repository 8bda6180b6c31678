# SPDX-License-Identifier: Apache-2.0
"""The configs as they came with the package; :data:`KNOWN` is written by scripts/write_options.py."""

from __future__ import annotations

import hashlib
from pathlib import Path

KNOWN = {
    "convnext.json": "ff56ada4fa6f044f22463ff0b72687d077fb570e4d81c3800ecd13bdfdd3fde8",
    "corruption.json": "68ee77ef21920600126ef16ff8a42c71e0faa95dc719acfd605e9161bc022a0b",
    "evaluate.json": "daafcf5aef2068c1251a93aaebb94a0c532529b5e445ace7bd42731d6bc9099d",
    "finetune.json": "3644c44e7e97f41d236eb607258719a71efeba33abc27b9857f0f1640b2ee201",
    "inference.json": "a03b8bc6c2ddfc6db6086dae858911622f103ee26905ee76ff692882ab24170a",
    "multi_gpu_train.json": "ede57823e611e62e1e2ebf1a003795e5103ae6b4999d6bdd16572e6fb223f734",
    "resume.json": "ba844fa3788e7a8fa3f4cd57bac6f7e64d2e06b88e5034e2f676932f018ffbee",
    "train.json": "4cc87e5e003f387a73d5200e098ce135cf506109431874cc28e75c51305d22cd",
    "vit.json": "ae42e9dfa1feece797fcda3fbfb6b7007290f1d226cae420851c42aee3efad4e",
    "volume.json": "a9bb42f59218841251c70d7a68f0b1d53a167947b0c8b07fdb6e11d6bf766bb5",
}


def fingerprint(path: Path) -> str:
    """SHA-256 of a text file, whatever ends its lines."""
    return hashlib.sha256(path.read_text(encoding="utf-8").encode()).hexdigest()
