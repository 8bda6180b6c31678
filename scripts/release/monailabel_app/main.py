# SPDX-License-Identifier: Apache-2.0
"""main.py of an app of MONAI Label: copy it beside the folder ``model`` that holds the unzipped bundle."""

import sys
from pathlib import Path

MODELS = Path(__file__).parent / "model"
bundles = sorted(MODELS.glob("*classification*"))
if not bundles:
    raise SystemExit(f"Error: {MODELS} holds no folder with classification in its name; unzip the packed bundle there.")
sys.path.insert(0, str(bundles[0]))  # its code

from dual_skd.serving.monai_label_app import DualSkdApp  # noqa: E402, F401  # which MONAI Label finds here
