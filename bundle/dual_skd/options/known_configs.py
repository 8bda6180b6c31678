# SPDX-License-Identifier: Apache-2.0
"""The configs as they came with the package; :data:`KNOWN` is written by scripts/release/write_options.py."""

from __future__ import annotations

import hashlib
from pathlib import Path

KNOWN = {
    "convnext.json": "ff56ada4fa6f044f22463ff0b72687d077fb570e4d81c3800ecd13bdfdd3fde8",
    "corruption.json": "68ee77ef21920600126ef16ff8a42c71e0faa95dc719acfd605e9161bc022a0b",
    "evaluate.json": "4f2cfaec3023f3639867b44655dd7da57aa438cada057510b2f58b92c23ed057",
    "finetune.json": "3644c44e7e97f41d236eb607258719a71efeba33abc27b9857f0f1640b2ee201",
    "inference.json": "3d1af1c4d7b771c4e2d7ef8237830f6ca604729ec7d44126827eef07e514e5b9",
    "inference_trt.json": "fa0523974fcf755374b8eb328a002498a45c7bfa07336c1726068f9148a9127a",
    "multi_gpu_evaluate.json": "d85908dc454a63f8783909e90ed4b3bb8d723cb8c5f0f8a0ee51dc4820a11efb",
    "multi_gpu_train.json": "78dfec6429f2d8d6571fa1cec1a1ada147fd9a9968150a584d1c9cdbb3fdab46",
    "resume.json": "0c4812a0982792ba45872f31e5291cb492a561b7ff0d4f0b11665080ded85e21",
    "train.json": "952344a436b7dd28437af01dd8098960bf3a4895f122a5c8ddaa89df37375c93",
    "vit.json": "ec0fe344c33e2499cc5f076183250da949d71283797d3e3c1eacf903326bf434",
    "volume.json": "a9bb42f59218841251c70d7a68f0b1d53a167947b0c8b07fdb6e11d6bf766bb5",
}


def fingerprint(path: Path) -> str:
    """SHA-256 of a text file, whatever ends its lines."""
    return hashlib.sha256(path.read_text(encoding="utf-8").encode()).hexdigest()
