# SPDX-License-Identifier: Apache-2.0
"""The configs as they came with the package; :data:`KNOWN` is written by scripts/release/write_options.py."""

from __future__ import annotations

import hashlib
from pathlib import Path

KNOWN = {
    "convnext.json": "ff56ada4fa6f044f22463ff0b72687d077fb570e4d81c3800ecd13bdfdd3fde8",
    "corruption.json": "68ee77ef21920600126ef16ff8a42c71e0faa95dc719acfd605e9161bc022a0b",
    "evaluate.json": "f72312414ac6f04ed31a9a9699f92aebbcbbe7224f561f8ee6b194a305320baa",
    "finetune.json": "3644c44e7e97f41d236eb607258719a71efeba33abc27b9857f0f1640b2ee201",
    "inference.json": "d33f7c03d97a1a4698d711e3645afc03695b5285cb2a39fa0bbdb8a55e83e44e",
    "multi_gpu_train.json": "49e9f9cca61ea55598af53d81f50ff76da414c666e2273f5add57f1e28c53b12",
    "resume.json": "0c4812a0982792ba45872f31e5291cb492a561b7ff0d4f0b11665080ded85e21",
    "train.json": "de3651d60eb6e3059853e58ab90f48ae0c2ef79e550489ea940714f29f735ac4",
    "vit.json": "ae42e9dfa1feece797fcda3fbfb6b7007290f1d226cae420851c42aee3efad4e",
    "volume.json": "a9bb42f59218841251c70d7a68f0b1d53a167947b0c8b07fdb6e11d6bf766bb5",
}


def fingerprint(path: Path) -> str:
    """SHA-256 of a text file, whatever ends its lines."""
    return hashlib.sha256(path.read_text(encoding="utf-8").encode()).hexdigest()
