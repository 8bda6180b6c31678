# SPDX-License-Identifier: Apache-2.0
"""Programs for people who work on the project: ``python -m scripts.ROOM.NAME``, from the root of the repository.

* ``benchmark`` compares methods over data sets and seeds, and writes docs/results.
* ``measure`` finds out how long things take, how much memory they need, and what a killed run leaves.
* ``release`` writes, packs and checks what is published.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "bundle" / "configs"
TRAIN = CONFIGS / "train.json"
PROJECT = ROOT / "pyproject.toml"

sys.path.insert(0, str(ROOT / "bundle"))  # the package of this checkout, whatever is installed
